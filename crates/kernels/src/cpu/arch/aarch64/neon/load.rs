//! Loads of stored values into registers.

use super::math::LANES;
use crate::DenseFormat;
use std::arch::aarch64::*;

/// Rounds to bf16, to nearest even. The low halves of the lanes become zero.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn round(x: float32x4_t) -> float32x4_t {
    let bits = vreinterpretq_u32_f32(x);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
    let rounded = vbslq_u32(vceqq_f32(x, x), rounded, quiet);
    vreinterpretq_f32_u32(vandq_u32(rounded, vdupq_n_u32(0xffff_0000)))
}

/// Rounds 4 values to bf16 like [`round`], and returns the bf16.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn narrow(x: float32x4_t) -> uint16x4_t {
    vshrn_n_u32::<16>(vreinterpretq_u32_f32(round(x)))
}

/// Widens 4 bf16, each of which is the upper half of an f32.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn bf16_lanes(bits: uint16x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
}

/// A format of stored values as a type, so that loops are compiled for each format.
pub(super) trait Stored {
    /// The format.
    const FORMAT: DenseFormat;
}

/// See [`DenseFormat::F32`].
pub(super) struct F32;
/// See [`DenseFormat::F16`].
pub(super) struct F16;
/// See [`DenseFormat::Bf16`].
pub(super) struct Bf16;

impl Stored for F32 {
    const FORMAT: DenseFormat = DenseFormat::F32;
}

impl Stored for F16 {
    const FORMAT: DenseFormat = DenseFormat::F16;
}

impl Stored for Bf16 {
    const FORMAT: DenseFormat = DenseFormat::Bf16;
}

/// Loads 4 stored values as f32, rounded to bf16 if `ROUNDED`.
///
/// # Safety
/// 4 values of `format` must be readable at `from`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn stored<const ROUNDED: bool>(from: *const u8, format: DenseFormat) -> float32x4_t {
    // SAFETY: 4 values are read, by the caller's promise; loads need no alignment.
    let (values, exact) = unsafe {
        match format {
            DenseFormat::F32 => (vld1q_f32(from.cast()), false),
            DenseFormat::F16 => (vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast()))), false),
            DenseFormat::Bf16 => (bf16_lanes(vld1_u16(from.cast())), true),
        }
    };
    if ROUNDED && !exact { round(values) } else { values }
}

/// Loads 4 stored values of a row from value `at` on, as f32, rounded to bf16 if `ROUNDED`; zeros past the row's end.
/// A constant `format` leaves only one branch.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn widened<const ROUNDED: bool>(row: &[u8], format: DenseFormat, at: usize) -> float32x4_t {
    let bytes = LANES * format.value_bytes();
    let rest = row.get(at * format.value_bytes()..).unwrap_or_default();
    let mut copy = [0u8; 16];
    let from = if rest.len() >= bytes {
        rest.as_ptr()
    } else {
        copy[..rest.len()].copy_from_slice(rest);
        copy.as_ptr()
    };
    // SAFETY: `bytes` bytes, those of 4 values, are readable at `from`, in the row or in the copy.
    unsafe { stored::<ROUNDED>(from, format) }
}
