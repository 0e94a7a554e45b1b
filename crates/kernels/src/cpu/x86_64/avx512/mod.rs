//! AVX-512 F, BW, DQ, VL and VNNI; dot products of bf16 pairs where the processor has them.
//!
//! Functions are safe inside their instruction set; `unsafe` marks memory reached through pointers, whose bounds are
//! asserted first. Loads of the last, incomplete register are masked, so nothing is read past the end of a slice.

mod attention;
mod gemm;
mod gemv;
mod kv;
mod load;
mod math;
mod pack;
mod rows;

use crate::cpu::level::Kernels;

/// Without bf16 dot products: both factors are rounded to bf16 and multiplied in f32.
pub(crate) static KERNELS: Kernels = Kernels {
    rms_norm: rows::rms_norm,
    layer_norm: rows::layer_norm,
    add: rows::add,
    rope: rows::rope,
    epilogue: rows::epilogue,
    round_bf16: pack::round_bf16,
    gemv_f32: gemv::gemv_f32,
    gemv_bf16: gemv::gemv_bf16_widened,
    gemm_f32: Some(&gemm::F32),
    gemm_bf16: Some(&gemm::BF16_WIDENED),
    flash_f32: Some(&attention::F32),
    flash_bf16: None,
    store_kv: kv::store_kv,
};

/// With bf16 dot products.
pub(crate) static KERNELS_BF16: Kernels = Kernels {
    gemv_bf16: gemv::gemv_bf16,
    gemm_bf16: Some(&gemm::BF16),
    flash_bf16: Some(&attention::BF16),
    store_kv: kv::store_kv_bf16,
    ..KERNELS
};
