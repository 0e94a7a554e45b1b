//! Products of few rows. Weights are streamed directly from the mapped file, 8 rows at a time with 2 rows of input:
//! 16 sums, 8 registers of weights and 2 of input are 26 of the 32 registers.
//!
//! Every sum has one register of 4 partial sums, whatever the number of rows, so a row's result does not depend on
//! the other rows.

use super::load::{Bf16, F16, F32, Stored, stored, widened};
use super::math::LANES;
use crate::DenseFormat;
use crate::cpu::table::dense::WeightRows;
use std::arch::aarch64::*;

/// Weight rows that are computed together.
const BLOCK: usize = 8;

/// Input rows that are computed together.
const INPUTS: usize = 2;

/// See [`crate::cpu::arch::scalar::dense::gemv_f32`].
#[target_feature(enable = "neon")]
pub(super) fn gemv_f32(rows: &WeightRows<'_>, x: &[f32], y: &mut [f32]) {
    match rows.format {
        DenseFormat::F32 => all::<F32, F32, false>(rows, bytemuck::cast_slice(x), y),
        DenseFormat::F16 => all::<F16, F32, false>(rows, bytemuck::cast_slice(x), y),
        DenseFormat::Bf16 => all::<Bf16, F32, false>(rows, bytemuck::cast_slice(x), y),
    }
}

/// See [`crate::cpu::arch::scalar::dense::gemv_bf16`].
#[target_feature(enable = "neon")]
pub(crate) fn gemv_bf16(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    match rows.format {
        DenseFormat::F32 => all::<F32, Bf16, true>(rows, bytemuck::cast_slice(x), y),
        DenseFormat::F16 => all::<F16, Bf16, true>(rows, bytemuck::cast_slice(x), y),
        DenseFormat::Bf16 => all::<Bf16, Bf16, true>(rows, bytemuck::cast_slice(x), y),
    }
}

/// Computes all products. `W` is the format of the weights, `X` that of the input, `x` the bytes of the input.
#[inline]
#[target_feature(enable = "neon")]
fn all<W: Stored, X: Stored, const ROUNDED: bool>(rows: &WeightRows<'_>, x: &[u8], y: &mut [f32]) {
    let n = rows.len();
    let row = rows.k * X::FORMAT.value_bytes();
    for col in (0..n).step_by(BLOCK) {
        let mut w: [&[u8]; BLOCK] = [&[]; BLOCK];
        for (j, w) in w.iter_mut().enumerate() {
            // the last block repeats the last row
            *w = rows.row((col + j).min(n - 1));
        }
        let count = BLOCK.min(n - col);
        for (x, y) in x.chunks(INPUTS * row).zip(y.chunks_mut(INPUTS * n)) {
            if y.len() == n {
                let [first] = block::<W, X, 1, ROUNDED>(w, x, rows.k);
                y[col..col + count].copy_from_slice(&first[..count]);
            } else {
                let [first, second] = block::<W, X, 2, ROUNDED>(w, x, rows.k);
                y[col..col + count].copy_from_slice(&first[..count]);
                y[n + col..n + col + count].copy_from_slice(&second[..count]);
            }
        }
    }
}

/// `x[i] · w[c]` for 8 weight rows and `M` rows of input, of `k` values each.
#[inline]
#[target_feature(enable = "neon")]
fn block<W: Stored, X: Stored, const M: usize, const ROUNDED: bool>(
    w: [&[u8]; BLOCK],
    x: &[u8],
    k: usize,
) -> [[f32; BLOCK]; M] {
    let (w_bytes, x_bytes) = (W::FORMAT.value_bytes(), X::FORMAT.value_bytes());
    assert!(w.iter().all(|w| w.len() == k * w_bytes) && x.len() == M * k * x_bytes);
    let mut sums = [[vdupq_n_f32(0.0); BLOCK]; M];
    let whole = k / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut weights = [vdupq_n_f32(0.0); BLOCK];
        for (weights, w) in weights.iter_mut().zip(w) {
            // SAFETY: at + 4 <= k, the values of each row.
            *weights = unsafe { stored::<ROUNDED>(w.as_ptr().add(at * w_bytes), W::FORMAT) };
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = unsafe { stored::<ROUNDED>(x.as_ptr().add((i * k + at) * x_bytes), X::FORMAT) };
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = vfmaq_f32(*sum, x, weights);
            }
        }
    }
    let mut totals = [[0.0; BLOCK]; M];
    for (i, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
        let x = &x[i * k * x_bytes..(i + 1) * k * x_bytes];
        for ((total, sum), w) in totals.iter_mut().zip(sums).zip(w) {
            let last = vfmaq_f32(
                sum,
                widened::<ROUNDED>(x, X::FORMAT, whole),
                widened::<ROUNDED>(w, W::FORMAT, whole),
            );
            *total = vaddvq_f32(last);
        }
    }
    totals
}
