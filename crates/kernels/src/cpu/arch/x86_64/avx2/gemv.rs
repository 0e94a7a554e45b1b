//! Products of few rows. Weights are streamed directly from the mapped file, 4 rows at a time with 2 rows of input: 8
//! sums, 4 registers of weights and 2 of input fit the 16 registers.
//!
//! Every sum has one register of 8 partial sums, whatever the number of rows, so a row's result does not depend on
//! the other rows.

use super::load::widened;
use super::math::sum;
use crate::DenseFormat;
use crate::cpu::table::dense::WeightRows;
use bytemuck::Pod;
use std::arch::x86_64::*;

/// Weight rows that are computed together.
const BLOCK: usize = 4;

/// Input rows that are computed together.
const INPUTS: usize = 2;

/// See [`crate::cpu::arch::scalar::dense::gemv_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn gemv_f32(rows: &WeightRows<'_>, x: &[f32], y: &mut [f32]) {
    match rows.format {
        DenseFormat::F32 => all::<f32, false>(rows, DenseFormat::F32, DenseFormat::F32, x, y),
        DenseFormat::F16 => all::<f32, false>(rows, DenseFormat::F16, DenseFormat::F32, x, y),
        DenseFormat::Bf16 => all::<f32, false>(rows, DenseFormat::Bf16, DenseFormat::F32, x, y),
    }
}

/// See [`crate::cpu::arch::scalar::dense::gemv_bf16`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn gemv_bf16(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    match rows.format {
        DenseFormat::F32 => all::<u16, true>(rows, DenseFormat::F32, DenseFormat::Bf16, x, y),
        DenseFormat::F16 => all::<u16, true>(rows, DenseFormat::F16, DenseFormat::Bf16, x, y),
        DenseFormat::Bf16 => all::<u16, true>(rows, DenseFormat::Bf16, DenseFormat::Bf16, x, y),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn all<X: Pod, const ROUNDED: bool>(
    rows: &WeightRows<'_>,
    format: DenseFormat,
    x_format: DenseFormat,
    x: &[X],
    y: &mut [f32],
) {
    let (k, n) = (rows.k, rows.len());
    for col in (0..n).step_by(BLOCK) {
        let mut w: [&[u8]; BLOCK] = [&[]; BLOCK];
        for (j, w) in w.iter_mut().enumerate() {
            // the last block repeats the last row
            *w = rows.row((col + j).min(n - 1));
        }
        for (x, y) in x.chunks(INPUTS * k).zip(y.chunks_mut(INPUTS * n)) {
            let x = bytemuck::cast_slice(x);
            let count = BLOCK.min(n - col);
            if y.len() == n {
                let [first] = block::<1, ROUNDED>(w, format, x_format, x, k);
                y[col..col + count].copy_from_slice(&first[..count]);
            } else {
                let [first, second] = block::<2, ROUNDED>(w, format, x_format, x, k);
                y[col..col + count].copy_from_slice(&first[..count]);
                y[n + col..n + col + count].copy_from_slice(&second[..count]);
            }
        }
    }
}

/// `x[i] · w[c]` for 4 weight rows and `M` rows of input.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn block<const M: usize, const ROUNDED: bool>(
    w: [&[u8]; BLOCK],
    format: DenseFormat,
    x_format: DenseFormat,
    x: &[u8],
    k: usize,
) -> [[f32; BLOCK]; M] {
    let row = x.len() / M;
    let mut sums = [[_mm256_setzero_ps(); BLOCK]; M];
    for at in (0..k).step_by(8) {
        let mut weights = [_mm256_setzero_ps(); BLOCK];
        for c in 0..BLOCK {
            weights[c] = widened::<ROUNDED>(w[c], format, at);
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = widened::<ROUNDED>(&x[i * row..(i + 1) * row], x_format, at);
            for c in 0..BLOCK {
                sums[c] = _mm256_fmadd_ps(x, weights[c], sums[c]);
            }
        }
    }
    let mut totals = [[0.0; BLOCK]; M];
    for i in 0..M {
        for c in 0..BLOCK {
            totals[i][c] = sum(sums[i][c]);
        }
    }
    totals
}
