//! Every operation in plain Rust: the definition the other levels are tested against, and what runs where no other
//! level does. Written to be read, not to be fast.

use super::kv::{KvHeadMut, KvRows};
use super::level::{Affine, Kernels, WeightRows};
use crate::{Epilogue, Format};
use half::{bf16, f16};

/// The scalar level.
pub(crate) static KERNELS: Kernels = Kernels {
    rms_norm,
    layer_norm,
    add,
    rope,
    epilogue,
    round_bf16,
    gemv_f32,
    gemv_bf16,
    gemm_f32: None,
    gemm_bf16: None,
    flash_f32: None,
    flash_bf16: None,
    store_kv,
};

/// `out = x / sqrt(mean(x²) + eps) * weight`, one row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

/// `out = (x - mean) / sqrt(var + eps) * weight + bias`, one row; the variance is that of the row, not an estimate.
pub(crate) fn layer_norm(x: &[f32], (weight, bias): Affine<'_>, eps: f32, out: &mut [f32]) {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / x.len() as f32;
    let inverse = 1.0 / (variance + eps).sqrt();
    for (i, out) in out.iter_mut().enumerate() {
        *out = (x[i] - mean) * inverse * weight[i] + bias[i];
    }
}

/// `x += addend`
pub(crate) fn add(addend: &[f32], x: &mut [f32]) {
    for (x, addend) in x.iter_mut().zip(addend) {
        *x += addend;
    }
}

/// Rotates the heads of one row, `[heads, dim]`: pair `(j, j + dim/2)` by the angle whose cosine and sine are
/// `cos_sin[j]` and `cos_sin[dim/2 + j]` (Su et al. 2021, in the half-split form of the reference).
pub(crate) fn rope(cos_sin: &[f32], row: &mut [f32]) {
    let (cos, sin) = cos_sin.split_at(cos_sin.len() / 2);
    for head in row.chunks_exact_mut(cos_sin.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for j in 0..cos.len() {
            let (a, b) = (first[j], second[j]);
            first[j] = a * cos[j] - b * sin[j];
            second[j] = b * cos[j] + a * sin[j];
        }
    }
}

/// The logistic function.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `x Φ(x)`, Φ being the normal distribution (Hendrycks & Gimpel 2016), exact form.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Applies `kind` to part of a row of products `y`, their `bias` added first, and writes it to the same part of `out`.
/// For [`Epilogue::SiluMul`] `y` holds gates, then as many ups, and `out` is half as long.
pub(crate) fn epilogue(kind: Epilogue, y: &[f32], bias: &[f32], out: &mut [f32]) {
    let half = y.len() / 2;
    for (i, out) in out.iter_mut().enumerate() {
        let v = y[i] + bias[i];
        *out = match kind {
            Epilogue::Store => v,
            Epilogue::Add => *out + v,
            Epilogue::Gelu => gelu(v),
            Epilogue::QuickGelu => v * sigmoid(1.702 * v),
            Epilogue::SiluMul => v * sigmoid(v) * (y[half + i] + bias[half + i]),
        };
    }
}

/// Rounds to bf16, to nearest even.
pub(crate) fn round_bf16(x: &[f32], out: &mut [u16]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = bf16::from_f32(*x).to_bits();
    }
}

/// Calls `each(i, value)` for the stored values of one weight row, widened to f32.
pub(crate) fn widen(row: &[u8], format: Format, mut each: impl FnMut(usize, f32)) {
    let pairs =
        |bits: fn(u16) -> f32| row.as_chunks::<2>().0.iter().map(move |b| bits(u16::from_le_bytes(*b)));
    match format {
        Format::F32 => {
            row.as_chunks::<4>().0.iter().enumerate().for_each(|(i, b)| each(i, f32::from_le_bytes(*b)));
        }
        Format::F16 => {
            pairs(|b| f16::from_bits(b).to_f32()).enumerate().for_each(|(i, v)| each(i, v));
        }
        Format::Bf16 => {
            pairs(|b| bf16::from_bits(b).to_f32()).enumerate().for_each(|(i, v)| each(i, v));
        }
        Format::Q8 | Format::Q4 => unreachable!("packed formats have no rows"),
    }
}

/// `y[i, c] = x[i] · row c`: x `[m, k]`, y `[m, rows]`, in f32.
pub(crate) fn gemv_f32(rows: &WeightRows<'_>, x: &[f32], y: &mut [f32]) {
    let width = rows.len();
    for (x, y) in x.chunks_exact(rows.k).zip(y.chunks_exact_mut(width)) {
        for (c, y) in y.iter_mut().enumerate() {
            *y = 0.0;
            widen(rows.row(c), rows.format, |i, w| *y += x[i] * w);
        }
    }
}

/// As [`gemv_f32`] with x and the weights rounded to bf16.
pub(crate) fn gemv_bf16(rows: &WeightRows<'_>, x: &[u16], y: &mut [f32]) {
    let width = rows.len();
    for (x, y) in x.chunks_exact(rows.k).zip(y.chunks_exact_mut(width)) {
        for (c, y) in y.iter_mut().enumerate() {
            *y = 0.0;
            widen(rows.row(c), rows.format, |i, w| {
                *y += bf16::from_bits(x[i]).to_f32() * bf16::from_f32(w).to_f32();
            });
        }
    }
}

/// Stores keys and values of consecutive tokens from token `t` of a block on, see [`KvHeadMut::store`].
pub(crate) fn store_kv(head: &mut KvHeadMut<'_>, t: usize, rows: &KvRows<'_>) {
    for i in 0..rows.count {
        let (key, value) = rows.token(i);
        head.store(t + i, key, value);
    }
}

/// Keys and values of one head, in the order of their tokens.
pub(crate) trait KeyValues {
    /// The key of token `t`, `[dim]`.
    fn key(&self, t: usize, out: &mut [f32]);
    /// The value of token `t`, `[dim]`.
    fn value(&self, t: usize, out: &mut [f32]);
}

/// `out = softmax(q Kᵀ / sqrt(dim)) V` for one query, `[dim]`, over the first `tokens` tokens. With `bf16` the query
/// and the softmax's exponentials are rounded to bf16; the divisor sums them unrounded. `scratch` is `[dim + tokens]`.
pub(crate) fn attend(
    q: &[f32],
    kv: &impl KeyValues,
    (tokens, bf16): (usize, bool),
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let round = |v: f32| if bf16 { bf16::from_f32(v).to_f32() } else { v };
    let (row, weights) = scratch.split_at_mut(q.len());
    let scale = 1.0 / (q.len() as f32).sqrt();
    let mut largest = f32::NEG_INFINITY;
    for (t, score) in weights[..tokens].iter_mut().enumerate() {
        kv.key(t, row);
        *score = q.iter().zip(&*row).map(|(q, k)| round(*q) * k).sum::<f32>() * scale;
        largest = largest.max(*score);
    }
    let mut sum = 0.0;
    out.fill(0.0);
    for (t, weight) in weights[..tokens].iter_mut().enumerate() {
        *weight = (*weight - largest).exp();
        sum += *weight;
        kv.value(t, row);
        out.iter_mut().zip(&*row).for_each(|(out, v)| *out += round(*weight) * v);
    }
    out.iter_mut().for_each(|out| *out /= sum);
}
