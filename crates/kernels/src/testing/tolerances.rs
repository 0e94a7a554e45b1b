//! Every tolerance of this crate's tests, with its reason. Errors are stated relative to the largest magnitude of the
//! expected values, unless a tolerance says otherwise.

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

/// Error of a packed product of 97 groups against the definition, relative to the largest value: a device that does not fuse
/// multiplication and addition rounds each group once more, by half of 2^-23 of a sum that is no larger than that by much; a group
/// that is left out or taken twice is a thousand times as loud.
pub const PACKED_LONG: f32 = 97.0 * 6e-8;

/// Relative error of a product against f32, root mean square, q8 and q4, for bell-shaped values. q8: the largest of
/// 128 values is about 2.7 deviations and 127 steps, so rounding errs by 2.7 / 127 / sqrt(12) = 0.6 %, for weights
/// and for activations: 0.9 % together. q4: the best 16 levels for 32 bell-shaped values err by 8.5 % (the optimum
/// for unbounded ones is 9.8 %, Max 1960); the 15 steps of a sub-scale add some tenths.
pub const PACKED_PLAIN: [f64; 2] = [0.01, 0.095];

/// The same where six channels are 50 to 100 times as large: relative to the product of the other channels alone,
/// which is what must survive. Outliers of the activations are not rounded, so this is the plain bound plus the
/// weights' rounding errors in those channels, which are 75 times as loud: sqrt(3072 + 6 * 75²) / sqrt(3072) = 3.5.
pub const PACKED_OUTLIERS: [f64; 2] = [0.01 * 3.5, 0.095 * 3.5];

/// Error of an epilogue, relative to the larger of 1 and the value: f32 polynomials of exp and erf.
pub const EPILOGUE: f64 = 2e-6;
