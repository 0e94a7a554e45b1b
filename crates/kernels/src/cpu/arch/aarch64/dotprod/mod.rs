//! Dot products of bytes: `sdot` (Cortex-A76, Apple's M1, Neoverse N1 and later). Everything else is
//! [`neon`](super::neon)'s.

pub(crate) mod packed;
mod peak;

use super::neon;
use crate::cpu::table::{Kernels, PeakKernels};

/// The level `dotprod`.
pub(crate) const KERNELS: Kernels = Kernels {
    packed_few: packed::KERNELS,
    packed_many: packed::KERNELS,
    peak: PeakKernels { int8: peak::int8, ..neon::KERNELS.peak },
    ..neon::KERNELS
};
