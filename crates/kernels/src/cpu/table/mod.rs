//! The types of a level's kernels: what instruction sets implement and operations call.
//!
//! Kernels compute on one thread. [`super::ops`] decides how operations are cut into tasks, in the same way for all
//! levels. [`super::arch::scalar`] defines what each kernel computes. Calling a kernel requires the instructions that
//! the table was selected for ([`super::dispatch`]).

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
    /// Products with packed weights for at least as many rows; both give the same bits.
    pub(crate) packed_many: PackedKernels,
    pub(crate) packed_many_from: usize,
    pub(crate) peak: PeakKernels,
}

impl Kernels {
    /// Returns the kernels of products with packed weights for `rows` rows.
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

/// Runs rounds of multiply-adds on registers alone and returns the number of operations.
pub(crate) type PeakKernel = unsafe fn(rounds: usize) -> usize;

/// Measures the most that the instruction set can do.
#[derive(Clone, Copy)]
pub(crate) struct PeakKernels {
    pub(crate) int8: PeakKernel,
    pub(crate) bf16: PeakKernel,
    pub(crate) f32: PeakKernel,
}
