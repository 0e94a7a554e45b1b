//! Tests of the kernels without a card: every text is valid, can be written for other systems, and stays within the
//! limits of WebGPU and of real cards.

use super::*;
use crate::adapter::UNITS_WORKGROUP_BYTES;
use naga::back::hlsl::ShaderModel;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// Tiles and subgroups of the known matrix units: Metal; NVIDIA, and RDNA3 in waves of 32 or of 64; Mesa in software.
const UNITS: [MatrixUnits; 4] = [
    MatrixUnits { tile: 8, lanes: 32, vectors: false },
    MatrixUnits { tile: 16, lanes: 32, vectors: true },
    MatrixUnits { tile: 16, lanes: 64, vectors: true },
    MatrixUnits { tile: 8, lanes: 8, vectors: true },
];

struct Checked {
    module: naga::Module,
    info: naga::valid::ModuleInfo,
}

fn options() -> naga::front::wgsl::Options {
    let mut options = naga::front::wgsl::Options::new();
    options.capabilities = Capabilities::all();
    options
}

fn check(kernel: Kernel) -> Checked {
    let source = kernel.source();
    let module = naga::front::wgsl::Frontend::new_with_options(options()).parse(&source);
    let module = module.unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&source)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::BASIC);
    let info =
        validator.validate(&module).unwrap_or_else(|e| panic!("{kernel:?}: {}", e.emit_to_string(&source)));
    Checked { module, info }
}

#[test]
fn every_kernel_is_valid_and_binds_what_it_says() {
    for kernel in all(&UNITS) {
        let Checked { module, info, .. } = check(kernel);
        let at = module.entry_points.iter().position(|entry| entry.name == kernel.entry()).unwrap();
        let used = info.get_entry_point(at);
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            let naga::AddressSpace::Storage { access } = variable.space else {
                panic!("{kernel:?} binds no buffer")
            };
            let said = kernel.bindings().chars().nth(binding.binding as usize);
            let writes = access.contains(naga::StorageAccess::STORE);
            assert_eq!(said, Some(if writes { 'w' } else { 'r' }), "{kernel:?} binding {}", binding.binding);
            assert!(
                !writes || used[handle].contains(naga::valid::GlobalUse::WRITE),
                "{kernel:?} writes nothing"
            );
        }
    }
}

/// Returns whether a loop, given the text after its `for (var `, counts up to a bound, is halved, or counts down to 0.
fn counts_to_a_bound(head: &str) -> bool {
    let parts: Vec<_> = head.split("; ").collect();
    let [start, condition, rest, ..] = parts[..] else { return false };
    let (counter, step) = (start.split(' ').next().unwrap(), rest.split(')').next().unwrap());
    let up = condition.starts_with(&format!("{counter} < ")) && step.starts_with(&format!("{counter} += "));
    let down = [format!("{counter} /= 2u"), format!("{counter} -= 1u")];
    up || condition == format!("{counter} > 0u") && down.contains(&step.to_owned())
}

/// Checks what wgpu is told not to check at run time, see `pipelines.rs`: that every loop ends.
#[test]
fn every_loop_counts_to_a_bound() {
    for kernel in all(&UNITS) {
        let source = kernel.source();
        let code = source.lines().map(|line| line.split("//").next().unwrap());
        for line in code {
            let words =
                |word: &str| line.split(|c: char| !c.is_alphanumeric()).filter(|w| *w == word).count();
            let heads: Vec<_> = line.split("for (var ").skip(1).collect();
            let loops = [words("for"), words("while"), words("loop")];
            assert_eq!(loops, [heads.len(), 0, 0], "{kernel:?}: {line}");
            assert!(heads.iter().all(|head| counts_to_a_bound(head)), "{kernel:?}: {line}");
        }
    }
}

/// Tests Metal's writer, for Apple's cards, and HLSL's, for DirectX 12: with packed dot products, and for the compiler
/// that every Windows has, which does not know them. The other tests run SPIR-V's writer. HLSL has no matrix units, so
/// no card offers them there.
#[test]
fn every_kernel_can_be_written_for_metal_and_directx() {
    for kernel in all(&UNITS) {
        let Checked { module, info, .. } = check(kernel);
        let metal = metal(&module, &info).unwrap_or_else(|e| panic!("{kernel:?} in MSL: {e}"));
        assert!(metal.contains("kernel void"), "{kernel:?}");
        if matches!(kernel, Kernel::Units { .. }) {
            assert!(metal.contains("simdgroup"), "{kernel:?}");
            continue;
        }
        for (model, has_dots) in [(ShaderModel::V6_4, true), (ShaderModel::V5_1, false)] {
            let hlsl = hlsl(&module, &info, model);
            let hlsl = hlsl.unwrap_or_else(|e| panic!("{kernel:?} in HLSL of {model:?}: {e}"));
            assert!(hlsl.contains("numthreads"), "{kernel:?} in HLSL of {model:?}");
            assert!(has_dots || !hlsl.contains("dot4add"), "{kernel:?} in HLSL of {model:?}");
        }
    }
}

fn metal(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<String, naga::back::msl::Error> {
    let options =
        naga::back::msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..Default::default() };
    let pipeline = naga::back::msl::PipelineOptions::default();
    naga::back::msl::write_string(module, info, &options, &pipeline).map(|(text, _)| text)
}

fn hlsl(
    module: &naga::Module,
    info: &naga::valid::ModuleInfo,
    shader_model: ShaderModel,
) -> Result<String, naga::back::hlsl::Error> {
    let options = naga::back::hlsl::Options {
        shader_model,
        immediates_target: Some(naga::back::hlsl::BindTarget::default()),
        special_constants_binding: Some(naga::back::hlsl::BindTarget { space: 1, ..Default::default() }),
        ..Default::default()
    };
    let pipeline = naga::back::hlsl::PipelineOptions::default();
    let mut text = String::new();
    naga::back::hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None)?;
    Ok(text)
}

/// Limits that a device guarantees for workgroups and bindings.
struct Limits {
    name: &'static str,
    workgroup_bytes: u32,
    invocations: u32,
    side_x: u32,
    buffers: usize,
    /// Tile size of its matrix units.
    units: Option<u32>,
}

/// WebGPU's defaults, which its specification lists, and three cards as far as their drivers are known (in Vulkan's
/// names: maxComputeSharedMemorySize, maxComputeWorkGroupInvocations, maxComputeWorkGroupSize,
/// maxPerStageDescriptorStorageBuffers). A card with less than the kernels need is refused when it is opened.
const LIMITS: [Limits; 4] = [
    Limits {
        name: "WebGPU",
        workgroup_bytes: 16_384,
        invocations: 256,
        side_x: 256,
        buffers: 8,
        units: None,
    },
    Limits {
        name: "GeForce RTX 3060",
        workgroup_bytes: 49_152,
        invocations: 1024,
        side_x: 1024,
        buffers: 1 << 20,
        units: Some(16),
    },
    Limits {
        name: "Intel UHD 770",
        workgroup_bytes: 32_768,
        invocations: 1024,
        side_x: 1024,
        buffers: 1 << 20,
        units: None,
    },
    Limits {
        name: "Apple M1",
        workgroup_bytes: 32_768,
        invocations: 1024,
        side_x: 1024,
        buffers: 31,
        units: Some(8),
    },
];

#[test]
fn every_kernel_keeps_within_the_limits_of_cards() {
    for kernel in all(&UNITS) {
        let Checked { module, .. } = check(kernel);
        let entry = module.entry_points.iter().find(|entry| entry.name == kernel.entry()).unwrap();
        let [x, y, z] = entry.workgroup_size;
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let bytes = |space: naga::AddressSpace| -> u32 {
            let variables = module.global_variables.iter().filter(|(_, variable)| variable.space == space);
            variables.map(|(_, variable)| layouter[variable.ty].size.next_multiple_of(16)).sum()
        };
        if let Kernel::Units { units, side: 128, .. } = kernel {
            // the value that a card is checked for before it is opened
            let said = UNITS_WORKGROUP_BYTES[usize::from(units.tile == 16)];
            assert_eq!(bytes(naga::AddressSpace::WorkGroup), said, "{kernel:?}");
        }
        let immediates = bytes(naga::AddressSpace::Immediate);
        assert!(immediates <= crate::recorder::NUMBERS_BYTES, "{kernel:?} has {immediates} bytes of numbers");
        for limits in &LIMITS {
            if matches!(kernel, Kernel::Units { units, .. } if limits.units != Some(units.tile)) {
                continue;
            }
            let name = limits.name;
            let workgroup = bytes(naga::AddressSpace::WorkGroup);
            assert!(workgroup <= limits.workgroup_bytes, "{kernel:?} on {name}: {workgroup} bytes");
            assert!(
                x * y * z <= limits.invocations && x <= limits.side_x,
                "{kernel:?} on {name}: {x} x {y} x {z}"
            );
            assert!(kernel.bindings().len() <= limits.buffers, "{kernel:?} on {name}");
        }
    }
}
