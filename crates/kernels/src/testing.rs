//! What the tests of this crate share: inputs, measures of error, and every tolerance with its reason.
//!
//! Not part of the library's interface.

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

/// Root mean square of `found - exact` relative to that of `exact`.
#[must_use]
pub fn relative_error(found: &[f32], exact: &[f64]) -> f64 {
    difference(found, exact) / exact.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Square root of the sum of squares of `found - exact`.
#[must_use]
pub fn difference(found: &[f32], exact: &[f64]) -> f64 {
    found.iter().zip(exact).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum::<f64>().sqrt()
}

/// `x Φ(x)` in f64.
#[must_use]
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}
