//! The kernels of a level, as types: what instruction sets implement and operations call.
//!
//! Kernels do numbers, on one thread; what is cut into tasks, and how, is decided in [`super::ops`] and is the same for
//! all levels. [`super::arch::scalar`] defines what each computes. Calling any of them asks for the instructions that the
//! table was chosen for ([`super::dispatch`]).

pub(crate) mod activations;
pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod kv;
pub(crate) mod packed;

use crate::Epilogue;
use attention::AttentionKernels;
use dense::DenseKernels;
use packed::PackedKernels;

/// All kernels that a backend runs.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) rows: RowKernels,
    pub(crate) dense: DenseKernels,
    pub(crate) attention: AttentionKernels,
    /// Products with packed weights for fewer than `packed_many_from` rows.
    pub(crate) packed_few: PackedKernels,
    /// The same for at least as many; both give the same bits.
    pub(crate) packed_many: PackedKernels,
    pub(crate) packed_many_from: usize,
    pub(crate) peak: PeakKernels,
}

impl Kernels {
    /// The kernels of products with packed weights for so many rows.
    pub(crate) fn packed(&self, rows: usize) -> &PackedKernels {
        if rows < self.packed_many_from { &self.packed_few } else { &self.packed_many }
    }
}

/// Weight and bias of a layer norm.
pub(crate) type Affine<'a> = (&'a [f32], &'a [f32]);

/// Operations on single rows.
#[derive(Clone, Copy)]
pub(crate) struct RowKernels {
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) layer_norm: unsafe fn(&[f32], Affine<'_>, f32, &mut [f32]),
    pub(crate) add: unsafe fn(&[f32], &mut [f32]),
    pub(crate) rope: unsafe fn(&[f32], &mut [f32]),
    pub(crate) epilogue: unsafe fn(Epilogue, &[f32], &[f32], &mut [f32]),
    pub(crate) round_bf16: unsafe fn(&[f32], &mut [u16]),
}

/// Runs rounds of multiply-adds on registers alone and returns the operations done.
pub(crate) type PeakKernel = unsafe fn(rounds: usize) -> usize;

/// What the instruction set can do at most.
#[derive(Clone, Copy)]
pub(crate) struct PeakKernels {
    pub(crate) int8: PeakKernel,
    pub(crate) bf16: PeakKernel,
    pub(crate) f32: PeakKernel,
}
