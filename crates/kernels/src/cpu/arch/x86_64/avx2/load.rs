//! Loads of stored values into registers.

use crate::DenseFormat;
use std::arch::x86_64::*;

/// Rounds to bf16, to nearest even. The low halves of the lanes become zero.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn round(x: __m256) -> __m256 {
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    let rounded = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-0x1_0000)))
}

/// Loads 8 stored values of a row from value `at` on, as f32, rounded to bf16 if `ROUNDED`; zeros past the row's end.
/// A constant `format` leaves only one branch.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn widened<const ROUNDED: bool>(row: &[u8], format: DenseFormat, at: usize) -> __m256 {
    let bytes = 8 * format.value_bytes();
    let rest = row.get(at * bytes / 8..).unwrap_or_default();
    let mut copy = [0u8; 32];
    let from = if rest.len() >= bytes {
        rest.as_ptr()
    } else {
        copy[..rest.len()].copy_from_slice(rest);
        copy.as_ptr()
    };
    // SAFETY: `bytes` bytes are readable at `from`, in the row or in the copy.
    let (values, exact) = unsafe {
        match format {
            DenseFormat::F32 => (_mm256_loadu_ps(from.cast()), false),
            DenseFormat::F16 => (_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), false),
            DenseFormat::Bf16 => {
                let lanes = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(lanes)), true)
            }
        }
    };
    if ROUNDED && !exact { round(values) } else { values }
}
