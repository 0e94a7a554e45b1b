//! The matrix kernels: tiles of 6 rows x 64 columns, with 24 registers of sums, 4 of weights, and one broadcast.
//!
//! Per word of K a tile loads 4 registers of weights and 6 broadcasts for 24 multiply-adds, so two loads per cycle
//! are enough to keep the multipliers busy.

use super::pack;
use crate::cpu::table::dense::GemmKernel;
use std::arch::x86_64::*;

/// Rows of a tile.
const MR: usize = 6;

/// The kernel with f32 words.
pub(super) static F32: GemmKernel = GemmKernel {
    rows: MR,
    group: 1,
    pack_input: pack::input_f32,
    pack_weights: pack::weights_f32,
    tile: tile_f32,
};

/// The kernel with f32 words rounded to bf16.
pub(super) static BF16_WIDENED: GemmKernel =
    GemmKernel { pack_input: pack::input_rounded, pack_weights: pack::weights_rounded, ..F32 };

/// The kernel with pairs of bf16.
pub(super) static BF16: GemmKernel = GemmKernel {
    rows: MR,
    group: 2,
    pack_input: pack::input_pairs,
    pack_weights: pack::weights_pairs,
    tile: tile_bf16,
};

/// Multiplies a word of one operand, broadcast to every lane, by 16 words of the other, and adds the products to
/// `sum`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fma(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn dot_pairs(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 64 bytes, and every bit pattern is valid.
    let (a, b) =
        unsafe { (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// A rectangle of sums, `R` rows of `Z` registers: `c[i][j] (+)= Σ_w a[i · row + w · step] b[w][j]`.
pub(super) struct Tile<'a> {
    /// Words of the summed dimension.
    pub(super) words: usize,
    pub(super) a: &'a [u32],
    /// Distance between rows of `a`, and between words of one row.
    pub(super) a_strides: (usize, usize),
    pub(super) b: Right<'a>,
    pub(super) c_stride: usize,
    /// Whether the products are added to `c`, or overwrite it.
    pub(super) accumulate: bool,
}

/// The right factor of a [`Tile`]. Its rows are in several parts, one after another.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) parts: &'a [&'a [u32]],
    /// Rows per part; the last part may have fewer.
    pub(super) rows: usize,
    /// Distance between rows of a part.
    pub(super) stride: usize,
}

macro_rules! rectangle {
    ($name:ident, $features:literal, $multiply:ident) => {
        /// See [`Tile`].
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn $name<const R: usize, const Z: usize>(tile: &Tile<'_>, c: &mut [f32]) {
            let Tile { words, a, a_strides: (row, step), b, c_stride, accumulate } = *tile;
            if words == 0 {
                return;
            }
            assert!(a.len() > (R - 1) * row + (words - 1) * step, "left factor");
            assert!(words <= b.parts.len() * b.rows, "rows of the right factor");
            let least = (words.min(b.rows) - 1) * b.stride + 16 * Z;
            assert!(b.parts.iter().all(|part| part.len() >= least), "right factor");
            assert!(c.len() >= (R - 1) * c_stride + 16 * Z, "sums");
            let mut sums = [[_mm512_setzero_ps(); Z]; R];
            // SAFETY: the largest offsets reached are those asserted.
            unsafe {
                let (mut a, c) = (a.as_ptr(), c.as_mut_ptr());
                if accumulate {
                    for i in 0..R {
                        for j in 0..Z {
                            sums[i][j] = _mm512_loadu_ps(c.add(i * c_stride + 16 * j));
                        }
                    }
                }
                for (i, part) in b.parts.iter().enumerate() {
                    let mut from = part.as_ptr();
                    for _ in 0..b.rows.min(words.saturating_sub(i * b.rows)) {
                        let mut right = [_mm512_setzero_si512(); Z];
                        for (j, right) in right.iter_mut().enumerate() {
                            *right = _mm512_loadu_si512(from.add(16 * j).cast());
                        }
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let left = _mm512_set1_epi32(a.add(i * row).cast::<i32>().read());
                            for j in 0..Z {
                                sums[j] = $multiply(sums[j], left, right[j]);
                            }
                        }
                        // after the last word these may point past the end, where nothing is read
                        (a, from) = (a.wrapping_add(step), from.wrapping_add(b.stride));
                    }
                }
                for i in 0..R {
                    for j in 0..Z {
                        _mm512_storeu_ps(c.add(i * c_stride + 16 * j), sums[i][j]);
                    }
                }
            }
        }
    };
}

rectangle!(rectangle_f32, "avx512f", fma);
rectangle!(rectangle_bf16, "avx512f,avx512bf16", dot_pairs);

fn tile<'a>(words: usize, a: &'a [u32], b: &'a [&'a [u32]], accumulate: bool) -> Tile<'a> {
    let b = Right { parts: b, rows: words, stride: 64 };
    Tile { words, a, a_strides: (1, MR), b, c_stride: 64, accumulate }
}

/// See [`GemmKernel::tile`].
#[target_feature(enable = "avx512f")]
fn tile_f32(words: usize, a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    rectangle_f32::<MR, 4>(&tile(words, a, &[b], accumulate), c);
}

/// See [`GemmKernel::tile`].
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile_bf16(words: usize, a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    rectangle_bf16::<MR, 4>(&tile(words, a, &[b], accumulate), c);
}
