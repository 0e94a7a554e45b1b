//! The graphics cards of this machine, and the choice among them.

use crate::GpuError;
use crate::compiler::Compiler;
use crate::kernel::SIDES;
use crate::memory::Memory;
use std::cmp::Reverse;

/// The kind of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// Part of the processor, whose memory it shares.
    Integrated,
    /// A software driver that runs on the processor itself, meant for tests.
    Software,
    /// A card passed to a virtual machine, or one whose driver does not report its kind.
    Other,
}

impl std::fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// Matrix units that the kernels can use: f16 factors, f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixUnits {
    /// Rows and columns of a tile.
    pub tile: u32,
    /// Threads of the subgroup that holds a tile.
    pub lanes: u32,
    /// Whether tiles are loaded from arrays of vectors; Metal's are not.
    pub vectors: bool,
}

/// A card, before it is opened.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its index in [`adapters`], which distinguishes two cards of the same name.
    pub number: usize,
    /// Its name, as the driver reports it.
    pub name: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// Its API: Vulkan, Metal or Dx12.
    pub api: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Bytes of its own memory, or of the memory it shares, if the driver reports it.
    pub memory_bytes: Option<u64>,
    /// Bytes of that memory that are certainly available now, if the driver reports it.
    pub available_bytes: Option<u64>,
    /// Bytes of the largest buffer that a kernel can bind.
    pub binding_bytes_max: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Matrix units that the kernels can use.
    pub matrix_units: Option<MatrixUnits>,
    /// The compiler of its kernels, if that is not part of its driver.
    pub(crate) compiler: Option<Compiler>,
    pub(crate) raw: wgpu::Adapter,
}

/// Selects a card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best card: a discrete one before an integrated one, and of two the one with more memory; never software.
    #[default]
    Best,
    /// By its index in [`adapters`], from 0.
    Number(usize),
    /// The first card whose name contains this text, ignoring case.
    Name(String),
}

/// Returns all cards of this machine, the best first; empty if no driver is installed.
#[must_use]
pub fn adapters() -> Vec<Adapter> {
    let backends = if cfg!(target_os = "windows") {
        // both show the same cards, and the kernels are tested on Vulkan's drivers
        [wgpu::Backends::VULKAN, wgpu::Backends::DX12]
    } else {
        [wgpu::Backends::VULKAN, wgpu::Backends::METAL]
    };
    let mut adapters = Vec::new();
    for backend in backends {
        let of_backend = adapters_of(backend);
        let has_card = of_backend.iter().any(|adapter| adapter.kind != AdapterKind::Software);
        // a Vulkan driver in software must not hide the card that DirectX has
        if has_card || adapters.is_empty() {
            adapters = of_backend;
        }
        if has_card {
            break;
        }
    }
    adapters.sort_by_key(|adapter| (adapter.kind.rank(), Reverse(adapter.memory_bytes)));
    adapters.iter_mut().enumerate().for_each(|(number, adapter)| adapter.number = number);
    adapters
}

/// Returns the adapters of one of wgpu's backends, using the first compiler with which it finds any.
fn adapters_of(backend: wgpu::Backends) -> Vec<Adapter> {
    let compilers = match backend {
        wgpu::Backends::DX12 => Compiler::all().into_iter().map(Some).collect(),
        _ => vec![None],
    };
    let mut found = compilers.into_iter().map(|compiler| adapters_by(backend, compiler));
    found.find(|adapters| !adapters.is_empty()).unwrap_or_default()
}

fn adapters_by(backend: wgpu::Backends, compiler: Option<Compiler>) -> Vec<Adapter> {
    // in any case not wgpu's default, which leaves the search for the compiler to Windows: see `compiler.rs`
    let dx12 = compiler.as_ref().unwrap_or(&Compiler::Fxc).options();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend,
        // no validation layers: they are for shaders under development, and write to stderr if they are missing
        flags: wgpu::InstanceFlags::empty(),
        // with thresholds, wgpu would refuse its own staging buffers for a step's words and declare the device lost;
        // `Device` checks the memory itself
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds::default(),
        backend_options: wgpu::BackendOptions { dx12, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = pollster::block_on(instance.enumerate_adapters(backend));
    found.into_iter().map(|raw| Adapter::new(raw, compiler.clone())).collect()
}

impl AdapterKind {
    fn rank(self) -> usize {
        match self {
            Self::Discrete => 0,
            Self::Other => 1,
            Self::Integrated => 2,
            Self::Software => 3,
        }
    }
}

impl Adapter {
    fn new(raw: wgpu::Adapter, compiler: Option<Compiler>) -> Self {
        let info = raw.get_info();
        let limits = raw.limits();
        let memory = crate::memory::of(&raw);
        Self {
            // set once all are sorted
            number: 0,
            name: info.name.trim().to_owned(),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
                wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
                wgpu::DeviceType::Cpu => AdapterKind::Software,
                wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => AdapterKind::Other,
            },
            api: format!("{:?}", info.backend),
            driver: driver(&info),
            memory_bytes: memory.map(|memory| memory.total),
            available_bytes: memory.map(Memory::available),
            binding_bytes_max: binding_bytes_max(info.backend, &limits),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            matrix_units: matrix_units(&raw, &info, &limits),
            compiler,
            raw,
        }
    }

    /// Returns whether the card has memory of its own.
    #[must_use]
    pub fn has_own_memory(&self) -> bool {
        matches!(self.kind, AdapterKind::Discrete | AdapterKind::Other)
    }
}

/// Returns name and version of the driver. Metal reports neither; there, returns the version of the system that it is
/// part of.
fn driver(info: &wgpu::AdapterInfo) -> String {
    let told = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    if told.is_empty() && cfg!(target_vendor = "apple") {
        let version = std::fs::read_to_string("/System/Library/CoreServices/SystemVersion.plist");
        return format!("macOS {}", version.as_deref().ok().and_then(build_of).unwrap_or_default());
    }
    told
}

/// Returns the build in a `SystemVersion.plist`, which every update changes.
fn build_of(plist: &str) -> Option<&str> {
    let (_, rest) = plist.split_once("<key>ProductBuildVersion</key>")?;
    let (_, rest) = rest.split_once("<string>")?;
    rest.split_once("</string>").map(|(build, _)| build)
}

/// The largest buffer that the kernels can address: they index its words by u32, and step at most 256 words past the
/// last.
const BINDING_BYTES_MAX: u64 = (1 << 34) - 4 * 256;

/// The largest buffer on Metal: wgpu passes the size to a kernel in 32 bits, and would silently cut off the rest of a
/// larger one.
const METAL_BINDING_BYTES_MAX: u64 = u32::MAX as u64 / 16 * 16;

/// Returns the bytes of the largest buffer that a kernel can bind.
fn binding_bytes_max(backend: wgpu::Backend, limits: &wgpu::Limits) -> u64 {
    let most = if backend == wgpu::Backend::Metal { METAL_BINDING_BYTES_MAX } else { BINDING_BYTES_MAX };
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(most)
}

/// Features that the kernel for matrix units needs.
pub(crate) const UNITS_FEATURES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);
/// Bytes of workgroup memory of the kernel for matrix units with tiles of 8 and of 16.
pub(crate) const UNITS_WORKGROUP_BYTES: [u32; 2] = [31_744, 41_984];

/// Returns the threads of a subgroup, if that is known; the kernel must know which thread is in which subgroup. It is
/// known if all subgroups have the same size. On Metal, wgpu reports the sizes of all possible cards, but those with
/// matrix units have 32.
fn lanes(info: &wgpu::AdapterInfo) -> Option<u32> {
    match info.backend {
        wgpu::Backend::Metal => Some(32),
        _ => Some(info.subgroup_min_size).filter(|size| *size == info.subgroup_max_size),
    }
}

fn matrix_units(raw: &wgpu::Adapter, info: &wgpu::AdapterInfo, limits: &wgpu::Limits) -> Option<MatrixUnits> {
    let lanes = lanes(info)?;
    if !raw.features().contains(UNITS_FEATURES) {
        return None;
    }
    let (f16, f32) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let shapes = raw.cooperative_matrix_properties();
    let fits = |p: &&wgpu::CooperativeMatrixProperties| {
        (p.ab_type, p.cr_type) == (f16, f32) && p.m_size == p.n_size && p.n_size == p.k_size
    };
    let tiles = shapes.iter().filter(fits).map(|p| p.m_size);
    let tile = tiles.filter(|&tile| fits_workgroups(tile, lanes, limits)).max()?;
    Some(MatrixUnits { tile, lanes, vectors: info.backend != wgpu::Backend::Metal })
}

/// Returns whether a workgroup of the kernel for matrix units fits the limits of a card.
fn fits_workgroups(tile: u32, lanes: u32, limits: &wgpu::Limits) -> bool {
    let bytes = match tile {
        8 => UNITS_WORKGROUP_BYTES[0],
        16 => UNITS_WORKGROUP_BYTES[1],
        _ => return false,
    };
    let threads = lanes * SIDES[1] / 16;
    // 8 threads to a row of a piece of the sums, and no more rows than a tile has
    let shares_rows = lanes.is_multiple_of(8) && lanes / 8 <= tile;
    shares_rows
        && bytes <= limits.max_compute_workgroup_storage_size
        && threads <= limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)
}

/// Returns the card that `choice` selects.
pub(crate) fn choose(choice: &Choice) -> Result<Adapter, GpuError> {
    let mut all = adapters();
    if all.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    let number = match choice {
        Choice::Best => all.iter().position(|adapter| adapter.kind != AdapterKind::Software),
        Choice::Number(number) => (*number < all.len()).then_some(*number),
        Choice::Name(name) => {
            let name = name.to_lowercase();
            all.iter().position(|adapter| adapter.name.to_lowercase().contains(&name))
        }
    };
    match (number, choice) {
        (Some(number), _) => Ok(all.swap_remove(number)),
        (None, choice) => Err(missing(choice, &all)),
    }
}

/// Returns why no card matches the choice.
fn missing(choice: &Choice, all: &[Adapter]) -> GpuError {
    let name = |(i, adapter): (usize, &Adapter)| format!("gpu:{i} {}", adapter.name);
    let found = all.iter().enumerate().map(name).collect();
    match choice {
        Choice::Best => GpuError::OnlySoftware { found },
        Choice::Number(number) => GpuError::UnknownAdapter { asked: format!("gpu:{number}"), found },
        Choice::Name(asked) => GpuError::UnknownAdapter { asked: asked.clone(), found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subgroup_whose_size_may_vary_has_no_matrix_units() {
        let lanes_of = |backend, subgroup_min_size, subgroup_max_size| {
            let info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, backend);
            lanes(&wgpu::AdapterInfo { subgroup_min_size, subgroup_max_size, ..info })
        };
        assert_eq!(lanes_of(wgpu::Backend::Vulkan, 32, 32), Some(32));
        assert_eq!(lanes_of(wgpu::Backend::Vulkan, 32, 64), None);
        assert_eq!(lanes_of(wgpu::Backend::Metal, 4, 64), Some(32));
    }

    #[test]
    fn no_buffer_is_larger_than_the_kernels_can_see() {
        let most = |backend, max_buffer_size, max_storage_buffer_binding_size| {
            let limits =
                wgpu::Limits { max_buffer_size, max_storage_buffer_binding_size, ..Default::default() };
            binding_bytes_max(backend, &limits)
        };
        const GB: u64 = 1 << 30;
        assert_eq!(most(wgpu::Backend::Metal, 18 * GB, 18 * GB), 4 * GB - 16);
        assert_eq!(most(wgpu::Backend::Vulkan, 18 * GB, 18 * GB), 16 * GB - 1024);
        assert_eq!(most(wgpu::Backend::Vulkan, 18 * GB, 2 * GB), 2 * GB);
        assert_eq!(most(wgpu::Backend::Metal, 3 * GB, 18 * GB), 3 * GB);
    }

    #[test]
    fn an_update_of_macos_is_another_driver() {
        let plist = "<dict>\n\t<key>ProductName</key>\n\t<string>macOS</string>\n\t<key>ProductBuildVersion</key>\n\t<string>24A335</string>\n</dict>";
        assert_eq!(build_of(plist), Some("24A335"));
        assert_eq!(build_of("<dict/>"), None);
    }
}
