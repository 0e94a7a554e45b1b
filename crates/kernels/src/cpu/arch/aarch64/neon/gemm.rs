//! The matrix kernels: tiles of 6 rows x 16 columns, with 24 registers of sums, 4 of weights, and one value of the
//! input at a time. A panel of 64 columns is four panels of 16, one after another.

use super::load::widened;
use super::math::LANES;
use crate::DenseFormat;
use crate::cpu::table::dense::GemmKernel;
use crate::cpu::table::dense::WeightRows;
use std::arch::aarch64::*;
use std::ops::Range;

/// Rows of a tile.
const MR: usize = 6;

/// Columns of a tile.
const NR: usize = 16;

/// The kernel in f32.
pub(crate) static F32: GemmKernel = GemmKernel {
    rows: MR,
    group: 1,
    pack_input: pack_input::<false>,
    pack_weights: pack_weights::<false>,
    tile,
};

/// The kernel in f32, with both factors rounded to bf16.
pub(super) static BF16: GemmKernel =
    GemmKernel { pack_input: pack_input::<true>, pack_weights: pack_weights::<true>, ..F32 };

/// See [`GemmKernel::pack_input`].
#[target_feature(enable = "neon")]
fn pack_input<const ROUNDED: bool>(x: &[f32], k: usize, out: &mut [u32]) {
    let mut lanes = [0u32; LANES];
    for r in 0..MR {
        let row = bytemuck::cast_slice(x.get(r * k..(r + 1) * k).unwrap_or_default());
        for (block, out) in out.chunks_mut(LANES * MR).enumerate() {
            let values = widened::<ROUNDED>(row, DenseFormat::F32, LANES * block);
            // SAFETY: 4 words.
            unsafe { vst1q_u32(lanes.as_mut_ptr(), vreinterpretq_u32_f32(values)) };
            for (to, from) in out.iter_mut().skip(r).step_by(MR).zip(lanes) {
                *to = from;
            }
        }
    }
}

/// Transposes 4 x 4 words: pairs of lanes, then pairs of pairs.
#[inline]
#[target_feature(enable = "neon")]
fn transpose(r: [float32x4_t; LANES]) -> [float32x4_t; LANES] {
    let even = [vtrn1q_f32(r[0], r[1]), vtrn1q_f32(r[2], r[3])];
    let odd = [vtrn2q_f32(r[0], r[1]), vtrn2q_f32(r[2], r[3])];
    let [even, odd] = [even, odd].map(|pairs| pairs.map(|pair| vreinterpretq_f64_f32(pair)));
    [
        vtrn1q_f64(even[0], even[1]),
        vtrn1q_f64(odd[0], odd[1]),
        vtrn2q_f64(even[0], even[1]),
        vtrn2q_f64(odd[0], odd[1]),
    ]
    .map(|lanes| vreinterpretq_f32_f64(lanes))
}

/// See [`GemmKernel::pack_weights`]; `[4, words, 16]`.
#[target_feature(enable = "neon")]
fn pack_weights<const ROUNDED: bool>(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    match rows.format {
        DenseFormat::F32 => pack_panel::<ROUNDED>(rows, DenseFormat::F32, range, out),
        DenseFormat::F16 => pack_panel::<ROUNDED>(rows, DenseFormat::F16, range, out),
        DenseFormat::Bf16 => pack_panel::<ROUNDED>(rows, DenseFormat::Bf16, range, out),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn pack_panel<const ROUNDED: bool>(
    rows: &WeightRows<'_>,
    format: DenseFormat,
    range: Range<usize>,
    out: &mut [u32],
) {
    assert!(out.len() >= range.len() * 4 * NR && rows.len() <= 4 * NR);
    for first in (0..4 * NR).step_by(LANES) {
        let mut sources: [&[u8]; LANES] = [&[]; LANES];
        for (i, source) in sources.iter_mut().enumerate() {
            if first + i < rows.len() {
                *source = rows.row(first + i);
            }
        }
        let panel = &mut out[first / NR * range.len() * NR..][..range.len() * NR];
        for at in (0..range.len()).step_by(LANES) {
            let mut block = [vdupq_n_f32(0.0); LANES];
            for i in 0..LANES {
                block[i] = widened::<ROUNDED>(sources[i], format, range.start + at);
            }
            let block = transpose(block);
            for (i, lanes) in block.iter().enumerate().take(range.len() - at) {
                let to = &mut panel[(at + i) * NR + first % NR..][..LANES];
                // SAFETY: 4 words, bounds checked above.
                unsafe { vst1q_u32(to.as_mut_ptr(), vreinterpretq_u32_f32(*lanes)) };
            }
        }
    }
}

/// A rectangle of sums, `R` rows of `Z` registers: `c[i][j] (+)= Σ_w a[i · row + w · step] b[w][j]`.
pub(super) struct Tile<'a> {
    /// Words of the summed dimension.
    pub(super) words: usize,
    pub(super) a: &'a [u32],
    /// Distance between rows of `a`, and between words of one row.
    pub(super) a_strides: (usize, usize),
    pub(super) b: &'a [u32],
    /// Distance between rows of `b`.
    pub(super) b_stride: usize,
    pub(super) c_stride: usize,
    /// Whether the products are added to `c`, or overwrite it.
    pub(super) accumulate: bool,
}

/// See [`Tile`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn rectangle<const R: usize, const Z: usize>(tile: &Tile<'_>, c: &mut [f32]) {
    let Tile { words, a, a_strides: (row, step), b, b_stride, c_stride, accumulate } = *tile;
    if words == 0 {
        return;
    }
    assert!(a.len() > (R - 1) * row + (words - 1) * step, "left factor");
    assert!(b.len() >= (words - 1) * b_stride + LANES * Z, "right factor");
    assert!(c.len() >= (R - 1) * c_stride + LANES * Z, "sums");
    let mut sums = [[vdupq_n_f32(0.0); Z]; R];
    // SAFETY: the largest offsets reached are those asserted.
    unsafe {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = vld1q_f32(c.add(i * c_stride + LANES * j));
                }
            }
        }
        for w in 0..words {
            let mut right = [vdupq_n_f32(0.0); Z];
            for (j, right) in right.iter_mut().enumerate() {
                *right = vld1q_f32(b.add(w * b_stride + LANES * j).cast());
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = a.add(i * row + w * step).cast::<f32>().read();
                for j in 0..Z {
                    sums[j] = vfmaq_n_f32(sums[j], right[j], left);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                vst1q_f32(c.add(i * c_stride + LANES * j), *sum);
            }
        }
    }
}

/// See [`GemmKernel::tile`].
#[target_feature(enable = "neon")]
fn tile(words: usize, a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    for quarter in 0..4 {
        let b = &b[quarter * words * NR..];
        let tile = Tile { words, a, a_strides: (1, MR), b, b_stride: NR, c_stride: 4 * NR, accumulate };
        rectangle::<MR, 4>(&tile, &mut c[quarter * NR..]);
    }
}
