//! Kernels, compiled on first use. With Vulkan, the driver's cache of them is stored in a file.

use crate::adapter::Adapter;
use crate::kept::{SUM_BYTES, sum};
use crate::kernel::Kernel;
use crate::recorder::NUMBERS_BYTES;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled kernel.
pub(crate) struct Compiled {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// Compiled kernels of one device.
pub(crate) struct Pipelines {
    compiled: Mutex<HashMap<Kernel, Arc<Compiled>>>,
    cache: Option<Cache>,
}

/// The driver's cache of compiled kernels, and its file.
struct Cache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    /// Checksum of the file's contents, if the file exists.
    held: Mutex<Option<[u8; SUM_BYTES]>>,
}

impl Pipelines {
    pub(crate) fn new(device: &wgpu::Device, adapter: &Adapter, folder: Option<&Path>) -> Self {
        Self {
            compiled: Mutex::default(),
            cache: folder.and_then(|folder| Cache::open(device, adapter, folder)),
        }
    }

    /// Returns the kernels that were used.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> Vec<Kernel> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Returns `kernel`, compiling it if necessary.
    pub(crate) fn get(&self, device: &wgpu::Device, kernel: Kernel) -> Arc<Compiled> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || Arc::new(compile(device, kernel, self.cache.as_ref().map(|cache| &cache.raw)));
        Arc::clone(compiled.entry(kernel).or_insert_with(compile))
    }

    /// Stores what has been compiled in the cache folder.
    pub(crate) fn keep(&self) {
        self.cache.iter().for_each(Cache::keep);
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        self.keep();
    }
}

impl Cache {
    fn keep(&self) {
        let Some(data) = self.raw.get_data() else { return };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // a failure to write the file only makes the next start slower
        let new = Some(sum(&data));
        if std::mem::replace(&mut *held, new) != new {
            let _ = crate::kept::write(&self.path, &data);
        }
    }

    #[expect(unsafe_code, reason = "a driver reads what it wrote to a file")]
    fn open(device: &wgpu::Device, adapter: &Adapter, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(&adapter.raw.get_info())?;
        let path = folder.join(name);
        let data = crate::kept::read(&path);
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
        // SAFETY: the file, which is in the user's own folder and undamaged by its checksum, holds what `get_data`
        // returned for a card and driver of the same key; wgpu and the driver check its header.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { raw, path, held: Mutex::new(data.as_deref().map(sum)) })
    }
}

/// Compiles the text of a kernel with all of wgpu's checks except the counter that it adds to each loop. The counter
/// costs time, and keeps drivers from unrolling.
#[expect(unsafe_code, reason = "wgpu asks for it: loops are not bounded by a counter of its own")]
fn module(device: &wgpu::Device, name: &str, kernel: Kernel) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(kernel.source().into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: without that counter every loop must end, and does. Its counter is halved, counts down to 0, or increases
    // by at most 256 up to a bound that no step can wrap past. The bound is a constant; a multiple of a thread's
    // number; columns, values or groups of one row, which lies in one buffer of at most `BINDING_BYTES_MAX`; words of a
    // head of at most `DIM_MAX` values; or chunks of 256 tokens, of which u32 counts 2^24. `kernel_tests.rs` checks the
    // form of every loop.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}

fn compile(device: &wgpu::Device, kernel: Kernel, cache: Option<&wgpu::PipelineCache>) -> Compiled {
    let name = kernel.name();
    let text = Text {
        name: &name,
        module: &module(device, &name, kernel),
        bindings: kernel.bindings(),
        entry: kernel.entry(),
    };
    pipeline(device, &text, cache)
}

/// The text of a kernel, and its bindings.
pub(crate) struct Text<'a> {
    pub(crate) name: &'a str,
    pub(crate) module: &'a wgpu::ShaderModule,
    /// In the format of [`Kernel::bindings`].
    pub(crate) bindings: &'a str,
    pub(crate) entry: &'a str,
}

pub(crate) fn pipeline(
    device: &wgpu::Device,
    text: &Text<'_>,
    cache: Option<&wgpu::PipelineCache>,
) -> Compiled {
    let entry = |(binding, access): (usize, char)| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: access == 'r' },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = text.bindings.chars().enumerate().map(entry).collect();
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: NUMBERS_BYTES,
    });
    let options = wgpu::PipelineCompilationOptions {
        // every kernel writes its workgroup memory before it reads it
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(text.name),
        layout: Some(&pipeline_layout),
        module: text.module,
        entry_point: Some(text.entry),
        compilation_options: options,
        cache,
    });
    Compiled { pipeline, layout }
}
