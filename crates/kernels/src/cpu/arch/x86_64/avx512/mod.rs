//! AVX-512 F, BW, DQ, VL and VNNI; dot products of bf16 pairs if the processor has them.
//!
//! Functions are safe within their instruction set; `unsafe` marks memory accessed through pointers, whose bounds are
//! asserted first. Loads of the last, incomplete register are masked, so nothing is read past the end of a slice.

pub(crate) mod attention;
mod gemm;
mod gemv;
mod kv;
pub(crate) mod load;
pub(crate) mod math;
pub(crate) mod pack;
pub(crate) mod packed;
mod peak;
mod rows;

pub(crate) use attention::BF16 as FLASH_BF16;
pub(crate) use kv::store_kv_bf16;

use crate::cpu::arch::scalar;
use crate::cpu::table::attention::AttentionKernels;
use crate::cpu::table::dense::DenseKernels;
use crate::cpu::table::{Kernels, PeakKernels, RowKernels};

/// The kernels without bf16 dot products: both factors are rounded to bf16 and multiplied in f32.
pub(crate) const KERNELS: Kernels = Kernels {
    rows: RowKernels {
        rms_norm: rows::rms_norm,
        layer_norm: rows::layer_norm,
        add: rows::add,
        rope: rows::rope,
        epilogue: rows::epilogue,
        round_bf16: pack::round_bf16,
    },
    dense: DenseKernels {
        widen: scalar::dense::widen,
        gemv_f32: gemv::gemv_f32,
        gemv_bf16: gemv::gemv_bf16_widened,
        gemm_f32: Some(&gemm::F32),
        gemm_bf16: Some(&gemm::BF16_WIDENED),
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

/// The kernels with bf16 dot products.
pub(crate) const KERNELS_BF16: Kernels = Kernels {
    dense: DenseKernels { gemv_bf16: gemv::gemv_bf16, gemm_bf16: Some(&gemm::BF16), ..KERNELS.dense },
    attention: AttentionKernels {
        store_kv: store_kv_bf16,
        flash_bf16: Some(&attention::BF16),
        ..KERNELS.attention
    },
    peak: PeakKernels { bf16: peak::bf16, ..KERNELS.peak },
    ..KERNELS
};
