//! The matrix kernels: tiles of 6 rows x 16 columns, with 12 registers of sums, 2 of weights, and one broadcast. A
//! panel of 64 columns is four panels of 16, one after another.

use super::load::widened;
use crate::DenseFormat;
use crate::cpu::table::dense::GemmKernel;
use crate::cpu::table::dense::WeightRows;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a tile.
const MR: usize = 6;

/// Columns of a tile.
const NR: usize = 16;

/// The kernel in f32.
pub(super) static F32: GemmKernel = GemmKernel {
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
#[target_feature(enable = "avx2,f16c")]
fn pack_input<const ROUNDED: bool>(x: &[f32], k: usize, out: &mut [u32]) {
    let mut lanes = [0u32; 8];
    for r in 0..MR {
        let row = bytemuck::cast_slice(x.get(r * k..(r + 1) * k).unwrap_or_default());
        for (block, out) in out.chunks_mut(8 * MR).enumerate() {
            let values = widened::<ROUNDED>(row, DenseFormat::F32, 8 * block);
            // SAFETY: 8 words.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_castps_si256(values)) };
            for (to, from) in out.iter_mut().skip(r).step_by(MR).zip(lanes) {
                *to = from;
            }
        }
    }
}

/// Transposes 8 x 8 words: pairs of lanes, then pairs of pairs, then the halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(r: [__m256; 8]) -> [__m256; 8] {
    let mut t = r;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..2 {
        for j in 0..2 {
            u[4 * i + 2 * j] = _mm256_shuffle_ps::<0x44>(t[4 * i + j], t[4 * i + 2 + j]);
            u[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(t[4 * i + j], t[4 * i + 2 + j]);
        }
    }
    let mut out = u;
    for j in 0..4 {
        out[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
        out[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
    }
    out
}

/// See [`GemmKernel::pack_weights`]; `[4, words, 16]`.
#[target_feature(enable = "avx2,f16c")]
fn pack_weights<const ROUNDED: bool>(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    match rows.format {
        DenseFormat::F32 => pack_panel::<ROUNDED>(rows, DenseFormat::F32, range, out),
        DenseFormat::F16 => pack_panel::<ROUNDED>(rows, DenseFormat::F16, range, out),
        DenseFormat::Bf16 => pack_panel::<ROUNDED>(rows, DenseFormat::Bf16, range, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn pack_panel<const ROUNDED: bool>(
    rows: &WeightRows<'_>,
    format: DenseFormat,
    range: Range<usize>,
    out: &mut [u32],
) {
    assert!(out.len() >= range.len() * 4 * NR && rows.len() <= 4 * NR);
    for eighth in 0..8 {
        let mut sources: [&[u8]; 8] = [&[]; 8];
        for (i, source) in sources.iter_mut().enumerate() {
            if eighth * 8 + i < rows.len() {
                *source = rows.row(eighth * 8 + i);
            }
        }
        let panel = &mut out[eighth / 2 * range.len() * NR..][..range.len() * NR];
        for at in (0..range.len()).step_by(8) {
            let mut block = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                block[i] = widened::<ROUNDED>(sources[i], format, range.start + at);
            }
            let block = transpose(block);
            for (i, lanes) in block.iter().enumerate().take(range.len() - at) {
                let to = &mut panel[(at + i) * NR + eighth % 2 * 8..][..8];
                // SAFETY: 8 words, bounds checked above.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm256_castps_si256(*lanes)) };
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
#[target_feature(enable = "avx2,fma")]
pub(super) fn rectangle<const R: usize, const Z: usize>(tile: &Tile<'_>, c: &mut [f32]) {
    let Tile { words, a, a_strides: (row, step), b, b_stride, c_stride, accumulate } = *tile;
    if words == 0 {
        return;
    }
    assert!(a.len() > (R - 1) * row + (words - 1) * step, "left factor");
    assert!(b.len() >= (words - 1) * b_stride + 8 * Z, "right factor");
    assert!(c.len() >= (R - 1) * c_stride + 8 * Z, "sums");
    let mut sums = [[_mm256_setzero_ps(); Z]; R];
    // SAFETY: the largest offsets reached are those asserted.
    unsafe {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(c.add(i * c_stride + 8 * j));
                }
            }
        }
        for w in 0..words {
            let mut right = [_mm256_setzero_ps(); Z];
            for (j, right) in right.iter_mut().enumerate() {
                *right = _mm256_loadu_ps(b.add(w * b_stride + 8 * j).cast());
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_set1_ps(a.add(i * row + w * step).cast::<f32>().read());
                for j in 0..Z {
                    sums[j] = _mm256_fmadd_ps(left, right[j], sums[j]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(c.add(i * c_stride + 8 * j), *sum);
            }
        }
    }
}

/// See [`GemmKernel::tile`].
#[target_feature(enable = "avx2,fma")]
fn tile(words: usize, a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    for quarter in 0..4 {
        let b = &b[quarter * words * NR..];
        let tile = Tile { words, a, a_strides: (1, MR), b, b_stride: NR, c_stride: 4 * NR, accumulate };
        rectangle::<MR, 2>(&tile, &mut c[quarter * NR..]);
    }
}
