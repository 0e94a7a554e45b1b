//! Operations on single rows.

use super::load::narrow;
use super::math::{LANES, gelu, load, sigmoid, store};
use crate::Epilogue;
use crate::cpu::table::Affine;
use std::arch::aarch64::*;

/// Returns the sum of `term` over a row; `term` must be zero for lanes past the row's end.
#[inline]
#[target_feature(enable = "neon")]
fn sum_of(x: &[f32], term: impl Fn(usize, float32x4_t) -> float32x4_t) -> f32 {
    // four chains hide the latency of an addition
    let mut sums = [vdupq_n_f32(0.0); 4];
    for x in x.chunks(4 * LANES) {
        for (x, sum) in x.chunks(LANES).zip(&mut sums) {
            *sum = vaddq_f32(*sum, term(x.len(), load(x)));
        }
    }
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))
}

/// See [`crate::cpu::arch::scalar::rows::rms_norm`].
#[target_feature(enable = "neon")]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |_, v| vmulq_f32(v, v)) / x.len() as f32;
    let inverse = vdupq_n_f32(1.0 / (mean + eps).sqrt());
    for ((x, weight), out) in x.chunks(LANES).zip(weight.chunks(LANES)).zip(out.chunks_mut(LANES)) {
        store(out, vmulq_f32(vmulq_f32(load(x), inverse), load(weight)));
    }
}

/// Returns ones in the first `count` lanes, zeros in the others.
#[inline]
#[target_feature(enable = "neon")]
fn first_lanes(count: usize) -> uint32x4_t {
    let numbers = vcombine_u32(vcreate_u32(1 << 32), vcreate_u32(3 << 32 | 2));
    vcltq_u32(numbers, vdupq_n_u32(count as u32))
}

/// See [`crate::cpu::arch::scalar::rows::layer_norm`].
#[target_feature(enable = "neon")]
pub(super) fn layer_norm(x: &[f32], (weight, bias): Affine<'_>, eps: f32, out: &mut [f32]) {
    let mean = sum_of(x, |_, v| v) / x.len() as f32;
    let mean_lanes = vdupq_n_f32(mean);
    let square = |count, v| {
        let d = vsubq_f32(v, mean_lanes);
        let square = vreinterpretq_u32_f32(vmulq_f32(d, d));
        vreinterpretq_f32_u32(vandq_u32(square, first_lanes(count)))
    };
    let variance = sum_of(x, square) / x.len() as f32;
    let inverse = vdupq_n_f32(1.0 / (variance + eps).sqrt());
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        let at = i * LANES;
        let scale = vmulq_f32(inverse, load(&weight[at..]));
        store(out, vfmaq_f32(load(&bias[at..]), vsubq_f32(load(&x[at..]), mean_lanes), scale));
    }
}

/// See [`crate::cpu::arch::scalar::rows::add`].
#[target_feature(enable = "neon")]
pub(super) fn add(addend: &[f32], x: &mut [f32]) {
    for (x, addend) in x.chunks_mut(LANES).zip(addend.chunks(LANES)) {
        store(x, vaddq_f32(load(x), load(addend)));
    }
}

/// See [`crate::cpu::arch::scalar::rows::rope`].
#[target_feature(enable = "neon")]
pub(super) fn rope(cos_sin: &[f32], row: &mut [f32]) {
    let (cos, sin) = cos_sin.split_at(cos_sin.len() / 2);
    for head in row.chunks_exact_mut(cos_sin.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for (j, (first, second)) in first.chunks_mut(LANES).zip(second.chunks_mut(LANES)).enumerate() {
            let (cos, sin) = (load(&cos[j * LANES..]), load(&sin[j * LANES..]));
            let (a, b) = (load(first), load(second));
            store(first, vfmsq_f32(vmulq_f32(a, cos), b, sin));
            store(second, vfmaq_f32(vmulq_f32(b, cos), a, sin));
        }
    }
}

/// See [`crate::cpu::arch::scalar::rows::epilogue`].
#[target_feature(enable = "neon")]
pub(super) fn epilogue(kind: Epilogue, y: &[f32], bias: &[f32], out: &mut [f32]) {
    let up = y.len() / 2;
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        let at = i * LANES;
        let v = vaddq_f32(load(&y[at..]), load(&bias[at..]));
        let value = match kind {
            Epilogue::Store => v,
            Epilogue::Add => vaddq_f32(load(out), v),
            Epilogue::Gelu => gelu(v),
            Epilogue::QuickGelu => vmulq_f32(v, sigmoid(vmulq_f32(v, vdupq_n_f32(1.702)))),
            Epilogue::SiluMul => {
                let factor = vaddq_f32(load(&y[up + at..]), load(&bias[up + at..]));
                vmulq_f32(vmulq_f32(v, sigmoid(v)), factor)
            }
        };
        store(out, value);
    }
}

/// See [`crate::cpu::arch::scalar::rows::round_bf16`].
#[target_feature(enable = "neon")]
pub(super) fn round_bf16(x: &[f32], out: &mut [u16]) {
    let mut lanes = [0u16; LANES];
    for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
        // SAFETY: 4 values.
        unsafe { vst1_u16(lanes.as_mut_ptr(), narrow(load(x))) };
        out.copy_from_slice(&lanes[..out.len()]);
    }
}
