//! Operations on single rows.

use super::math::{gelu, load, sigmoid, store};
use crate::Epilogue;
use crate::cpu::table::Affine;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f")]
fn sum_of(x: &[f32], term: impl Fn(__m512, __mmask16) -> __m512) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 2];
    for (i, x) in x.chunks(16).enumerate() {
        sums[i % 2] = _mm512_add_ps(sums[i % 2], term(load(x), super::math::mask(x.len())));
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}

/// See [`crate::cpu::arch::scalar::rows::rms_norm`].
#[target_feature(enable = "avx512f")]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |v, _| _mm512_mul_ps(v, v)) / x.len() as f32;
    let inverse = _mm512_set1_ps(1.0 / (mean + eps).sqrt());
    for ((x, weight), out) in x.chunks(16).zip(weight.chunks(16)).zip(out.chunks_mut(16)) {
        store(out, _mm512_mul_ps(_mm512_mul_ps(load(x), inverse), load(weight)));
    }
}

/// See [`crate::cpu::arch::scalar::rows::layer_norm`].
#[target_feature(enable = "avx512f")]
pub(super) fn layer_norm(x: &[f32], (weight, bias): Affine<'_>, eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |v, _| v) / x.len() as f32;
    let mean_lanes = _mm512_set1_ps(mean);
    let variance = sum_of(x, |v, mask| {
        let d = _mm512_maskz_sub_ps(mask, v, mean_lanes);
        _mm512_mul_ps(d, d)
    }) / x.len() as f32;
    let inverse = _mm512_set1_ps(1.0 / (variance + eps).sqrt());
    for (i, out) in out.chunks_mut(16).enumerate() {
        let at = i * 16;
        let scale = _mm512_mul_ps(inverse, load(&weight[at..]));
        store(out, _mm512_fmadd_ps(_mm512_sub_ps(load(&x[at..]), mean_lanes), scale, load(&bias[at..])));
    }
}

/// See [`crate::cpu::arch::scalar::rows::add`].
#[target_feature(enable = "avx512f")]
pub(super) fn add(addend: &[f32], x: &mut [f32]) {
    for (x, addend) in x.chunks_mut(16).zip(addend.chunks(16)) {
        store(x, _mm512_add_ps(load(x), load(addend)));
    }
}

/// See [`crate::cpu::arch::scalar::rows::rope`].
#[target_feature(enable = "avx512f")]
pub(super) fn rope(cos_sin: &[f32], row: &mut [f32]) {
    let (cos, sin) = cos_sin.split_at(cos_sin.len() / 2);
    for head in row.chunks_exact_mut(cos_sin.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for (j, (first, second)) in first.chunks_mut(16).zip(second.chunks_mut(16)).enumerate() {
            let (cos, sin) = (load(&cos[j * 16..]), load(&sin[j * 16..]));
            let (a, b) = (load(first), load(second));
            store(first, _mm512_fmsub_ps(a, cos, _mm512_mul_ps(b, sin)));
            store(second, _mm512_fmadd_ps(b, cos, _mm512_mul_ps(a, sin)));
        }
    }
}

/// See [`crate::cpu::arch::scalar::rows::epilogue`].
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn epilogue(kind: Epilogue, y: &[f32], bias: &[f32], out: &mut [f32]) {
    let up = y.len() / 2;
    for (i, out) in out.chunks_mut(16).enumerate() {
        let at = i * 16;
        let v = _mm512_add_ps(load(&y[at..]), load(&bias[at..]));
        let value = match kind {
            Epilogue::Store => v,
            Epilogue::Add => _mm512_add_ps(load(out), v),
            Epilogue::Gelu => gelu(v),
            Epilogue::QuickGelu => _mm512_mul_ps(v, sigmoid(_mm512_mul_ps(v, _mm512_set1_ps(1.702)))),
            Epilogue::SiluMul => {
                let factor = _mm512_add_ps(load(&y[up + at..]), load(&bias[up + at..]));
                _mm512_mul_ps(_mm512_mul_ps(v, sigmoid(v)), factor)
            }
        };
        store(out, value);
    }
}
