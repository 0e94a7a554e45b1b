//! Products of few rows with bf16 weights with `bfdot`. Weights are streamed directly from the mapped file, 8 rows at
//! a time with 2 rows of input: 16 sums, 8 registers of weights and 2 of input are 26 of the 32 registers.
//!
//! Every sum has one register of 4 partial sums, whatever the number of rows, so a row's result does not depend on
//! the other rows.

use super::bfdot;
use crate::DenseFormat;
use crate::cpu::arch::aarch64::neon::gemv as neon;
use crate::cpu::table::dense::WeightRows;
use std::arch::aarch64::*;

/// Weight rows that are computed together.
const BLOCK: usize = 8;
/// Input rows that are computed together.
const INPUTS: usize = 2;
/// Values per register.
const VALUES: usize = 8;

/// See [`crate::cpu::arch::scalar::dense::gemv_bf16`]. Weights that must be rounded first are left to NEON.
#[target_feature(enable = "neon,bf16")]
pub(super) fn gemv_bf16(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    match rows.format {
        DenseFormat::F32 | DenseFormat::F16 => neon::gemv_bf16(rows, x, y),
        DenseFormat::Bf16 => all(rows, x, y),
    }
}

#[inline]
#[target_feature(enable = "neon,bf16")]
fn all(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    let (k, n) = (rows.k, rows.len());
    for col in (0..n).step_by(BLOCK) {
        let mut w: [&[u8]; BLOCK] = [&[]; BLOCK];
        for (j, w) in w.iter_mut().enumerate() {
            // the last block repeats the last row
            *w = rows.row((col + j).min(n - 1));
        }
        let count = BLOCK.min(n - col);
        for (x, y) in x.chunks(INPUTS * k).zip(y.chunks_mut(INPUTS * n)) {
            let x = bytemuck::cast_slice(x);
            if y.len() == n {
                let [first] = block::<1>(w, x, k);
                y[col..col + count].copy_from_slice(&first[..count]);
            } else {
                let [first, second] = block::<2>(w, x, k);
                y[col..col + count].copy_from_slice(&first[..count]);
                y[n + col..n + col + count].copy_from_slice(&second[..count]);
            }
        }
    }
}

/// Loads 8 values of a row from byte `at` on; zeros past its end.
#[inline]
#[target_feature(enable = "neon")]
fn last_values(row: &[u8], at: usize) -> uint32x4_t {
    let mut copy = [0u8; 2 * VALUES];
    copy[..row.len() - at].copy_from_slice(&row[at..]);
    // SAFETY: 16 bytes are read from an array of 16.
    vreinterpretq_u32_u8(unsafe { vld1q_u8(copy.as_ptr()) })
}

/// `x[i] · w[c]` for 8 weight rows and `M` rows of input, of `k` bf16 values each, as bytes.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn block<const M: usize>(w: [&[u8]; BLOCK], x: &[u8], k: usize) -> [[f32; BLOCK]; M] {
    let row = 2 * k;
    assert!(w.iter().all(|w| w.len() == row) && x.len() == M * row);
    let mut sums = [[vdupq_n_f32(0.0); BLOCK]; M];
    let whole = k / VALUES * 2 * VALUES;
    for at in (0..whole).step_by(2 * VALUES) {
        let mut weights = [vdupq_n_u32(0); BLOCK];
        for (weights, w) in weights.iter_mut().zip(w) {
            // SAFETY: at + 16 <= 2 k, the bytes of each row.
            *weights = vreinterpretq_u32_u8(unsafe { vld1q_u8(w.as_ptr().add(at)) });
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = vreinterpretq_u32_u8(unsafe { vld1q_u8(x.as_ptr().add(i * row + at)) });
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = bfdot(*sum, x, weights);
            }
        }
    }
    let mut totals = [[0.0; BLOCK]; M];
    for (i, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
        let x = last_values(&x[i * row..(i + 1) * row], whole);
        for ((total, sum), w) in totals.iter_mut().zip(sums).zip(w) {
            *total = vaddvq_f32(bfdot(sum, x, last_values(w, whole)));
        }
    }
    totals
}
