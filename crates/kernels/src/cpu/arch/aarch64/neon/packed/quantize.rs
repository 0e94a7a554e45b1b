//! Quantization of activations.

use crate::cpu::arch::aarch64::neon::math::{LANES, load};
use crate::cpu::arch::scalar::packed as scalar;
use crate::cpu::table::activations::{OUTLIER_RATIO, OUTLIERS, Plan, RowMeta, tile_group_mut};
use crate::quant::{GROUP, SUBGROUP};
use std::arch::aarch64::*;

/// See [`quantize`](crate::cpu::table::packed::PackedKernels::quantize). `STEP` values of each row are contiguous, so
/// a group is `[128 / STEP][rows][STEP]`.
#[target_feature(enable = "neon")]
pub(crate) fn quantize<const STEP: usize>(x: &[f32], k: usize, tile: &mut [u8]) {
    let rows = x.len() / k;
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (group, x) in x.chunks(GROUP).enumerate() {
            let (values, meta) = tile_group_mut(tile, rows, group);
            let (bytes, plan) = quantize_group(x);
            meta[row] = plan;
            for (step, bytes) in bytes.as_chunks::<STEP>().0.iter().enumerate() {
                values[(step * rows + row) * STEP..][..STEP].copy_from_slice(bytes);
            }
        }
    }
}

/// Returns the bytes of up to 128 values of a row, and their metadata.
#[inline]
#[target_feature(enable = "neon")]
fn quantize_group(x: &[f32]) -> ([u8; GROUP], RowMeta) {
    let mut padded = [0.0; GROUP];
    let mut values: &[f32; GROUP] = if let Ok(whole) = x.try_into() {
        whole
    } else {
        padded[..x.len()].copy_from_slice(x);
        &padded
    };
    let (largest, places) = largest_three(values);
    let plan = Plan::new(largest);
    if plan.outliers > 0 {
        let mut rest = *values;
        places[..plan.outliers].iter().for_each(|&place| rest[usize::from(place)] = 0.0);
        padded = rest;
        values = &padded;
    }
    let mut bytes = [0; GROUP];
    let mut sums = [0i16; GROUP / SUBGROUP];
    for (subgroup, sum) in sums.iter_mut().enumerate() {
        let mut lanes = vdupq_n_s16(0);
        for at in (subgroup * SUBGROUP..(subgroup + 1) * SUBGROUP).step_by(4 * LANES) {
            let low = rounded(&values[at..], plan.inverse);
            let high = rounded(&values[at + 2 * LANES..], plan.inverse);
            lanes = vaddq_s16(vaddq_s16(lanes, low), high);
            let q = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
            // SAFETY: at is a multiple of 16 below 128: 16 of 128 bytes are written.
            unsafe { vst1q_u8(bytes.as_mut_ptr().add(at), vreinterpretq_u8_s8(q)) };
        }
        *sum = vaddvq_s16(lanes);
    }
    (bytes, plan.meta(sums, places, x))
}

/// Rounds eight values to integers; non-finite values, for which `inverse` is 0, become 0.
#[inline]
#[target_feature(enable = "neon")]
fn rounded(x: &[f32], inverse: f32) -> int16x8_t {
    let low = vcvtnq_s32_f32(vmulq_n_f32(load(x), inverse));
    let high = vcvtnq_s32_f32(vmulq_n_f32(load(&x[LANES..]), inverse));
    vcombine_s16(vmovn_s32(low), vmovn_s32(high))
}

/// Returns the three largest magnitudes of a group, descending, and the positions of the first two; of equal values
/// the earlier comes first. If none can be an outlier, returns the largest three times, which is the same to
/// [`Plan`].
#[inline]
#[target_feature(enable = "neon")]
fn largest_three(values: &[f32; GROUP]) -> ([f32; OUTLIERS + 1], [u8; OUTLIERS]) {
    // compared as integers, so that no NaN is lost
    let mut most = vdupq_n_u32(0);
    for x in values.chunks_exact(LANES) {
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(load(x))));
    }
    let most = f32::from_bits(vmaxvq_u32(most));
    // three values within the ratio of the largest: there is no outlier, whatever the second and third are
    let near = vdupq_n_f32(most / OUTLIER_RATIO);
    let mut count = vdupq_n_u32(0);
    for x in values.chunks_exact(LANES) {
        count = vsubq_u32(count, vcageq_f32(load(x), near));
    }
    if vaddvq_u32(count) as usize > OUTLIERS {
        return ([most; OUTLIERS + 1], [0; OUTLIERS]);
    }
    scalar::largest_three(values)
}
