//! `out = epilogue(x Wᵀ + bias)` for packed weights: int8 by int8, as q8 or q4 ([`crate::quant`]).
//!
//! Each row of x is quantised in groups of 128 values, each with a scale of its own ([`activations`]), so that an
//! outlier channel coarsens 127 neighbours and not the row. With `q` the integers and `s` the scales of group `g`:
//!
//! `y[row, col] = Σ_g fma(f32(Σ_k qw[col, k] qx[row, k]) * sw[col, g], sx[row, g], ·)`, g ascending.
//!
//! Invariant: the integer sums are exact and the f32 steps are the same few, in the same order, on every level and
//! for every number of rows, so `y` is the same bits at every level, batch size and thread count.

mod activations;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod scalar;

#[cfg(target_arch = "x86_64")]
use super::level;
use super::tensor::{Buffer, CpuTensor};
use super::{Cpu, CpuLevel, Scratch, ThreadScratch};
use crate::quant::{GROUP, PANEL, PackedShape};
use crate::threads::SharedMut;
use crate::{BackendError, Bytes, Epilogue, Format, MatrixSource, Norm};
use activations::QuantisedRows;
use std::ops::Range;

/// Packed activations that one sweep over the panels keeps in the shared L3: with 8192 values to a row, 2,048 rows
/// are 19 MB and would be read from memory again for each of the panels.
const SWEEP_BYTES: usize = 4 << 20;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// A packed weight matrix with its optional bias.
pub(crate) struct Packed {
    bytes: Bytes,
    shape: PackedShape,
    bias: Option<Vec<f32>>,
}

impl Packed {
    pub(crate) fn new(source: MatrixSource) -> Result<Self, BackendError> {
        let MatrixSource { bytes, format, n, k, bias, .. } = source;
        let shape = PackedShape::new(format, n, k).ok_or(BackendError::MatrixShape { n, k, format })?;
        if bytes.len() != shape.bytes() {
            let (expected, found) = (shape.bytes(), bytes.len());
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

type Unpack = unsafe fn(q4: &[u8], q8: &mut [u8]);

/// Calls a kernel that is compiled for each number of rows of a tile with that of `tile`.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($product:ident, $block:expr, $tile:expr, $y:expr) => {
        match $tile.meta.len() {
            6 => $product::<6>($block, $tile, $y),
            5 => $product::<5>($block, $tile, $y),
            4 => $product::<4>($block, $tile, $y),
            3 => $product::<3>($block, $tile, $y),
            2 => $product::<2>($block, $tile, $y),
            _ => $product::<1>($block, $tile, $y),
        }
    };
}
#[cfg(target_arch = "x86_64")]
use by_rows;

/// The kernels of a level; [`scalar`] defines what each computes. Calling one asks for the level's instructions.
pub(crate) struct Int8Kernels {
    /// Quantises up to `tile_rows` rows, `[rows, k]`, to a tile.
    quantise: unsafe fn(x: &[f32], k: usize, tile: &mut [u8]),
    /// `y = x Wᵀ` for a q8 panel and some rows of x.
    q8: unsafe fn(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>),
    /// The same for a q4 panel and few rows, unpacking as it goes.
    q4: unsafe fn(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>),
    /// Turns a q4 panel into the q8 panel of the same values; `None` where `q4` is the fastest for many rows too.
    unpack: Option<Unpack>,
    /// Rows of a tile of quantised activations.
    tile_rows: usize,
    /// Rows computed between two looks at the epilogue, whole tiles: their sums stay in L1 beside the block of weights
    /// that they all use.
    chunk_rows: usize,
    /// Quantised activations that one sweep over the panels works on.
    sweep_bytes: usize,
}

impl Int8Kernels {
    /// The table of `level`, which this processor must have, for products of so many rows. All tables give the same bits.
    fn of(level: CpuLevel, rows: usize) -> &'static Self {
        match level {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            CpuLevel::Amx if rows >= amx::ROWS_MIN => &amx::KERNELS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 | CpuLevel::Amx => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 if level::has_avxvnni() => &avxvnni::vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => &avx2::KERNELS,
            _ => &scalar::KERNELS,
        }
    }
}

/// A panel, and the bytes that its thread needs after it: kernels fetch them while they finish the panel.
#[derive(Clone, Copy)]
struct Panel<'a> {
    bytes: &'a [u8],
    next: &'a [u8],
}

impl Panel<'_> {
    /// Where block `index`, of `size` bytes, of the next panel begins: an address to fetch.
    #[inline(always)]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn next_block(&self, index: usize, size: usize) -> *const u8 {
        self.next.as_ptr().wrapping_add(index * size)
    }

    /// Where block `index`, of `size` bytes, of the panel and what comes after it begins: an address to fetch.
    #[inline(always)]
    fn ahead(&self, index: usize, size: usize) -> *const u8 {
        match (index * size).checked_sub(self.bytes.len()) {
            Some(past) => self.next.as_ptr().wrapping_add(past),
            None => self.bytes.as_ptr().wrapping_add(index * size),
        }
    }
}

/// The sums of one panel for some rows: `[rows, stride]`, of which 64 columns are the panel's.
struct Sums<'a> {
    values: &'a mut [f32],
    stride: usize,
    /// A kernel's own: which lanes of a register of sums have been begun.
    keep: u16,
}

impl Sums<'_> {
    /// The panel's columns of row `row`.
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32; PANEL] {
        self.values[row * self.stride..].first_chunk_mut().expect("a row has the panel's columns")
    }

    /// Sets the first `rows` rows to zero.
    fn clear(&mut self, rows: usize) {
        (0..rows).for_each(|row| self.row(row).fill(0.0));
    }

    /// The rows from `first` on.
    #[inline(always)]
    fn rows(&mut self, first: usize) -> Sums<'_> {
        Sums { values: &mut self.values[first * self.stride..], ..*self }
    }
}

/// Columns of one panel that a task needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    panel: usize,
    /// Within the panel.
    columns: Range<usize>,
}

/// The panels behind the weight rows `rows`.
fn parts_of(rows: &Range<usize>) -> impl Iterator<Item = Part> {
    let Range { start, end } = *rows;
    (start / PANEL..end.div_ceil(PANEL)).map(move |panel| {
        let first = panel * PANEL;
        Part { panel, columns: start.max(first) - first..end.min(first + PANEL) - first }
    })
}

/// Columns that a task computes at most: a group, where they are quantised.
const WIDTH_MAX: usize = GROUP;
/// Panels that a task needs at most: two of gate, and up touches a third where `n/2` is no multiple of 64.
const PARTS_MAX: usize = 2 * WIDTH_MAX / PANEL + 1;

/// What one task computes: up to 64 or 128 columns of `out`, from as many panels, or from those of gate and up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns {
    out: Range<usize>,
    parts: [Part; PARTS_MAX],
    count: usize,
}

impl Columns {
    /// The columns of task `task` of a product with `n` weight rows, cut into tasks of `width` columns.
    fn new((n, epilogue): (usize, Epilogue), width: usize, task: usize) -> Self {
        let cols = epilogue.out_cols(n);
        let out = task * width..cols.min((task + 1) * width);
        let ups = if epilogue.is_gated() { cols + out.start..cols + out.end } else { 0..0 };
        let (mut parts, mut count) = (<[Part; PARTS_MAX]>::default(), 0);
        for part in parts_of(&out).chain(parts_of(&ups)) {
            parts[count] = part;
            count += 1;
        }
        Self { out, parts, count }
    }

    fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }

    /// Where row `row` of an output of `cols` columns has them.
    fn of_row(&self, row: usize, cols: usize) -> Range<usize> {
        row * cols + self.out.start..row * cols + self.out.end
    }

    /// Whether the parts' columns follow each other in `[parts * 64]` sums as they shall in the output.
    fn are_gapless(&self) -> bool {
        let (last, first) = self.parts().split_last().expect("a task has a part");
        last.columns.start == 0 && first.iter().all(|part| part.columns == (0..PANEL))
    }

    /// The wanted columns out of a row of sums, `[parts * 64]`.
    fn join<'a>(&self, sums: &[f32], out: &'a mut [f32; 2 * WIDTH_MAX]) -> &'a [f32] {
        let mut width = 0;
        for (part, sums) in self.parts().iter().zip(sums.chunks_exact(PANEL)) {
            let values = &sums[part.columns.clone()];
            out[width..width + values.len()].copy_from_slice(values);
            width += values.len();
        }
        &out[..width]
    }
}

/// Where a product goes.
enum Output<'a> {
    /// `[rows, cols]`
    Rows(SharedMut<'a, f32>),
    /// Quantised for the next product.
    Quantised(SharedMut<'a, u8>),
}

impl Output<'_> {
    /// Columns that a task computes: a panel's, or a group's, which is quantised while it lies in L1.
    fn width(&self) -> usize {
        match self {
            Self::Rows(_) => PANEL,
            Self::Quantised(_) => GROUP,
        }
    }
}

/// One product on its way.
struct Product<'a> {
    kernels: &'static Int8Kernels,
    weight: &'a Packed,
    x: QuantisedRows<'a>,
    epilogue: Epilogue,
    out: Output<'a>,
}

impl Product<'_> {
    /// Columns after the epilogue.
    fn out_cols(&self) -> usize {
        self.epilogue.out_cols(self.weight.n())
    }

    /// Columns of task `task`.
    fn columns(&self, task: usize) -> Columns {
        Columns::new((self.weight.n(), self.epilogue), self.out.width(), task)
    }

    /// The panel that its thread needs after part `part` of `columns`.
    fn after(&self, columns: &Columns, part: usize) -> &[u8] {
        let next = match columns.parts().get(part + 1) {
            Some(part) => part.panel,
            None => columns.out.end / PANEL,
        };
        self.weight.panel(next.min(self.weight.shape.panels() - 1))
    }
}

/// Tasks of columns that a thread runs one after the other where few rows stream the weights: enough for fetching
/// ahead to pay, and eight runs a thread where there are so many, so that threads end together.
fn streamed_tasks(tasks: usize, threads: usize) -> usize {
    (tasks / (8 * threads)).clamp(1, 8)
}

impl Cpu {
    /// `out = epilogue(x Wᵀ + bias)`.
    pub(crate) fn run_packed(&self, x: &CpuTensor, weight: &Packed, epilogue: Epilogue, out: &mut CpuTensor) {
        let Scratch { packed, .. } = &mut *self.scratch();
        let x = self.quantise(x, None, packed);
        self.run_product(x, weight, epilogue, out);
    }

    /// `out = norm(x) Wᵀ + bias` for each W; rows are normed and quantised once, without going through memory between.
    pub(crate) fn run_normed<'a>(
        &self,
        x: &CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        products: impl Iterator<Item = (&'a Packed, &'a mut CpuTensor)>,
    ) {
        let Scratch { packed, .. } = &mut *self.scratch();
        let x = self.quantise(x, Some(norm), packed);
        for (weight, out) in products {
            self.run_product(x, weight, Epilogue::Store, out);
        }
    }

    /// `x = x + second(epilogue(first(norm(x))))`; what lies between the products is quantised where it is computed.
    pub(crate) fn run_feed_forward(
        &self,
        x: &mut CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        (first, epilogue, second): (&Packed, Epilogue, &Packed),
    ) {
        let (rows, cols) = (x.rows(), epilogue.out_cols(first.n()));
        let Scratch { packed, hidden } = &mut *self.scratch();
        let normed = self.quantise(x, Some(norm), packed);
        let bytes = hidden.take::<u8>(activations::bytes(rows, cols));
        let out = Output::Quantised(SharedMut::new(bytes));
        self.run_tasks(&Product { kernels: self.int8(rows), weight: first, x: normed, epilogue, out });
        let hidden = QuantisedRows::new(bytes, (rows, cols), self.int8(rows).tile_rows);
        self.run_product(hidden, second, Epilogue::Add, x);
    }

    fn int8(&self, rows: usize) -> &'static Int8Kernels {
        Int8Kernels::of(self.level(), rows)
    }

    fn run_product(&self, x: QuantisedRows<'_>, weight: &Packed, epilogue: Epilogue, out: &mut CpuTensor) {
        let (n, k) = (weight.n(), weight.k());
        assert_eq!(
            (out.rows(), out.cols()),
            (x.rows(), epilogue.out_cols(n)),
            "output of a [{n}, {k}] matrix"
        );
        let out = Output::Rows(SharedMut::new(out.values_mut()));
        self.run_tasks(&Product { kernels: self.int8(x.rows()), weight, x, epilogue, out });
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
        let sweep = (kernels.sweep_bytes / activations::bytes(1, weight.k()))
            .next_multiple_of(kernels.chunk_rows)
            .max(kernels.chunk_rows);
        self.pool.run(tasks * rows.div_ceil(sweep), |task, thread| {
            let first = task / tasks * sweep;
            self.run_columns(product, task % tasks, first..rows.min(first + sweep), thread);
        });
    }

    /// Quantises all rows of x, normed first where a norm is given, in tasks of whole tiles.
    fn quantise<'a>(
        &self,
        x: &CpuTensor,
        norm: Option<Norm<'_, Vec<f32>>>,
        out: &'a mut Buffer,
    ) -> QuantisedRows<'a> {
        let (rows, k) = (x.rows(), x.cols());
        let kernels = self.int8(rows);
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
            // SAFETY: tiles are disjoint, and the table is that of a level this processor has.
            unsafe { (kernels.quantise)(values, k, out.slice(at)) };
        });
        QuantisedRows::new(bytes, (rows, k), tile_rows)
    }

    /// Computes the columns of task `task` for the rows `rows`.
    fn run_columns(&self, product: &Product<'_>, task: usize, rows: Range<usize>, thread: usize) {
        let columns = &product.columns(task);
        let gapless = columns.are_gapless();
        let shape = product.weight.shape;
        let chunk_rows = product.kernels.chunk_rows;
        let unpacked =
            PackedShape::new(Format::Q8, PANEL, shape.k()).expect("no larger than the weight itself");
        // several chunks use a panel: it is unpacked once and for all of them
        let unpack =
            product.kernels.unpack.filter(|_| shape.format() == Format::Q4 && rows.len() > chunk_rows);
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
                // SAFETY: the table is that of a level this processor has.
                unsafe { unpack(product.weight.panel(part.panel), out) };
            }
        }
        for first in rows.clone().step_by(chunk_rows) {
            let chunk = first..rows.end.min(first + chunk_rows);
            let sums = &mut sums[..chunk.len() * stride];
            if let Output::Rows(out) = &product.out {
                for row in chunk.clone() {
                    // Rows lie apart, so no processor sees the stores coming.
                    // SAFETY: tasks differ in rows or in columns.
                    fetch(unsafe { out.slice(columns.of_row(row, product.out_cols())) });
                }
            }
            for (i, part) in columns.parts().iter().enumerate() {
                let mut y = Sums { values: &mut sums[i * PANEL..], stride, keep: 0 };
                let stored = product.weight.panel(part.panel);
                let next = product.after(columns, i);
                let stored = Panel { bytes: stored, next };
                let (kernel, panel) = match shape.format() {
                    Format::Q4 if unpack.is_some() => {
                        let bytes = &panels[i * panel_bytes..(i + 1) * panel_bytes];
                        (product.kernels.q8, Panel { bytes, next: bytes })
                    }
                    Format::Q4 => (product.kernels.q4, stored),
                    _ => (product.kernels.q8, stored),
                };
                // SAFETY: the table is that of a level this processor has.
                unsafe { kernel(panel, &product.x, chunk.clone(), &mut y) };
            }
            let sums = TaskSums { columns, gapless, sums, bias };
            match &product.out {
                Output::Rows(out) => self.store(product, &sums, chunk, out),
                Output::Quantised(out) => self.store_quantised(product, &sums, chunk, (finished, out)),
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

    /// Quantises a chunk's sums after the epilogue, tile by tile; they are a group of columns.
    fn store_quantised(
        &self,
        product: &Product<'_>,
        sums: &TaskSums<'_>,
        chunk: Range<usize>,
        (finished, out): (&mut [f32], &SharedMut<'_, u8>),
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
            // SAFETY: tasks differ in rows or in columns; the table is that of a level this processor has.
            unsafe { (product.kernels.quantise)(finished, columns.len(), out.slice(at)) };
        }
    }

    /// The epilogue of row `row` of a chunk.
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
        // SAFETY: the table is that of a level this processor has.
        unsafe { (self.kernels.epilogue)(epilogue, y, bias, out) };
    }
}

/// What a task has computed for a chunk of rows.
#[derive(Clone, Copy)]
struct TaskSums<'a> {
    columns: &'a Columns,
    /// See [`Columns::are_gapless`].
    gapless: bool,
    /// `[rows, parts * 64]`
    sums: &'a [f32],
    /// Of the columns, part after part.
    bias: &'a [f32],
}

/// Fetches a part of a row that will soon be read or written into the cache.
#[inline]
fn fetch(part: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in part.chunks(LINE / size_of::<f32>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = part;
}

/// The bias of a task's columns, part after part; zeros where there is none.
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
    fn columns_cover_every_weight_row_once() {
        use Epilogue::{SiluMul, Store};
        for (n, epilogue) in [
            (64, Store),
            (100, Store),
            (1, Store),
            (128, SiluMul),
            (16_384, SiluMul),
            (500, SiluMul),
            (2, SiluMul),
        ] {
            let cols = epilogue.out_cols(n);
            for width in [PANEL, GROUP] {
                let (mut rows, mut outs) = (vec![0; n], vec![0; cols]);
                for columns in (0..cols.div_ceil(width)).map(|task| Columns::new((n, epilogue), width, task))
                {
                    for part in columns.parts() {
                        part.columns.clone().for_each(|c| rows[part.panel * PANEL + c] += 1);
                    }
                    columns.out.for_each(|c| outs[c] += 1);
                }
                assert!(rows.iter().chain(&outs).all(|&times| times == 1), "{n} {epilogue:?} {width}");
            }
        }
    }

    #[test]
    fn streams_are_cut_for_all_threads() {
        // o_proj, gate_up_proj's pairs and lm_head on 2, 8 and 64 cores
        let cut = |tasks: usize| [2, 8, 64].map(|threads| tasks.div_ceil(streamed_tasks(tasks, threads)));
        assert_eq!([48, 128, 501].map(cut), [[16, 48, 48], [16, 64, 128], [63, 72, 501]]);
    }

    #[test]
    fn gates_come_before_their_ups() {
        let columns = Columns::new((200, Epilogue::SiluMul), PANEL, 0);
        let part = |panel, columns| Part { panel, columns };
        assert_eq!(columns.parts(), [part(0, 0..64), part(1, 36..64), part(2, 0..36)]);
        let columns = Columns::new((512, Epilogue::SiluMul), GROUP, 1);
        assert_eq!(columns.parts(), [2, 3, 6, 7].map(|panel| part(panel, 0..64)));
    }
}
