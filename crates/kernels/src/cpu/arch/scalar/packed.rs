//! Products with packed weights.

use crate::PackedFormat;
use crate::cpu::table::activations::{OUTLIERS, Plan, QuantizedRows, TILE_ROWS, quad_index, tile_group_mut};
use crate::cpu::table::packed::{PackedKernels, Panel, SWEEP_BYTES, Sums};
use crate::quant::{
    self, GROUP, PANEL, PackedShape, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, SUBGROUP, ZERO, q8_index,
};
use std::ops::Range;

/// The packed kernels of the scalar level.
pub(crate) const KERNELS: PackedKernels = PackedKernels {
    quantize,
    q8,
    q4,
    unpack_q4: Some(unpack),
    tile_rows: TILE_ROWS,
    chunk_rows: 3 * TILE_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Quantizes rows, `[rows, k]` with at most six rows, into a tile: to nearest, ties to even.
pub(crate) fn quantize(x: &[f32], k: usize, tile: &mut [u8]) {
    let rows = x.len() / k;
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (group, x) in x.chunks(GROUP).enumerate() {
            let (values, meta) = tile_group_mut(tile, rows, group);
            let (largest, places) = largest_three(x);
            let plan = Plan::new(largest);
            let outliers = &places[..plan.outliers];
            let mut sums = [0i16; GROUP / SUBGROUP];
            for i in 0..GROUP {
                #[expect(clippy::cast_possible_truncation, reason = "within -127..=127 by the scale")]
                let q = match x.get(i) {
                    Some(v) if !outliers.contains(&(i as u8)) => (v * plan.inverse).round_ties_even() as i8,
                    _ => 0,
                };
                values[quad_index(rows, row, i / QUAD) + i % QUAD] = q.cast_unsigned();
                sums[i / SUBGROUP] += i16::from(q);
            }
            meta[row] = plan.meta(sums, places, x);
        }
    }
}

/// Returns the three largest magnitudes, descending, and the positions of the first two. Of equal values the earlier
/// comes first.
pub(crate) fn largest_three(x: &[f32]) -> ([f32; OUTLIERS + 1], [u8; OUTLIERS]) {
    let (mut largest, mut places) = ([0u32; OUTLIERS + 1], [0u8; OUTLIERS + 1]);
    for (i, v) in x.iter().enumerate() {
        // compared as integers, so that no NaN is lost
        let bits = v.abs().to_bits();
        let Some(rank) = largest.iter().position(|&l| bits > l) else { continue };
        largest[rank..].rotate_right(1);
        places[rank..].rotate_right(1);
        #[expect(clippy::cast_possible_truncation, reason = "a group has 128 values")]
        let place = i as u8;
        (largest[rank], places[rank]) = (bits, place);
    }
    (largest.map(f32::from_bits), [places[0], places[1]])
}

/// `y = x Wᵀ` for a q8 panel.
pub(crate) fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    product(PackedFormat::Q8, panel.bytes, x, rows, y);
}

/// `y = x Wᵀ` for a q4 panel.
pub(crate) fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    product(PackedFormat::Q4, panel.bytes, x, rows, y);
}

fn product(format: PackedFormat, panel: &[u8], x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    let shape = PackedShape::packed(format, PANEL, x.groups() * GROUP).expect("a panel in memory has a size");
    y.clear(rows.len());
    for (group, block) in panel.chunks_exact(shape.block_bytes()).enumerate() {
        for first in rows.clone().step_by(TILE_ROWS) {
            let tile = x.tile_group(first, group);
            for (row, meta) in tile.meta.iter().enumerate() {
                for (column, y) in y.row(first - rows.start + row).iter_mut().enumerate() {
                    let product = |i: usize| {
                        let q =
                            tile.values[quad_index(tile.meta.len(), row, i / QUAD) + i % QUAD].cast_signed();
                        i32::from(q) * i32::from(shape.quantized(block, column, i))
                    };
                    let sum: i32 = (0..GROUP).map(product).sum();
                    let scale = quant::scale(block, column);
                    *y = fused(sum as f32 * scale, meta.scale, *y);
                    for (place, outlier) in meta.outliers() {
                        let q = f32::from(shape.quantized(block, column, place));
                        *y = fused(q * scale, outlier, *y);
                    }
                }
            }
        }
    }
}

/// `a * b + c`, rounded once. Without a hardware instruction, std calls the C library, and mingw's `fmaf` rounds
/// twice.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(all(windows, target_env = "gnu")) { libm::fmaf(a, b, c) } else { a.mul_add(b, c) }
}

/// Unpacks a q4 panel to the q8 panel of the same values.
pub(crate) fn unpack(q4: &[u8], q8: &mut [u8]) {
    let shape = PackedShape::packed(PackedFormat::Q4, PANEL, GROUP).expect("a block in memory has a size");
    for (from, to) in q4.chunks_exact(Q4_BLOCK).zip(q8.chunks_exact_mut(Q8_BLOCK)) {
        to[..SCALE_BYTES].copy_from_slice(&from[..SCALE_BYTES]);
        for column in 0..PANEL {
            for i in 0..GROUP {
                to[q8_index(column, i)] = shape.quantized(from, column, i).cast_unsigned() ^ ZERO;
            }
        }
    }
}
