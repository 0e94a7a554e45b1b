//! The functions of blocked attention, see [`crate::cpu::ops::flash`], in f32.

use super::gemm::{Tile, rectangle};
use super::math::{LANES, exp2_of_negative, load, load_whole, store, store_whole};
use crate::cpu::prefetch::Ahead;
use crate::cpu::table::attention::{
    FlashKernel, InTurn, KEYS, Products, Queries, SingleRow, SingleRows, SoftmaxRow, scale_left,
};
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::aarch64::*;

/// The kernel in f32.
pub(crate) static F32: FlashKernel = FlashKernel {
    group: 1,
    pack_query,
    widen,
    products: Products::InTurn(InTurn { scores, values }),
    exp: f32::exp2,
    softmax,
    single_rows: SingleRows {
        f32: Some(SingleRow { scores: row_scores_words, values: row_values_words }),
        bf16: Some(SingleRow { scores: row_scores_halves, values: row_values_halves }),
        q8: Some(SingleRow { scores: row_scores_bytes, values: row_values_bytes }),
    },
};

/// Rows of a tile.
const MR: usize = 6;

/// Columns of a tile.
const NR: usize = 16;

/// Registers of scores that are computed together: as many chains as hide the latencies.
const PART: usize = 4;

fn pack_query(row: &[f32], out: &mut [u32]) {
    out.copy_from_slice(bytemuck::cast_slice(row));
}

/// Returns one byte of each lane, `SHIFT` bits below the highest, as f32. The offset must already be subtracted from
/// `lanes`.
#[inline]
#[target_feature(enable = "neon")]
fn byte<const SHIFT: i32>(lanes: int32x4_t) -> float32x4_t {
    vcvtq_f32_s32(vshrq_n_s32::<24>(vshlq_n_s32::<SHIFT>(lanes)))
}

/// Loads the 4 words at the start of `panel`.
#[inline]
#[target_feature(enable = "neon")]
fn load_words(panel: &[u32]) -> uint32x4_t {
    let words: &[u32; LANES] = panel.first_chunk().expect("panels are whole registers");
    // SAFETY: 4 words are read from an array of 4.
    unsafe { vld1q_u32(words.as_ptr()) }
}

/// Loads 4 words, which are f32.
#[inline]
#[target_feature(enable = "neon")]
fn floats(panel: &[u32]) -> [float32x4_t; 1] {
    [vreinterpretq_f32_u32(load_words(panel))]
}

/// Loads the two bf16 of each of 4 words.
#[inline]
#[target_feature(enable = "neon")]
fn halves(panel: &[u32]) -> [float32x4_t; 2] {
    let lanes = load_words(panel);
    let high = vandq_u32(lanes, vdupq_n_u32(0xffff_0000));
    [vreinterpretq_f32_u32(vshlq_n_u32::<16>(lanes)), vreinterpretq_f32_u32(high)]
}

/// Loads the four bytes of each of 4 words, minus [`Q8_OFFSET`](crate::cpu::table::kv::Q8_OFFSET).
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn bytes(panel: &[u32]) -> [float32x4_t; 4] {
    // a byte minus 128 is the byte with its highest bit flipped, read as signed
    let lanes = vreinterpretq_s32_u32(veorq_u32(load_words(panel), vdupq_n_u32(0x8080_8080)));
    [byte::<24>(lanes), byte::<16>(lanes), byte::<8>(lanes), vcvtq_f32_s32(vshrq_n_s32::<24>(lanes))]
}

/// `sum + Σ factors[i] * values[i]`, in this order.
#[inline]
#[target_feature(enable = "neon")]
fn add<const N: usize>(factors: &[u32; N], values: [float32x4_t; N], mut sum: float32x4_t) -> float32x4_t {
    for (factor, values) in factors.iter().zip(values) {
        sum = vfmaq_n_f32(sum, values, f32::from_bits(*factor));
    }
    sum
}

/// Keys, or dimensions, of a single row that are computed together: their 8 registers of sums hide the latency of
/// `fmla`.
const TOGETHER: usize = 8 * LANES;

macro_rules! row {
    ($scores:ident, $values:ident, $part:ident, $lanes:ident) => {
        /// See [`SingleRow::scores`].
        #[target_feature(enable = "neon")]
        fn $scores(query: &[u32], keys: &[u32], ahead: Ahead<'_>, scores: &mut [f32]) {
            const LINES: usize = KV_BLOCK_TOKENS / Ahead::LINE_WORDS;
            for first in (0..KV_BLOCK_TOKENS).step_by(TOGETHER) {
                let mut sums = [vdupq_n_f32(0.0); TOGETHER / LANES];
                let rows = query.as_chunks().0.iter().zip(keys.chunks_exact(KV_BLOCK_TOKENS));
                for (i, (factors, keys)) in rows.enumerate() {
                    if first == 0 {
                        ahead.fetch_lines(LINES * i, LINES);
                    }
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = add(factors, $lanes(&keys[first + LANES * j..]), *sum);
                    }
                }
                for (j, sum) in sums.into_iter().enumerate() {
                    store(&mut scores[first + LANES * j..], sum);
                }
            }
        }

        /// See [`SingleRow::values`].
        #[target_feature(enable = "neon")]
        fn $values(weights: &[u32], values: &[u32], ahead: Ahead<'_>, sums: &mut [f32]) {
            let dim = sums.len();
            // heads are multiples of 16, so the last part may be half as long
            for (part, sums) in sums.chunks_mut(TOGETHER).enumerate() {
                let first = part * TOGETHER;
                if sums.len() == TOGETHER {
                    $part::<{ TOGETHER / LANES }>(weights, values, dim, first, ahead, sums);
                } else {
                    $part::<{ TOGETHER / LANES / 2 }>(weights, values, dim, first, ahead, sums);
                }
            }
        }

        /// Computes `Z` registers of dimensions from `first` on.
        #[inline]
        #[target_feature(enable = "neon")]
        fn $part<const Z: usize>(
            weights: &[u32],
            values: &[u32],
            dim: usize,
            first: usize,
            ahead: Ahead<'_>,
            sums: &mut [f32],
        ) {
            let lines = dim / Ahead::LINE_WORDS;
            let mut acc = [vdupq_n_f32(0.0); Z];
            for (acc, sums) in acc.iter_mut().zip(sums.chunks_exact(LANES)) {
                *acc = load(sums);
            }
            let rows = weights.as_chunks().0.iter().zip(values.chunks_exact(dim));
            for (i, (factors, values)) in rows.enumerate() {
                if first == 0 {
                    ahead.fetch_lines(lines * i, lines);
                }
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = add(factors, $lanes(&values[first + LANES * j..]), *acc);
                }
            }
            for (sums, acc) in sums.chunks_exact_mut(LANES).zip(acc) {
                store(sums, acc);
            }
        }
    };
}

row!(row_scores_words, row_values_words, row_part_words, floats);
row!(row_scores_halves, row_values_halves, row_part_halves, halves);
row!(row_scores_bytes, row_values_bytes, row_part_bytes, bytes);

/// See [`FlashKernel::widen`].
#[target_feature(enable = "neon")]
fn widen(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let panel: &[u32] = bytemuck::cast_slice(panel);
    for (row, words) in panel.chunks_exact(cols).enumerate() {
        for (i, words) in words.as_chunks::<LANES>().0.iter().enumerate() {
            match format {
                KvFormat::Q8 => {
                    for (k, values) in bytes(words).into_iter().enumerate() {
                        store(&mut out[(4 * row + k) * cols + LANES * i..], values);
                    }
                }
                KvFormat::Bf16 => {
                    for (k, values) in halves(words).into_iter().enumerate() {
                        store(&mut out[(2 * row + k) * cols + LANES * i..], values);
                    }
                }
                KvFormat::F32 => unreachable!("panels of f32 are not widened"),
            }
        }
    }
}

/// Multiplies the rows of `a` by 16 columns of `b`, 6 rows at a time; a single row has its own path.
#[inline]
#[target_feature(enable = "neon")]
fn columns(a: Queries<'_>, b: &[u32], b_stride: usize, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let mut row = 0;
    while row < a.rows {
        let tile = Tile {
            words: a.count,
            a: &a.words[row * a.stride..],
            a_strides: (a.stride, 1),
            b,
            b_stride,
            c_stride,
            accumulate,
        };
        let c = &mut c[row * c_stride..];
        if row + 1 == a.rows {
            rectangle::<1, { NR / LANES }>(&tile, c);
            row += 1;
        } else {
            rectangle::<MR, { NR / LANES }>(&tile, c);
            row += MR;
        }
    }
}

/// See [`FlashKernel::scores`].
#[target_feature(enable = "neon")]
fn scores(q: Queries<'_>, keys: &[u32], count: usize, scores: &mut [f32]) {
    for col in (0..count).step_by(NR) {
        columns(q, &keys[col..], KV_BLOCK_TOKENS, &mut scores[col..], KEYS, false);
    }
}

/// See [`FlashKernel::values`].
#[target_feature(enable = "neon")]
fn values(weights: Queries<'_>, panels: &[&[u32]], dim: usize, sums: &mut [f32]) {
    for (i, panel) in panels.iter().enumerate() {
        let first = i * KV_BLOCK_TOKENS;
        let count = KV_BLOCK_TOKENS.min(weights.count - first);
        let weights = Queries { words: &weights.words[first..], count, ..weights };
        for col in (0..dim).step_by(NR) {
            columns(weights, &panel[col..], dim, &mut sums[col..], dim, true);
        }
    }
}

/// See [`FlashKernel::softmax`].
#[target_feature(enable = "neon")]
fn softmax(row: SoftmaxRow<'_>) -> f32 {
    softmax_to::<LANES>(row, |words, weights| store_whole(bytemuck::cast_mut(words), weights))
}

/// Computes the softmax of a row; `put` writes four weights as `WORDS` words. Scores are exponents of 2, and so is
/// the state's largest score.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn softmax_to<const WORDS: usize>(
    row: SoftmaxRow<'_>,
    put: impl Fn(&mut [u32; WORDS], float32x4_t),
) -> f32 {
    let SoftmaxRow { scores, valid, scale, key_scales, value_scales, weights, state } = row;
    if valid == 0 {
        weights.fill(0);
        return 1.0;
    }
    let key_scales = key_scales.as_chunks().0;
    for (scores, scales) in scores.as_chunks_mut().0.iter_mut().zip(key_scales) {
        store_whole(scores, vmulq_f32(load_whole(scores), load_whole(scales)));
    }
    // scores past `valid` get weight zero
    scores[valid..].fill(f32::NEG_INFINITY);
    let mut highest = [vdupq_n_f32(f32::NEG_INFINITY); PART];
    for part in scores.as_chunks::<LANES>().0.as_chunks::<PART>().0 {
        for (highest, scores) in highest.iter_mut().zip(part) {
            *highest = vmaxq_f32(*highest, load_whole(scores));
        }
    }
    let highest = vmaxq_f32(vmaxq_f32(highest[0], highest[1]), vmaxq_f32(highest[2], highest[3]));
    let scale = scale * std::f32::consts::LOG2_E;
    let largest = state.largest.max(vmaxvq_f32(highest) * scale);
    let scale = scale_left(scores, scale, largest);
    let (scores, value_scales) = (scores.as_chunks::<LANES>().0, value_scales.as_chunks::<LANES>().0);
    let mut totals = [vdupq_n_f32(0.0); PART];
    let weights = weights.as_chunks_mut::<WORDS>().0;
    for (i, (part, words)) in
        scores.as_chunks::<PART>().0.iter().zip(weights.chunks_exact_mut(PART)).enumerate()
    {
        for (j, (scores, words)) in part.iter().zip(words).enumerate() {
            let exponent = vfmaq_n_f32(vdupq_n_f32(-largest), load_whole(scores), scale);
            let mut weight = exp2_of_negative(exponent);
            totals[j] = vaddq_f32(totals[j], weight);
            if let Some(scales) = value_scales.get(i * PART + j) {
                weight = vmulq_f32(weight, load_whole(scales));
            }
            put(words, weight);
        }
    }
    if !value_scales.is_empty() {
        // zero times a NaN scale would be NaN; a value has as many bytes as four values have words
        let words = weights.as_flattened_mut();
        bytemuck::cast_slice_mut::<u32, u8>(words)[valid * WORDS..].fill(0);
    }
    let total = vaddq_f32(vaddq_f32(totals[0], totals[1]), vaddq_f32(totals[2], totals[3]));
    let factor = (state.largest - largest).exp2();
    state.sum = state.sum * factor + vaddvq_f32(total);
    state.largest = largest;
    factor
}
