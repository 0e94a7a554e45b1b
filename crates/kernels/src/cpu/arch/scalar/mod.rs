//! Every kernel in plain Rust: the definition that the other levels are tested against, and the code that runs if no
//! other level can. Written to be read, not to be fast.

pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod packed;
mod peak;
pub(crate) mod rows;

use crate::cpu::table::attention::AttentionKernels;
use crate::cpu::table::dense::DenseKernels;
use crate::cpu::table::{Kernels, PeakKernels, RowKernels};

/// The kernels of the scalar level.
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
        widen: dense::widen,
        gemv_f32: dense::gemv_f32,
        gemv_bf16: dense::gemv_bf16,
        gemm_f32: None,
        gemm_bf16: None,
    },
    attention: AttentionKernels {
        store_kv: attention::store_kv,
        single: attention::single,
        flash_f32: None,
        flash_bf16: None,
    },
    packed_few: packed::KERNELS,
    packed_many: packed::KERNELS,
    packed_many_from: usize::MAX,
    peak: PeakKernels { int8: peak::f32, bf16: peak::f32, f32: peak::f32 },
};
