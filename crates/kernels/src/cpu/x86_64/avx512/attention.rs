//! The parts of the blocked attention, see [`crate::cpu::flash`].

use super::gemm::{Tile, rectangle_bf16, rectangle_f32};
use super::load::{Words, input_words};
use super::math::{exp, load, mask};
use crate::cpu::flash::{FlashKernel, KEYS, Queries, SoftmaxRow};
use crate::cpu::kv::Q8_OFFSET;
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::x86_64::*;

/// In f32.
pub(super) static F32: FlashKernel = FlashKernel {
    group: 1,
    pack_query: query_f32,
    widen: widen_f32,
    scores: scores_f32,
    softmax: softmax_f32,
    values: values_f32,
};

/// In pairs of bf16.
pub(super) static BF16: FlashKernel = FlashKernel {
    group: 2,
    pack_query: query_pairs,
    widen: widen_pairs,
    scores: scores_bf16,
    softmax: softmax_bf16,
    values: values_bf16,
};

#[target_feature(enable = "avx512f")]
fn query_f32(row: &[f32], out: &mut [u32]) {
    out.copy_from_slice(bytemuck::cast_slice(row));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn query_pairs(row: &[f32], out: &mut [u32]) {
    assert_eq!(row.len(), 2 * out.len());
    for (i, out) in out.chunks_mut(16).enumerate() {
        let words = input_words(row, Words::Pairs, 16 * i);
        // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
        unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask(out.len()), words) };
    }
}

/// Byte `i` of each lane, less the offset, as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn byte<const SHIFT: u32>(lanes: __m512i) -> __m512 {
    let byte = _mm512_and_si512(_mm512_srli_epi32::<SHIFT>(lanes), _mm512_set1_epi32(0xff));
    _mm512_sub_ps(_mm512_cvtepi32_ps(byte), _mm512_set1_ps(Q8_OFFSET))
}

/// Two registers of f32 that bf16 holds exactly, as pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn pair(low: __m512, high: __m512) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi32::<16>(_mm512_castps_si512(low)), _mm512_castps_si512(high))
}

/// Calls `put(row of words, column, lanes)` for a panel of 32-bit groups, `[_, cols]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn groups(panel: &[u8], cols: usize, mut put: impl FnMut(usize, usize, __m512i)) {
    for (row, groups) in panel.chunks_exact(4 * cols).enumerate() {
        for (i, lanes) in groups.chunks_exact(64).enumerate() {
            // SAFETY: 64 bytes.
            put(row, 16 * i, unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) });
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_words(out: &mut [u32], lanes: __m512i) {
    assert!(out.len() >= 16);
    // SAFETY: 16 words, as asserted.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lanes) };
}

#[target_feature(enable = "avx512f")]
fn widen_pairs(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    assert_eq!(format, KvFormat::Q8, "the only format narrower than bf16");
    groups(panel, cols, |row, col, lanes| {
        let at = 2 * row * cols + col;
        store_words(&mut out[at..], pair(byte::<0>(lanes), byte::<8>(lanes)));
        store_words(&mut out[at + cols..], pair(byte::<16>(lanes), byte::<24>(lanes)));
    });
}

#[target_feature(enable = "avx512f")]
fn widen_f32(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    groups(panel, cols, |row, col, lanes| {
        if format == KvFormat::Q8 {
            let at = 4 * row * cols + col;
            let bytes = [byte::<0>(lanes), byte::<8>(lanes), byte::<16>(lanes), byte::<24>(lanes)];
            for (i, byte) in bytes.into_iter().enumerate() {
                store_words(&mut out[at + i * cols..], _mm512_castps_si512(byte));
            }
        } else {
            let at = 2 * row * cols + col;
            store_words(&mut out[at..], _mm512_slli_epi32::<16>(lanes));
            store_words(&mut out[at + cols..], _mm512_and_si512(lanes, _mm512_set1_epi32(-0x1_0000)));
        }
    });
}

macro_rules! products {
    ($scores:ident, $values:ident, $columns:ident, $features:literal, $rectangle:ident) => {
        /// See [`FlashKernel::scores`].
        #[target_feature(enable = $features)]
        fn $scores(q: Queries<'_>, keys: &[u32], scores: &mut [f32]) {
            let mut row = 0;
            while row < q.rows {
                let tile = Tile {
                    words: q.count,
                    a: &q.words[row * q.stride..],
                    a_strides: (q.stride, 1),
                    b: keys,
                    b_stride: KV_BLOCK_TOKENS,
                    c_stride: KEYS,
                    accumulate: false,
                };
                let scores = &mut scores[row * KEYS..];
                if row + 1 == q.rows {
                    $rectangle::<1, 4>(&tile, scores);
                    row += 1;
                } else {
                    $rectangle::<6, 4>(&tile, scores);
                    row += 6;
                }
            }
        }

        /// Columns `col..col + 16 Z` of the weighted values, `R` rows at a time.
        #[inline]
        #[target_feature(enable = $features)]
        fn $columns<const R: usize, const Z: usize>(
            weights: Queries<'_>,
            values: &[u32],
            dim: usize,
            col: usize,
            sums: &mut [f32],
        ) {
            let mut row = 0;
            while row < weights.rows {
                let tile = Tile {
                    words: weights.count,
                    a: &weights.words[row * weights.stride..],
                    a_strides: (weights.stride, 1),
                    b: &values[col..],
                    b_stride: dim,
                    c_stride: dim,
                    accumulate: true,
                };
                let sums = &mut sums[row * dim + col..];
                if row + 1 == weights.rows {
                    $rectangle::<1, Z>(&tile, sums);
                    row += 1;
                } else {
                    $rectangle::<R, Z>(&tile, sums);
                    row += R;
                }
            }
        }

        /// See [`FlashKernel::values`].
        #[target_feature(enable = $features)]
        fn $values(weights: Queries<'_>, values: &[u32], dim: usize, sums: &mut [f32]) {
            let mut col = 0;
            while col < dim {
                match (dim - col) / 16 {
                    6 => $columns::<4, 6>(weights, values, dim, col, sums),
                    5 => $columns::<4, 5>(weights, values, dim, col, sums),
                    3 => $columns::<6, 3>(weights, values, dim, col, sums),
                    2 => $columns::<6, 2>(weights, values, dim, col, sums),
                    1 => $columns::<6, 1>(weights, values, dim, col, sums),
                    _ => $columns::<6, 4>(weights, values, dim, col, sums),
                }
                col += match (dim - col) / 16 {
                    rest @ (1..=3 | 5 | 6) => 16 * rest,
                    _ => 64,
                };
            }
        }
    };
}

products!(scores_f32, values_f32, columns_f32, "avx512f", rectangle_f32);
products!(scores_bf16, values_bf16, columns_bf16, "avx512f,avx512bf16", rectangle_bf16);

/// Scales the valid scores in place; returns the largest of them and of the row's earlier ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn scale_scores(row: &mut SoftmaxRow<'_>) -> f32 {
    let scale = _mm512_set1_ps(row.scale);
    let mut largest = [_mm512_set1_ps(row.state.largest); 2];
    for (i, scores) in row.scores[..row.valid].chunks_mut(16).enumerate() {
        let mut v = _mm512_mul_ps(load(scores), scale);
        if let Some(scales) = row.key_scales.get(16 * i..) {
            v = if scales.is_empty() { v } else { _mm512_mul_ps(v, load(scales)) };
        }
        super::math::store(scores, v);
        largest[i % 2] = _mm512_mask_max_ps(largest[i % 2], mask(scores.len()), largest[i % 2], v);
    }
    _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]))
}

/// The weights `e^(score - largest)` of 16 keys from `at` on, zero for those that do not count.
#[inline]
#[target_feature(enable = "avx512f")]
fn weights_at(row: &SoftmaxRow<'_>, largest: __m512, at: usize) -> __m512 {
    let valid = mask(row.valid.saturating_sub(at));
    let scores = load(&row.scores[at..at + 16]);
    _mm512_maskz_mov_ps(valid, exp(_mm512_sub_ps(scores, largest)))
}

/// A weight as it multiplies the stored value.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(row: &SoftmaxRow<'_>, weight: __m512, at: usize) -> __m512 {
    if row.value_scales.is_empty() {
        weight
    } else {
        _mm512_mul_ps(weight, load(&row.value_scales[at..at + 16]))
    }
}

/// Enters a block into the row's state; returns the factor of the earlier sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn update(row: &mut SoftmaxRow<'_>, largest: f32, sum: f32) -> f32 {
    let factor = _mm512_cvtss_f32(exp(_mm512_set1_ps(row.state.largest - largest)));
    row.state.sum = row.state.sum * factor + sum;
    row.state.largest = largest;
    factor
}

/// See [`FlashKernel::softmax`].
#[target_feature(enable = "avx512f")]
fn softmax_f32(mut row: SoftmaxRow<'_>) -> f32 {
    if row.valid == 0 {
        row.weights.fill(0);
        return 1.0;
    }
    let largest = scale_scores(&mut row);
    let lanes = _mm512_set1_ps(largest);
    let mut sum = _mm512_setzero_ps();
    for at in (0..row.scores.len()).step_by(16) {
        let weight = weights_at(&row, lanes, at);
        sum = _mm512_add_ps(sum, weight);
        let weight = scaled(&row, weight, at);
        store_words(&mut row.weights[at..], _mm512_castps_si512(weight));
    }
    update(&mut row, largest, _mm512_reduce_add_ps(sum))
}

/// See [`FlashKernel::softmax`].
#[target_feature(enable = "avx512f,avx512bf16")]
fn softmax_bf16(mut row: SoftmaxRow<'_>) -> f32 {
    if row.valid == 0 {
        row.weights.fill(0);
        return 1.0;
    }
    let largest = scale_scores(&mut row);
    let lanes = _mm512_set1_ps(largest);
    let mut sums = [_mm512_setzero_ps(); 2];
    for at in (0..row.scores.len()).step_by(32) {
        let weights = [weights_at(&row, lanes, at), weights_at(&row, lanes, at + 16)];
        sums = [_mm512_add_ps(sums[0], weights[0]), _mm512_add_ps(sums[1], weights[1])];
        let [low, high] = [scaled(&row, weights[0], at), scaled(&row, weights[1], at + 16)];
        // SAFETY: both types are 64 bytes of which every pattern is a value.
        let words = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
        store_words(&mut row.weights[at / 2..], words);
    }
    update(&mut row, largest, _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])))
}
