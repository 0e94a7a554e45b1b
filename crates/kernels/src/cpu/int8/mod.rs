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
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod scalar;

#[cfg(target_arch = "x86_64")]
use super::level;
use super::tensor::CpuTensor;
use super::{Cpu, CpuLevel, Scratch, ThreadScratch};
use crate::quant::{PANEL, PackedShape};
use crate::threads::SharedMut;
use crate::{BackendError, Bytes, Epilogue, Format, MatrixSource};
use activations::{QuantisedRows, TILE_ROWS};
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
    /// Quantises up to six rows, `[rows, k]`, to a tile.
    quantise: unsafe fn(x: &[f32], k: usize, tile: &mut [u8]),
    /// `y = x Wᵀ` for a q8 panel and some rows of x.
    q8: unsafe fn(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>),
    /// The same for a q4 panel and few rows, unpacking as it goes.
    q4: unsafe fn(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>),
    /// Turns a q4 panel into the q8 panel of the same values; `None` where `q4` is the fastest for many rows too.
    unpack: Option<Unpack>,
    /// Rows computed between two looks at the epilogue, whole tiles: their sums stay in L1 beside the block of weights
    /// that they all use.
    chunk_rows: usize,
}

impl Int8Kernels {
    /// The table of `level`, which this processor must have.
    fn of(level: CpuLevel) -> &'static Self {
        match level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => &avx512::KERNELS,
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

/// The panels behind the weight rows `rows`, which are at most 64.
fn parts_of(rows: &Range<usize>) -> impl Iterator<Item = Part> {
    let Range { start, end } = *rows;
    (start / PANEL..end.div_ceil(PANEL)).map(move |panel| {
        let first = panel * PANEL;
        Part { panel, columns: start.max(first) - first..end.min(first + PANEL) - first }
    })
}

/// Panels that a task needs at most.
const PARTS_MAX: usize = 3;

/// What one task computes: up to 64 columns of `out`, from one panel, or from those of gate and up, which touch a
/// third where `n/2` is no multiple of 64.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns {
    out: Range<usize>,
    parts: [Part; PARTS_MAX],
    count: usize,
}

impl Columns {
    fn new(n: usize, epilogue: Epilogue, task: usize) -> Self {
        let gated = epilogue == Epilogue::SiluMul;
        let cols = if gated { n / 2 } else { n };
        let out = task * PANEL..cols.min((task + 1) * PANEL);
        let ups = if gated { cols + out.start..cols + out.end } else { 0..0 };
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

    /// Whether the parts' columns follow each other in `[parts * 64]` sums as they shall in the output.
    fn are_gapless(&self) -> bool {
        let (last, first) = self.parts().split_last().expect("a task has a part");
        last.columns.start == 0 && first.iter().all(|part| part.columns == (0..PANEL))
    }

    /// The wanted columns out of a row of sums, `[parts * 64]`.
    fn join<'a>(&self, sums: &[f32], out: &'a mut [f32; 2 * PANEL]) -> &'a [f32] {
        let mut width = 0;
        for (part, sums) in self.parts().iter().zip(sums.chunks_exact(PANEL)) {
            let values = &sums[part.columns.clone()];
            out[width..width + values.len()].copy_from_slice(values);
            width += values.len();
        }
        &out[..width]
    }
}

/// One product on its way.
struct Product<'a> {
    kernels: &'static Int8Kernels,
    weight: &'a Packed,
    x: QuantisedRows<'a>,
    epilogue: Epilogue,
    out: SharedMut<'a, f32>,
    out_cols: usize,
}

impl Product<'_> {
    /// The panel that its thread needs after part `part` of `columns`, which are those of `panel`.
    fn after(&self, columns: &Columns, part: usize, panel: usize) -> &[u8] {
        let next = match columns.parts().get(part + 1) {
            Some(part) => part.panel,
            None => panel + 1,
        };
        self.weight.panel(next.min(self.weight.shape.panels() - 1))
    }
}

/// Panels that a task streams one after the other: enough for fetching ahead to pay, and eight tasks a thread where
/// there are so many panels, so that threads end together.
fn streamed_panels(panels: usize, threads: usize) -> usize {
    (panels / (8 * threads)).clamp(1, 8)
}

impl Cpu {
    /// The products of x by each weight; x is quantised once.
    pub(crate) fn run_packed<'a>(
        &self,
        x: &CpuTensor,
        products: impl IntoIterator<Item = (&'a Packed, &'a mut CpuTensor)>,
        epilogue: Epilogue,
    ) {
        let (rows, k) = (x.rows(), x.cols());
        let kernels = Int8Kernels::of(self.level());
        self.reserve_work::<f32>(kernels.chunk_rows * PARTS_MAX * PANEL);
        let Scratch { packed, .. } = &mut *self.scratch();
        let bytes = packed.take::<u8>(activations::bytes(rows, k));
        self.quantise(kernels, x, bytes);
        let x = QuantisedRows::new(bytes, rows, k);
        for (weight, out) in products {
            let n = weight.n();
            let out_cols = if epilogue == Epilogue::SiluMul { n / 2 } else { n };
            assert_eq!(k, weight.k(), "input columns of a [{n}, {}] matrix", weight.k());
            assert_eq!((out.rows(), out.cols()), (rows, out_cols), "output of a [{n}, {k}] matrix");
            let out = SharedMut::new(out.values_mut());
            self.run_product(&Product { kernels, weight, x, epilogue, out, out_cols });
        }
    }

    fn run_product(&self, product: &Product<'_>) {
        let Product { kernels, weight, out_cols, .. } = *product;
        let (rows, panels) = (product.x.rows(), out_cols.div_ceil(PANEL));
        if rows <= kernels.chunk_rows {
            let step = streamed_panels(panels, self.pool.threads());
            self.pool.run(panels.div_ceil(step), |task, thread| {
                for panel in task * step..panels.min((task + 1) * step) {
                    self.run_columns(product, panel, 0..rows, thread);
                }
            });
            return;
        }
        let sweep = (SWEEP_BYTES / activations::bytes(1, weight.k()))
            .next_multiple_of(kernels.chunk_rows)
            .max(kernels.chunk_rows);
        self.pool.run(panels * rows.div_ceil(sweep), |task, thread| {
            let first = task / panels * sweep;
            self.run_columns(product, task % panels, first..rows.min(first + sweep), thread);
        });
    }

    /// Quantises all rows of x, in tasks of whole tiles.
    fn quantise(&self, kernels: &'static Int8Kernels, x: &CpuTensor, out: &mut [u8]) {
        let (rows, k) = (x.rows(), x.cols());
        let out = SharedMut::new(out);
        self.pool.run(rows.div_ceil(TILE_ROWS), |tile, _| {
            let part = tile * TILE_ROWS..rows.min((tile + 1) * TILE_ROWS);
            let at = activations::bytes(part.start, k)..activations::bytes(part.end, k);
            // SAFETY: tiles are disjoint, and the table is that of a level this processor has.
            unsafe { (kernels.quantise)(&x.values()[part.start * k..part.end * k], k, out.slice(at)) };
        });
    }

    /// Computes columns `64 panel..` of `out` for the rows `rows`.
    fn run_columns(&self, product: &Product<'_>, panel: usize, rows: Range<usize>, thread: usize) {
        let columns = &Columns::new(product.weight.n(), product.epilogue, panel);
        let shape = product.weight.shape;
        let chunk_rows = product.kernels.chunk_rows;
        let unpacked =
            PackedShape::new(Format::Q8, PANEL, shape.k()).expect("no larger than the weight itself");
        // several chunks use a panel: it is unpacked once and for all of them
        let unpack =
            product.kernels.unpack.filter(|_| shape.format() == Format::Q4 && rows.len() > chunk_rows);
        let panel_bytes = unpack.map_or(0, |_| unpacked.panel_bytes());
        let mut bias = [0.0; 2 * PANEL];
        let bias = gather_bias(product.weight, columns, &mut bias);
        let stride = columns.count * PANEL;
        let mut scratch = self.thread_scratch(thread);
        let ThreadScratch { panels, work } = &mut *scratch;
        let panels = panels.take::<u8>(columns.count * panel_bytes);
        let sums = work.take::<f32>(chunk_rows * stride);
        if let Some(unpack) = unpack {
            for (part, out) in columns.parts().iter().zip(panels.chunks_exact_mut(panel_bytes)) {
                // SAFETY: the table is that of a level this processor has.
                unsafe { unpack(product.weight.panel(part.panel), out) };
            }
        }
        for first in rows.clone().step_by(chunk_rows) {
            let chunk = first..rows.end.min(first + chunk_rows);
            let sums = &mut sums[..chunk.len() * stride];
            for row in chunk.clone() {
                let at = row * product.out_cols;
                // Rows lie apart, so no processor sees the stores coming.
                // SAFETY: tasks differ in rows or in columns.
                fetch(unsafe { product.out.slice(at + columns.out.start..at + columns.out.end) });
            }
            for (i, part) in columns.parts().iter().enumerate() {
                let mut y = Sums { values: &mut sums[i * PANEL..], stride, keep: 0 };
                let stored = product.weight.panel(part.panel);
                let next = product.after(columns, i, panel);
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
            self.finish(product, columns, chunk, sums, bias);
        }
    }

    /// Writes a chunk's sums, `[rows, parts * 64]`, through the epilogue.
    fn finish(
        &self,
        product: &Product<'_>,
        columns: &Columns,
        chunk: Range<usize>,
        sums: &[f32],
        bias: &[f32],
    ) {
        let (gapless, mut joined) = (columns.are_gapless(), [0.0; 2 * PANEL]);
        for (row, sums) in chunk.zip(sums.chunks_exact(columns.count * PANEL)) {
            let y = if gapless { &sums[..bias.len()] } else { columns.join(sums, &mut joined) };
            let at = row * product.out_cols;
            // SAFETY: tasks differ in rows or in columns; the table is that of a level this processor has.
            unsafe {
                let out = product.out.slice(at + columns.out.start..at + columns.out.end);
                (self.kernels.epilogue)(product.epilogue, y, bias, out);
            }
        }
    }
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
fn gather_bias<'a>(weight: &Packed, columns: &Columns, out: &'a mut [f32; 2 * PANEL]) -> &'a [f32] {
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
            let cols = if epilogue == SiluMul { n / 2 } else { n };
            let (mut rows, mut outs) = (vec![0; n], vec![0; cols]);
            for columns in (0..cols.div_ceil(PANEL)).map(|task| Columns::new(n, epilogue, task)) {
                for part in columns.parts() {
                    part.columns.clone().for_each(|c| rows[part.panel * PANEL + c] += 1);
                }
                columns.out.for_each(|c| outs[c] += 1);
            }
            assert!(rows.iter().chain(&outs).all(|&times| times == 1), "{n} {epilogue:?}");
        }
    }

    #[test]
    fn streams_are_cut_for_all_threads() {
        // o_proj, gate_up_proj's pairs and lm_head on 2, 8 and 64 cores
        let cut = |panels: usize| [2, 8, 64].map(|threads| panels.div_ceil(streamed_panels(panels, threads)));
        assert_eq!([48, 128, 501].map(cut), [[16, 48, 48], [16, 64, 128], [63, 72, 501]]);
    }

    #[test]
    fn gates_come_before_their_ups() {
        let columns = Columns::new(200, Epilogue::SiluMul, 0);
        let part = |panel, columns| Part { panel, columns };
        assert_eq!(columns.parts(), [part(0, 0..64), part(1, 36..64), part(2, 0..36)]);
    }
}
