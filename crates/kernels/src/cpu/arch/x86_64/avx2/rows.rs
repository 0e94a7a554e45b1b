//! Operations on single rows.

use super::load::round;
use super::math::{gelu, load, sigmoid, store, sum};
use crate::Epilogue;
use crate::cpu::table::Affine;
use std::arch::x86_64::*;

/// Returns the sum of `term` over a row; `term` must be zero for lanes past the row's end.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_of(x: &[f32], term: impl Fn(usize, __m256) -> __m256) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 2];
    for (i, x) in x.chunks(8).enumerate() {
        sums[i % 2] = _mm256_add_ps(sums[i % 2], term(x.len(), load(x)));
    }
    sum(_mm256_add_ps(sums[0], sums[1]))
}

/// See [`crate::cpu::arch::scalar::rows::rms_norm`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |_, v| _mm256_mul_ps(v, v)) / x.len() as f32;
    let inverse = _mm256_set1_ps(1.0 / (mean + eps).sqrt());
    for ((x, weight), out) in x.chunks(8).zip(weight.chunks(8)).zip(out.chunks_mut(8)) {
        store(out, _mm256_mul_ps(_mm256_mul_ps(load(x), inverse), load(weight)));
    }
}

/// Returns the lane numbers, 0 to 7.
#[inline]
#[target_feature(enable = "avx2")]
fn numbers() -> __m256 {
    _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
}

/// See [`crate::cpu::arch::scalar::rows::layer_norm`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn layer_norm(x: &[f32], (weight, bias): Affine<'_>, eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |_, v| v) / x.len() as f32;
    let mean_lanes = _mm256_set1_ps(mean);
    let square = |count, v| {
        let d = _mm256_sub_ps(v, mean_lanes);
        let there = _mm256_cmp_ps::<_CMP_LT_OQ>(numbers(), _mm256_set1_ps(count as f32));
        _mm256_and_ps(there, _mm256_mul_ps(d, d))
    };
    let variance = sum_of(x, square) / x.len() as f32;
    let inverse = _mm256_set1_ps(1.0 / (variance + eps).sqrt());
    for (i, out) in out.chunks_mut(8).enumerate() {
        let at = i * 8;
        let scale = _mm256_mul_ps(inverse, load(&weight[at..]));
        store(out, _mm256_fmadd_ps(_mm256_sub_ps(load(&x[at..]), mean_lanes), scale, load(&bias[at..])));
    }
}

/// See [`crate::cpu::arch::scalar::rows::add`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn add(addend: &[f32], x: &mut [f32]) {
    for (x, addend) in x.chunks_mut(8).zip(addend.chunks(8)) {
        store(x, _mm256_add_ps(load(x), load(addend)));
    }
}

/// See [`crate::cpu::arch::scalar::rows::rope`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn rope(cos_sin: &[f32], row: &mut [f32]) {
    let (cos, sin) = cos_sin.split_at(cos_sin.len() / 2);
    for head in row.chunks_exact_mut(cos_sin.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for (j, (first, second)) in first.chunks_mut(8).zip(second.chunks_mut(8)).enumerate() {
            let (cos, sin) = (load(&cos[j * 8..]), load(&sin[j * 8..]));
            let (a, b) = (load(first), load(second));
            store(first, _mm256_fmsub_ps(a, cos, _mm256_mul_ps(b, sin)));
            store(second, _mm256_fmadd_ps(b, cos, _mm256_mul_ps(a, sin)));
        }
    }
}

/// See [`crate::cpu::arch::scalar::rows::epilogue`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn epilogue(kind: Epilogue, y: &[f32], bias: &[f32], out: &mut [f32]) {
    let up = y.len() / 2;
    for (i, out) in out.chunks_mut(8).enumerate() {
        let at = i * 8;
        let v = _mm256_add_ps(load(&y[at..]), load(&bias[at..]));
        let value = match kind {
            Epilogue::Store => v,
            Epilogue::Add => _mm256_add_ps(load(out), v),
            Epilogue::Gelu => gelu(v),
            Epilogue::QuickGelu => _mm256_mul_ps(v, sigmoid(_mm256_mul_ps(v, _mm256_set1_ps(1.702)))),
            Epilogue::SiluMul => {
                let factor = _mm256_add_ps(load(&y[up + at..]), load(&bias[up + at..]));
                _mm256_mul_ps(_mm256_mul_ps(v, sigmoid(v)), factor)
            }
        };
        store(out, value);
    }
}

/// See [`crate::cpu::arch::scalar::rows::round_bf16`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn round_bf16(x: &[f32], out: &mut [u16]) {
    let mut lanes = [0u32; 8];
    for (x, out) in x.chunks(8).zip(out.chunks_mut(8)) {
        let bits = _mm256_castps_si256(round(load(x)));
        // SAFETY: 8 words.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), bits) };
        out.iter_mut().zip(lanes).for_each(|(out, bits)| *out = (bits >> 16) as u16);
    }
}
