//! q8 with `smull`, `smlal` and `sadalp`.

use super::{
    PANEL_REGISTERS, QUADS, REGISTER, STEP, accumulate, add_q8_outliers, broadcast_quad, column_scales,
};
use crate::cpu::arch::aarch64::neon::math::LANES;
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{Panel, Sums, by_rows};
use crate::quant::{GROUP, Q8_BLOCK, SCALE_BYTES, ZERO};
use std::arch::aarch64::*;
use std::ops::Range;

#[target_feature(enable = "neon")]
pub(super) fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), product(block, tile, y));
            add_q8_outliers(block, tile, y);
        }
    }
}

/// `y += ` the product of a block and a tile's group, without outliers, 4 columns at a time.
#[inline]
#[target_feature(enable = "neon")]
fn product<const ROWS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q8_BLOCK && tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr();
    let turn = vdupq_n_u8(ZERO);
    for j in 0..PANEL_REGISTERS {
        let weights = block[SCALE_BYTES + j * REGISTER..].as_ptr();
        // registers of two columns each
        let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
        for quad in (0..QUADS).step_by(2) {
            // SAFETY: quad + 1 < 32: 16 bytes of each step of 256, of which there are 32.
            let w = unsafe { [vld1q_u8(weights.add(quad * STEP)), vld1q_u8(weights.add((quad + 1) * STEP))] };
            let w = [vreinterpretq_s8_u8(veorq_u8(w[0], turn)), vreinterpretq_s8_u8(veorq_u8(w[1], turn))];
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: quad * ROWS + row and the same a quad later are below 32 ROWS, the quads of the values.
                let x = unsafe {
                    [
                        broadcast_quad(values, quad * ROWS + row),
                        broadcast_quad(values, (quad + 1) * ROWS + row),
                    ]
                };
                let low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
                let low = vmlal_s8(low, vget_low_s8(w[1]), vget_low_s8(x[1]));
                let high = vmull_high_s8(w[0], x[0]);
                let high = vmlal_high_s8(high, w[1], x[1]);
                sums[0] = vpadalq_s16(sums[0], low);
                sums[1] = vpadalq_s16(sums[1], high);
            }
        }
        let scale = column_scales(block, j);
        for (row, (sums, meta)) in sums.iter().zip(tile.meta).enumerate() {
            let sum = vpaddq_s32(sums[0], sums[1]);
            accumulate(sum, scale, meta.scale, &mut y.row(row)[j * LANES..]);
        }
    }
}
