//! Quantization of the input of a product with packed weights.

use super::runner::Runner;
use super::tensor::{Buffer, CpuTensor};
use crate::Norm;
use crate::cpu::table::activations::{self, QuantizedRows};
use crate::threads::SharedMut;

/// The input of a product, `[rows, k]`.
pub(super) struct Input<'a> {
    pub(super) x: &'a CpuTensor,
    /// If a norm is given, rows are normed first; the normed rows are not written to memory.
    pub(super) norm: Option<Norm<'a, Vec<f32>>>,
}

impl Runner {
    /// Quantizes all rows of an input, in tasks of whole tiles.
    pub(super) fn quantize<'a>(&self, input: Input<'_>, out: &'a mut Buffer) -> QuantizedRows<'a> {
        let Input { x, norm } = input;
        let (rows, k) = (x.rows(), x.cols());
        let kernels = self.kernels.packed(rows);
        if norm.is_some() {
            self.reserve_work::<f32>(kernels.tile_rows * k);
        }
        let tile_rows = kernels.tile_rows;
        let bytes = out.take::<u8>(activations::bytes(rows, k));
        let out = SharedMut::new(bytes);
        self.pool.run(rows.div_ceil(tile_rows), |tile, thread| {
            let part = tile * tile_rows..rows.min((tile + 1) * tile_rows);
            let at = activations::bytes(part.start, k)..activations::bytes(part.end, k);
            let values = &x.values()[part.start * k..part.end * k];
            let mut scratch = self.thread_scratch(thread);
            let values = match norm {
                Some(norm) => {
                    let normed = scratch.work.take::<f32>(values.len());
                    for (x, normed) in values.chunks_exact(k).zip(normed.chunks_exact_mut(k)) {
                        self.norm_row(norm, x, normed);
                    }
                    normed
                }
                None => values,
            };
            // SAFETY: tiles are disjoint, and the kernels are those of a level this processor has.
            unsafe { (kernels.quantize)(values, k, out.slice(at)) };
        });
        QuantizedRows::new(bytes, rows, k, tile_rows)
    }
}
