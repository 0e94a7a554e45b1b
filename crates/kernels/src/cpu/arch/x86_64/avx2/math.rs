//! Functions of 8 lanes, with the same formulas as those of 16, see [`super::super::avx512`].

use std::arch::x86_64::*;

/// `e^x`, within 1e-7 of the value: `x = n ln 2 + r`, `|r| <= ln 2 / 2`, with ln 2 in two parts so that r is exact,
/// and the polynomial of Cephes' `expf` for `e^r`. Zero below -87.3, where f32 loses its full precision; NaN for NaN.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exp(x: __m256) -> __m256 {
    let tiny = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-87.3));
    // if an operand is NaN, both instructions return the second one
    let x = _mm256_min_ps(_mm256_set1_ps(89.0), _mm256_max_ps(_mm256_set1_ps(-87.3), x));
    let n = _mm256_round_ps::<8>(_mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    // 2^n in two halves, because 2^128 is infinite while e^r 2^128 may not be
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
    let scaled = _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(_mm256_sub_epi32(n, half)));
    _mm256_andnot_ps(tiny, scaled)
}

/// `1 / (1 + e^-x)`
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sigmoid(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    _mm256_div_ps(one, _mm256_add_ps(one, exp(_mm256_sub_ps(_mm256_setzero_ps(), x))))
}

/// `x Φ(x)`: with `q = erfc(|x| / √2)`, it is `x q / 2` for negative x and `x - x q / 2` for positive x, so that the
/// tail keeps its relative accuracy. `erfc` is Abramowitz & Stegun 7.1.26, within 1.5e-7.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn gelu(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    let size = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    let z = _mm256_mul_ps(size, _mm256_set1_ps(std::f32::consts::FRAC_1_SQRT_2));
    let t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.327_591_1), one));
    let mut p = _mm256_set1_ps(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(c));
    }
    let tail = exp(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(z, z)));
    let q = _mm256_mul_ps(_mm256_mul_ps(p, t), tail);
    let half = _mm256_mul_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.5)), q);
    let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps());
    _mm256_blendv_ps(half, _mm256_sub_ps(x, half), positive)
}

/// Returns the sum of the lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// Returns the largest of the lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn largest(x: __m256) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}

/// Loads the first lanes of `x`; zeros past its end.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(x: &[f32]) -> __m256 {
    if let Some(whole) = x.first_chunk::<8>() {
        // SAFETY: 8 values.
        return unsafe { _mm256_loadu_ps(whole.as_ptr()) };
    }
    let mut lanes = [0.0; 8];
    lanes[..x.len()].copy_from_slice(x);
    // SAFETY: 8 values.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

/// Writes the lanes that `out` has room for.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(out: &mut [f32], x: __m256) {
    if let Some(whole) = out.first_chunk_mut::<8>() {
        // SAFETY: 8 values.
        unsafe { _mm256_storeu_ps(whole.as_mut_ptr(), x) };
        return;
    }
    let mut lanes = [0.0; 8];
    // SAFETY: 8 values.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), x) };
    let count = out.len();
    out.copy_from_slice(&lanes[..count]);
}
