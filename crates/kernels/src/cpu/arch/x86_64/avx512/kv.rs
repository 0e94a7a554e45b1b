//! Stores keys and values in the panels of [`crate::cpu::table::kv`]: 16 tokens at a time by transposing, or one by
//! one.

use super::load::{Words, input_pairs, input_words, round_high};
use super::math::load;
use super::pack::transpose;
use crate::cpu::table::kv::{self, KvHeadMut, KvRows, Q8_OFFSET};
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::x86_64::*;

/// Tokens that are transposed together: the lanes of a register.
const TOKENS: usize = 16;

/// See [`crate::cpu::arch::scalar::attention::store_kv`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        store_token(head, t + i, key, value);
    }
}

/// Like [`store_kv`], with bf16 instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) fn store_kv_bf16(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    let whole = head.shape.format == KvFormat::Bf16 && rows.dim.is_multiple_of(32);
    let mut i = 0;
    while i < rows.count {
        if whole && (t + i).is_multiple_of(TOKENS) && rows.count - i >= TOKENS {
            store_keys(head, t + i, rows, i);
            store_values(head, t + i, rows, i);
            i += TOKENS;
        } else {
            let (key, value) = rows.token(i);
            store_token(head, t + i, key, value);
            i += 1;
        }
    }
}

/// Stores the keys of 16 tokens: rows of pairs become columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn store_keys(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>, first: usize) {
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    for at in (0..rows.dim / 2).step_by(16) {
        let mut block = [_mm512_setzero_si512(); TOKENS];
        for (i, words) in block.iter_mut().enumerate() {
            *words = input_pairs(&rows.token(first + i).0[2 * at..2 * at + 32]);
        }
        for (i, words) in transpose(block).into_iter().enumerate() {
            let to = &mut keys[(at + i) * KV_BLOCK_TOKENS + t..][..TOKENS];
            // SAFETY: 16 words, bounds checked above.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) };
        }
    }
}

/// Stores the values of 16 tokens: the same dimension of two tokens becomes a pair.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn store_values(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>, first: usize) {
    let values = bytemuck::cast_slice_mut::<u8, u32>(head.values);
    for i in (0..TOKENS).step_by(2) {
        let (even, odd) = (rows.token(first + i).1, rows.token(first + i + 1).1);
        let to = &mut values[(t + i) / 2 * rows.dim..][..rows.dim];
        for ((to, even), odd) in to.chunks_exact_mut(16).zip(even.chunks_exact(16)).zip(odd.chunks_exact(16))
        {
            let low = _mm512_cvtepu16_epi32(bits(_mm512_cvtneps_pbh(load(even))));
            let high = _mm512_cvtepu16_epi32(bits(_mm512_cvtneps_pbh(load(odd))));
            // SAFETY: 16 words.
            unsafe {
                let words = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bits(x: __m256bh) -> __m256i {
    // SAFETY: both types are 32 bytes, and every bit pattern is valid.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(x) }
}

/// Stores one token.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_token(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let dim = head.shape.dim;
    if !dim.is_multiple_of(16) {
        return head.store(t, key, value);
    }
    let words = match head.shape.format {
        KvFormat::F32 => Words::F32,
        KvFormat::Bf16 => Words::Pairs,
        KvFormat::Q8 => return store_q8(head, t, key, value),
    };
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    let group = head.shape.group;
    for at in (0..dim / group).step_by(16) {
        scatter(input_words(key, words, at), dim / group - at, &mut keys[at * KV_BLOCK_TOKENS + t..]);
    }
    let values = bytemuck::cast_slice_mut::<u8, u32>(head.values);
    let values = &mut values[t / group * dim..][..dim];
    for (to, value) in values.chunks_exact_mut(16).zip(value.chunks_exact(16)) {
        match words {
            Words::Pairs if t.is_multiple_of(2) => {
                insert(to, 0xffff, _mm512_srli_epi32::<16>(round_high(load(value))))
            }
            Words::Pairs => insert(to, -0x1_0000, round_high(load(value))),
            _ => insert(to, -1, _mm512_castps_si512(load(value))),
        }
    }
}

/// Writes up to `count` of 16 words to every 64th word of `out`.
#[inline]
#[target_feature(enable = "avx512f")]
fn scatter(words: __m512i, count: usize, out: &mut [u32]) {
    let mut lanes = [0u32; 16];
    // SAFETY: 16 words.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), words) };
    for (to, from) in out.iter_mut().step_by(KV_BLOCK_TOKENS).zip(lanes).take(count) {
        *to = from;
    }
}

/// Replaces the bits `mask` of 16 words with `bits`, which has no other bits set.
#[inline]
#[target_feature(enable = "avx512f")]
fn insert(words: &mut [u32], mask: i32, bits: __m512i) {
    assert_eq!(words.len(), 16);
    // SAFETY: 16 words, as asserted.
    unsafe {
        let kept = _mm512_andnot_si512(_mm512_set1_epi32(mask), _mm512_loadu_si512(words.as_ptr().cast()));
        _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_or_si512(kept, bits));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_q8(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let dim = head.shape.dim;
    let (key_scale, value_scale) = (q8_scale(key), q8_scale(value));
    (head.key_scales[t], head.value_scales[t]) = (key_scale, value_scale);
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    for (i, key) in key.chunks_exact(16).enumerate() {
        let bytes = _mm512_cvtepi32_epi8(q8(key, key_scale));
        let mut lanes = [0u32; 4];
        // SAFETY: 16 bytes.
        unsafe { _mm_storeu_si128(lanes.as_mut_ptr().cast(), bytes) };
        let to = keys[i * 4 * KV_BLOCK_TOKENS + t..].iter_mut().step_by(KV_BLOCK_TOKENS);
        to.zip(lanes).for_each(|(to, from)| *to = from);
    }
    let values = bytemuck::cast_slice_mut::<u8, u32>(head.values);
    let values = &mut values[t / 4 * dim..][..dim];
    let shift = _mm_cvtsi32_si128(8 * (t as i32 % 4));
    for (to, value) in values.chunks_exact_mut(16).zip(value.chunks_exact(16)) {
        insert(to, 0xff << (8 * (t % 4)), _mm512_sll_epi32(q8(value, value_scale), shift));
    }
}

/// See [`kv::q8_scale`].
#[inline]
#[target_feature(enable = "avx512f")]
fn q8_scale(values: &[f32]) -> f32 {
    let mut most = _mm512_setzero_si512();
    for values in values.chunks_exact(16) {
        // compared as integers, so that no NaN is lost
        most = _mm512_max_epu32(most, _mm512_castps_si512(_mm512_abs_ps(load(values))));
    }
    kv::q8_scale(f32::from_bits(_mm512_reduce_max_epu32(most)))
}

/// Returns 16 values as unsigned bytes in 32-bit lanes; only the offset if the scale is NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn q8(values: &[f32], scale: f32) -> __m512i {
    let scaled = _mm512_div_ps(load(values), _mm512_set1_ps(scale));
    let bytes = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(Q8_OFFSET as i32));
    // the conversion turns NaN into the highest bit alone
    _mm512_and_si512(bytes, _mm512_set1_epi32(0xff))
}
