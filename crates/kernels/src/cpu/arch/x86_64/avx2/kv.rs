//! Stores keys and values in the panels of [`crate::cpu::table::kv`], one token at a time.

use super::load::round;
use super::math::{load, store};
use crate::cpu::table::kv::{self, KvHeadMut, KvRows, Q8_OFFSET};
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::x86_64::*;

/// See [`crate::cpu::arch::scalar::attention::store_kv`]; the bytes are the same.
#[target_feature(enable = "avx2,fma")]
pub(super) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        match head.shape.format {
            _ if !rows.dim.is_multiple_of(8) => head.store(t + i, key, value),
            KvFormat::F32 => store_f32(head, t + i, key, value),
            KvFormat::Bf16 => store_bf16(head, t + i, key, value),
            KvFormat::Q8 => store_q8(head, t + i, key, value),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_f32(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let keys = bytemuck::cast_slice_mut::<u8, f32>(head.keys);
    keys[t..].iter_mut().step_by(KV_BLOCK_TOKENS).zip(key).for_each(|(to, from)| *to = *from);
    let values = bytemuck::cast_slice_mut::<u8, f32>(head.values);
    values[t * value.len()..][..value.len()].copy_from_slice(value);
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_bf16(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    for (i, key) in key.chunks_exact(8).enumerate() {
        let mut rounded = [0.0; 8];
        store(&mut rounded, round(load(key)));
        for (j, pair) in rounded.as_chunks::<2>().0.iter().enumerate() {
            let [low, high] = pair.map(f32::to_bits);
            keys[(4 * i + j) * KV_BLOCK_TOKENS + t] = high | low >> 16;
        }
    }
    let values = bytemuck::cast_slice_mut::<u8, u32>(head.values);
    let values = &mut values[t / 2 * value.len()..][..value.len()];
    for (to, value) in values.as_chunks_mut().0.iter_mut().zip(value.chunks_exact(8)) {
        let high = _mm256_castps_si256(round(load(value)));
        if t.is_multiple_of(2) {
            insert(to, 0xffff, _mm256_srli_epi32::<16>(high));
        } else {
            insert(to, -0x1_0000, high);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_q8(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let (key_scale, value_scale) = (q8_scale(key), q8_scale(value));
    (head.key_scales[t], head.value_scales[t]) = (key_scale, value_scale);
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    let order = _mm256_broadcastsi128_si256(_mm_cvtsi32_si128(0x0c_08_04_00));
    for (i, key) in key.chunks_exact(8).enumerate() {
        let bytes = _mm256_shuffle_epi8(q8(key, key_scale), order);
        let halves = [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)];
        for (j, half) in halves.into_iter().enumerate() {
            keys[(2 * i + j) * KV_BLOCK_TOKENS + t] = _mm_cvtsi128_si32(half).cast_unsigned();
        }
    }
    let values = bytemuck::cast_slice_mut::<u8, u32>(head.values);
    let values = &mut values[t / 4 * value.len()..][..value.len()];
    let shift = _mm_cvtsi32_si128(8 * (t as i32 % 4));
    for (to, value) in values.as_chunks_mut().0.iter_mut().zip(value.chunks_exact(8)) {
        insert(to, 0xff << (8 * (t % 4)), _mm256_sll_epi32(q8(value, value_scale), shift));
    }
}

/// Replaces the bits `mask` of 8 words with `bits`, which has no other bits set.
#[inline]
#[target_feature(enable = "avx2")]
fn insert(words: &mut [u32; 8], mask: i32, bits: __m256i) {
    // SAFETY: 8 words are read and written.
    unsafe {
        let kept = _mm256_andnot_si256(_mm256_set1_epi32(mask), _mm256_loadu_si256(words.as_ptr().cast()));
        _mm256_storeu_si256(words.as_mut_ptr().cast(), _mm256_or_si256(kept, bits));
    }
}

/// See [`kv::q8_scale`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn q8_scale(values: &[f32]) -> f32 {
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut most = _mm256_setzero_si256();
    for values in values.chunks_exact(8) {
        // compared as integers, so that no NaN is lost
        most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(load(values)), magnitude));
    }
    let lanes: [u32; 8] = bytemuck::cast(most);
    kv::q8_scale(f32::from_bits(lanes.into_iter().fold(0, u32::max)))
}

/// Returns 8 values as unsigned bytes in 32-bit lanes; only the offset if the scale is NaN.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn q8(values: &[f32], scale: f32) -> __m256i {
    let scaled = _mm256_div_ps(load(values), _mm256_set1_ps(scale));
    let bytes = _mm256_add_epi32(_mm256_cvtps_epi32(scaled), _mm256_set1_epi32(Q8_OFFSET as i32));
    // the conversion turns NaN into the highest bit alone
    _mm256_and_si256(bytes, _mm256_set1_epi32(0xff))
}
