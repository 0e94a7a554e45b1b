//! Products of small matrices, of bytes and of bf16: `usmmla` and `bfmmla` (Apple's M2, Neoverse V1 and N2 and
//! later). All other kernels are those of [`dotprod`](super::dotprod) or [`neon`](super::neon).

mod attention;
mod gemm;
mod gemv;
mod packed;
mod peak;

use super::{dotprod, neon};
use crate::cpu::table::attention::AttentionKernels;
use crate::cpu::table::dense::DenseKernels;
use crate::cpu::table::{Kernels, PeakKernels};
use std::arch::aarch64::*;

/// The kernels of level `i8mm`.
pub(crate) const KERNELS: Kernels = Kernels {
    dense: DenseKernels { gemv_bf16: gemv::gemv_bf16, gemm_bf16: Some(&gemm::BF16), ..neon::KERNELS.dense },
    attention: AttentionKernels { flash_bf16: Some(&attention::BF16), ..neon::KERNELS.attention },
    packed_many: packed::KERNELS,
    packed_many_from: packed::ROWS_MIN,
    peak: PeakKernels { int8: peak::int8, bf16: peak::bf16, ..neon::KERNELS.peak },
    ..dotprod::KERNELS
};

instruction! {
    /// `sum += w xᵀ`: two columns of 8 unsigned values by two rows of 8 signed ones, to `[column][row]`.
    fn usmmla, "neon,i8mm", "usmmla {sum:v}.4s, {a:v}.16b, {b:v}.16b", (int32x4_t, uint8x16_t, int8x16_t)
}

instruction! {
    /// `sum += a bᵀ`: two rows of 4 bf16 by two columns of 4, to `[row][column]`.
    fn bfmmla, "neon,bf16", "bfmmla {sum:v}.4s, {a:v}.8h, {b:v}.8h", (float32x4_t, uint32x4_t, uint32x4_t)
}

instruction! {
    /// `sum[i] += ` the products of two pairs of bf16.
    fn bfdot, "neon,bf16", "bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h", (float32x4_t, uint32x4_t, uint32x4_t)
}
