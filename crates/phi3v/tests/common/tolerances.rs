//! How far results may be from the reference, and why. One place for the whole crate.

/// The global view, absolute, on normalised values of up to about 2.6. The reference sums four products per axis in
/// f32 in an order of its own; half a unit in the last place there is 1.2e-7, and eight roundings lie below 1e-6.
/// Everything before it (decoding, HD image, tiles) is exact and has no tolerance.
pub const GLOBAL_VIEW: f32 = 1e-6;
/// Mean and deviation of a whole tile against the values recorded in f32 by the reference.
pub const TILE_STATISTICS: f64 = 1e-5;
