//! Loads of stored values into registers. The matrix kernels count in 32-bit *words*: one f32, or two bf16.
//!
//! With `FULL` the caller guarantees that the register is within the row; otherwise lanes past the row's end are
//! zero.

use super::math::mask;
use crate::DenseFormat;
use std::arch::x86_64::*;

/// What a word holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// One unchanged f32.
    F32,
    /// One f32, rounded to bf16.
    Rounded,
    /// Two bf16, the first in the low half.
    Pairs,
}

impl Words {
    /// Returns the number of words that `k` values take.
    pub(super) fn count(self, k: usize) -> usize {
        if self == Self::Pairs { k.div_ceil(2) } else { k }
    }

    /// Returns the number of words that `k` values fill completely.
    pub(super) fn whole(self, k: usize) -> usize {
        if self == Self::Pairs { k / 2 } else { k }
    }
}

/// Rounds to bf16, to nearest even, with integer arithmetic. Processors without bf16 instructions have only this
/// method, and unlike those instructions it keeps subnormals. Returns the bf16 in the high half of each lane; the low
/// half is zero.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round_high(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
    _mm512_and_si512(rounded, _mm512_set1_epi32(-0x1_0000))
}

/// Returns the address of `bytes` bytes of `row` from byte `at` on, and the number of values of 2 or 4 bytes that
/// exist there.
#[inline]
fn rest<const FULL: bool>(row: &[u8], at: usize, bytes: usize, value_bytes: usize) -> (*const u8, usize) {
    if FULL {
        (row[at..at + bytes].as_ptr(), bytes / value_bytes)
    } else {
        let rest = row.get(at..).unwrap_or_default();
        (rest.as_ptr(), (rest.len().min(bytes)) / value_bytes)
    }
}

/// Loads 16 stored values of a weight row from value `at` on, as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn widened<const FULL: bool>(row: &[u8], format: DenseFormat, at: usize) -> __m512 {
    let value_bytes = format.value_bytes();
    let (from, count) = rest::<FULL>(row, at * value_bytes, 16 * value_bytes, value_bytes);
    // SAFETY: `count` values exist; the masks leave out the others, and masked lanes are not accessed.
    unsafe {
        if format == DenseFormat::F32 {
            return if FULL {
                _mm512_loadu_ps(from.cast())
            } else {
                _mm512_maskz_loadu_ps(mask(count), from.cast())
            };
        }
        let half = if FULL {
            _mm256_loadu_si256(from.cast())
        } else {
            _mm256_maskz_loadu_epi16(mask(count), from.cast())
        };
        match format {
            DenseFormat::F32 => unreachable!("loaded above"),
            DenseFormat::F16 => _mm512_cvtph_ps(half),
            DenseFormat::Bf16 => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))),
        }
    }
}

/// Loads 16 words of a weight row from word `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn row_words<const FULL: bool>(
    row: &[u8],
    format: DenseFormat,
    words: Words,
    at: usize,
) -> __m512i {
    let exact = match (words, format) {
        (Words::Pairs, DenseFormat::Bf16) => {
            let (from, count) = rest::<FULL>(row, 4 * at, 64, 2);
            let lanes = if count >= 32 { u32::MAX } else { (1 << count) - 1 };
            // SAFETY: `count` values exist; the mask leaves out the others, and masked lanes are not accessed.
            return unsafe {
                if FULL {
                    _mm512_loadu_si512(from.cast())
                } else {
                    _mm512_maskz_loadu_epi16(lanes, from.cast())
                }
            };
        }
        (Words::Pairs, DenseFormat::F32 | DenseFormat::F16) => {
            let first = round_high(widened::<FULL>(row, format, 2 * at));
            let second = round_high(widened::<FULL>(row, format, 2 * at + 16));
            let even = _mm512_permutex2var_epi32(first, lanes(&EVEN), second);
            let odd = _mm512_permutex2var_epi32(first, lanes(&ODD), second);
            return _mm512_or_si512(_mm512_srli_epi32::<16>(even), odd);
        }
        (Words::Rounded, DenseFormat::F32 | DenseFormat::F16) => false,
        (Words::Rounded, DenseFormat::Bf16) | (Words::F32, _) => true,
    };
    let values = widened::<FULL>(row, format, at);
    if exact { _mm512_castps_si512(values) } else { round_high(values) }
}

static EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
static ODD: [i32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];

#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(values: &[i32; 16]) -> __m512i {
    // SAFETY: 16 values of 4 bytes.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Loads 16 words of a row of activations from word `at` on; zeros past its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn input_words(row: &[f32], words: Words, at: usize) -> __m512i {
    row_words::<false>(bytemuck::cast_slice(row), DenseFormat::F32, words, at)
}

/// Packs 32 activations as 16 words of pairs, with the bf16 instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn input_pairs(x: &[f32]) -> __m512i {
    assert!(x.len() >= 32);
    // SAFETY: 32 values, as asserted; both register types are 64 bytes, and every bit pattern is valid.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}
