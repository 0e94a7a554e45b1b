//! Quantization of activations with AVX2.

use super::LANES;
use crate::cpu::arch::scalar::packed as scalar;
use crate::cpu::table::activations::{OUTLIER_RATIO, OUTLIERS, Plan, RowMeta, quad_index, tile_group_mut};
use crate::quant::{GROUP, QUAD, SUBGROUP};
use std::arch::x86_64::*;

/// Registers per group.
const REGISTERS: usize = GROUP / LANES;
/// Registers per subgroup.
const SUB_REGISTERS: usize = SUBGROUP / LANES;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn quantize(x: &[f32], k: usize, tile: &mut [u8]) {
    let rows = x.len() / k;
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (group, x) in x.chunks(GROUP).enumerate() {
            let (values, meta) = tile_group_mut(tile, rows, group);
            meta[row] = quantize_group(x, rows, row, values);
        }
    }
}

/// Quantizes up to 128 values of row `row` into a group of a tile of `rows` rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn quantize_group(x: &[f32], rows: usize, row: usize, out: &mut [u8]) -> RowMeta {
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
    let inverse = _mm256_set1_ps(plan.inverse);
    let mut sums = [_mm256_setzero_si256(); GROUP / SUBGROUP];
    for i in 0..REGISTERS {
        let q = _mm256_cvtps_epi32(_mm256_mul_ps(load(values, i), inverse));
        let sum = &mut sums[i / SUB_REGISTERS];
        *sum = _mm256_add_epi32(*sum, q);
        for (half, quad) in low_bytes(q).into_iter().enumerate() {
            let at = quad_index(rows, row, i * LANES / QUAD + half);
            out[at..at + QUAD].copy_from_slice(&quad);
        }
    }
    plan.meta(sums.map(|sum| total(sum)), places, x)
}

/// Loads eight values of a group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(values: &[f32; GROUP], i: usize) -> __m256 {
    let values: &[f32; LANES] = values[i * LANES..].first_chunk().expect("i < 16");
    // SAFETY: 8 values are read from an array of 8.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// Returns the lowest byte of each lane, four per quad.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn low_bytes(q: __m256i) -> [[u8; QUAD]; 2] {
    let order = _mm256_broadcastsi128_si256(_mm_cvtsi32_si128(0x0c_08_04_00));
    let bytes = _mm256_shuffle_epi8(q, order);
    [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)]
        .map(|half| _mm_cvtsi128_si32(half).to_le_bytes())
}

/// Returns the sum of all lanes; that of a subgroup is at most 32 * 127.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn total(lanes: __m256i) -> i16 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let pair = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    let one = _mm_add_epi32(pair, _mm_shuffle_epi32::<0b00_00_00_01>(pair));
    _mm_cvtsi128_si32(one) as i16
}

/// Returns the three largest magnitudes of a group, descending, and the positions of the first two; of equal values
/// the earlier comes first. If none can be an outlier, returns the largest three times, which is the same to
/// [`Plan`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest_three(values: &[f32; GROUP]) -> ([f32; OUTLIERS + 1], [u8; OUTLIERS]) {
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    // compared as integers, so that no NaN is lost
    let mut most = _mm256_setzero_si256();
    for i in 0..REGISTERS {
        let bits = _mm256_castps_si256(_mm256_and_ps(load(values, i), magnitude));
        most = _mm256_max_epu32(most, bits);
    }
    let lanes: [u32; LANES] = bytemuck::cast(most);
    let most = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    // three values within the ratio of the largest: there is no outlier, whatever the second and third are
    let near = _mm256_set1_ps(most / OUTLIER_RATIO);
    let mut count = _mm256_setzero_si256();
    for i in 0..REGISTERS {
        let is_near = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_and_ps(load(values, i), magnitude), near);
        count = _mm256_sub_epi32(count, _mm256_castps_si256(is_near));
    }
    if usize::from(total(count).cast_unsigned()) > OUTLIERS {
        return ([most; OUTLIERS + 1], [0; OUTLIERS]);
    }
    scalar::largest_three(values)
}
