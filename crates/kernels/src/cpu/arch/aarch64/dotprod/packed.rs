//! Products with packed weights with `sdot`. [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! A register of weights is a quad, four values along K, of 4 columns. `sdot` multiplies it with the quad of one row,
//! selected from a register of several, into 4 sums. Both sides are signed. Stored bytes are 128 too large, so their
//! highest bit is flipped: while they are read for up to six rows, and beforehand for more. q4 is computed from its
//! nibbles for up to six rows, and unpacked to signed bytes for more.

use crate::cpu::arch::aarch64::neon::math::LANES;
use crate::cpu::arch::aarch64::neon::packed::{
    HEAD_BYTES, PANEL_REGISTERS, QUADS, REGISTER, STEP, SUB_OCTS, SUBGROUPS, accumulate, add_q4_outliers,
    add_q8_outliers, column_scales, column_sub_scales, each_q4_oct, nibbles, quantize,
};
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{PackedKernels, Panel, SWEEP_BYTES, Sums, by_rows};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, ZERO, ZERO_NIBBLE};
use std::arch::aarch64::*;
use std::ops::Range;

/// The kernels.
pub(crate) const KERNELS: PackedKernels = PackedKernels {
    quantize: quantize::<QUAD>,
    q8,
    q4,
    unpack_q4: None,
    tile_rows: TILE_ROWS,
    chunk_rows: CHUNK_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Eight tiles, which share the conversion to signed bytes: the sums of 48 x 64 f32 are 12 KB, the block 8 KB and the
/// activations of a group 8 KB, in an L1 cache of 64 KB.
const CHUNK_ROWS: usize = 8 * TILE_ROWS;
instruction! {
    /// `sum[c] += Σ w[4 c + i] x[4 LANE + i]`: four columns, four values along K.
    fn sdot<LANE>, "neon,dotprod", "sdot {sum:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]", (int32x4_t, int8x16_t, int8x16_t)
}

/// A block's values as signed bytes, `[32][64][4]`.
#[repr(C, align(64))]
struct Signed([u8; PANEL * GROUP]);

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let blocks = panel.bytes.chunks_exact(Q8_BLOCK).enumerate();
    if rows.len() <= TILE_ROWS {
        return blocks.for_each(|(group, block)| {
            let (tile, values) = (x.tile_group(rows.start, group), &block[SCALE_BYTES..]);
            by_rows!(tile.meta.len(), stored_product(block, values, tile, y));
            add_q8_outliers(block, tile, y);
        });
    }
    let mut signed = Signed([0; PANEL * GROUP]);
    for (group, block) in blocks {
        turn(&block[SCALE_BYTES..], &mut signed);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), signed_product(block, &signed.0, tile, y));
            add_q8_outliers(block, tile, y);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let blocks = panel.bytes.chunks_exact(Q4_BLOCK).enumerate();
    if rows.len() <= TILE_ROWS {
        return blocks.for_each(|(group, block)| {
            let tile = x.tile_group(rows.start, group);
            by_rows!(tile.meta.len(), q4_product(block, tile, y));
            add_q4_outliers(block, tile, y);
        });
    }
    let mut signed = Signed([0; PANEL * GROUP]);
    for (group, block) in blocks {
        unpack(block, &mut signed);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), signed_product(block, &signed.0, tile, y));
            add_q4_outliers(block, tile, y);
        }
    }
}

/// Converts stored bytes to signed ones.
#[inline]
#[target_feature(enable = "neon")]
fn turn(values: &[u8], out: &mut Signed) {
    for (from, to) in values.as_chunks::<REGISTER>().0.iter().zip(out.0.as_chunks_mut::<REGISTER>().0) {
        // SAFETY: 16 bytes are read from an array of 16 and written to another.
        unsafe { vst1q_u8(to.as_mut_ptr(), veorq_u8(vld1q_u8(from.as_ptr()), vdupq_n_u8(ZERO))) };
    }
}

/// Unpacks a q4 block to signed bytes.
#[inline]
#[target_feature(enable = "neon")]
fn unpack(block: &[u8], out: &mut Signed) {
    let out = out.0.as_mut_ptr();
    each_q4_oct(block, |oct, j, [first, second]| {
        // SAFETY: oct < 16 and j < 16: 16 bytes of each of two steps of 256 are written.
        unsafe {
            let to = out.add(2 * oct * STEP + j * REGISTER);
            vst1q_s8(to.cast(), first);
            vst1q_s8(to.add(STEP).cast(), second);
        }
    });
}

/// Returns quad `index` of each row of a tile, in two registers: rows 0 to 3, and 4 and 5.
///
/// # Safety
/// `values` must have quad `index` of `ROWS` rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn row_quads<const ROWS: usize>(values: *const u8, index: usize) -> [int8x16_t; 2] {
    let mut quads = [vdupq_n_s32(0); 2];
    // SAFETY: as many quads are read as there are rows, by the caller's promise; loads need no alignment.
    unsafe {
        let from = values.add(index * ROWS * QUAD).cast::<i32>();
        let pair = |at: usize| vreinterpret_s32_u8(vld1_u8(from.add(at).cast()));
        let one = |at: usize| vset_lane_s32::<0>(from.add(at).read_unaligned(), vdup_n_s32(0));
        let zero = vdup_n_s32(0);
        match ROWS {
            1 => quads[0] = vcombine_s32(one(0), zero),
            2 => quads[0] = vcombine_s32(pair(0), zero),
            3 => quads[0] = vcombine_s32(pair(0), one(2)),
            _ => quads[0] = vreinterpretq_s32_u8(vld1q_u8(from.cast())),
        }
        match ROWS {
            5 => quads[1] = vcombine_s32(one(4), zero),
            6 => quads[1] = vcombine_s32(pair(4), zero),
            _ => {}
        }
    }
    [vreinterpretq_s8_s32(quads[0]), vreinterpretq_s8_s32(quads[1])]
}

/// `sums[row] += w · ` the quad of each row.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_quads<const ROWS: usize>(sums: &mut [int32x4_t; ROWS], w: int8x16_t, x: [int8x16_t; 2]) {
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum = match row {
            0 => sdot::<0>(*sum, w, x[0]),
            1 => sdot::<1>(*sum, w, x[0]),
            2 => sdot::<2>(*sum, w, x[0]),
            3 => sdot::<3>(*sum, w, x[0]),
            4 => sdot::<0>(*sum, w, x[1]),
            _ => sdot::<1>(*sum, w, x[1]),
        };
    }
}

/// Same as [`product`], for stored bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn stored_product<const ROWS: usize>(block: &[u8], weights: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    match ROWS {
        1 => product::<1, 16, ZERO>(block, weights, tile, y),
        2 => product::<2, 8, ZERO>(block, weights, tile, y),
        _ => product::<ROWS, 4, ZERO>(block, weights, tile, y),
    }
}

/// Same as [`product`], for signed bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn signed_product<const ROWS: usize>(block: &[u8], weights: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    match ROWS {
        1 => product::<1, 16, 0>(block, weights, tile, y),
        2 => product::<2, 8, 0>(block, weights, tile, y),
        _ => product::<ROWS, 4, 0>(block, weights, tile, y),
    }
}

/// Calls [`q4_columns`] with the number of columns that suits `ROWS`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn q4_product<const ROWS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    match ROWS {
        1 => q4_columns::<1, 8>(block, tile, y),
        2 => q4_columns::<2, 4>(block, tile, y),
        _ => q4_columns::<ROWS, 2>(block, tile, y),
    }
}

/// `y += ` the product of a block's values and a tile's group, without outliers. The values are `[32][64][4]`; their
/// bits `TURNED` are flipped first. `COLS` registers of columns are computed at a time. Six rows by 4 are 24 sums;
/// with the weights and two registers of activations they take 30 of 32 registers. A single row takes all columns,
/// and so reads its block in order.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn product<const ROWS: usize, const COLS: usize, const TURNED: u8>(
    block: &[u8],
    weights: &[u8],
    tile: TileGroup<'_>,
    y: &mut Sums<'_>,
) {
    assert!(weights.len() == PANEL * GROUP && tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr();
    for first in (0..PANEL_REGISTERS).step_by(COLS) {
        let weights = weights[first * REGISTER..].as_ptr();
        let mut sums = [[vdupq_n_s32(0); ROWS]; COLS];
        for quad in 0..QUADS {
            // SAFETY: quad < 32: as many quads as each row of the tile has.
            let x = unsafe { row_quads::<ROWS>(values, quad) };
            for (j, sums) in sums.iter_mut().enumerate() {
                // SAFETY: quad < 32 and first + j < 16: 16 bytes of a step of 256, of which there are 32.
                let mut w = unsafe { vld1q_u8(weights.add(quad * STEP + j * REGISTER)) };
                if TURNED != 0 {
                    w = veorq_u8(w, vdupq_n_u8(TURNED));
                }
                add_quads(sums, vreinterpretq_s8_u8(w), x);
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            let j = first + j;
            let scale = column_scales(block, j);
            for (row, (sum, meta)) in sums.iter().zip(tile.meta).enumerate() {
                accumulate(*sum, scale, meta.scale, &mut y.row(row)[j * LANES..]);
            }
        }
    }
}

/// `y += ` the product of a q4 block and a tile's group, without outliers, `COLS` registers of columns at a time.
/// Sums of 32 products of nibbles are multiplied by the sub-scale in integers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn q4_columns<const ROWS: usize, const COLS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q4_BLOCK && tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr();
    for first in (0..PANEL_REGISTERS).step_by(COLS) {
        let weights = block[HEAD_BYTES + first * REGISTER..].as_ptr();
        let mut total = [[vdupq_n_s32(0); ROWS]; COLS];
        for subgroup in 0..SUBGROUPS {
            let mut sums = [[vdupq_n_s32(0); ROWS]; COLS];
            for (row, meta) in tile.meta.iter().enumerate() {
                // nibbles are 8 too large
                let offset = vdupq_n_s32(-i32::from(ZERO_NIBBLE) * i32::from(meta.sums[subgroup]));
                sums.iter_mut().for_each(|sums| sums[row] = offset);
            }
            for oct in subgroup * SUB_OCTS..(subgroup + 1) * SUB_OCTS {
                // SAFETY: oct < 16: two of the 32 quads that each row of the tile has.
                let x =
                    unsafe { [row_quads::<ROWS>(values, 2 * oct), row_quads::<ROWS>(values, 2 * oct + 1)] };
                for (j, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: oct < 16 and first + j < 16: 16 bytes of a step of 256, of which there are 16.
                    let [low, high] = nibbles(unsafe { vld1q_u8(weights.add(oct * STEP + j * REGISTER)) });
                    add_quads(sums, low, x[0]);
                    add_quads(sums, high, x[1]);
                }
            }
            for (j, (total, sums)) in total.iter_mut().zip(&sums).enumerate() {
                let scales = column_sub_scales(block, first + j, subgroup);
                for (total, sum) in total.iter_mut().zip(sums) {
                    *total = vmlaq_s32(*total, *sum, scales);
                }
            }
        }
        for (j, total) in total.iter().enumerate() {
            let j = first + j;
            let scale = column_scales(block, j);
            for (row, (total, meta)) in total.iter().zip(tile.meta).enumerate() {
                accumulate(*total, scale, meta.scale, &mut y.row(row)[j * LANES..]);
            }
        }
    }
}
