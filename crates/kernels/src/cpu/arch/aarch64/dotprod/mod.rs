//! Dot products of bytes: `sdot` (Cortex-A76, Apple's M1, Neoverse N1 and later). All other kernels are those of
//! [`neon`](super::neon).

pub(crate) mod packed;
mod peak;

use super::neon;
use crate::cpu::table::{Kernels, PeakKernels};

/// The kernels of level `dotprod`.
pub(crate) const KERNELS: Kernels = Kernels {
    packed_few: packed::KERNELS,
    packed_many: packed::KERNELS,
    peak: PeakKernels { int8: peak::int8, ..neon::KERNELS.peak },
    ..neon::KERNELS
};
