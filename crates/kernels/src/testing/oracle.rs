//! The operations in f64, by their formulas.

use crate::{Epilogue, Heads};

/// Multiplies x, `[m, k]`, by the transpose of w, `[n, k]`.
#[must_use]
pub fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(move |w| dot(x, w))).collect()
}

#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[must_use]
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// Applies an epilogue to the product `y`. `before` is the earlier value of the output, `up` the product that belongs
/// to a gate.
#[must_use]
pub fn epilogue(kind: Epilogue, y: f64, before: f64, up: impl Fn() -> f64) -> f64 {
    match kind {
        Epilogue::Store => y,
        Epilogue::Add => before + y,
        Epilogue::Gelu => gelu(y),
        Epilogue::QuickGelu => y * sigmoid(1.702 * y),
        Epilogue::SiluMul => y * sigmoid(y) * up(),
    }
}

#[must_use]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(&x, &w)| f64::from(x) / (mean + eps).sqrt() * f64::from(w)).collect()
}

#[must_use]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let normed = x.iter().map(|&v| (f64::from(v) - mean) / (variance + eps).sqrt());
    normed.zip(weight.iter().zip(bias)).map(|(v, (&w, &b))| v * f64::from(w) + f64::from(b)).collect()
}

/// Computes the attention of row `row` and head `head` of q to the first `tokens` rows of k and v, all `[_, heads,
/// dim]`.
#[must_use]
pub fn attention(
    [q, k, v]: [&[f32]; 3],
    heads: Heads,
    row: usize,
    head: usize,
    tokens: std::ops::Range<usize>,
) -> Vec<f64> {
    let dim = heads.dim;
    let kv_head = head / (heads.query / heads.key_value);
    let at = |x: &[f32], heads: usize, row: usize, head: usize, d: usize| {
        f64::from(x[(row * heads + head) * dim + d])
    };
    let score = |t: usize| {
        let dot = (0..dim).map(|d| at(q, heads.query, row, head, d) * at(k, heads.key_value, t, kv_head, d));
        dot.sum::<f64>() / (dim as f64).sqrt()
    };
    let scores: Vec<f64> = tokens.clone().map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let value = |d: usize| {
        let terms = tokens.clone().zip(&weights).map(|(t, w)| w * at(v, heads.key_value, t, kv_head, d));
        terms.sum::<f64>() / sum
    };
    (0..dim).map(value).collect()
}
