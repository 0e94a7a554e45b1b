//! NEON, which every AArch64 has. All products are computed in f32: bf16 factors are rounded, then widened.
//!
//! Functions are safe within their instruction set; `unsafe` marks memory accessed through pointers, whose bounds are
//! asserted first. Incomplete registers are copied through the stack, so nothing is read past the end of a slice.

pub(crate) mod attention;
pub(crate) mod gemm;
pub(crate) mod gemv;
mod kv;
pub(crate) mod load;
pub(crate) mod math;
pub(crate) mod packed;
mod peak;
mod rows;

use crate::cpu::arch::scalar;
use crate::cpu::table::attention::AttentionKernels;
use crate::cpu::table::dense::DenseKernels;
use crate::cpu::table::{Kernels, PeakKernels, RowKernels};

/// The kernels of level `neon`.
pub(crate) const KERNELS: Kernels = Kernels {
    rows: RowKernels {
        rms_norm: rows::rms_norm,
        layer_norm: rows::layer_norm,
        add: rows::add,
        rope: rows::rope,
        epilogue: rows::epilogue,
        round_bf16: rows::round_bf16,
    },
    dense: DenseKernels {
        widen: scalar::dense::widen,
        gemv_f32: gemv::gemv_f32,
        gemv_bf16: gemv::gemv_bf16,
        gemm_f32: Some(&gemm::F32),
        gemm_bf16: Some(&gemm::BF16),
    },
    attention: AttentionKernels {
        store_kv: kv::store_kv,
        single: scalar::attention::single,
        flash_f32: Some(&attention::F32),
        flash_bf16: None,
    },
    packed_few: packed::KERNELS,
    packed_many: packed::KERNELS,
    packed_many_from: usize::MAX,
    peak: PeakKernels { int8: peak::int8, bf16: peak::f32, f32: peak::f32 },
};
