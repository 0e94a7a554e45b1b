//! Rounding, and packing into the layouts that the matrix kernels read.

use super::load::{Words, input_words, round_high, row_words};
use super::math::{load, mask};
use crate::cpu::table::dense::WeightRows;
use std::arch::x86_64::*;
use std::ops::Range;

/// See [`crate::cpu::arch::scalar::rows::round_bf16`].
#[target_feature(enable = "avx512f")]
pub(super) fn round_bf16(x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len());
    for (x, out) in x.chunks(16).zip(out.chunks_mut(16)) {
        let rounded = _mm512_srli_epi32::<16>(round_high(load(x)));
        // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
        unsafe { _mm512_mask_cvtepi32_storeu_epi16(out.as_mut_ptr().cast(), mask(out.len()), rounded) };
    }
}

/// Transposes 16 x 16 words: pairs of lanes, then pairs of pairs, then the 128-bit quarters.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        for j in 0..2 {
            u[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
            u[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
        }
    }
    let mut out = u;
    for j in 0..4 {
        // quarter q of u[4 i + j] holds words 4 q + j of rows 4 i .. 4 i + 4
        let low = _mm512_shuffle_i32x4::<0x44>(u[j], u[4 + j]);
        let high = _mm512_shuffle_i32x4::<0xee>(u[j], u[4 + j]);
        let low2 = _mm512_shuffle_i32x4::<0x44>(u[8 + j], u[12 + j]);
        let high2 = _mm512_shuffle_i32x4::<0xee>(u[8 + j], u[12 + j]);
        out[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        out[4 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        out[8 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    }
    out
}

/// Packs words `range` of the weight rows into a panel `[range.len(), 64]`; missing rows become zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_panel(rows: &WeightRows<'_>, words: Words, range: Range<usize>, out: &mut [u32]) {
    assert!(out.len() >= range.len() * 64 && rows.len() <= 64);
    for quarter in 0..4 {
        let row = |i: usize| if quarter * 16 + i < rows.len() { rows.row(quarter * 16 + i) } else { &[] };
        let sources: [&[u8]; 16] = std::array::from_fn(row);
        let whole = if quarter * 16 + 16 <= rows.len() { words.whole(rows.k) } else { 0 };
        for at in (0..range.len()).step_by(16) {
            let first = range.start + at;
            let mut block = [_mm512_setzero_si512(); 16];
            if first + 16 <= whole {
                for i in 0..16 {
                    block[i] = row_words::<true>(sources[i], rows.format, words, first);
                }
            } else {
                for i in 0..16 {
                    block[i] = row_words::<false>(sources[i], rows.format, words, first);
                }
            }
            let count = (range.len() - at).min(16);
            for (i, lanes) in transpose(block).into_iter().enumerate().take(count) {
                let to = &mut out[(at + i) * 64 + quarter * 16..][..16];
                // SAFETY: 16 words, bounds checked above.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), lanes) };
            }
        }
    }
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn weights_f32(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    pack_panel(rows, Words::F32, range, out);
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn weights_rounded(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    pack_panel(rows, Words::Rounded, range, out);
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_weights`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn weights_pairs(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    pack_panel(rows, Words::Pairs, range, out);
}

/// Packs `x`, up to `MR` rows of `k` values, into a tile `[words, MR]`; missing rows become zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_tile<const MR: usize>(x: &[f32], k: usize, words: Words, out: &mut [u32]) {
    let mut lanes = [0u32; 16];
    for r in 0..MR {
        let row = x.get(r * k..(r + 1) * k).unwrap_or_default();
        for (block, out) in out.chunks_mut(16 * MR).enumerate() {
            let lanes_of = input_words(row, words, block * 16);
            // SAFETY: 16 words.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), lanes_of) };
            for (to, from) in out.iter_mut().skip(r).step_by(MR).zip(lanes) {
                *to = from;
            }
        }
    }
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_input`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn input_f32(x: &[f32], k: usize, out: &mut [u32]) {
    pack_tile::<6>(x, k, Words::F32, out);
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_input`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn input_rounded(x: &[f32], k: usize, out: &mut [u32]) {
    pack_tile::<6>(x, k, Words::Rounded, out);
}

/// See [`crate::cpu::table::dense::GemmKernel::pack_input`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn input_pairs(x: &[f32], k: usize, out: &mut [u32]) {
    pack_tile::<6>(x, k, Words::Pairs, out);
}
