//! Products with packed weights on AMX, whose unit of work is a tile: 16 rows of 64 bytes (Intel since Sapphire
//! Rapids). [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! `tdpbsud` multiplies 16 rows of 64 signed bytes by 64 x 16 unsigned ones. The unsigned bytes are in groups of four
//! along K, as [`crate::quant`] stores them: a block is eight such tiles in its stored layout. In 16 cycles the
//! instruction does the work of 256 `vpdpbusd`, of which only 32 would fit in that time. Converting the sums to
//! floats takes as long, so it is done while the next sums are multiplied.
//!
//! Rows of a tile are stored one after another here, `[rows][128]`, not interleaved. Few rows are left to AVX-512,
//! because their tiles would be nearly empty ([`ROWS_MIN`]).

use super::tiles::{ROW, Shapes, TILE, TileShape, Tiles};
use crate::cpu::arch::x86_64::avx512::packed::{
    self as avx512, Block, LANES, Q4_AHEAD, STEP, add_outlier, column_scales, keep, quantize_group,
    unpack_block,
};
use crate::cpu::prefetch::{LINE, fetch};
use crate::cpu::table::activations::{QuantizedRows, RowMeta, TileGroup, tile_group_mut};
use crate::cpu::table::packed::{PackedKernels, Panel, Sums};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES};
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

/// The kernels.
pub(super) const fn kernels<T: Tiles>() -> PackedKernels {
    PackedKernels {
        quantize,
        q8: q8::<T>,
        q4: q4::<T>,
        unpack_q4: Some(avx512::unpack),
        tile_rows: TILE,
        chunk_rows: CHUNK_ROWS,
        sweep_bytes: SWEEP_BYTES,
    }
}

/// Number of rows from which tiles are faster. With a weight of 3,072 x 16,384, one thread does 88 G operations/s for
/// 4 rows and 280 for 16 rows, where AVX-512 does 115 and 315.
pub(super) const ROWS_MIN: usize = TILE + 1;
/// Four tiles: their sums, 64 x 64 f32, are 16 KB of the 48 KB of the L1 cache.
const CHUNK_ROWS: usize = 4 * TILE;
/// Half of the L2 cache of 2 MB, so that the activations stay there together with the panel that they are multiplied
/// with. The L3 cache of these processors delivers some 10 bytes per cycle to a core, and 32 rows of a group are 5 KB
/// in 300 cycles.
const SWEEP_BYTES: usize = 1 << 20;
/// Number of buffers for unpacked q4 blocks, of 8 KB. With two, a step of one block is multiplied while the last step
/// of the block before is converted to floats.
const UNPACKED: usize = 2;
/// Sums of a step: two tiles of rows by two of columns.
const SUMS: usize = 4 * TILE * TILE;

/// See [`PackedKernels::quantize`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantize(x: &[f32], k: usize, tile: &mut [u8]) {
    let rows = x.len() / k;
    for group in 0..k.div_ceil(GROUP) {
        let (values, meta) = tile_group_mut(tile, rows, group);
        let columns = group * GROUP..k.min((group + 1) * GROUP);
        for ((x, meta), out) in x.chunks_exact(k).zip(meta).zip(values.chunks_exact_mut(GROUP)) {
            fetch(&x[columns.end..k.min(columns.end + GROUP)]);
            let (bytes, plan) = quantize_group(&x[columns.clone()]);
            *meta = plan;
            for (bytes, out) in bytes.into_iter().zip(out.chunks_exact_mut(LINE)) {
                // SAFETY: 64 bytes are written to 64.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes) };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn q8<T: Tiles>(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    let (mut sums, mut registers) = ([StepSums::ZERO; 2], Registers::<T>::new());
    let mut pipeline = Pipeline::new(&mut sums, &mut registers);
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        let next = panel.next_block(group, Q8_BLOCK);
        pipeline.block(Fetching { block, next: Some(next) }, x, rows.clone(), group, y);
    }
    pipeline.finish(y);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn q4<T: Tiles>(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    let (mut sums, mut registers) = ([StepSums::ZERO; 2], Registers::<T>::new());
    let mut unpacked = [const { Block([0; Q8_BLOCK]) }; UNPACKED];
    for (i, blocks) in panel.bytes.chunks(UNPACKED * Q4_BLOCK).enumerate() {
        let blocks = || (UNPACKED * i..).zip(blocks.chunks_exact(Q4_BLOCK));
        for ((group, block), unpacked) in blocks().zip(&mut unpacked) {
            unpack_block(block, panel.ahead(group + Q4_AHEAD, Q4_BLOCK), &mut unpacked.0);
        }
        let mut pipeline = Pipeline::new(&mut sums, &mut registers);
        for ((group, _), unpacked) in blocks().zip(&unpacked) {
            pipeline.block(Fetching { block: &unpacked.0, next: None }, x, rows.clone(), group, y);
        }
        pipeline.finish(y);
    }
}

/// Returns the shapes for two tiles with the given numbers of rows: registers 0 to 3 hold sums, 4 and 5 rows of the
/// two tiles, 6 and 7 weights.
fn shapes([first, second]: [usize; 2]) -> Shapes {
    let rows = [first, first, second, second, first, second, TILE, TILE];
    Shapes::new(rows.map(|rows| TileShape { rows, ..TileShape::FULL }))
}

/// A step whose sums have been multiplied but not yet added.
struct Step<'a> {
    block: &'a [u8],
    tiles: [TileGroup<'a>; 2],
    /// First row, within y.
    row: usize,
    /// Which half of the 64 columns: 32 each.
    half: usize,
    keep: __mmask16,
}

/// The sums of a step, `[2 tiles of rows][2 of columns][16][16]`.
#[repr(C, align(64))]
struct StepSums([i32; SUMS]);

impl StepSums {
    const ZERO: Self = Self([0; SUMS]);
}

/// A q8 block to multiply, and the address of the block of the next panel, which is prefetched meanwhile.
struct Fetching<'a> {
    block: &'a [u8],
    next: Option<*const u8>,
}

/// The tile registers, which are released on drop.
struct Registers<T: Tiles> {
    /// Numbers of rows of the two tiles that the registers are configured for.
    shape: [usize; 2],
    tiles: PhantomData<T>,
}

impl<T: Tiles> Registers<T> {
    fn new() -> Self {
        Self { shape: [0; 2], tiles: PhantomData }
    }

    /// Configures the registers for tiles with these numbers of rows, unless they already are.
    #[inline(always)]
    fn fit(&mut self, shape: [usize; 2]) {
        if shape != self.shape {
            // SAFETY: this level has the instruction.
            unsafe { T::configure(&shapes(shape)) };
            self.shape = shape;
        }
    }
}

impl<T: Tiles> Drop for Registers<T> {
    fn drop(&mut self) {
        // SAFETY: this level has the instruction.
        unsafe { T::release() };
    }
}

/// Multiplies one step while the sums of the step before it are converted to floats.
struct Pipeline<'a, T: Tiles> {
    sums: &'a mut [StepSums; 2],
    registers: &'a mut Registers<T>,
    /// Which of `sums` holds the sums of `pending`.
    at: usize,
    pending: Option<Step<'a>>,
}

impl<'a, T: Tiles> Pipeline<'a, T> {
    /// Creates a pipeline that keeps its sums in `sums`, whose previous contents do not matter.
    fn new(sums: &'a mut [StepSums; 2], registers: &'a mut Registers<T>) -> Self {
        Self { sums, registers, at: 0, pending: None }
    }

    /// `y += ` the product of a block and group `group` of some rows, except the last step.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn block(
        &mut self,
        Fetching { block, next }: Fetching<'a>,
        x: &QuantizedRows<'a>,
        rows: Range<usize>,
        group: usize,
        y: &mut Sums<'_>,
    ) {
        for first in rows.clone().step_by(2 * TILE) {
            let second = first + TILE;
            let tiles = [
                x.tile_group(first, group),
                if second < rows.end { x.tile_group(second, group) } else { TileGroup::EMPTY },
            ];
            for half in 0..2 {
                let step = Step { block, tiles, row: first - rows.start, half, keep: keep(group) };
                let next = next.filter(|_| first == rows.start);
                self.advance(step, next.map(|next| next.wrapping_add(half * HALF_FETCH)), y);
            }
        }
    }

    /// Multiplies a step while the sums of the step before it are added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn advance(&mut self, step: Step<'a>, next: Option<*const u8>, y: &mut Sums<'_>) {
        let shape = step.tiles.map(|tile| tile.meta.len());
        self.registers.fit(shape);
        let [first, second] = step.tiles;
        assert!(first.values.len() == shape[0] * GROUP && second.values.len() == shape[1] * GROUP);
        assert!(step.block.len() == Q8_BLOCK && step.half < 2);
        let [done, open] = &mut *self.sums;
        let (done, open) = if self.at == 0 { (done, open) } else { (open, done) };
        let at = Addresses {
            first: first.values.as_ptr(),
            second: second.values.as_ptr(),
            weights: step.block[SCALE_BYTES + step.half * 2 * LINE..].as_ptr(),
            out: open.0.as_mut_ptr(),
        };
        let before = self.pending.take().map(|before| (Added::new(&before, done, y), before));
        // SAFETY: of the values, as many rows of 128 bytes are read, in two halves, as the registers have and the
        // values hold. Of the weights, two times 16 rows of 64 and 64 bytes are read, 256 apart, the last at 31 * 256
        // + 192. Written are up to four times 16 rows of 64 bytes, which are the sums.
        unsafe {
            match &before {
                Some((added, before)) if before.is_full() && shape == [TILE; 2] => {
                    two_tiles::<T>(&at, |piece| {
                        added.piece(piece);
                        if let Some(next) = next {
                            fetch_lines(next.wrapping_add(piece * PIECE_FETCH));
                        }
                    });
                }
                Some((added, before)) => {
                    added.all(before);
                    multiply::<T>(&at, shape);
                }
                None => multiply::<T>(&at, shape),
            }
        }
        if let Some((_, before)) = before {
            before.outliers(y);
        }
        self.pending = Some(step);
        self.at = 1 - self.at;
    }

    /// Adds the sums of the last step.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn finish(&mut self, y: &mut Sums<'_>) {
        if let Some(step) = self.pending.take() {
            Added::new(&step, &self.sums[self.at], y).all(&step);
            step.outliers(y);
        }
    }
}

/// The addresses that the tile instructions of a step read and write.
struct Addresses {
    first: *const u8,
    second: *const u8,
    weights: *const u8,
    out: *mut i32,
}

/// Number of pieces that a step's instructions are cut into. The processor looks only one or two pieces ahead, so the
/// code alternates between tile instructions and the sums of the step before. (Measured in the L1 cache: 103 ns per
/// step; 171 ns one after the other, of which the tiles alone take 81.)
const PIECES: usize = 8;
/// Rows of the step before that are added with each piece.
const PIECE_ROWS: usize = 2 * TILE / PIECES;
/// Bytes of a block that each piece of its group's first two steps prefetches, in whole cache lines.
const PIECE_FETCH: usize = Q8_BLOCK.div_ceil(2 * PIECES * LINE) * LINE;
const HALF_FETCH: usize = PIECES * PIECE_FETCH;
/// Bytes from the rows of the first 64 bytes along K of a block to those of the second 64.
const HALF_BLOCK: usize = ROW / QUAD * STEP;

/// Runs a step of two tiles, and calls `piece` after each piece.
///
/// # Safety
/// Same as for [`Pipeline::advance`].
#[inline(always)]
unsafe fn two_tiles<T: Tiles>(at: &Addresses, piece: impl Fn(usize)) {
    let out = at.out.cast::<u8>();
    // SAFETY: by the caller's promise.
    unsafe {
        T::zero::<0>();
        T::zero::<1>();
        T::load::<4, 0>(at.first, GROUP);
        T::load::<6, 0>(at.weights, STEP);
        T::dot_bytes::<0, 4, 6>();
        piece(0);
        T::zero::<2>();
        T::zero::<3>();
        T::load::<7, ROW>(at.weights, STEP);
        T::dot_bytes::<1, 4, 7>();
        piece(1);
        T::load::<5, 0>(at.second, GROUP);
        T::dot_bytes::<2, 5, 6>();
        piece(2);
        T::dot_bytes::<3, 5, 7>();
        T::load::<4, ROW>(at.first, GROUP);
        piece(3);
        T::load::<6, HALF_BLOCK>(at.weights, STEP);
        T::dot_bytes::<0, 4, 6>();
        T::store::<0, 0>(out, LINE);
        piece(4);
        T::load::<7, { HALF_BLOCK + ROW }>(at.weights, STEP);
        T::dot_bytes::<1, 4, 7>();
        T::store::<1, 1024>(out, LINE);
        piece(5);
        T::load::<5, ROW>(at.second, GROUP);
        T::dot_bytes::<2, 5, 6>();
        T::store::<2, 2048>(out, LINE);
        piece(6);
        T::dot_bytes::<3, 5, 7>();
        T::store::<3, 3072>(out, LINE);
        piece(7);
    }
}

/// Prefetches a piece's share of a block into the L2 cache.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch_lines(start: *const u8) {
    for at in (0..PIECE_FETCH).step_by(LINE) {
        _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(at).cast());
    }
}

/// Runs a step of one or two tiles without other work in between.
///
/// # Safety
/// Same as for [`Pipeline::advance`].
unsafe fn multiply<T: Tiles>(at: &Addresses, shape: [usize; 2]) {
    let out = at.out.cast::<u8>();
    // SAFETY: by the caller's promise.
    unsafe {
        if shape[1] > 0 {
            return two_tiles::<T>(at, |_| {});
        }
        T::zero::<0>();
        T::zero::<1>();
        T::load::<4, 0>(at.first, GROUP);
        T::load::<6, 0>(at.weights, STEP);
        T::dot_bytes::<0, 4, 6>();
        T::load::<7, ROW>(at.weights, STEP);
        T::dot_bytes::<1, 4, 7>();
        T::load::<4, ROW>(at.first, GROUP);
        T::load::<6, HALF_BLOCK>(at.weights, STEP);
        T::dot_bytes::<0, 4, 6>();
        T::store::<0, 0>(out, LINE);
        T::load::<7, { HALF_BLOCK + ROW }>(at.weights, STEP);
        T::dot_bytes::<1, 4, 7>();
        T::store::<1, 1024>(out, LINE);
    }
}

/// Registers per 32 columns of a step.
const STEP_COLS: usize = PANEL / LANES / 2;

impl Step<'_> {
    fn is_full(&self) -> bool {
        self.tiles.iter().all(|tile| tile.meta.len() == TILE)
    }

    /// `y += ` the outliers, after all rows have their sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn outliers(&self, y: &mut Sums<'_>) {
        let columns = self.half * STEP_COLS..(self.half + 1) * STEP_COLS;
        for (i, tile) in self.tiles.iter().enumerate() {
            for (row, place, outlier) in tile.outliers() {
                let y = y.row(self.row + i * TILE + row);
                add_outlier(self.block, columns.clone(), place, outlier, y);
            }
        }
    }
}

/// A step whose sums are being added. It holds raw pointers because every instruction besides those of the tiles
/// counts.
struct Added<'a> {
    metas: [*const RowMeta; 2],
    /// Sums of four tiles, `[2][2][16][16]`.
    sums: *const i32,
    /// The first of the step's 32 columns in its first row; `stride` is the distance to the next row, in values.
    y: *mut f32,
    stride: usize,
    keep: __mmask16,
    scales: [__m512; STEP_COLS],
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> Added<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(step: &Step<'a>, sums: &'a StepSums, y: &'a mut Sums<'_>) -> Self {
        let rows: usize = step.tiles.iter().map(|tile| tile.meta.len()).sum();
        assert!(rows > 0 && y.values.len() >= (step.row + rows - 1) * y.stride + PANEL && step.half < 2);
        Self {
            metas: step.tiles.map(|tile| tile.meta.as_ptr()),
            sums: sums.0.as_ptr(),
            y: y.values[step.row * y.stride + step.half * STEP_COLS * LANES..].as_mut_ptr(),
            stride: y.stride,
            keep: step.keep,
            scales: std::array::from_fn(|j| column_scales(step.block, step.half * STEP_COLS + j)),
            lifetime: PhantomData,
        }
    }

    /// `y += ` the scaled sums of a row of a tile.
    ///
    /// # Safety
    /// The step must have the row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn row(&self, tile: usize, row: usize) {
        // SAFETY: a tile has a meta for each of its rows, and 16 rows of 16 sums for each 16 columns; y was checked
        // to reach to the last column of the step's last row.
        unsafe {
            let meta = &*self.metas[tile].add(row);
            let offset = _mm512_set1_epi32(meta.offset);
            let scale = _mm512_set1_ps(meta.scale);
            for (j, columns) in self.scales.into_iter().enumerate() {
                let sums = self.sums.add(((tile * STEP_COLS + j) * TILE + row) * TILE);
                let y = self.y.add((tile * TILE + row) * self.stride + j * LANES);
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(sums.cast()), offset));
                let before = _mm512_maskz_loadu_ps(self.keep, y);
                _mm512_storeu_ps(y, _mm512_fmadd_ps(_mm512_mul_ps(sum, columns), scale, before));
            }
        }
    }

    /// Adds the rows of piece `piece` of two full tiles.
    ///
    /// # Safety
    /// The step must be full.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn piece(&self, piece: usize) {
        for row in piece * PIECE_ROWS..(piece + 1) * PIECE_ROWS {
            // SAFETY: two tiles have 32 rows.
            unsafe { self.row(row / TILE, row % TILE) };
        }
    }

    /// Adds all rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn all(&self, step: &Step<'_>) {
        for (tile, group) in step.tiles.iter().enumerate() {
            for row in 0..group.meta.len() {
                // SAFETY: the step has the row.
                unsafe { self.row(tile, row) };
            }
        }
    }
}
