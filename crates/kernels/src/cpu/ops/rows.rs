//! Operations on single rows: a task is a run of rows.

use super::linear::CpuTable;
use super::runner::Runner;
use super::tensor::CpuTensor;
use crate::{Heads, Norm};

/// Asserts that two tensors have the same shape.
pub(super) fn assert_same_shape(a: &CpuTensor, b: &CpuTensor) {
    assert_eq!((a.rows(), a.cols()), (b.rows(), b.cols()), "shapes of two tensors");
}

impl Runner {
    /// See [`Backend::embed`](crate::Backend::embed).
    pub(crate) fn embed(&self, table: &CpuTable, ids: &[u32], out_row: usize, out: &mut CpuTensor) {
        let table = &table.0;
        assert_eq!(table.k, out.cols(), "columns of an embedding");
        let cols = out.cols();
        let out = &mut out.values_mut()[out_row * cols..(out_row + ids.len()) * cols];
        self.pool.rows(out, cols, |first, chunk| {
            for (row, &id) in chunk.chunks_exact_mut(cols).zip(&ids[first..]) {
                let stored = table.rows(id as usize..id as usize + 1);
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { (self.kernels.dense.widen)(stored.row(0), stored.format, row) };
            }
        });
    }

    /// See [`Backend::gather`](crate::Backend::gather).
    pub(crate) fn gather(&self, src: &CpuTensor, rows: &[u32], out_row: usize, out: &mut CpuTensor) {
        assert_eq!(src.cols(), out.cols(), "columns of a gather");
        let cols = out.cols();
        let out = &mut out.values_mut()[out_row * cols..(out_row + rows.len()) * cols];
        self.pool.rows(out, cols, |first, chunk| {
            for (row, &from) in chunk.chunks_exact_mut(cols).zip(&rows[first..]) {
                row.copy_from_slice(src.row(from as usize));
            }
        });
    }

    /// See [`Backend::norm`](crate::Backend::norm).
    pub(crate) fn norm(&self, x: &CpuTensor, norm: Norm<'_, Vec<f32>>, out: &mut CpuTensor) {
        assert_same_shape(x, out);
        let cols = x.cols();
        self.pool.rows(out.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                self.norm_row(norm, x.row(first + i), row);
            }
        });
    }

    /// Computes one row of [`Self::norm`].
    pub(super) fn norm_row(&self, norm: Norm<'_, Vec<f32>>, x: &[f32], out: &mut [f32]) {
        match norm {
            Norm::Rms(weight, eps) => {
                assert_eq!(weight.len(), x.len(), "weight of a norm");
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { (self.kernels.rows.rms_norm)(x, weight, eps, out) };
            }
            Norm::Layer((weight, bias), eps) => {
                assert_eq!((weight.len(), bias.len()), (x.len(), x.len()), "weight and bias of a norm");
                // SAFETY: as above.
                unsafe { (self.kernels.rows.layer_norm)(x, (weight, bias), eps, out) };
            }
        }
    }

    /// See [`Backend::add`](crate::Backend::add).
    pub(crate) fn add(&self, addend: &CpuTensor, x: &mut CpuTensor) {
        assert_eq!(addend.cols(), x.cols(), "columns of a sum");
        let cols = x.cols();
        self.pool.rows(x.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { (self.kernels.rows.add)(addend.row((first + i) % addend.rows()), row) };
            }
        });
    }

    /// See [`Backend::rope`](crate::Backend::rope).
    pub(crate) fn rope(&self, cos_sin: &CpuTensor, heads: Heads, qkv: &mut CpuTensor) {
        let rotated = (heads.query + heads.key_value) * heads.dim;
        let cols = qkv.cols();
        assert_eq!(cols, rotated + heads.key_value * heads.dim, "columns of qkv for {heads:?}");
        assert_eq!(
            (cos_sin.rows(), cos_sin.cols()),
            (qkv.rows(), heads.dim),
            "shape of cos_sin for {heads:?}"
        );
        assert!(heads.dim.is_multiple_of(2), "rotated heads have an even dimension, not {}", heads.dim);
        self.pool.rows(qkv.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { (self.kernels.rows.rope)(cos_sin.row(first + i), &mut row[..rotated]) };
            }
        });
    }
}
