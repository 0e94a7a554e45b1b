//! The functions of blocked attention, see [`crate::cpu::ops::flash`], in f32.

use super::gemm::{Tile, rectangle};
use super::math::{exp, largest, load, store, sum};
use crate::cpu::prefetch::Ahead;
use crate::cpu::table::attention::{
    FlashKernel, InTurn, KEYS, Products, Queries, SingleRow, SingleRows, SoftmaxRow,
};
use crate::cpu::table::kv::Q8_OFFSET;
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::x86_64::*;

/// The kernel in f32.
pub(super) static F32: FlashKernel = FlashKernel {
    group: 1,
    pack_query,
    widen,
    products: Products::InTurn(InTurn { scores, values }),
    exp: f32::exp,
    softmax,
    single_rows: SingleRows {
        f32: Some(SingleRow { scores: row_scores_words, values: row_values_words }),
        bf16: Some(SingleRow { scores: row_scores_halves, values: row_values_halves }),
        q8: Some(SingleRow { scores: row_scores_bytes, values: row_values_bytes }),
    },
};

fn pack_query(row: &[f32], out: &mut [u32]) {
    out.copy_from_slice(bytemuck::cast_slice(row));
}

/// Returns one byte of each lane, minus the offset, as f32. The byte becomes the last bits of 2^23, from which 2^23
/// and the offset are subtracted exactly.
#[inline]
#[target_feature(enable = "avx2")]
fn byte<const SHIFT: i32>(lanes: __m256i) -> __m256 {
    const BASE: f32 = 8_388_608.0;
    let byte = _mm256_and_si256(_mm256_srli_epi32::<SHIFT>(lanes), _mm256_set1_epi32(0xff));
    let value = _mm256_or_si256(byte, _mm256_set1_epi32(BASE.to_bits().cast_signed()));
    _mm256_sub_ps(_mm256_castsi256_ps(value), _mm256_set1_ps(BASE + Q8_OFFSET))
}

/// Returns the four bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(lanes: __m256i) -> [__m256; 4] {
    [byte::<0>(lanes), byte::<8>(lanes), byte::<16>(lanes), byte::<24>(lanes)]
}

/// Loads the 8 words at the start of `panel`.
#[inline]
#[target_feature(enable = "avx2")]
fn load_words(panel: &[u32]) -> __m256i {
    let words: &[u32; 8] = panel.first_chunk().expect("panels are whole registers");
    // SAFETY: 8 words are read from an array of 8.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// `sum + factor * word`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_word([factor]: [__m256; 1], lanes: __m256i, sum: __m256) -> __m256 {
    _mm256_fmadd_ps(factor, _mm256_castsi256_ps(lanes), sum)
}

/// `sum + Σ factors[i] * bf16 i`, in this order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_halves(factors: [__m256; 2], lanes: __m256i, sum: __m256) -> __m256 {
    let high = _mm256_and_si256(lanes, _mm256_set1_epi32(-0x1_0000));
    let sum = _mm256_fmadd_ps(factors[0], _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lanes)), sum);
    _mm256_fmadd_ps(factors[1], _mm256_castsi256_ps(high), sum)
}

/// `sum + Σ factors[i] * byte i`, in this order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_bytes(factors: [__m256; 4], lanes: __m256i, mut sum: __m256) -> __m256 {
    for (factor, byte) in factors.into_iter().zip(bytes(lanes)) {
        sum = _mm256_fmadd_ps(factor, byte, sum);
    }
    sum
}

/// Broadcasts each of the f32 words to all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast<const N: usize>(words: &[u32; N]) -> [__m256; N] {
    words.map(|word| _mm256_set1_ps(f32::from_bits(word)))
}

macro_rules! row {
    ($scores:ident, $values:ident, $add:ident, $words:literal) => {
        /// See [`SingleRow::scores`].
        #[target_feature(enable = "avx2,fma")]
        fn $scores(query: &[u32], keys: &[u32], ahead: Ahead<'_>, scores: &mut [f32]) {
            const LINES: usize = KV_BLOCK_TOKENS / Ahead::LINE_WORDS;
            // 32 keys are 4 registers of sums, which hide the latency of `vfmadd`
            for first in (0..KV_BLOCK_TOKENS).step_by(32) {
                let mut sums = [_mm256_setzero_ps(); 4];
                let rows = query.as_chunks::<$words>().0.iter().zip(keys.chunks_exact(KV_BLOCK_TOKENS));
                for (i, (words, keys)) in rows.enumerate() {
                    if first == 0 {
                        ahead.fetch_lines(LINES * i, LINES);
                    }
                    let factors = broadcast(words);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = $add(factors, load_words(&keys[first + 8 * j..]), *sum);
                    }
                }
                for (j, sum) in sums.into_iter().enumerate() {
                    store(&mut scores[first + 8 * j..], sum);
                }
            }
        }

        /// See [`SingleRow::values`].
        #[target_feature(enable = "avx2,fma")]
        fn $values(weights: &[u32], values: &[u32], ahead: Ahead<'_>, sums: &mut [f32]) {
            let dim = sums.len();
            let lines = dim / Ahead::LINE_WORDS;
            // up to 32 dimensions at a time, as above; heads are multiples of 16
            for (part, sums) in sums.chunks_mut(32).enumerate() {
                let count = sums.len() / 8;
                let mut acc: [__m256; 4] = std::array::from_fn(|j| load(&sums[(8 * j).min(sums.len())..]));
                let rows = weights.as_chunks::<$words>().0.iter().zip(values.chunks_exact(dim));
                for (i, (words, values)) in rows.enumerate() {
                    if part == 0 {
                        ahead.fetch_lines(lines * i, lines);
                    }
                    let factors = broadcast(words);
                    for (j, acc) in acc[..count].iter_mut().enumerate() {
                        *acc = $add(factors, load_words(&values[32 * part + 8 * j..]), *acc);
                    }
                }
                for (sums, acc) in sums.chunks_exact_mut(8).zip(acc) {
                    store(sums, acc);
                }
            }
        }
    };
}

row!(row_scores_words, row_values_words, add_word, 1);
row!(row_scores_halves, row_values_halves, add_halves, 2);
row!(row_scores_bytes, row_values_bytes, add_bytes, 4);

/// See [`FlashKernel::widen`].
#[target_feature(enable = "avx2")]
fn widen(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    for (row, groups) in panel.chunks_exact(4 * cols).enumerate() {
        for (i, lanes) in groups.chunks_exact(32).enumerate() {
            // SAFETY: the chunk has 32 bytes.
            let lanes = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
            match format {
                KvFormat::Q8 => {
                    for (k, values) in bytes(lanes).into_iter().enumerate() {
                        store(&mut out[(4 * row + k) * cols + 8 * i..], values);
                    }
                }
                KvFormat::Bf16 => {
                    let at = 2 * row * cols + 8 * i;
                    let high = _mm256_and_si256(lanes, _mm256_set1_epi32(-0x1_0000));
                    store(&mut out[at..], _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lanes)));
                    store(&mut out[at + cols..], _mm256_castsi256_ps(high));
                }
                KvFormat::F32 => unreachable!("panels of f32 are not widened"),
            }
        }
    }
}

/// Multiplies the rows of `a` by 16 columns of `b`, 6 rows at a time; a single row has its own path.
#[inline]
#[target_feature(enable = "avx2,fma")]
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
            rectangle::<1, 2>(&tile, c);
            row += 1;
        } else {
            rectangle::<6, 2>(&tile, c);
            row += 6;
        }
    }
}

/// See [`FlashKernel::scores`].
#[target_feature(enable = "avx2,fma")]
fn scores(q: Queries<'_>, keys: &[u32], count: usize, scores: &mut [f32]) {
    for col in (0..count).step_by(16) {
        columns(q, &keys[col..], KV_BLOCK_TOKENS, &mut scores[col..], KEYS, false);
    }
}

/// See [`FlashKernel::values`].
#[target_feature(enable = "avx2,fma")]
fn values(weights: Queries<'_>, panels: &[&[u32]], dim: usize, sums: &mut [f32]) {
    for (i, panel) in panels.iter().enumerate() {
        let first = i * KV_BLOCK_TOKENS;
        let count = KV_BLOCK_TOKENS.min(weights.count - first);
        let weights = Queries { words: &weights.words[first..], count, ..weights };
        for col in (0..dim).step_by(16) {
            columns(weights, &panel[col..], dim, &mut sums[col..], dim, true);
        }
    }
}

/// See [`FlashKernel::softmax`].
#[target_feature(enable = "avx2,fma")]
fn softmax(row: SoftmaxRow<'_>) -> f32 {
    let SoftmaxRow { scores, valid, scale, key_scales, value_scales, weights, state } = row;
    if valid == 0 {
        weights.fill(0);
        return 1.0;
    }
    for (i, scores) in scores.chunks_exact_mut(8).enumerate() {
        let mut v = _mm256_mul_ps(load(scores), _mm256_set1_ps(scale));
        if !key_scales.is_empty() {
            v = _mm256_mul_ps(v, load(&key_scales[8 * i..]));
        }
        store(scores, v);
    }
    // scores past `valid` get weight zero
    scores[valid..].fill(f32::NEG_INFINITY);
    let mut highest = _mm256_set1_ps(state.largest);
    for scores in scores.chunks_exact(8) {
        highest = _mm256_max_ps(highest, load(scores));
    }
    let highest = largest(highest);
    let mut total = _mm256_setzero_ps();
    let weights: &mut [f32] = bytemuck::cast_slice_mut(weights);
    for (i, (scores, weights)) in scores.chunks_exact(8).zip(weights.chunks_exact_mut(8)).enumerate() {
        let mut weight = exp(_mm256_sub_ps(load(scores), _mm256_set1_ps(highest)));
        total = _mm256_add_ps(total, weight);
        if !value_scales.is_empty() {
            weight = _mm256_mul_ps(weight, load(&value_scales[8 * i..]));
        }
        store(weights, weight);
    }
    // zero times a NaN scale would be NaN
    weights[valid..].fill(0.0);
    let factor = (state.largest - highest).exp();
    state.sum = state.sum * factor + sum(total);
    state.largest = highest;
    factor
}
