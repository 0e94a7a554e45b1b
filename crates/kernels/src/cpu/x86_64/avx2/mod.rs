//! AVX2 with FMA and F16C. All products are taken in f32: bf16 factors are rounded, then widened.
//!
//! Functions are safe inside their instruction set; `unsafe` marks memory reached through pointers, whose bounds are
//! asserted first. Incomplete registers go through a copy on the stack, so nothing is read past the end of a slice.

mod attention;
mod gemm;
mod gemv;
mod kv;
mod load;
mod math;
mod rows;

use crate::cpu::level::Kernels;

/// The AVX2 level.
pub(crate) static KERNELS: Kernels = Kernels {
    rms_norm: rows::rms_norm,
    layer_norm: rows::layer_norm,
    add: rows::add,
    rope: rows::rope,
    epilogue: rows::epilogue,
    round_bf16: rows::round_bf16,
    gemv_f32: gemv::gemv_f32,
    gemv_bf16: gemv::gemv_bf16,
    gemm_f32: Some(&gemm::F32),
    gemm_bf16: Some(&gemm::BF16),
    flash_f32: Some(&attention::F32),
    flash_bf16: None,
    store_kv: kv::store_kv,
};
