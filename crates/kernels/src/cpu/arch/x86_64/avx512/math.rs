//! Functions of 16 lanes.

use std::arch::x86_64::*;

/// `e^x`, within 1e-7 of the value: `x = n ln 2 + r`, `|r| <= ln 2 / 2`, with ln 2 in two parts so that r is exact,
/// and the polynomial of Cephes' `expf` for `e^r`. Zero below -110, infinite above 89, NaN for NaN.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    // if an operand is NaN, both instructions return the second one
    let x = _mm512_min_ps(_mm512_set1_ps(100.0), _mm512_max_ps(_mm512_set1_ps(-110.0), x));
    let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// `2^t`, within 2e-7 of the value, for `t` of any magnitude. A polynomial, fitted to the least relative error on [0,
/// 1), computes the fractional part; the instruction adds the integer part.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn exp2(t: __m512) -> __m512 {
    const FLOOR: i32 = 0x09;
    let r = _mm512_reduce_ps::<FLOOR>(t);
    let mut p = _mm512_set1_ps(1.877_576_7e-3);
    for c in [8.989_341e-3, 5.582_632e-2, 2.401_536_1e-1, 6.931_531e-1, 0.999_999_94] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, t)
}

/// `1 / (1 + e^-x)`. The rounding of `x log2 e` shows only if the result is near zero.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn sigmoid(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let power = exp2(_mm512_mul_ps(x, _mm512_set1_ps(-std::f32::consts::LOG2_E)));
    _mm512_div_ps(one, _mm512_add_ps(one, power))
}

/// `x Φ(x)`: with `q = erfc(|x| / √2)`, it is `x q / 2` for negative x and `x - x q / 2` for positive x, so that the
/// tail keeps its relative accuracy. `erfc` is Abramowitz & Stegun 7.1.26, within 1.5e-7.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn gelu(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(std::f32::consts::FRAC_1_SQRT_2));
    let t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.327_591_1), one));
    let mut p = _mm512_set1_ps(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(c));
    }
    let tail = exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z)));
    let q = _mm512_mul_ps(_mm512_mul_ps(p, t), tail);
    let half = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5)), q);
    let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps());
    _mm512_mask_sub_ps(half, positive, x, half)
}

/// Returns the mask of lanes `0..len`, at most all 16.
#[inline]
pub(crate) fn mask(len: usize) -> __mmask16 {
    if len >= 16 { u16::MAX } else { (1 << len) - 1 }
}

/// Loads the first lanes of `x`; zeros past its end.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(x: &[f32]) -> __m512 {
    // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
    unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) }
}

/// Writes the lanes that `out` has room for.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(out: &mut [f32], x: __m512) {
    // SAFETY: the mask leaves out lanes beyond the slice, and masked lanes are not accessed.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), x) }
}
