//! Encodes f32 rows as panels, one panel at a time, so that a checkpoint can be converted as a stream.
//!
//! q8 rounds to the nearest step. Its scale is rounded up, so that no value is clipped and the error of every value
//! is at most half a step. q4 searches: for every 128 values of a row, it looks for the scale, its sign and the four
//! sub-scales with the least squared error.

use super::{
    GROUP, PANEL, PackedShape, QUAD, SCALE_BYTES, SUB_SCALE_MAX, SUBGROUP, ZERO, ZERO_NIBBLE, q4_index,
    q8_index,
};
use crate::PackedFormat;
use half::bf16;

/// Revision of the rules of [`encode_panel`]. It increases by one with every change that alters the output for any
/// row, so that files made by other revisions can be recognized.
pub const ENCODER_REVISION: u32 = 1;

/// Encodes the rows of panel `panel`, `[panel_rows, k]`, to `out`, `[panel_bytes]`.
///
/// # Panics
/// If a length does not match the shape.
pub fn encode_panel(shape: PackedShape, panel: usize, rows: &[f32], out: &mut [u8]) {
    assert_eq!(rows.len(), shape.panel_rows(panel).len() * shape.k, "values of a panel of {shape:?}");
    assert_eq!(out.len(), shape.panel_bytes(), "bytes of a panel of {shape:?}");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { encode_panel_avx2(shape, rows, out) };
    }
    encode(shape, rows, out);
}

/// The same code, compiled for 8 lanes: the q4 search of a whole checkpoint is 10^11 operations.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_panel_avx2(shape: PackedShape, rows: &[f32], out: &mut [u8]) {
    encode(shape, rows, out);
}

#[inline(always)]
fn encode(shape: PackedShape, rows: &[f32], out: &mut [u8]) {
    let zero = match shape.format {
        PackedFormat::Q8 => ZERO,
        PackedFormat::Q4 => ZERO_NIBBLE << 4 | ZERO_NIBBLE,
    };
    for (g, block) in out.chunks_exact_mut(shape.block_bytes()).enumerate() {
        let (scales, values) = block.split_at_mut(shape.head_bytes());
        scales.fill(0);
        values.fill(zero);
        for (column, row) in rows.chunks_exact(shape.k).enumerate() {
            let x = padded(&row[g * GROUP..shape.k.min((g + 1) * GROUP)]);
            if !x.iter().all(|v| v.is_finite()) {
                // non-finite values must show in the output; rounding and search would lose them
                put_scale(block, column, bf16::NAN);
                continue;
            }
            match shape.format {
                PackedFormat::Q8 => encode_q8(&x, column, block),
                PackedFormat::Q4 => encode_q4(&x, column, block),
            }
        }
    }
}

/// Returns the values of a group, padded with zeros past the end of the matrix.
#[inline(always)]
fn padded(values: &[f32]) -> [f32; GROUP] {
    let mut out = [0.0; GROUP];
    out[..values.len()].copy_from_slice(values);
    out
}

fn put_scale(block: &mut [u8], column: usize, scale: bf16) {
    block[2 * column..2 * column + 2].copy_from_slice(&scale.to_le_bytes());
}

/// Returns the smallest bf16 that is not below `value >= 0`.
fn bf16_up(value: f32) -> bf16 {
    let nearest = bf16::from_f32(value);
    if nearest.to_f32() < value { bf16::from_bits(nearest.to_bits() + 1) } else { nearest }
}

/// Rounds to the nearest integer, ties to even, for |x| < 2^22. Adding 1.5 * 2^23 leaves no bits for a fraction.
/// Unlike `round_ties_even`, this compiles to two additions on every x86-64.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

#[inline(always)]
fn encode_q8(x: &[f32; GROUP], column: usize, block: &mut [u8]) {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = bf16_up(largest / 127.0);
    put_scale(block, column, scale);
    if largest == 0.0 {
        return;
    }
    let scale = scale.to_f32();
    for (i, x) in x.iter().enumerate() {
        #[expect(clippy::cast_possible_truncation, reason = "|x| <= 127 scale")]
        let q = round(x / scale).clamp(-127.0, 127.0) as i8;
        block[q8_index(column, i)] = q.cast_unsigned() ^ ZERO;
    }
}

/// The scale and sub-scales of a group of a column, with their squared error.
#[derive(Clone, Copy)]
struct Scales {
    scale: f32,
    sub_scales: [u8; GROUP / SUBGROUP],
    error: f32,
}

/// 2^60: the squares of 128 values have a finite sum if none of the values is larger.
const LARGE: f32 = 1_152_921_504_606_846_976.0;
/// 2^70: dividing by it brings every f32 below [`LARGE`].
const UNIT_OF_LARGE: f32 = 1024.0 * LARGE;

#[inline(always)]
fn encode_q4(x: &[f32; GROUP], column: usize, block: &mut [u8]) {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let unit = if largest < LARGE { 1.0 } else { UNIT_OF_LARGE };
    let mut found = search(&x.map(|x| x / unit));
    found.scale *= unit;
    put_scale(block, column, bf16::from_f32(found.scale));
    for (s, sub_scale) in found.sub_scales.into_iter().enumerate() {
        block[SCALE_BYTES + s / 2 * PANEL + column] |= sub_scale << (s % 2 * 4);
        let step = found.scale * f32::from(sub_scale);
        for i in s * SUBGROUP..(s + 1) * SUBGROUP {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=15")]
            let nibble = (level(x[i], inverse(step)) + f32::from(ZERO_NIBBLE)) as u8;
            let high = i / QUAD % 2 * 4;
            let byte = &mut block[q4_index(column, i)];
            *byte = *byte & !(15 << high) | nibble << high;
        }
    }
}

#[inline(always)]
fn inverse(step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

/// Returns the level, -8 to 7, nearest to `x`.
#[inline(always)]
fn level(x: f32, inverse_step: f32) -> f32 {
    round((x * inverse_step).clamp(-8.0, 7.0))
}

/// Returns the squared error of a subgroup with a step.
#[inline(always)]
fn error(x: &[f32], step: f32) -> f32 {
    let inverse = inverse(step);
    let mut sums = [0.0f32; 8];
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let e = x[lane] - level(x[lane], inverse) * step;
            sums[lane] += e * e;
        }
    }
    sums.iter().sum()
}

/// The fractions that the search tries of the step that clips nothing. With 16 levels and bell-shaped values, the
/// best step clips one or two of 32 values and is a quarter smaller.
const SHRINK: [f32; 8] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.74, 0.68, 0.6];

/// Returns the step of one sign with the least error for a subgroup.
#[inline(always)]
fn best_step(x: &[f32], sign: f32) -> f32 {
    // -8 has no counterpart: the sign decides which side gets the extra level
    let whole = x.iter().fold(0.0f32, |m, v| m.max(v * sign / 7.0).max(-v * sign / 8.0));
    let mut best = (0.0, f32::INFINITY);
    for shrink in SHRINK {
        let step = sign * whole * shrink;
        let error = error(x, step);
        if error < best.1 {
            best = (step, error);
        }
    }
    best.0
}

/// Returns the sub-scales for the given scale: those nearest to the wanted steps, or a neighbour if it has a smaller
/// error.
#[inline(always)]
fn fit(x: &[f32; GROUP], steps: &[f32; GROUP / SUBGROUP], scale: f32) -> Scales {
    let mut found = Scales { scale, sub_scales: [0; GROUP / SUBGROUP], error: 0.0 };
    for (s, step) in steps.iter().enumerate() {
        let part = s * SUBGROUP..(s + 1) * SUBGROUP;
        let x = &x[part];
        let wanted = round((step * inverse(scale)).clamp(0.0, f32::from(SUB_SCALE_MAX)));
        let mut best = f32::INFINITY;
        for candidate in [wanted, wanted - 1.0, wanted + 1.0] {
            let candidate = candidate.clamp(0.0, f32::from(SUB_SCALE_MAX));
            let error = error(x, scale * candidate);
            if error < best {
                best = error;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=15")]
                let sub_scale = candidate as u8;
                found.sub_scales[s] = sub_scale;
            }
        }
        found.error += best;
    }
    found
}

/// Returns the scales with the least squared error that the search finds.
#[inline(always)]
fn search(x: &[f32; GROUP]) -> Scales {
    let mut best = Scales { scale: 0.0, sub_scales: [0; GROUP / SUBGROUP], error: f32::INFINITY };
    for sign in [1.0f32, -1.0] {
        let mut steps = [0.0; GROUP / SUBGROUP];
        for (s, step) in steps.iter_mut().enumerate() {
            let part = s * SUBGROUP..(s + 1) * SUBGROUP;
            *step = best_step(&x[part], sign);
        }
        let largest = steps.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        // tries the largest step as 15, 14 and 13 sub-scales: which one suits the other three best depends on them
        for parts in [15.0, 14.0, 13.0] {
            let scale = bf16::from_f32(sign * largest / parts).to_f32();
            let found = fit(x, &steps, scale);
            if found.error < best.error {
                best = found;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    /// Returns bell-shaped values (sums of uniform ones) of a fixed sequence, with a standard deviation of about 1.
    fn values(count: usize, mut seed: u64) -> Vec<f32> {
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 1.41).collect()
    }

    fn round_trip(format: Format, n: usize, k: usize, rows: &[f32]) -> Vec<f32> {
        let shape = PackedShape::new(format, n, k).unwrap();
        let mut decoded = Vec::new();
        for panel in 0..shape.panels() {
            let range = shape.panel_rows(panel);
            let mut bytes = vec![0xaa; shape.panel_bytes()];
            encode_panel(shape, panel, &rows[range.start * k..range.end * k], &mut bytes);
            let mut out = vec![0.0; range.len() * k];
            shape.decode_panel(panel, &bytes, &mut out);
            decoded.extend(out);
        }
        decoded
    }

    fn relative_error(x: &[f32], y: &[f32]) -> f64 {
        let error: f64 = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        (error / x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sqrt()
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn eight_lanes_give_the_bytes_of_one() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        for format in [Format::Q8, Format::Q4] {
            let shape = PackedShape::new(format, 5, 300).unwrap();
            let rows = values(5 * 300, 9);
            let [mut plain, mut lanes] = [(); 2].map(|()| vec![0xaa; shape.panel_bytes()]);
            encode(shape, &rows, &mut plain);
            // SAFETY: the processor has AVX2.
            unsafe { encode_panel_avx2(shape, &rows, &mut lanes) };
            assert!(plain == lanes, "{format:?}");
        }
    }

    #[test]
    fn q8_errs_by_half_a_step_at_most() {
        for (n, k) in [(64, 128), (1, 1), (65, 130), (130, 588)] {
            let rows = values(n * k, 7);
            let decoded = round_trip(Format::Q8, n, k, &rows);
            for (row, found) in rows.chunks(k).zip(decoded.chunks(k)) {
                for (x, y) in row.chunks(GROUP).zip(found.chunks(GROUP)) {
                    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    // the scale is at most one bf16 step, 2^-7, above largest / 127
                    let bound = 0.5 * largest / 127.0 * (1.0 + 1.0 / 128.0) + 1e-9;
                    assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= bound));
                }
            }
        }
    }

    #[test]
    fn q4_is_better_than_plain_rounding() {
        let (n, k) = (64, 512);
        let rows = values(n * k, 3);
        let plain: Vec<f32> = rows
            .chunks(SUBGROUP)
            .flat_map(|x| {
                let step = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 7.0;
                x.iter().map(move |v| (v / step).round() * step)
            })
            .collect();
        let found = relative_error(&rows, &round_trip(Format::Q4, n, k, &rows));
        let plain = relative_error(&rows, &plain);
        eprintln!("searched {found}, plain {plain}");
        assert!(found < 0.88 * plain, "searched {found}, plain {plain}");
    }

    #[test]
    fn groups_of_small_values_survive_beside_large_ones() {
        // matrices differ by orders of magnitude, and so do the rows of one matrix
        for magnitude in [1e-12f32, 1e-3, 1e6, 1e18, 1e37] {
            let rows: Vec<f32> = values(64 * 256, 11).iter().map(|v| v * magnitude).collect();
            assert!(relative_error(&rows, &round_trip(Format::Q8, 64, 256, &rows)) < 0.01);
            assert!(relative_error(&rows, &round_trip(Format::Q4, 64, 256, &rows)) < 0.1);
        }
    }

    #[test]
    fn what_is_no_number_shows() {
        for (format, bad) in [(Format::Q8, f32::NAN), (Format::Q4, f32::NAN), (Format::Q4, f32::INFINITY)] {
            let mut rows = values(3 * 2 * GROUP, 5);
            rows[2 * GROUP + 7] = bad;
            for (i, group) in round_trip(format, 3, 2 * GROUP, &rows).chunks(GROUP).enumerate() {
                assert!(
                    group.iter().all(|v| if i == 2 { v.is_nan() } else { v.is_finite() }),
                    "{format:?}, group {i}"
                );
            }
        }
    }

    #[test]
    fn a_value_of_any_size_is_kept() {
        for format in [Format::Q8, Format::Q4] {
            for large in [1e18f32, -2e19, 1e25, -3e38] {
                let mut rows = values(3 * 2 * GROUP, 5);
                let others = round_trip(format, 3, 2 * GROUP, &rows);
                rows[2 * GROUP + 7] = large;
                let found = round_trip(format, 3, 2 * GROUP, &rows);
                for (i, ((found, x), other)) in found.iter().zip(&rows).zip(&others).enumerate() {
                    let kept =
                        if i / GROUP == 2 { (found - x).abs() < large.abs() / 14.0 } else { found == other };
                    assert!(kept, "{format:?} beside {large}: {found} for {x}");
                }
            }
        }
    }

    #[test]
    fn zeros_and_padding_stay_zero() {
        for format in [Format::Q8, Format::Q4] {
            assert!(round_trip(format, 3, 200, &[0.0; 600]).iter().all(|&v| v == 0.0));
            let shape = PackedShape::new(format, 3, 200).unwrap();
            let mut bytes = vec![0; shape.panel_bytes()];
            encode_panel(shape, 0, &values(600, 1), &mut bytes);
            let last = &bytes[shape.block_bytes()..];
            assert!((72..GROUP).all(|i| (0..PANEL).all(|c| shape.quantized(last, c, i) == 0)));
            assert!((3..PANEL).all(|c| (0..GROUP).all(|i| shape.quantized(last, c, i) == 0)));
        }
    }

    #[test]
    fn sizes_are_as_documented_and_never_overflow() {
        let size = |format, n, k| PackedShape::new(format, n, k).map(PackedShape::bytes);
        assert_eq!(size(Format::Q8, 64, 128), Some(8320));
        assert_eq!(size(Format::Q4, 64, 128), Some(4352));
        assert_eq!(size(Format::Q4, 65, 129), Some(4 * 4352));
        assert_eq!(size(Format::Q8, 0, 128), None);
        assert_eq!(size(Format::Bf16, 64, 128), None);
        assert_eq!(size(Format::Q8, usize::MAX, usize::MAX), None);
        assert_eq!(size(Format::Q8, usize::MAX - 3, 1), None);
    }
}
