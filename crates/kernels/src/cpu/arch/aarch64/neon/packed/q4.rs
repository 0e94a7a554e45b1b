//! q4 with sums of nibbles in 16 bits.

use super::{
    HEAD_BYTES, PANEL_REGISTERS, REGISTER, STEP, SUB_OCTS, SUBGROUPS, accumulate, add_q4_outliers,
    broadcast_quad, column_scales, column_sub_scales,
};
use crate::cpu::arch::aarch64::neon::math::LANES;
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{Panel, Sums, by_rows};
use crate::quant::{GROUP, Q4_BLOCK, ZERO_NIBBLE};
use std::arch::aarch64::*;
use std::ops::Range;

#[target_feature(enable = "neon")]
pub(super) fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), product(block, tile, y));
            add_q4_outliers(block, tile, y);
        }
    }
}

/// `y += ` the product of a block and a tile's group, without outliers, 4 columns at a time.
#[inline]
#[target_feature(enable = "neon")]
fn product<const ROWS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q4_BLOCK && tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr();
    for j in 0..PANEL_REGISTERS {
        let weights = block[HEAD_BYTES + j * REGISTER..].as_ptr();
        let mut total = [vdupq_n_s32(0); ROWS];
        for subgroup in 0..SUBGROUPS {
            // registers of two columns each
            let mut sums = [[vdupq_n_s16(0); 2]; ROWS];
            for oct in subgroup * SUB_OCTS..(subgroup + 1) * SUB_OCTS {
                // SAFETY: oct < 16: 16 bytes of each step of 256, of which there are 16.
                let bytes = unsafe { vld1q_u8(weights.add(oct * STEP)) };
                for (i, w) in nibbles(bytes).into_iter().enumerate() {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: (2 oct + i) ROWS + row < 32 ROWS, the quads of the values.
                        let x = unsafe { broadcast_quad(values, (2 * oct + i) * ROWS + row) };
                        sums[0] = vmlal_s8(sums[0], vget_low_s8(w), vget_low_s8(x));
                        sums[1] = vmlal_high_s8(sums[1], w, x);
                    }
                }
            }
            let scales = column_sub_scales(block, j, subgroup);
            for ((total, sums), meta) in total.iter_mut().zip(sums).zip(tile.meta) {
                // nibbles are 8 too large
                let offset = vdupq_n_s32(-i32::from(ZERO_NIBBLE) * i32::from(meta.sums[subgroup]));
                let sum = vpaddq_s32(vpaddlq_s16(sums[0]), vpaddlq_s16(sums[1]));
                *total = vmlaq_s32(*total, vaddq_s32(sum, offset), scales);
            }
        }
        let scale = column_scales(block, j);
        for (row, (total, meta)) in total.into_iter().zip(tile.meta).enumerate() {
            accumulate(total, scale, meta.scale, &mut y.row(row)[j * LANES..]);
        }
    }
}

/// Returns the low and the high nibbles of a register of bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn nibbles(bytes: uint8x16_t) -> [int8x16_t; 2] {
    [vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes))]
}

/// Returns the q8 values of a q4 register of 4 columns, 8 values along K: `(v - 8) s`, the first four of each column,
/// then the others.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn scaled_nibbles(bytes: uint8x16_t, sub_scales: int8x16_t) -> [int8x16_t; 2] {
    let eight = vdupq_n_s8(ZERO_NIBBLE.cast_signed());
    let [low, high] = nibbles(bytes);
    [vmulq_s8(vsubq_s8(low, eight), sub_scales), vmulq_s8(vsubq_s8(high, eight), sub_scales)]
}
