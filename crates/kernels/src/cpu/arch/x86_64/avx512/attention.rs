//! The functions of blocked attention, see [`crate::cpu::ops::flash`].

use super::gemm::{Right, Tile, dot_pairs, fma, rectangle_bf16, rectangle_f32};
use super::load::{Words, input_pairs, input_words};
use super::math::{exp2, load, mask, store};
use crate::cpu::prefetch::Ahead;
use crate::cpu::table::attention::{
    FlashKernel, InTurn, KEYS, Products, Queries, SingleRow, SingleRows, SoftmaxRow, scale_left,
};
use crate::cpu::table::kv::Q8_OFFSET;
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::x86_64::*;

/// The kernel in f32.
pub(super) const F32: FlashKernel = FlashKernel {
    group: 1,
    pack_query: query_f32,
    widen: widen_f32,
    products: Products::InTurn(InTurn { scores: scores_f32, values: values_f32 }),
    exp: f32::exp2,
    softmax: softmax_f32,
    single_rows: SingleRows {
        f32: Some(SingleRow { scores: row_scores_words, values: row_values_words }),
        bf16: Some(SingleRow { scores: row_scores_halves, values: row_values_halves }),
        q8: Some(SingleRow { scores: row_scores_bytes, values: row_values_bytes }),
    },
};

/// The kernel with pairs of bf16.
pub(crate) const BF16: FlashKernel = FlashKernel {
    group: 2,
    pack_query: query_pairs,
    widen: widen_pairs,
    products: Products::InTurn(InTurn { scores: scores_bf16, values: values_bf16 }),
    exp: f32::exp2,
    softmax: softmax_bf16,
    single_rows: SingleRows {
        f32: None,
        bf16: Some(SingleRow { scores: row_scores_pairs, values: row_values_pairs }),
        q8: Some(SingleRow { scores: row_scores_byte_pairs, values: row_values_byte_pairs }),
    },
};

#[target_feature(enable = "avx512f")]
fn query_f32(row: &[f32], out: &mut [u32]) {
    out.copy_from_slice(bytemuck::cast_slice(row));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn query_pairs(row: &[f32], out: &mut [u32]) {
    assert_eq!(row.len(), 2 * out.len());
    let whole = row.len() / 32 * 16;
    let (words, rest) = out.split_at_mut(whole);
    for (to, row) in words.chunks_exact_mut(16).zip(row.chunks_exact(32)) {
        store_words(to, input_pairs(row));
    }
    if !rest.is_empty() {
        let words = input_words(row, Words::Pairs, whole);
        // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
        unsafe { _mm512_mask_storeu_epi32(rest.as_mut_ptr().cast(), mask(rest.len()), words) };
    }
}

/// Returns the four bytes of each lane, minus the offset, as f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn bytes(lanes: __m512i) -> [__m512; 4] {
    // the stored bytes minus 128 are signed ones
    const OFFSET: i32 = i32::from_ne_bytes([Q8_OFFSET as u8; 4]);
    let signed = _mm512_xor_si512(lanes, _mm512_set1_epi32(OFFSET));
    let shifted = [
        _mm512_slli_epi32::<24>(signed),
        _mm512_slli_epi32::<16>(signed),
        _mm512_slli_epi32::<8>(signed),
        signed,
    ];
    shifted.map(|byte| _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(byte)))
}

/// Packs two registers of f32 that bf16 represents exactly as pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn pair(low: __m512, high: __m512) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi32::<16>(_mm512_castps_si512(low)), _mm512_castps_si512(high))
}

/// Returns the four bytes of each lane as pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn byte_pairs(lanes: __m512i) -> [__m512i; 2] {
    let [a, b, c, d] = bytes(lanes);
    [pair(a, b), pair(c, d)]
}

/// Calls `put(row of words, column, lanes)` for a panel of 32-bit groups, `[_, cols]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn groups(panel: &[u8], cols: usize, mut put: impl FnMut(usize, usize, __m512i)) {
    for (row, groups) in panel.chunks_exact(4 * cols).enumerate() {
        for (i, lanes) in groups.chunks_exact(64).enumerate() {
            // SAFETY: the chunk has 64 bytes.
            put(row, 16 * i, unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) });
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load_words(words: &[u32; 16]) -> __m512i {
    // SAFETY: 64 bytes are read from an array of 64.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
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
        for (i, pairs) in byte_pairs(lanes).into_iter().enumerate() {
            store_words(&mut out[at + i * cols..], pairs);
        }
    });
}

#[target_feature(enable = "avx512f")]
fn widen_f32(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    match format {
        KvFormat::Q8 => groups(panel, cols, |row, col, lanes| {
            let at = 4 * row * cols + col;
            for (i, byte) in bytes(lanes).into_iter().enumerate() {
                store_words(&mut out[at + i * cols..], _mm512_castps_si512(byte));
            }
        }),
        KvFormat::Bf16 => groups(panel, cols, |row, col, lanes| {
            let at = 2 * row * cols + col;
            store_words(&mut out[at..], _mm512_slli_epi32::<16>(lanes));
            store_words(&mut out[at + cols..], _mm512_and_si512(lanes, _mm512_set1_epi32(-0x1_0000)));
        }),
        KvFormat::F32 => unreachable!("panels of f32 are not widened"),
    }
}

macro_rules! products {
    ($scores:ident, $values:ident, $columns:ident, $features:literal, $rectangle:ident, $group:literal) => {
        /// See [`FlashKernel::scores`].
        #[target_feature(enable = $features)]
        fn $scores(q: Queries<'_>, keys: &[u32], count: usize, scores: &mut [f32]) {
            let keys = Right { parts: &[keys], rows: q.count, stride: KV_BLOCK_TOKENS };
            match count.div_ceil(16) {
                1 => $columns::<6, 1>(q, keys, KEYS, scores, false),
                2 => $columns::<6, 2>(q, keys, KEYS, scores, false),
                3 => $columns::<6, 3>(q, keys, KEYS, scores, false),
                _ => $columns::<6, 4>(q, keys, KEYS, scores, false),
            }
        }

        /// Computes `16 Z` columns of a product, `R` rows at a time; a single row has its own path.
        #[inline]
        #[target_feature(enable = $features)]
        fn $columns<const R: usize, const Z: usize>(
            a: Queries<'_>,
            b: Right<'_>,
            c_stride: usize,
            c: &mut [f32],
            accumulate: bool,
        ) {
            let mut row = 0;
            while row < a.rows {
                let tile = Tile {
                    words: a.count,
                    a: &a.words[row * a.stride..],
                    a_strides: (a.stride, 1),
                    b,
                    c_stride,
                    accumulate,
                };
                let c = &mut c[row * c_stride..];
                if row + 1 == a.rows {
                    $rectangle::<1, Z>(&tile, c);
                    row += 1;
                } else {
                    $rectangle::<R, Z>(&tile, c);
                    row += R;
                }
            }
        }

        /// See [`FlashKernel::values`].
        #[target_feature(enable = $features)]
        fn $values(weights: Queries<'_>, panels: &[&[u32]], dim: usize, sums: &mut [f32]) {
            let mut col = 0;
            while col < dim {
                let mut parts: [&[u32]; KEYS / KV_BLOCK_TOKENS] = [&[]; KEYS / KV_BLOCK_TOKENS];
                for (part, panel) in parts.iter_mut().zip(panels) {
                    *part = &panel[col..];
                }
                let parts = &parts[..panels.len()];
                let values = Right { parts, rows: KV_BLOCK_TOKENS / $group, stride: dim };
                let (registers, sums) = ((dim - col) / 16, &mut sums[col..]);
                match registers {
                    1 => $columns::<6, 1>(weights, values, dim, sums, true),
                    2 => $columns::<6, 2>(weights, values, dim, sums, true),
                    3 | 6 => $columns::<6, 3>(weights, values, dim, sums, true),
                    _ => $columns::<6, 4>(weights, values, dim, sums, true),
                }
                col += 16 * if matches!(registers, 3 | 6) { 3 } else { registers.min(4) };
            }
        }
    };
}

products!(scores_f32, values_f32, columns_f32, "avx512f", rectangle_f32, 1);
products!(scores_bf16, values_bf16, columns_bf16, "avx512f,avx512bf16", rectangle_bf16, 2);

/// Adds the product of a word to `sum`.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_word(words: &[u32; 1], lanes: __m512i, sum: __m512) -> __m512 {
    fma(sum, _mm512_set1_epi32(words[0].cast_signed()), lanes)
}

/// Same as [`add_word`], for a word that is a pair.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_pair(words: &[u32; 1], lanes: __m512i, sum: __m512) -> __m512 {
    dot_pairs(sum, _mm512_set1_epi32(words[0].cast_signed()), lanes)
}

/// Adds to `sum` the products of the two bf16 in each lane and their words, in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_halves(words: &[u32; 2], lanes: __m512i, sum: __m512) -> __m512 {
    let (low, high) = (_mm512_slli_epi32::<16>(lanes), _mm512_and_si512(lanes, _mm512_set1_epi32(-0x1_0000)));
    let sum = fma(sum, _mm512_set1_epi32(words[0].cast_signed()), low);
    fma(sum, _mm512_set1_epi32(words[1].cast_signed()), high)
}

/// Adds to `sum` the products of the four bytes in each lane and their words, in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_bytes(words: &[u32; 4], lanes: __m512i, mut sum: __m512) -> __m512 {
    for (word, byte) in words.iter().zip(bytes(lanes)) {
        sum = fma(sum, _mm512_set1_epi32(word.cast_signed()), _mm512_castps_si512(byte));
    }
    sum
}

/// Same as [`add_bytes`], for words that are pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_byte_pairs(words: &[u32; 2], lanes: __m512i, mut sum: __m512) -> __m512 {
    for (word, pairs) in words.iter().zip(byte_pairs(lanes)) {
        sum = dot_pairs(sum, _mm512_set1_epi32(word.cast_signed()), pairs);
    }
    sum
}

macro_rules! row {
    ($scores:ident, $values:ident, $features:literal, $add:ident, $words:literal) => {
        /// See [`SingleRow::scores`].
        #[target_feature(enable = $features)]
        fn $scores(query: &[u32], keys: &[u32], ahead: Ahead<'_>, scores: &mut [f32]) {
            const LINES: usize = KV_BLOCK_TOKENS / Ahead::LINE_WORDS;
            let mut sums = [_mm512_setzero_ps(); KV_BLOCK_TOKENS / 16];
            let keys = keys.as_chunks::<KV_BLOCK_TOKENS>().0;
            for (i, (words, keys)) in query.as_chunks::<$words>().0.iter().zip(keys).enumerate() {
                ahead.fetch_lines(LINES * i, LINES);
                for (keys, sum) in keys.as_chunks().0.iter().zip(&mut sums) {
                    *sum = $add(words, load_words(keys), *sum);
                }
            }
            for (scores, sum) in scores.chunks_exact_mut(16).zip(sums) {
                store(scores, sum);
            }
        }

        /// See [`SingleRow::values`].
        #[target_feature(enable = $features)]
        fn $values(weights: &[u32], values: &[u32], ahead: Ahead<'_>, sums: &mut [f32]) {
            let dim = sums.len();
            let lines = dim / Ahead::LINE_WORDS;
            // up to 64 dimensions at a time: four registers of sums hide the latency of an addition
            for (part, sums) in sums.chunks_mut(64).enumerate() {
                let count = sums.len() / 16;
                let mut acc: [__m512; 4] = std::array::from_fn(|j| load(&sums[(16 * j).min(sums.len())..]));
                let rows = weights.as_chunks::<$words>().0.iter().zip(values.chunks_exact(dim));
                for (i, (words, values)) in rows.enumerate() {
                    if part == 0 {
                        ahead.fetch_lines(lines * i, lines);
                    }
                    let values = values[64 * part..].as_chunks().0;
                    for (values, acc) in values.iter().zip(&mut acc[..count]) {
                        *acc = $add(words, load_words(values), *acc);
                    }
                }
                for (sums, acc) in sums.chunks_exact_mut(16).zip(acc) {
                    store(sums, acc);
                }
            }
        }
    };
}

row!(row_scores_words, row_values_words, "avx512f", add_word, 1);
row!(row_scores_halves, row_values_halves, "avx512f", add_halves, 2);
row!(row_scores_bytes, row_values_bytes, "avx512f", add_bytes, 4);
row!(row_scores_pairs, row_values_pairs, "avx512f,avx512bf16", add_pair, 1);
row!(row_scores_byte_pairs, row_values_byte_pairs, "avx512f,avx512bf16", add_byte_pairs, 2);

/// Returns the largest of the scores.
#[inline]
#[target_feature(enable = "avx512f")]
fn largest_of(scores: &[f32]) -> f32 {
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let (mut even, mut odd) = (lowest, lowest);
    let (pairs, rest) = scores.as_chunks::<32>();
    for pair in pairs {
        even = _mm512_max_ps(even, load(&pair[..16]));
        odd = _mm512_max_ps(odd, load(&pair[16..]));
    }
    for part in rest.chunks(16) {
        even = _mm512_mask_max_ps(even, mask(part.len()), even, load(part));
    }
    _mm512_reduce_max_ps(_mm512_max_ps(even, odd))
}

/// The values that a row's weights are computed from.
#[derive(Clone, Copy)]
struct Exponents {
    /// Factor that turns a score into an exponent of 2.
    scale: __m512,
    /// The largest score times `scale`.
    largest: __m512,
}

impl Exponents {
    /// Returns the weights of 16 scores.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn weights(self, scores: &[f32; 16]) -> __m512 {
        exp2(_mm512_fmsub_ps(load(scores), self.scale, self.largest))
    }
}

/// Multiplies 16 values by the scales from `at` on, if there are any.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(x: __m512, scales: &[f32], at: usize) -> __m512 {
    if scales.is_empty() { x } else { _mm512_mul_ps(x, load(&scales[at..])) }
}

macro_rules! softmax {
    ($name:ident, $features:literal, $put:ident) => {
        /// See [`FlashKernel::softmax`].
        #[target_feature(enable = $features)]
        fn $name(row: SoftmaxRow<'_>) -> f32 {
            let SoftmaxRow { scores, valid, scale, key_scales, value_scales, weights, state } = row;
            if valid == 0 {
                weights.fill(0);
                return 1.0;
            }
            if !key_scales.is_empty() {
                for (i, part) in scores.chunks_exact_mut(16).enumerate() {
                    let product = scaled(load(part), key_scales, 16 * i);
                    store(part, product);
                }
            }
            let scale = scale * std::f32::consts::LOG2_E;
            let largest = state.largest.max(largest_of(&scores[..valid]) * scale);
            let scale = scale_left(scores, scale, largest);
            let exponents = Exponents { scale: _mm512_set1_ps(scale), largest: _mm512_set1_ps(largest) };
            let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            let (words, pairs) = (weights.len() * 32 / scores.len(), scores.as_chunks::<16>().0);
            for (i, pair) in pairs.as_chunks::<2>().0.iter().enumerate() {
                let weights = &mut weights[i * words..][..words];
                let (mut low, mut high) = (exponents.weights(&pair[0]), exponents.weights(&pair[1]));
                let mut scaled_low = scaled(low, value_scales, 32 * i);
                let mut scaled_high = scaled(high, value_scales, 32 * i + 16);
                if 32 * i + 32 > valid {
                    // also the scaled weights: a scale past `valid` may be NaN
                    let seen = [mask(valid.saturating_sub(32 * i)), mask(valid.saturating_sub(32 * i + 16))];
                    low = _mm512_maskz_mov_ps(seen[0], low);
                    high = _mm512_maskz_mov_ps(seen[1], high);
                    scaled_low = _mm512_maskz_mov_ps(seen[0], scaled_low);
                    scaled_high = _mm512_maskz_mov_ps(seen[1], scaled_high);
                }
                (even, odd) = (_mm512_add_ps(even, low), _mm512_add_ps(odd, high));
                $put(weights, scaled_low, scaled_high);
            }
            let factor = _mm512_cvtss_f32(exp2(_mm512_set1_ps(state.largest - largest)));
            state.sum = state.sum * factor + _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
            state.largest = largest;
            factor
        }
    };
}

/// Writes 32 weights as 32 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn put_f32(words: &mut [u32], low: __m512, high: __m512) {
    store_words(words, _mm512_castps_si512(low));
    store_words(&mut words[16..], _mm512_castps_si512(high));
}

/// Writes 32 weights as 16 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn put_pairs(words: &mut [u32], low: __m512, high: __m512) {
    // SAFETY: both types are 64 bytes, and every bit pattern is valid.
    store_words(words, unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) });
}

softmax!(softmax_f32, "avx512f,avx512dq", put_f32);
softmax!(softmax_bf16, "avx512f,avx512dq,avx512bf16", put_pairs);
