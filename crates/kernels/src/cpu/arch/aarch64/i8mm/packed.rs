//! Products of many rows with packed weights with `usmmla`. [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! The instruction multiplies two columns of 8 values along K by two rows of 8 values: twice the products of `sdot`.
//! For that, quads of 4 columns are joined in pairs, once for all rows of a chunk. A group of a tile of R rows is
//! `[16][R][8]` here. Weights are used as they are stored, unsigned and 128 too large, and sums start at `-128 Σ q`.

use super::usmmla;
use crate::cpu::arch::aarch64::neon::math::LANES;
use crate::cpu::arch::aarch64::neon::packed::{
    PANEL_REGISTERS, REGISTER, STEP, accumulate, add_q4_outliers, add_q8_outliers, column_scales,
    each_q4_oct, quantize,
};
use crate::cpu::table::activations::{self, QuantizedRows, TileGroup};
use crate::cpu::table::packed::{PackedKernels, Panel, SWEEP_BYTES, Sums};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, ZERO};
use std::arch::aarch64::*;
use std::ops::Range;

/// The kernels.
pub(super) const KERNELS: PackedKernels = PackedKernels {
    quantize: quantize::<OCT>,
    q8,
    q4,
    unpack_q4: None,
    tile_rows: TILE_ROWS,
    chunk_rows: CHUNK_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Number of rows from which these kernels are used: up to six rows, `sdot` multiplies a block as it is stored.
pub(super) const ROWS_MIN: usize = activations::TILE_ROWS + 1;
/// Rows of a tile: four pairs by four pairs of columns are 16 sums; with a step's weights and activations they take
/// 24 registers.
const TILE_ROWS: usize = 8;
/// Six tiles, which share the joining of a block: the sums of 48 x 64 f32 are 12 KB, the block 8 KB and the
/// activations of a group 8 KB, in an L1 cache of 64 KB.
const CHUNK_ROWS: usize = 6 * TILE_ROWS;
/// Registers of 4 columns per tile.
const COLS: usize = 2;
/// Values along K per instruction.
const OCT: usize = 2 * QUAD;
/// Octs (8 values along K) in a group.
const OCTS: usize = GROUP / OCT;

/// A block's values, as in a q8 block but joined to `[16][64][8]`.
#[repr(C, align(64))]
struct Joined([u8; PANEL * GROUP]);

#[target_feature(enable = "neon,i8mm")]
fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let mut joined = Joined([0; PANEL * GROUP]);
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        join(&block[SCALE_BYTES..], &mut joined);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            tile_product(block, &joined, tile, y);
            add_q8_outliers(block, tile, y);
        }
    }
}

#[target_feature(enable = "neon,i8mm")]
fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let mut joined = Joined([0; PANEL * GROUP]);
    for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
        unpack(block, &mut joined);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            tile_product(block, &joined, tile, y);
            add_q4_outliers(block, tile, y);
        }
    }
}

/// Writes two quads of 4 columns as 8 values of each column.
///
/// # Safety
/// 32 bytes must be writable at `out`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_joined(first: uint8x16_t, second: uint8x16_t, out: *mut u8) {
    let (first, second) = (vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second));
    // SAFETY: twice 16 bytes, by the caller's promise; the stores need no alignment.
    unsafe {
        vst1q_u32(out.cast(), vzip1q_u32(first, second));
        vst1q_u32(out.add(REGISTER).cast(), vzip2q_u32(first, second));
    }
}

/// Joins the quads of the values of a q8 block.
#[inline]
#[target_feature(enable = "neon")]
fn join(values: &[u8], out: &mut Joined) {
    assert!(values.len() == PANEL * GROUP);
    let (values, out) = (values.as_ptr(), out.0.as_mut_ptr());
    for oct in 0..OCTS {
        for j in 0..PANEL_REGISTERS {
            // SAFETY: oct < 16 and j < 16: 16 bytes of each of two steps of 256 are read, 32 of 512 written.
            unsafe {
                let from = values.add(2 * oct * STEP + j * REGISTER);
                let to = out.add(2 * (oct * STEP + j * REGISTER));
                store_joined(vld1q_u8(from), vld1q_u8(from.add(STEP)), to);
            }
        }
    }
}

/// Unpacks a q4 block, and joins the quads of the resulting q8 values.
#[inline]
#[target_feature(enable = "neon")]
fn unpack(block: &[u8], out: &mut Joined) {
    let out = out.0.as_mut_ptr();
    let turn = vdupq_n_u8(ZERO);
    each_q4_oct(block, |oct, j, [first, second]| {
        let first = veorq_u8(vreinterpretq_u8_s8(first), turn);
        let second = veorq_u8(vreinterpretq_u8_s8(second), turn);
        // SAFETY: oct < 16 and j < 16: 32 bytes of each step of 512 are written.
        unsafe { store_joined(first, second, out.add(2 * (oct * STEP + j * REGISTER))) };
    });
}

/// Calls [`product`] for the number of rows of the tile.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn tile_product(block: &[u8], joined: &Joined, tile: TileGroup<'_>, y: &mut Sums<'_>) {
    match tile.meta.len() {
        8 => product::<8, 4>(block, joined, tile, y),
        7 => product::<7, 4>(block, joined, tile, y),
        6 => product::<6, 3>(block, joined, tile, y),
        5 => product::<5, 3>(block, joined, tile, y),
        4 => product::<4, 2>(block, joined, tile, y),
        3 => product::<3, 2>(block, joined, tile, y),
        2 => product::<2, 1>(block, joined, tile, y),
        _ => product::<1, 1>(block, joined, tile, y),
    }
}

/// `y += ` the product of a block and a tile's group, without outliers: 8 columns at a time, rows in pairs. The last
/// row of an odd number is paired with itself.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn product<const ROWS: usize, const PAIRS: usize>(
    block: &[u8],
    joined: &Joined,
    tile: TileGroup<'_>,
    y: &mut Sums<'_>,
) {
    assert!(tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS && PAIRS == ROWS.div_ceil(2));
    let values = tile.values.as_ptr();
    for first in (0..PANEL_REGISTERS).step_by(COLS) {
        let weights = joined.0[2 * first * REGISTER..].as_ptr();
        // [pair of rows][pair of columns], each `[column][row]`
        let mut sums = [[vdupq_n_s32(0); 2 * COLS]; PAIRS];
        for (pair, sums) in sums.iter_mut().enumerate() {
            let [even, odd] = [2 * pair, (2 * pair + 1).min(ROWS - 1)].map(|row| tile.meta[row].offset);
            let offset = vzip1q_s32(vdupq_n_s32(even), vdupq_n_s32(odd));
            sums.iter_mut().for_each(|sum| *sum = offset);
        }
        for oct in 0..OCTS {
            let mut w = [vdupq_n_u8(0); 2 * COLS];
            for (j, w) in w.iter_mut().enumerate() {
                // SAFETY: oct < 16 and j < 4: 64 bytes from column 4 first on, within the step's 512.
                *w = unsafe { vld1q_u8(weights.add(2 * oct * STEP + j * REGISTER)) };
            }
            for (pair, sums) in sums.iter_mut().enumerate() {
                // SAFETY: oct * ROWS + 2 pair + 1 < 16 ROWS, the octs of the values; otherwise a single row is read.
                let x = unsafe {
                    let x = values.add((oct * ROWS + 2 * pair) * OCT).cast::<i8>();
                    if 2 * pair + 1 < ROWS { vld1q_s8(x) } else { vcombine_s8(vld1_s8(x), vld1_s8(x)) }
                };
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = usmmla(*sum, w, x);
                }
            }
        }
        for j in 0..COLS {
            let scale = column_scales(block, first + j);
            let column = (first + j) * LANES;
            for (pair, sums) in sums.iter().enumerate() {
                let (low, high) = (sums[2 * j], sums[2 * j + 1]);
                let rows = [vuzp1q_s32(low, high), vuzp2q_s32(low, high)];
                for (row, sum) in (2 * pair..ROWS).zip(rows) {
                    accumulate(sum, scale, tile.meta[row].scale, &mut y.row(row)[column..]);
                }
            }
        }
    }
}
