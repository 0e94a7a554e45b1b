//! Functions of 4 lanes, with the same formulas as those of the x86-64 levels.

use std::arch::aarch64::*;

/// Lanes of a register.
pub(crate) const LANES: usize = 4;

/// `e^x`, within 1e-7 of the value: `x = n ln 2 + r`, `|r| <= ln 2 / 2`, with ln 2 in two parts so that r is exact,
/// and the polynomial of Cephes' `expf` for `e^r`. Zero below -87.3, where f32 loses its full precision.
#[inline]
#[target_feature(enable = "neon")]
fn exp(x: float32x4_t) -> float32x4_t {
    let tiny = vcltq_f32(x, vdupq_n_f32(-87.3));
    let x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-87.3)), vdupq_n_f32(89.0));
    let n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(std::f32::consts::LOG2_E)));
    let r = vfmsq_f32(x, n, vdupq_n_f32(0.693_359_4));
    let r = vfmsq_f32(r, n, vdupq_n_f32(-2.121_944_4e-4));
    let mut p = vdupq_n_f32(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        p = vfmaq_f32(vdupq_n_f32(c), p, r);
    }
    // 2^n in two halves, because 2^128 is infinite while e^r 2^128 may not be
    let n = vcvtnq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    let scaled = vmulq_f32(vmulq_f32(p, power_of_two(half)), power_of_two(vsubq_s32(n, half)));
    vbslq_f32(tiny, vdupq_n_f32(0.0), scaled)
}

/// `2^n`, for exponents of normal numbers.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// `2^t`, within 2e-7 of the value, for `t` up to 1; zero for -126 and below, NaN for NaN. A polynomial, fitted to
/// the least relative error on [0, 1), computes the fractional part; the integer part is added to the exponent.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp2_of_negative(t: float32x4_t) -> float32x4_t {
    let least = vdupq_n_f32(-126.0);
    // NaN compares false, and so counts
    let counts = vmvnq_u32(vcleq_f32(t, least));
    let t = vmaxq_f32(t, least);
    let n = vrndmq_f32(t);
    let r = vsubq_f32(t, n);
    let mut p = vdupq_n_f32(1.877_576_7e-3);
    for c in [8.989_341e-3, 5.582_632e-2, 2.401_536_1e-1, 6.931_531e-1, 0.999_999_94] {
        p = vfmaq_f32(vdupq_n_f32(c), p, r);
    }
    let exponent = vreinterpretq_u32_s32(vshlq_n_s32::<23>(vcvtq_s32_f32(n)));
    vreinterpretq_f32_u32(vandq_u32(vaddq_u32(vreinterpretq_u32_f32(p), exponent), counts))
}

/// `1 / (1 + e^-x)`
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sigmoid(x: float32x4_t) -> float32x4_t {
    let one = vdupq_n_f32(1.0);
    vdivq_f32(one, vaddq_f32(one, exp(vnegq_f32(x))))
}

/// `x Φ(x)`: with `q = erfc(|x| / √2)`, it is `x q / 2` for negative x and `x - x q / 2` for positive x, so that the
/// tail keeps its relative accuracy. `erfc` is Abramowitz & Stegun 7.1.26, within 1.5e-7.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn gelu(x: float32x4_t) -> float32x4_t {
    let one = vdupq_n_f32(1.0);
    let z = vmulq_f32(vabsq_f32(x), vdupq_n_f32(std::f32::consts::FRAC_1_SQRT_2));
    let t = vdivq_f32(one, vfmaq_f32(one, z, vdupq_n_f32(0.327_591_1)));
    let mut p = vdupq_n_f32(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = vfmaq_f32(vdupq_n_f32(c), p, t);
    }
    let tail = exp(vnegq_f32(vmulq_f32(z, z)));
    let q = vmulq_f32(vmulq_f32(p, t), tail);
    let half = vmulq_f32(vmulq_f32(x, vdupq_n_f32(0.5)), q);
    vbslq_f32(vcgtzq_f32(x), vsubq_f32(x, half), half)
}

/// Loads 4 values.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load_whole(x: &[f32; LANES]) -> float32x4_t {
    // SAFETY: 4 values.
    unsafe { vld1q_f32(x.as_ptr()) }
}

/// Writes 4 values.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store_whole(out: &mut [f32; LANES], x: float32x4_t) {
    // SAFETY: 4 values.
    unsafe { vst1q_f32(out.as_mut_ptr(), x) };
}

/// Loads the first lanes of `x`; zeros past its end.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load(x: &[f32]) -> float32x4_t {
    match x.first_chunk() {
        Some(whole) => load_whole(whole),
        None => load_part(x),
    }
}

#[cold]
#[target_feature(enable = "neon")]
fn load_part(x: &[f32]) -> float32x4_t {
    let mut lanes = [0.0; LANES];
    lanes[..x.len()].copy_from_slice(x);
    load_whole(&lanes)
}

/// Writes the lanes that `out` has room for.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store(out: &mut [f32], x: float32x4_t) {
    match out.first_chunk_mut() {
        Some(whole) => store_whole(whole, x),
        None => store_part(out, x),
    }
}

#[cold]
#[target_feature(enable = "neon")]
fn store_part(out: &mut [f32], x: float32x4_t) {
    let mut lanes = [0.0; LANES];
    store_whole(&mut lanes, x);
    out.copy_from_slice(&lanes[..out.len()]);
}
