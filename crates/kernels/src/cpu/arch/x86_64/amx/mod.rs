//! AMX in addition to AVX-512 (Intel since Sapphire Rapids). Its unit of work is a tile: up to 16 rows of 64 bytes.
//!
//! Products with packed weights multiply bytes ([`packed`]); products with dense bf16 weights ([`gemm`]) and
//! attention ([`attention`]) multiply bf16. All code is generic over [`Tiles`]: the processor's, or those in plain
//! Rust that tests use on processors without AMX.

mod attention;
mod check;
mod gemm;
mod packed;
mod peak;
mod rectangle;
mod row;
mod tiles;

pub(crate) use check::bf16_is_right;
pub(crate) use tiles::{Hardware, Plain, Tiles};

use crate::cpu::arch::x86_64::avx512;
use crate::cpu::table::attention::AttentionKernels;
use crate::cpu::table::dense::DenseKernels;
use crate::cpu::table::{Kernels, PeakKernels};

/// Adds tiles of bytes to the kernels `avx512`.
pub(crate) const fn int8<T: Tiles>(avx512: Kernels) -> Kernels {
    Kernels {
        packed_many: packed::kernels::<T>(),
        packed_many_from: packed::ROWS_MIN,
        peak: PeakKernels { int8: peak::int8::<T>, ..avx512.peak },
        ..avx512
    }
}

/// Adds tiles of bf16 to the kernels `others`; also requires AVX-512 BF16.
pub(crate) const fn bf16<T: Tiles>(others: Kernels) -> Kernels {
    Kernels {
        dense: DenseKernels { gemm_bf16: Some(&gemm::Kernel::<T>::BF16), ..others.dense },
        attention: AttentionKernels {
            store_kv: avx512::store_kv_bf16,
            flash_bf16: Some(&attention::Kernel::<T>::BF16),
            ..others.attention
        },
        peak: PeakKernels { bf16: peak::bf16::<T>, ..others.peak },
        ..others
    }
}
