//! `out = epilogue(x Wᵀ + bias)` for packed weights: int8 by int8, as q8 or q4 ([`crate::quant`]).
//!
//! Each row of x is quantized in groups of 128 values, each group with its own scale
//! ([`crate::cpu::table::activations`]), so that an outlier channel coarsens only 127 neighbours and not the whole
//! row. With `q` the integers and `s` the scales of group `g`:
//!
//! `y[row, col] = Σ_g fma(f32(Σ_k qw[col, k] qx[row, k]) * sw[col, g], sx[row, g], ·)`, g ascending.
//!
//! Invariant: the integer sums are exact, and the few f32 steps are the same, in the same order, on every level and
//! for every number of rows. `y` therefore has the same bits at every level, batch size and thread count.

use super::activations::Input;
use super::columns::{Columns, PARTS_MAX, WIDTH_MAX};
use super::runner::{Runner, Scratch, ThreadScratch};
use super::sweeps::Sweeps;
use super::tensor::CpuTensor;
use crate::cpu::prefetch::fetch;
use crate::cpu::table::activations::{self, QuantizedRows};
use crate::cpu::table::packed::{PackedKernels, Panel, Sums};
use crate::quant::{GROUP, PANEL, PackedShape};
use crate::threads::SharedMut;
use crate::{BackendError, Bytes, Epilogue, MatrixSource, Norm, PackedFormat};
use std::ops::Range;

/// A packed weight matrix with its optional bias.
pub(crate) struct Packed {
    bytes: Bytes,
    shape: PackedShape,
    bias: Option<Vec<f32>>,
}

impl Packed {
    pub(crate) fn new(source: MatrixSource, format: PackedFormat) -> Result<Self, BackendError> {
        let MatrixSource { bytes, n, k, bias, .. } = source;
        let shape = PackedShape::packed(format, n, k).ok_or(BackendError::MatrixShape {
            n,
            k,
            format: format.into(),
        })?;
        if bytes.len() != shape.bytes() {
            let (format, expected, found) = (format.into(), shape.bytes(), bytes.len());
            return Err(BackendError::MatrixSize { n, k, format, expected, found });
        }
        assert!(bias.as_ref().is_none_or(|b| b.len() == n), "a bias has one value per output feature");
        Ok(Self { bytes, shape, bias })
    }

    pub(crate) fn n(&self) -> usize {
        self.shape.n()
    }

    pub(crate) fn k(&self) -> usize {
        self.shape.k()
    }

    fn panel(&self, panel: usize) -> &[u8] {
        let bytes = self.shape.panel_bytes();
        &self.bytes[panel * bytes..(panel + 1) * bytes]
    }
}

/// The destination of a product.
enum Output<'a> {
    /// Rows of f32, `[rows, cols]`.
    Rows(SharedMut<'a, f32>),
    /// Quantized values for the next product.
    Quantized(SharedMut<'a, u8>),
}

impl Output<'_> {
    /// Returns the columns that a task computes: those of a panel, or of a group, which is quantized while it is in
    /// the L1 cache.
    fn width(&self) -> usize {
        match self {
            Self::Rows(_) => PANEL,
            Self::Quantized(_) => GROUP,
        }
    }
}

/// One product being computed.
struct Product<'a> {
    kernels: &'a PackedKernels,
    weight: &'a Packed,
    x: QuantizedRows<'a>,
    epilogue: Epilogue,
    out: Output<'a>,
}

impl Product<'_> {
    /// Returns the number of columns after the epilogue.
    fn out_cols(&self) -> usize {
        self.epilogue.out_cols(self.weight.n())
    }

    /// Returns the columns of task `task`.
    fn columns(&self, task: usize) -> Columns {
        Columns::new(self.weight.n(), self.epilogue, self.out.width(), task)
    }

    /// Returns the panel that the thread needs after part `part` of `columns`.
    fn after(&self, columns: &Columns, part: usize) -> &[u8] {
        let next = match columns.parts().get(part + 1) {
            Some(part) => part.panel,
            None => columns.out.end / PANEL,
        };
        self.weight.panel(next.min(self.weight.shape.panels() - 1))
    }
}

/// Returns the number of column tasks that a thread runs one after another if few rows stream the weights: enough for
/// prefetching to pay off, and eight runs per thread if there are enough tasks, so that threads end together.
fn streamed_tasks(tasks: usize, threads: usize) -> usize {
    (tasks / (8 * threads)).clamp(1, 8)
}

impl Runner {
    /// `out = epilogue(x Wᵀ + bias)`.
    pub(crate) fn run_packed(&self, x: &CpuTensor, weight: &Packed, epilogue: Epilogue, out: &mut CpuTensor) {
        let Scratch { packed, .. } = &mut *self.scratch();
        let x = self.quantize(Input { x, norm: None }, packed);
        self.run_product(x, weight, epilogue, out);
    }

    /// `out = norm(x) Wᵀ + bias` for each W. Rows are normed and quantized once, and the normed rows are not written
    /// to memory.
    pub(crate) fn run_normed<'a>(
        &self,
        x: &CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        products: impl Iterator<Item = (&'a Packed, &'a mut CpuTensor)>,
    ) {
        let Scratch { packed, .. } = &mut *self.scratch();
        let x = self.quantize(Input { x, norm: Some(norm) }, packed);
        for (weight, out) in products {
            self.run_product(x, weight, Epilogue::Store, out);
        }
    }

    /// `x = x + second(epilogue(first(norm(x))))`. The values between the products are quantized where they are
    /// computed.
    pub(crate) fn run_feed_forward(
        &self,
        x: &mut CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        first: &Packed,
        epilogue: Epilogue,
        second: &Packed,
    ) {
        let (rows, cols) = (x.rows(), epilogue.out_cols(first.n()));
        let Scratch { packed, hidden, .. } = &mut *self.scratch();
        let normed = self.quantize(Input { x, norm: Some(norm) }, packed);
        let bytes = hidden.take::<u8>(activations::bytes(rows, cols));
        let out = Output::Quantized(SharedMut::new(bytes));
        self.run_tasks(&Product {
            kernels: self.kernels.packed(rows),
            weight: first,
            x: normed,
            epilogue,
            out,
        });
        let hidden = QuantizedRows::new(bytes, rows, cols, self.kernels.packed(rows).tile_rows);
        self.run_product(hidden, second, Epilogue::Add, x);
    }

    fn run_product(&self, x: QuantizedRows<'_>, weight: &Packed, epilogue: Epilogue, out: &mut CpuTensor) {
        let (n, k) = (weight.n(), weight.k());
        assert_eq!(
            (out.rows(), out.cols()),
            (x.rows(), epilogue.out_cols(n)),
            "output of a [{n}, {k}] matrix"
        );
        let out = Output::Rows(SharedMut::new(out.values_mut()));
        self.run_tasks(&Product { kernels: self.kernels.packed(x.rows()), weight, x, epilogue, out });
    }

    fn run_tasks(&self, product: &Product<'_>) {
        let Product { kernels, weight, x, ref out, .. } = *product;
        assert_eq!(x.k(), weight.k(), "input columns of a [{}, {}] matrix", weight.n(), weight.k());
        self.reserve_work::<f32>(kernels.chunk_rows * PARTS_MAX * PANEL + kernels.tile_rows * WIDTH_MAX);
        let (rows, tasks) = (x.rows(), product.out_cols().div_ceil(out.width()));
        if rows <= kernels.chunk_rows {
            let step = streamed_tasks(tasks, self.pool.threads());
            self.pool.run(tasks.div_ceil(step), |run, thread| {
                for task in run * step..tasks.min((run + 1) * step) {
                    self.run_columns(product, task, 0..rows, thread);
                }
            });
            return;
        }
        let chunk_rows = kernels.chunk_rows;
        let cached_rows = (kernels.sweep_bytes / activations::bytes(1, weight.k())).max(1);
        let cached_rows = cached_rows.next_multiple_of(chunk_rows);
        let sweep = Sweeps { rows, cached_rows, chunk_rows, tasks }.rows_for(self.pool.threads());
        self.pool.run(tasks * rows.div_ceil(sweep), |task, thread| {
            let first = task / tasks * sweep;
            self.run_columns(product, task % tasks, first..rows.min(first + sweep), thread);
        });
    }

    /// Computes the columns of task `task` for the rows `rows`.
    fn run_columns(&self, product: &Product<'_>, task: usize, rows: Range<usize>, thread: usize) {
        let columns = &product.columns(task);
        let gapless = columns.are_gapless();
        let shape = product.weight.shape;
        let chunk_rows = product.kernels.chunk_rows;
        let unpacked = PackedShape::packed(PackedFormat::Q8, PANEL, shape.k())
            .expect("no larger than the weight itself");
        // several chunks use a panel: it is unpacked once for all of them
        let unpack = product.kernels.unpack(shape.packed_format()).filter(|_| rows.len() > chunk_rows);
        let panel_bytes = unpack.map_or(0, |_| unpacked.panel_bytes());
        let mut bias = [0.0; 2 * WIDTH_MAX];
        let bias = gather_bias(product.weight, columns, &mut bias);
        let stride = columns.count * PANEL;
        let mut scratch = self.thread_scratch(thread);
        let ThreadScratch { panels, work } = &mut *scratch;
        let panels = panels.take::<u8>(columns.count * panel_bytes);
        let work = work.take::<f32>(chunk_rows * stride + product.kernels.tile_rows * WIDTH_MAX);
        let (sums, finished) = work.split_at_mut(chunk_rows * stride);
        if let Some(unpack) = unpack {
            for (part, out) in columns.parts().iter().zip(panels.chunks_exact_mut(panel_bytes)) {
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { unpack(product.weight.panel(part.panel), out) };
            }
        }
        for first in rows.clone().step_by(chunk_rows) {
            let chunk = first..rows.end.min(first + chunk_rows);
            let sums = &mut sums[..chunk.len() * stride];
            if let Output::Rows(out) = &product.out {
                for row in chunk.clone() {
                    // rows are far apart, so no hardware prefetcher anticipates the stores
                    // SAFETY: tasks differ in rows or in columns.
                    fetch(unsafe { out.slice(columns.of_row(row, product.out_cols())) });
                }
            }
            for (i, part) in columns.parts().iter().enumerate() {
                let mut y = Sums { values: &mut sums[i * PANEL..], stride, keep: 0 };
                let stored = product.weight.panel(part.panel);
                let next = product.after(columns, i);
                let stored = Panel { bytes: stored, next };
                let (kernel, panel) = match unpack {
                    Some(_) => {
                        let bytes = &panels[i * panel_bytes..(i + 1) * panel_bytes];
                        (product.kernels.q8, Panel { bytes, next: bytes })
                    }
                    None => (product.kernels.product(shape.packed_format()), stored),
                };
                // SAFETY: the kernels are those of a level this processor has.
                unsafe { kernel(panel, &product.x, chunk.clone(), &mut y) };
            }
            let sums = TaskSums { columns, gapless, sums, bias };
            match &product.out {
                Output::Rows(out) => self.store(product, &sums, chunk, out),
                Output::Quantized(out) => self.store_quantized(product, &sums, chunk, finished, out),
            }
        }
    }

    /// Writes a chunk's sums through the epilogue.
    fn store(
        &self,
        product: &Product<'_>,
        sums: &TaskSums<'_>,
        chunk: Range<usize>,
        out: &SharedMut<'_, f32>,
    ) {
        for (i, row) in chunk.enumerate() {
            // SAFETY: tasks differ in rows or in columns.
            let out = unsafe { out.slice(sums.columns.of_row(row, product.out_cols())) };
            self.finish(product.epilogue, sums, i, out);
        }
    }

    /// Quantizes a chunk's sums, which are one group of columns, after the epilogue, tile by tile.
    fn store_quantized(
        &self,
        product: &Product<'_>,
        sums: &TaskSums<'_>,
        chunk: Range<usize>,
        finished: &mut [f32],
        out: &SharedMut<'_, u8>,
    ) {
        let columns = &sums.columns.out;
        let tile_rows = product.kernels.tile_rows;
        for first in chunk.clone().step_by(tile_rows) {
            let rows = tile_rows.min(chunk.end - first);
            let finished = &mut finished[..rows * columns.len()];
            for (row, out) in finished.chunks_exact_mut(columns.len()).enumerate() {
                self.finish(product.epilogue, sums, first - chunk.start + row, out);
            }
            let at = activations::group_range(first, rows, columns.start / GROUP, product.out_cols());
            // SAFETY: tasks differ in rows or in columns; the kernels are those of a level this processor has.
            unsafe { (product.kernels.quantize)(finished, columns.len(), out.slice(at)) };
        }
    }

    /// Applies the epilogue to row `row` of a chunk.
    fn finish(&self, epilogue: Epilogue, sums: &TaskSums<'_>, row: usize, out: &mut [f32]) {
        let TaskSums { columns, gapless, sums, bias } = *sums;
        let stride = columns.count * PANEL;
        let sums = &sums[row * stride..(row + 1) * stride];
        let mut joined;
        let y = if gapless {
            &sums[..bias.len()]
        } else {
            joined = [0.0; 2 * WIDTH_MAX];
            columns.join(sums, &mut joined)
        };
        // SAFETY: the kernels are those of a level this processor has.
        unsafe { (self.kernels.rows.epilogue)(epilogue, y, bias, out) };
    }
}

/// The results of a task for a chunk of rows.
#[derive(Clone, Copy)]
struct TaskSums<'a> {
    columns: &'a Columns,
    /// Whether the columns are contiguous, see [`Columns::are_gapless`].
    gapless: bool,
    /// `[rows, parts * 64]`
    sums: &'a [f32],
    /// Bias of the columns, one part after another.
    bias: &'a [f32],
}

/// Gathers the bias of a task's columns, one part after another; zeros if the weight has no bias.
fn gather_bias<'a>(weight: &Packed, columns: &Columns, out: &'a mut [f32; 2 * WIDTH_MAX]) -> &'a [f32] {
    let mut width = 0;
    for part in columns.parts() {
        if let Some(bias) = &weight.bias {
            let values = &bias[part.panel * PANEL..][part.columns.clone()];
            out[width..width + values.len()].copy_from_slice(values);
        }
        width += part.columns.len();
    }
    &out[..width]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_for_all_threads() {
        // o_proj, gate_up_proj's pairs and lm_head on 2, 8 and 64 cores
        let cut = |tasks: usize| [2, 8, 64].map(|threads| tasks.div_ceil(streamed_tasks(tasks, threads)));
        assert_eq!([48, 128, 501].map(cut), [[16, 48, 48], [16, 64, 128], [63, 72, 501]]);
    }
}
