//! Shared by the tests of this crate and of other backends: numbers to compute with, the operations in f64, and every
//! tolerance with its reason. Not part of the interface.
#![allow(missing_docs, reason = "not part of the interface")]

pub mod conformance;
mod deferred;
pub mod oracle;
mod settings;
mod skips;
pub mod sources;
pub mod tolerances;
mod variants;

pub use deferred::{Deferred, DeferredTensor, Shared};
pub use settings::{shared, test_device};
pub use skips::{skip, take_skips};
pub use variants::{Variant, variants};

use crate::{Bytes, DenseFormat, Format, MatrixSource, Precision, Storage};
use half::{bf16, f16};

/// A fixed sequence of random numbers.
pub struct Noise(u64);

impl Noise {
    /// Starts the sequence of `seed`; each seed has a different one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns `count` uniform values in [-1, 1).
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| 2.0 * self.uniform()).collect()
    }

    /// Returns a value between -0.5 and 0.5, by xorshift (Marsaglia 2003).
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }

    /// Returns `count` bell-shaped values of mean 0 and standard deviation 1: each is the sum of twelve uniform ones.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (0..12).map(|_| self.uniform()).sum()).collect()
    }

    /// Returns `[rows, k]` such values, with the channels of [`is_outlier`] 50 to 100 times as large.
    pub fn with_outliers(&mut self, rows: usize, k: usize) -> Vec<f32> {
        let mut x = self.normal(rows * k);
        for (i, v) in x.iter_mut().enumerate() {
            if is_outlier(i % k, k) {
                *v *= 75.0 + 50.0 * self.uniform();
            }
        }
        x
    }
}

/// Returns whether a channel of `k` is one of the large ones of [`Noise::with_outliers`]: every 768th (four of 3072),
/// and a second one, 40 before it, in the group of every other one of these.
#[must_use]
pub fn is_outlier(channel: usize, k: usize) -> bool {
    channel % 768 == 100 % k || channel % 1536 == 60 % k
}

/// Returns the square root of the sum of squares of `found - exact`.
#[must_use]
pub fn difference(found: &[f32], exact: &[f64]) -> f64 {
    found.iter().zip(exact).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum::<f64>().sqrt()
}

/// Returns `values` as a stored matrix `[n, k]` that starts at an odd address, as a matrix mapped from a file may.
#[must_use]
pub fn matrix(values: &[f32], n: usize, k: usize, format: Format, precision: Precision) -> MatrixSource {
    assert_eq!(values.len(), n * k);
    let Storage::Dense(dense) = format.storage() else { panic!("{format:?} is not dense") };
    let mut stored = vec![0u8];
    for &value in values {
        match dense {
            DenseFormat::F32 => stored.extend(value.to_le_bytes()),
            DenseFormat::F16 => stored.extend(f16::from_f32(value).to_le_bytes()),
            DenseFormat::Bf16 => stored.extend(bf16::from_f32(value).to_le_bytes()),
        }
    }
    let len = stored.len();
    MatrixSource { bytes: Bytes::from(stored).slice(1..len), format, precision, n, k, bias: None }
}

/// Returns what is left of a value in a dense format and, for bf16, in a product.
#[must_use]
pub fn kept(value: f32, format: Format, precision: Precision) -> f32 {
    let Storage::Dense(format) = format.storage() else { panic!("{format:?} is not dense") };
    let stored = match format {
        DenseFormat::F32 => value,
        DenseFormat::F16 => f16::from_f32(value).to_f32(),
        DenseFormat::Bf16 => bf16::from_f32(value).to_f32(),
    };
    if precision == Precision::Bf16 { bf16::from_f32(stored).to_f32() } else { stored }
}

/// Returns the largest difference relative to the largest expected magnitude.
#[must_use]
pub fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    // `max` would ignore a NaN
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    found.iter().zip(expected).map(difference).fold(0.0, f32::max) / largest
}
