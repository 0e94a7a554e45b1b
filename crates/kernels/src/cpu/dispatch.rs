//! Selects the kernels of a level.

#[cfg(target_arch = "aarch64")]
use super::arch::aarch64::{dotprod, i8mm, neon};
use super::arch::scalar;
#[cfg(target_arch = "x86_64")]
use super::arch::x86_64::{amx, avx2, avx512, avxvnni};
use super::features::Features;
use super::level::CpuLevel;
use super::table::Kernels;
#[cfg(target_arch = "x86_64")]
use super::{features::Feature, table::PeakKernels};

/// Returns the kernels of `level` that `features` allow. Calling them requires the level's features and `features`.
#[cfg(target_arch = "x86_64")]
pub(super) fn kernels(level: CpuLevel, features: Features) -> Kernels {
    match level {
        CpuLevel::Scalar => scalar::KERNELS,
        CpuLevel::Avx2 if features.contains(Feature::AvxVnni) => Kernels {
            packed_few: avxvnni::KERNELS,
            packed_many: avxvnni::KERNELS,
            peak: PeakKernels { int8: avxvnni::peak_int8, ..avx2::KERNELS.peak },
            ..avx2::KERNELS
        },
        CpuLevel::Avx2 => avx2::KERNELS,
        CpuLevel::Avx512 if features.contains(Feature::Avx512Bf16) => avx512::KERNELS_BF16,
        CpuLevel::Avx512 => avx512::KERNELS,
        CpuLevel::Amx => tiled::<amx::Hardware>(features),
        CpuLevel::Neon | CpuLevel::Dotprod | CpuLevel::I8mm => {
            unreachable!("{level} asks for features that are found on AArch64 only")
        }
    }
}

/// Returns the kernels of the AMX level.
#[cfg(target_arch = "x86_64")]
fn tiled<T: amx::Tiles>(features: Features) -> Kernels {
    let kernels = amx::int8::<T>(kernels(CpuLevel::Avx512, features));
    if features.contains(Feature::AmxBf16) { amx::bf16::<T>(kernels) } else { kernels }
}

/// Like [`kernels`], for tests: plain Rust replaces the AMX instructions.
#[cfg(target_arch = "x86_64")]
pub(super) fn kernels_on_plain_tiles(level: CpuLevel, features: Features) -> Kernels {
    if level == CpuLevel::Amx { tiled::<amx::Plain>(features) } else { kernels(level, features) }
}

/// Same as [`kernels`]: this architecture has no AMX.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn kernels_on_plain_tiles(level: CpuLevel, features: Features) -> Kernels {
    kernels(level, features)
}

/// Returns `features` without those whose instructions give wrong results on this machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn trusted(features: Features) -> Features {
    // SAFETY: the feature means that the processor has the instructions and that the system lets this process use
    // them.
    let wrong = features.contains(Feature::AmxBf16) && unsafe { !amx::bf16_is_right::<amx::Hardware>() };
    if wrong { features.without(Feature::AmxBf16) } else { features }
}

/// Returns `features`: no wrong results are known on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn trusted(features: Features) -> Features {
    features
}

/// Returns the kernels of `level`. Calling them requires its features.
#[cfg(target_arch = "aarch64")]
pub(super) fn kernels(level: CpuLevel, _: Features) -> Kernels {
    match level {
        CpuLevel::Scalar => scalar::KERNELS,
        CpuLevel::Neon => neon::KERNELS,
        CpuLevel::Dotprod => dotprod::KERNELS,
        CpuLevel::I8mm => i8mm::KERNELS,
        CpuLevel::Avx2 | CpuLevel::Avx512 | CpuLevel::Amx => {
            unreachable!("{level} asks for features that are found on x86-64 only")
        }
    }
}

/// Returns the kernels of `level`.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn kernels(level: CpuLevel, _: Features) -> Kernels {
    match level {
        CpuLevel::Scalar => scalar::KERNELS,
        _ => unreachable!("{level} asks for features that are not found on this architecture"),
    }
}
