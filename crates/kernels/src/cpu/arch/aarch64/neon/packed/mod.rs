//! Products with packed weights. [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! Without a dot product of bytes, `smull` and `smlal` multiply eight pairs into 16 bits each:
//!
//! - q8: stored bytes are 128 too large; with the highest bit flipped they are signed. Two products fit 16 bits,
//!   because 2 * 128 * 127 < 2^15; `sadalp` then adds pairs of lanes in 32 bits: 32 products in six instructions.
//! - q4: nibbles are small. A 16-bit lane takes all products of a subgroup, at most 8 * 15 * 127, before it is
//!   widened. q4 is therefore computed from its nibbles.

mod q4;
mod q8;
mod quantize;

pub(crate) use quantize::quantize;

use super::load::bf16_lanes;
use super::math::LANES;
use crate::cpu::table::activations::{TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{PackedKernels, SWEEP_BYTES, Sums};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, QUAD, SCALE_BYTES, SUB_SCALE_BYTES, SUBGROUP, ZERO, ZERO_NIBBLE};
pub(crate) use q4::nibbles;
use q4::scaled_nibbles;
use std::arch::aarch64::*;

/// The kernels.
pub(crate) const KERNELS: PackedKernels = PackedKernels {
    quantize: quantize::<QUAD>,
    q8: q8::q8,
    q4: q4::q4,
    unpack_q4: None,
    tile_rows: TILE_ROWS,
    chunk_rows: CHUNK_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Three tiles: the sums of 18 x 64 f32 are 4.6 KB, next to a q8 block of 8 KB, in an L1 cache of at least 32 KB.
const CHUNK_ROWS: usize = 3 * TILE_ROWS;

/// Registers per 64 columns of a panel; each holds a quad of four columns.
pub(crate) const PANEL_REGISTERS: usize = PANEL / LANES;
/// Bytes of a register.
pub(crate) const REGISTER: usize = 16;
/// Bytes of four values along K of a panel's columns.
pub(crate) const STEP: usize = PANEL * QUAD;
/// Quads (four values along K) in a group.
pub(crate) const QUADS: usize = GROUP / QUAD;
/// Subgroups of a group.
pub(crate) const SUBGROUPS: usize = GROUP / SUBGROUP;
/// Steps of 8 values along K in a subgroup: a q4 register holds those of four columns.
pub(crate) const SUB_OCTS: usize = SUBGROUP / (2 * QUAD);
/// Bytes of a q4 block before its values.
pub(crate) const HEAD_BYTES: usize = SCALE_BYTES + SUB_SCALE_BYTES;

/// `y = fma(f32(sum) * column_scale, row_scale, y)` for 4 columns.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn accumulate(sum: int32x4_t, column_scale: float32x4_t, row_scale: f32, y: &mut [f32]) {
    let y: &mut [f32; LANES] = y.first_chunk_mut().expect("y holds 64 columns of the row");
    let scaled = vmulq_f32(vcvtq_f32_s32(sum), column_scale);
    // SAFETY: y has 4 values.
    unsafe { vst1q_f32(y.as_mut_ptr(), vfmaq_n_f32(vld1q_f32(y.as_ptr()), scaled, row_scale)) };
}

/// Returns the scales of the columns `4 j..` of a block.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn column_scales(block: &[u8], j: usize) -> float32x4_t {
    let bits: &[u8; 2 * LANES] = block[j * 2 * LANES..].first_chunk().expect("a block begins with 64 scales");
    // SAFETY: 8 bytes are read from an array of 8; the load needs no alignment.
    bf16_lanes(unsafe { vld1_u16(bits.as_ptr().cast()) })
}

/// Returns the sub-scales of the columns `4 j..` for subgroup `subgroup`, one per lane.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn column_sub_scales(block: &[u8], j: usize, subgroup: usize) -> int32x4_t {
    let at = SCALE_BYTES + subgroup / 2 * PANEL + j * LANES;
    let pairs: [u8; LANES] = *block[at..].first_chunk().expect("a q4 block has 128 bytes of sub-scales");
    let nibbles = (u32::from_le_bytes(pairs) >> (subgroup % 2 * 4)) & 0x0f0f_0f0f;
    let lanes = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(nibbles)))));
    vreinterpretq_s32_u32(lanes)
}

/// Calls `store(oct, j, quads)` with all values of a q4 block as signed bytes, `(v - 8) s`, within -120..=105.
/// `quads` are the two quads of step `oct` of the columns `4 j..`.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn each_q4_oct(block: &[u8], mut store: impl FnMut(usize, usize, [int8x16_t; 2])) {
    assert!(block.len() == Q4_BLOCK);
    let weights = block[HEAD_BYTES..].as_ptr();
    for subgroup in 0..SUBGROUPS {
        for j in 0..PANEL_REGISTERS {
            // each of a register's four columns has its sub-scale in all four bytes
            let s = vmulq_s32(column_sub_scales(block, j, subgroup), vdupq_n_s32(0x0101_0101));
            for oct in subgroup * SUB_OCTS..(subgroup + 1) * SUB_OCTS {
                // SAFETY: oct < 16 and j < 16: 16 bytes of each step of 256 are read.
                let bytes = unsafe { vld1q_u8(weights.add(oct * STEP + j * REGISTER)) };
                store(oct, j, scaled_nibbles(bytes, vreinterpretq_s8_s32(s)));
            }
        }
    }
}

/// Broadcasts a quad of a tile to all lanes.
///
/// # Safety
/// `values` must have quad `index`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn broadcast_quad(values: *const u8, index: usize) -> int8x16_t {
    // SAFETY: by the caller's promise; the load needs no alignment.
    let quad = unsafe { values.add(index * QUAD).cast::<i32>().read_unaligned() };
    vreinterpretq_s8_s32(vdupq_n_s32(quad))
}

/// `y += ` the outliers of a tile's group times their weights, by calling `add_outlier(place, outlier, row of y)`.
#[inline(always)]
fn each_outlier(tile: TileGroup<'_>, y: &mut Sums<'_>, add_outlier: impl Fn(usize, f32, &mut [f32])) {
    for (row, place, outlier) in tile.outliers() {
        add_outlier(place, outlier, y.row(row));
    }
}

/// `y += ` the outliers of a tile's group times their weights in a q8 block.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add_q8_outliers(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    each_outlier(tile, y, |place, outlier, y| {
        for j in 0..PANEL_REGISTERS {
            let at = SCALE_BYTES + place / QUAD * STEP + j * REGISTER;
            let stored = lane_bytes(&block[at..], 8 * (place % QUAD), 255);
            accumulate(
                vsubq_s32(stored, vdupq_n_s32(ZERO.into())),
                column_scales(block, j),
                outlier,
                &mut y[j * LANES..],
            );
        }
    });
}

/// `y += ` the outliers of a tile's group times their weights in a q4 block.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add_q4_outliers(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    each_outlier(tile, y, |place, outlier, y| {
        for j in 0..PANEL_REGISTERS {
            let at = HEAD_BYTES + place / (2 * QUAD) * STEP + j * REGISTER;
            let stored = lane_bytes(&block[at..], place % QUAD * 8 + place / QUAD % 2 * 4, 15);
            let q = vsubq_s32(stored, vdupq_n_s32(ZERO_NIBBLE.into()));
            let q = vmulq_s32(q, column_sub_scales(block, j, place / SUBGROUP));
            accumulate(q, column_scales(block, j), outlier, &mut y[j * LANES..]);
        }
    });
}

/// Shifts the first four words of a part of a block right by `shift` bits, and returns their bits `mask`.
#[inline]
#[target_feature(enable = "neon")]
fn lane_bytes(words: &[u8], shift: usize, mask: i32) -> int32x4_t {
    let words: &[u8; REGISTER] = words.first_chunk().expect("a step has 256 bytes");
    // SAFETY: 16 bytes are read from an array of 16.
    let words = unsafe { vld1q_u8(words.as_ptr()) };
    let moved = vshlq_u32(vreinterpretq_u32_u8(words), vdupq_n_s32(-(shift as i32)));
    vandq_s32(vreinterpretq_s32_u32(moved), vdupq_n_s32(mask))
}
