//! Kernels for x86-64, one folder per level.

pub(crate) mod avx2;
pub(crate) mod avx512;
