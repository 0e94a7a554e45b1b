//! The functions of blocked attention, see [`crate::cpu::ops::flash`], in bf16 with `bfmmla`.

use super::bfmmla;
use super::gemm::row_of;
use crate::cpu::arch::aarch64::neon::attention::{bytes, softmax_to};
use crate::cpu::arch::aarch64::neon::load::narrow;
use crate::cpu::arch::aarch64::neon::math::{LANES, load};
use crate::cpu::table::attention::{FlashKernel, InTurn, KEYS, Products, Queries, SingleRows, SoftmaxRow};
use crate::{KV_BLOCK_TOKENS, KvFormat};
use std::arch::aarch64::*;

/// The kernel in bf16. A single row against 8-bit panels takes the same path: widening takes an instruction for each
/// value.
pub(super) static BF16: FlashKernel = FlashKernel {
    group: 2,
    pack_query,
    widen,
    products: Products::InTurn(InTurn { scores, values }),
    exp: f32::exp2,
    softmax,
    single_rows: SingleRows { f32: None, bf16: None, q8: None },
};

/// Rows of a tile: four pairs by four pairs of columns are 16 sums, as in the matrix kernel.
const MR: usize = 8;
/// Columns of a tile.
const NR: usize = 8;
/// Words of weights for the keys of a panel.
const PANEL_WORDS: usize = KV_BLOCK_TOKENS / 2;

/// See [`FlashKernel::pack_query`].
#[target_feature(enable = "neon")]
fn pack_query(row: &[f32], out: &mut [u32]) {
    for (out, row) in out.as_chunks_mut::<2>().0.iter_mut().zip(row.chunks_exact(LANES)) {
        put_pairs(out, load(row));
    }
}

/// Writes 4 values as two words of pairs.
#[inline]
#[target_feature(enable = "neon")]
fn put_pairs(words: &mut [u32; 2], values: float32x4_t) {
    // SAFETY: 8 bytes are written to an array of 8; the store needs no alignment.
    unsafe { vst1_u16(words.as_mut_ptr().cast(), narrow(values)) };
}

/// See [`FlashKernel::widen`]. 8-bit values are integers of 8 bits, which bf16 represents exactly.
#[target_feature(enable = "neon")]
fn widen(panel: &[u8], format: KvFormat, cols: usize, out: &mut [u32]) {
    assert!(format == KvFormat::Q8, "panels of {format:?} are not widened to bf16");
    let panel: &[u32] = bytemuck::cast_slice(panel);
    for (words, out) in panel.chunks_exact(cols).zip(out.chunks_exact_mut(2 * cols)) {
        let (first, second) = out.split_at_mut(cols);
        for (i, words) in words.chunks_exact(LANES).enumerate() {
            let values = bytes(words);
            for (out, pair) in
                [&mut first[LANES * i..], &mut second[LANES * i..]].into_iter().zip(values.as_chunks().0)
            {
                store_pairs(*pair, out);
            }
        }
    }
}

/// Writes exact bf16 as 4 words, with the lanes of the first register in the low halves.
#[inline]
#[target_feature(enable = "neon")]
fn store_pairs(pair: [float32x4_t; 2], out: &mut [u32]) {
    let out: &mut [u32; LANES] = out.first_chunk_mut().expect("panels are whole registers");
    let [low, high] = [vreinterpretq_u16_f32(pair[0]), vreinterpretq_u16_f32(pair[1])];
    // a bf16 is the upper half of an f32
    let words = vreinterpretq_u32_u16(vtrn2q_u16(low, high));
    // SAFETY: 4 words are written to an array of 4.
    unsafe { vst1q_u32(out.as_mut_ptr(), words) };
}

/// Rows of words multiplied by columns of panels, see [`rectangle`].
#[derive(Clone, Copy)]
struct Product<'a> {
    a: Queries<'a>,
    /// The panel's words, `[words, b_stride]`.
    b: &'a [u32],
    b_stride: usize,
    c_stride: usize,
    accumulate: bool,
}

/// Computes all rows by 8 columns, 8 rows at a time; a single row has its own path.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn columns(product: Product<'_>, c: &mut [f32]) {
    let mut row = 0;
    while row < product.a.rows {
        let (words, c) = (&product.a.words[row * product.a.stride..], &mut c[row * product.c_stride..]);
        let part = Product { a: Queries { words, ..product.a }, ..product };
        if row + 1 == product.a.rows {
            rectangle::<1, 1, { NR / LANES }>(&part, c);
            row += 1;
        } else {
            rectangle::<MR, { MR / 2 }, { NR / LANES }>(&part, c);
            row += MR;
        }
    }
}

/// `c[i][j] (+)= Σ_w a[i][w] b[w][j]` for `R` rows, in pairs, and `Z` registers of 4 columns; words are taken in
/// twos. A single row is paired with itself.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn rectangle<const R: usize, const PAIRS: usize, const Z: usize>(product: &Product<'_>, c: &mut [f32]) {
    let Product { a: Queries { words: a, count, stride, .. }, b, b_stride, c_stride, accumulate } = *product;
    assert!(PAIRS == R.div_ceil(2) && count >= 2 && count.is_multiple_of(2));
    assert!(a.len() >= (R - 1) * stride + count, "left factor");
    assert!(b.len() >= (count - 1) * b_stride + LANES * Z, "right factor");
    assert!(c.len() >= (R - 1) * c_stride + LANES * Z, "sums");
    // [register of columns][pair of rows], each two registers of `[row][column]`, two by two
    let mut sums = [[[vdupq_n_f32(0.0); 2]; PAIRS]; Z];
    // SAFETY: the largest offsets reached are those asserted.
    unsafe {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        if accumulate {
            for (j, sums) in sums.iter_mut().enumerate() {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let (even, odd) = (2 * i * c_stride, (2 * i + 1).min(R - 1) * c_stride);
                    let rows = [vld1q_f32(c.add(even + LANES * j)), vld1q_f32(c.add(odd + LANES * j))];
                    *sums = [row_of(rows, 0), row_of(rows, 1)];
                }
            }
        }
        for w in (0..count).step_by(2) {
            let mut left = [vdupq_n_u32(0); PAIRS];
            for (i, left) in left.iter_mut().enumerate() {
                let (even, odd) = (2 * i * stride, (2 * i + 1).min(R - 1) * stride);
                *left = vcombine_u32(vld1_u32(a.add(even + w)), vld1_u32(a.add(odd + w)));
            }
            for (j, sums) in sums.iter_mut().enumerate() {
                let first = vld1q_u32(b.add(w * b_stride + LANES * j));
                let second = vld1q_u32(b.add((w + 1) * b_stride + LANES * j));
                let low = vzip1q_u32(first, second);
                for (sums, left) in sums.iter_mut().zip(left) {
                    sums[0] = bfmmla(sums[0], left, low);
                }
                let high = vzip2q_u32(first, second);
                for (sums, left) in sums.iter_mut().zip(left) {
                    sums[1] = bfmmla(sums[1], left, high);
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            for (i, sums) in sums.iter().enumerate() {
                for row in 2 * i..R.min(2 * i + 2) {
                    vst1q_f32(c.add(row * c_stride + LANES * j), row_of(*sums, row % 2));
                }
            }
        }
    }
}

/// See [`FlashKernel::scores`].
#[target_feature(enable = "neon,bf16")]
fn scores(q: Queries<'_>, keys: &[u32], count: usize, scores: &mut [f32]) {
    for col in (0..count).step_by(NR) {
        let (b, b_stride) = (&keys[col..], KV_BLOCK_TOKENS);
        columns(Product { a: q, b, b_stride, c_stride: KEYS, accumulate: false }, &mut scores[col..]);
    }
}

/// See [`FlashKernel::values`].
#[target_feature(enable = "neon,bf16")]
fn values(weights: Queries<'_>, panels: &[&[u32]], dim: usize, sums: &mut [f32]) {
    for (i, panel) in panels.iter().enumerate() {
        let first = i * PANEL_WORDS;
        let a = Queries {
            words: &weights.words[first..],
            count: PANEL_WORDS.min(weights.count - first),
            ..weights
        };
        for col in (0..dim).step_by(NR) {
            let b = &panel[col..];
            columns(Product { a, b, b_stride: dim, c_stride: dim, accumulate: true }, &mut sums[col..]);
        }
    }
}

/// See [`FlashKernel::softmax`].
#[target_feature(enable = "neon")]
fn softmax(row: SoftmaxRow<'_>) -> f32 {
    softmax_to(row, |words, weights| put_pairs(words, weights))
}
