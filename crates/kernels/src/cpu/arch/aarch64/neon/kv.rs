//! Stores keys and values in the panels of [`crate::cpu::table::kv`], one token at a time.

use super::load::narrow;
use super::math::{LANES, load};
use crate::cpu::table::kv::{self, KvHeadMut, KvRows, Q8_OFFSET};
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::aarch64::*;

/// See [`crate::cpu::arch::scalar::attention::store_kv`]; the bytes are the same.
#[target_feature(enable = "neon")]
pub(crate) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        match head.shape.format {
            _ if !rows.dim.is_multiple_of(LANES) => head.store(t + i, key, value),
            KvFormat::F32 => store_f32(head, t + i, key, value),
            KvFormat::Bf16 => store_bf16(head, t + i, key, value),
            KvFormat::Q8 => store_q8(head, t + i, key, value),
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_f32(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let keys = bytemuck::cast_slice_mut::<u8, f32>(head.keys);
    keys[t..].iter_mut().step_by(KV_BLOCK_TOKENS).zip(key).for_each(|(to, from)| *to = *from);
    let values = bytemuck::cast_slice_mut::<u8, f32>(head.values);
    values[t * value.len()..][..value.len()].copy_from_slice(value);
}

#[inline]
#[target_feature(enable = "neon")]
fn store_bf16(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    for (i, key) in key.chunks_exact(LANES).enumerate() {
        let pairs: [u32; 2] = bytemuck::cast(bf16_bits(key));
        for (j, pair) in pairs.into_iter().enumerate() {
            keys[(2 * i + j) * KV_BLOCK_TOKENS + t] = pair;
        }
    }
    let values = bytemuck::cast_slice_mut::<u8, u16>(head.values);
    let values = &mut values[t / 2 * 2 * value.len()..][..2 * value.len()];
    for (to, value) in values.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().zip(value.chunks_exact(LANES)) {
        for (d, bits) in bf16_bits(value).into_iter().enumerate() {
            to[2 * d + t % 2] = bits;
        }
    }
}

/// Rounds 4 values to bf16.
#[inline]
#[target_feature(enable = "neon")]
fn bf16_bits(values: &[f32]) -> [u16; LANES] {
    let mut bits = [0; LANES];
    // SAFETY: 4 values.
    unsafe { vst1_u16(bits.as_mut_ptr(), narrow(load(values))) };
    bits
}

#[inline]
#[target_feature(enable = "neon")]
fn store_q8(head: &mut KvHeadMut<'_>, t: usize, key: &[f32], value: &[f32]) {
    let (key_scale, value_scale) = (q8_scale(key), q8_scale(value));
    (head.key_scales[t], head.value_scales[t]) = (key_scale, value_scale);
    let keys = bytemuck::cast_slice_mut::<u8, u32>(head.keys);
    for (i, key) in key.chunks_exact(LANES).enumerate() {
        keys[i * KV_BLOCK_TOKENS + t] = u32::from_le_bytes(q8(key, key_scale));
    }
    let values = &mut head.values[t / 4 * 4 * value.len()..][..4 * value.len()];
    for (to, value) in values.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().zip(value.chunks_exact(LANES)) {
        for (d, byte) in q8(value, value_scale).into_iter().enumerate() {
            to[4 * d + t % 4] = byte;
        }
    }
}

/// See [`kv::q8_scale`].
#[inline]
#[target_feature(enable = "neon")]
fn q8_scale(values: &[f32]) -> f32 {
    let mut most = vdupq_n_u32(0);
    for values in values.chunks_exact(LANES) {
        // compared as integers, so that no NaN is lost
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(load(values))));
    }
    kv::q8_scale(f32::from_bits(vmaxvq_u32(most)))
}

/// Returns 4 values as unsigned bytes; only the offset if the scale is NaN, because the conversion turns NaN into
/// zero.
#[inline]
#[target_feature(enable = "neon")]
fn q8(values: &[f32], scale: f32) -> [u8; LANES] {
    let scaled = vcvtnq_s32_f32(vdivq_f32(load(values), vdupq_n_f32(scale)));
    let lanes = vreinterpretq_u32_s32(vaddq_s32(scaled, vdupq_n_s32(Q8_OFFSET as i32)));
    let bytes = vmovn_u16(vcombine_u16(vmovn_u32(lanes), vdup_n_u16(0)));
    vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)).to_le_bytes()
}
