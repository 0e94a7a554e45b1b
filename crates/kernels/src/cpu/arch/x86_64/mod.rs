//! Kernels for x86-64, one folder per instruction set. [`avxvnni`] extends [`avx2`], and [`amx`] extends [`avx512`].

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod avxvnni;
