//! What the tests of this crate share: numbers to compute with, the operations in f64, and every tolerance with its
//! reason. Not part of the interface.
#![allow(missing_docs, reason = "not part of the interface")]

use crate::{Bytes, Epilogue, Format, Heads, MatrixSource, Precision};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Errors are stated relative to the largest magnitude of the expected values.
///
/// f32 sums of up to 8192 products in another order: each of the 8192 roundings is within 2^-24 of a partial sum that
/// is at most some 3 times the largest result; they add up like a random walk, sqrt(8192) 2^-24 3 = 1.6e-5.
pub const SUM_ORDER: f32 = 1.6e-5;

/// As [`SUM_ORDER`] for bf16 factors, whose products are exact in f32. The dot product instruction rounds twice per pair.
pub const SUM_ORDER_BF16: f32 = 2.0 * SUM_ORDER;

/// One or two roundings, and a reciprocal square root of a mean of up to 8192 values in another order.
pub const ROW: f32 = 4e-6;

/// Approximations of exp and erf within 2e-7, times the input's size of up to 8.
pub const ACTIVATION: f32 = 4e-6;

/// Attention in f32: scores of up to 128 products, an exponential within 1e-6 of them, a mean.
pub const ATTENTION_F32: f32 = 1e-5;

/// Attention with weights rounded to bf16 (2^-9 each, of both signs, averaged over the keys): where the softmax's
/// running maximum differs, so do the roundings. A row with few keys may differ by one rounding of one weight.
pub const ATTENTION_BF16: f32 = 1.0 / 256.0;

/// As [`ATTENTION_BF16`], the weights being multiplied by the values' scales before they are rounded.
pub const ATTENTION_Q8: f32 = 1.0 / 200.0;

/// Relative error of a packed product against the same sum in f64 over the decoded weights: the integers are exact;
/// one f32 rounding (2^-24) each for the scale, the product and the sum of a group, over at most 24 groups.
pub const PACKED_SUM: f64 = 24.0 * 3.0 * 6e-8;

/// Relative error of a product against f32, root mean square, q8 and q4, for bell-shaped values. q8: the largest of
/// 128 values is about 2.7 deviations and 127 steps, so rounding errs by 2.7 / 127 / sqrt(12) = 0.6 %, for weights
/// and for activations: 0.9 % together. q4: the best 16 levels for 32 bell-shaped values err by 8.5 % (the optimum
/// for unbounded ones is 9.8 %, Max 1960); the 15 steps of a sub-scale add some tenths.
pub const PACKED_PLAIN: [f64; 2] = [0.01, 0.095];

/// The same where four channels are 50 to 100 times as large: relative to the product of the other channels alone,
/// which is what must survive. Outliers of the activations are not rounded, so this is the plain bound plus the
/// weights' rounding errors in those channels, which are 75 times as loud: sqrt(3072 + 4 * 75²) / sqrt(3072) = 2.9.
pub const PACKED_OUTLIERS: [f64; 2] = [0.01 * 2.9, 0.095 * 2.9];

/// Error of an epilogue, relative to the larger of 1 and the value: f32 polynomials of exp and erf.
pub const EPILOGUE: f64 = 2e-6;

/// A fixed sequence of random numbers.
pub struct Noise(u64);

impl Noise {
    /// A sequence of its own for each `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// `count` uniform values in [-1, 1).
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| 2.0 * self.uniform()).collect()
    }

    /// Between -0.5 and 0.5, xorshift (Marsaglia 2003).
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }

    /// `count` bell-shaped values of mean 0 and deviation 1: each the sum of twelve uniform ones.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (0..12).map(|_| self.uniform()).sum()).collect()
    }

    /// `[rows, k]` such values, with every 768th channel (four of 3072) 50 to 100 times as large.
    pub fn with_outliers(&mut self, rows: usize, k: usize) -> Vec<f32> {
        let mut x = self.normal(rows * k);
        for (i, v) in x.iter_mut().enumerate() {
            if i % k % 768 == 100 % k {
                *v *= 75.0 + 50.0 * self.uniform();
            }
        }
        x
    }
}

/// Square root of the sum of squares of `found - exact`.
#[must_use]
pub fn difference(found: &[f32], exact: &[f64]) -> f64 {
    found.iter().zip(exact).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum::<f64>().sqrt()
}

/// `values` as a stored matrix `[n, k]`, which starts at an odd address, as one mapped from a file may.
#[must_use]
pub fn matrix(values: &[f32], (n, k): (usize, usize), format: Format, precision: Precision) -> MatrixSource {
    assert_eq!(values.len(), n * k);
    let mut stored = vec![0u8];
    for &value in values {
        match format {
            Format::F32 => stored.extend(value.to_le_bytes()),
            Format::F16 => stored.extend(f16::from_f32(value).to_le_bytes()),
            Format::Bf16 => stored.extend(bf16::from_f32(value).to_le_bytes()),
            Format::Q8 | Format::Q4 => panic!("not a dense format"),
        }
    }
    let len = stored.len();
    MatrixSource { bytes: Bytes::from(stored).slice(1..len), format, precision, n, k, bias: None }
}

/// What the dense formats keep of a value, and what a bf16 product makes of it.
#[must_use]
pub fn kept(value: f32, format: Format, precision: Precision) -> f32 {
    let stored = match format {
        Format::F16 => f16::from_f32(value).to_f32(),
        Format::Bf16 => bf16::from_f32(value).to_f32(),
        _ => value,
    };
    if precision == Precision::Bf16 { bf16::from_f32(stored).to_f32() } else { stored }
}

/// The largest difference relative to the largest expected magnitude.
#[must_use]
pub fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    // a NaN must not get lost in `max`
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    found.iter().zip(expected).map(difference).fold(0.0, f32::max) / largest
}

/// The operations in f64, by their formulas.
pub mod oracle {
    use super::{Epilogue, Heads};

    /// x `[m, k]` times w `[n, k]` transposed.
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

    /// What an epilogue makes of the product `y`; `before` is what the output held, `up` the product a gate goes with.
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

    /// Row `row` and head `head` of q attends to the first `tokens` rows of k and v, all `[_, heads, dim]`.
    #[must_use]
    pub fn attention(
        [q, k, v]: [&[f32]; 3],
        heads: Heads,
        (row, head): (usize, usize),
        tokens: std::ops::Range<usize>,
    ) -> Vec<f64> {
        let dim = heads.dim;
        let kv_head = head / (heads.query / heads.key_value);
        let at = |x: &[f32], heads: usize, row: usize, head: usize, d: usize| {
            f64::from(x[(row * heads + head) * dim + d])
        };
        let score = |t: usize| {
            let dot =
                (0..dim).map(|d| at(q, heads.query, row, head, d) * at(k, heads.key_value, t, kv_head, d));
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
}

/// Age of a record that is of an earlier run, whose process had the same number.
const RECORD_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Says that a test is skipped, past libtest, which keeps what the print macros write while a test passes: the first of
/// each `remedy` in a run at once, and all of them in the last line of `cargo test`, which the test `what_was_skipped`
/// writes. `what` names what is missing, `remedy` what would let the test run.
///
/// # Panics
/// If the record cannot be written: a silent skip looks like a passed test.
pub fn skip(what: &str, remedy: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let path = skips_path();
    let modified = std::fs::metadata(&path).and_then(|record| record.modified());
    if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > RECORD_AGE_MAX)) {
        let _ = std::fs::remove_file(&path);
    }
    let line = format!("{remedy}\n");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let mut record = File::options().create(true).append(true).open(path).expect("the target folder is ours");
    record.write_all(line.as_bytes()).expect("the target folder has room");
    if !known.lines().any(|known| known == remedy) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {what}; to run it, {remedy}");
    }
}

/// What [`skip`] was called for since the run began: each remedy with the number of skips, none where it is `None`.
#[must_use]
pub fn take_skips() -> Option<String> {
    let path = skips_path();
    let record = std::fs::read_to_string(&path).ok()?;
    let _ = std::fs::remove_file(path);
    let mut counts = BTreeMap::new();
    for remedy in record.lines() {
        *counts.entry(remedy).or_insert(0) += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(remedy, count)| format!("{remedy} ({count})")).collect();
    let skips: i32 = counts.values().sum();
    Some(format!("SKIPPED in all {skips} checks; to run them: {}", parts.join("; ")))
}

/// The record of one run of `cargo test`: beside the test's program, named by cargo's process.
fn skips_path() -> PathBuf {
    #[cfg(unix)]
    let run = std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    let run = 0;
    let program = std::env::current_exe().expect("the system knows the running program");
    program.with_file_name(format!("skipped-{run}.txt"))
}
