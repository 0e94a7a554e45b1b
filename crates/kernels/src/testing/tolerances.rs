//! Every tolerance of this crate's tests, with its reason. Errors are relative to the largest magnitude of the
//! expected values, unless a tolerance says otherwise.

/// f32 sums of up to 8192 products in another order. Each of the 8192 roundings is within 2^-24 of a partial sum,
/// which is at most some 3 times the largest result. The errors add up like a random walk: sqrt(8192) 2^-24 3 =
/// 1.6e-5.
pub const SUM_ORDER: f32 = 1.6e-5;

/// Like [`SUM_ORDER`], for bf16 factors, whose products are exact in f32. The dot product instruction rounds twice
/// per pair.
pub const SUM_ORDER_BF16: f32 = 2.0 * SUM_ORDER;

/// One or two roundings, and a reciprocal square root of a mean of up to 8192 values in another order.
pub const ROW: f32 = 4e-6;

/// Approximations of exp and erf within 2e-7, times the input's size of up to 8.
pub const ACTIVATION: f32 = 4e-6;

/// Attention in f32: scores of up to 128 products, an exponential within 1e-6 of them, a mean.
pub const ATTENTION_F32: f32 = 1e-5;

/// Attention with weights rounded to bf16 (2^-9 each, of both signs, averaged over the keys). If the running maximum
/// of the softmax differs, so do the roundings. A row with few keys may differ by one rounding of one weight.
pub const ATTENTION_BF16: f32 = 1.0 / 256.0;

/// Like [`ATTENTION_BF16`], but the weights are multiplied by the scales of the values before they are rounded.
pub const ATTENTION_Q8: f32 = 1.0 / 200.0;

/// Relative error of a packed product compared with the same sum in f64 over the decoded weights. The integers are
/// exact. The scale, the product and the sum of a group each have one f32 rounding (2^-24), over at most 24 groups.
pub const PACKED_SUM: f64 = 24.0 * 3.0 * 6e-8;

/// Error of a packed product of 97 groups compared with the definition, relative to the largest value. A device that
/// does not fuse multiplication and addition rounds once more per group, by half of 2^-23 of a sum that is not much
/// larger than that value. A group that is missing or counted twice changes the result a thousand times as much.
pub const PACKED_LONG: f32 = 97.0 * 6e-8;

/// Relative error of a product compared with f32, root mean square, q8 and q4, for bell-shaped values.
///
/// - q8: the largest of 128 values is about 2.7 deviations and 127 steps, so rounding errs by 2.7 / 127 / sqrt(12) =
///   0.6 %, for weights and for activations: 0.9 % together.
/// - q4: the best 16 levels for 32 bell-shaped values err by 8.5 % (the optimum for unbounded ones is 9.8 %, Max
///   1960); the 15 steps of a sub-scale add some tenths.
pub const PACKED_PLAIN: [f64; 2] = [0.01, 0.095];

/// The same if six channels are 50 to 100 times as large, relative to the product of the other channels alone, which
/// is the part that must survive. Outliers of the activations are not rounded. The bound is therefore the plain one,
/// plus the rounding errors of the weights in those channels, which count 75 times as much: sqrt(3072 + 6 * 75²) /
/// sqrt(3072) = 3.5.
pub const PACKED_OUTLIERS: [f64; 2] = [0.01 * 3.5, 0.095 * 3.5];

/// Error of an epilogue, relative to the larger of 1 and the value: f32 polynomials of exp and erf.
pub const EPILOGUE: f64 = 2e-6;
