//! Products with dense weights.

use crate::DenseFormat;
use crate::cpu::table::dense::WeightRows;
use half::{bf16, f16};

/// Widens a stored row to f32.
pub(crate) fn widen(row: &[u8], format: DenseFormat, out: &mut [f32]) {
    each_value(row, format, |i, value| out[i] = value);
}

/// Calls `each(i, value)` for the stored values of one weight row, widened to f32.
fn each_value(row: &[u8], format: DenseFormat, mut each: impl FnMut(usize, f32)) {
    let pairs =
        |bits: fn(u16) -> f32| row.as_chunks::<2>().0.iter().map(move |b| bits(u16::from_le_bytes(*b)));
    match format {
        DenseFormat::F32 => {
            row.as_chunks::<4>().0.iter().enumerate().for_each(|(i, b)| each(i, f32::from_le_bytes(*b)));
        }
        DenseFormat::F16 => {
            pairs(|b| f16::from_bits(b).to_f32()).enumerate().for_each(|(i, v)| each(i, v));
        }
        DenseFormat::Bf16 => {
            pairs(|b| bf16::from_bits(b).to_f32()).enumerate().for_each(|(i, v)| each(i, v));
        }
    }
}

/// `y[i, c] = x[i] · row c`: x `[m, k]`, y `[m, rows]`, in f32.
pub(crate) fn gemv_f32(rows: &WeightRows<'_>, x: &[f32], y: &mut [f32]) {
    let width = rows.len();
    for (x, y) in x.chunks_exact(rows.k).zip(y.chunks_exact_mut(width)) {
        for (c, y) in y.iter_mut().enumerate() {
            *y = 0.0;
            each_value(rows.row(c), rows.format, |i, w| *y += x[i] * w);
        }
    }
}

/// Like [`gemv_f32`], with x and the weights rounded to bf16.
pub(crate) fn gemv_bf16(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    let width = rows.len();
    for (x, y) in x.chunks_exact(rows.k).zip(y.chunks_exact_mut(width)) {
        for (c, y) in y.iter_mut().enumerate() {
            *y = 0.0;
            each_value(rows.row(c), rows.format, |i, w| {
                *y += bf16::from_bits(x[i]).to_f32() * bf16::from_f32(w).to_f32();
            });
        }
    }
}
