//! Operations on single rows.

use crate::Epilogue;
use crate::cpu::table::Affine;
use half::bf16;

/// `out = x / sqrt(mean(x²) + eps) * weight`, one row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

/// `out = (x - mean) / sqrt(var + eps) * weight + bias`, one row. The variance is that of the row itself, not an
/// estimate.
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

/// Rotates the heads of one row, `[heads, dim]`. The pair `(j, j + dim/2)` is rotated by the angle whose cosine and
/// sine are `cos_sin[j]` and `cos_sin[dim/2 + j]` (Su et al. 2021, in the half-split form of the reference).
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

/// `x Φ(x)`, Φ being the normal distribution function (Hendrycks & Gimpel 2016), exact form.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Adds `bias` to part of a row of products `y`, applies `kind`, and writes the result to the same part of `out`. For
/// [`Epilogue::SiluMul`], `y` holds gates followed by as many ups, and `out` is half as long.
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
