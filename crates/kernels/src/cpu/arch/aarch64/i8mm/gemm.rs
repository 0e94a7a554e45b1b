//! The matrix kernel of bf16 with `bfmmla`: tiles of 8 rows x 8 columns, with 16 registers of 2 x 2 sums each, 4 of
//! weights and 4 of input.
//!
//! The instruction takes 4 values along K, two words of pairs. A panel is packed for it, eight columns at a time. For
//! each two consecutive words, both words of each column are stored; then, if the number of words is odd, the last
//! word of each column.

use super::bfmmla;
use crate::DenseFormat;
use crate::cpu::arch::aarch64::neon::load::{narrow, widened};
use crate::cpu::table::dense::{GemmKernel, WeightRows};
use std::arch::aarch64::*;
use std::ops::Range;

/// Rows of a tile.
const MR: usize = 8;
/// Columns of a tile.
const NR: usize = 8;
/// Columns of a panel.
const PANEL: usize = 64;
/// Words per register.
const LANES: usize = 4;

/// The kernel with pairs of bf16.
pub(super) static BF16: GemmKernel = GemmKernel { rows: MR, group: 2, pack_input, pack_weights, tile };

/// Returns two words of a row from word `at` on, zeros past its end: 4 values, rounded if they are not bf16.
#[inline]
#[target_feature(enable = "neon")]
fn words(row: &[u8], format: DenseFormat, at: usize) -> [u32; 2] {
    if format == DenseFormat::Bf16
        && let Some(stored) = row.get(4 * at..).and_then(|rest| rest.first_chunk::<8>())
    {
        return bytemuck::cast(*stored);
    }
    let mut words = [0u32; 2];
    let values = narrow(widened::<false>(row, format, 2 * at));
    // SAFETY: 8 bytes are written to an array of 8; the store needs no alignment.
    unsafe { vst1_u16(words.as_mut_ptr().cast(), values) };
    words
}

/// See [`GemmKernel::pack_input`].
#[target_feature(enable = "neon")]
fn pack_input(x: &[f32], k: usize, out: &mut [u32]) {
    for r in 0..MR {
        let row = bytemuck::cast_slice(x.get(r * k..(r + 1) * k).unwrap_or_default());
        for (i, out) in out.chunks_mut(2 * MR).enumerate() {
            for (out, word) in out.chunks_mut(MR).zip(words(row, DenseFormat::F32, 2 * i)) {
                out[r] = word;
            }
        }
    }
}

/// See [`GemmKernel::pack_weights`]; the order is that of the [module documentation](self).
#[target_feature(enable = "neon")]
fn pack_weights(rows: &WeightRows<'_>, range: Range<usize>, out: &mut [u32]) {
    match rows.format {
        DenseFormat::F32 => pack_panel(rows, DenseFormat::F32, range, out),
        DenseFormat::F16 => pack_panel(rows, DenseFormat::F16, range, out),
        DenseFormat::Bf16 => pack_panel(rows, DenseFormat::Bf16, range, out),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn pack_panel(rows: &WeightRows<'_>, format: DenseFormat, range: Range<usize>, out: &mut [u32]) {
    assert!(rows.len() <= PANEL);
    for column in 0..PANEL {
        let row = if column < rows.len() { rows.row(column) } else { &[] };
        let part = &mut out[column / NR * range.len() * NR..][..range.len() * NR];
        let (pairs, last) = part.split_at_mut(range.len() / 2 * 2 * NR);
        for (i, pair) in pairs.chunks_exact_mut(2 * NR).enumerate() {
            let at = column % NR * 2;
            pair[at..at + 2].copy_from_slice(&words(row, format, range.start + 2 * i));
        }
        if let Some(last) = last.get_mut(column % NR) {
            // the first word of the next block does not belong to this one
            [*last, _] = words(row, format, range.end - 1);
        }
    }
}

/// See [`GemmKernel::tile`].
#[target_feature(enable = "neon,bf16")]
fn tile(words: usize, a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    for (part, first) in (0..PANEL).step_by(NR).enumerate() {
        let b = &b[part * words * NR..][..words * NR];
        tile_columns(&a[..words * MR], b, &mut c[first..], accumulate);
    }
}

/// Sums of 8 rows and 8 columns, `[pair of rows][pair of columns]`, each `[row][column]`.
type TileSums = [[float32x4_t; NR / 2]; MR / 2];

/// Multiplies a tile, `[words, 8]`, by 8 columns of a panel. The products are written, or added, to rows of 64.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn tile_columns(a: &[u32], b: &[u32], c: &mut [f32], accumulate: bool) {
    assert!(a.len() == b.len() && c.len() >= (MR - 1) * PANEL + NR);
    let zero = vdupq_n_u32(0);
    let mut sums: TileSums = [[vdupq_n_f32(0.0); NR / 2]; MR / 2];
    if accumulate {
        load_sums(c, &mut sums);
    }
    let (a, last_a) = a.as_chunks::<{ 2 * MR }>();
    let (b, last_b) = b.as_chunks::<{ 2 * NR }>();
    for (a, b) in a.iter().zip(b) {
        // SAFETY: 16 words are read from each array of 16.
        let (a, b) = unsafe { (registers(a.as_ptr()), registers(b.as_ptr())) };
        // combines two words of each row
        let a =
            [vzip1q_u32(a[0], a[2]), vzip2q_u32(a[0], a[2]), vzip1q_u32(a[1], a[3]), vzip2q_u32(a[1], a[3])];
        multiply(&mut sums, a, b);
    }
    if let (Some(a), Some(b)) = (last_a.first_chunk::<MR>(), last_b.first_chunk::<NR>()) {
        // SAFETY: 8 words are read from each array of 8.
        let [a, b] = unsafe { [a, b].map(|x| [vld1q_u32(x.as_ptr()), vld1q_u32(x.as_ptr().add(LANES))]) };
        let [a, b] = [a, b].map(|x| {
            [vzip1q_u32(x[0], zero), vzip2q_u32(x[0], zero), vzip1q_u32(x[1], zero), vzip2q_u32(x[1], zero)]
        });
        multiply(&mut sums, a, b);
    }
    store_sums(&sums, c);
}

/// Loads four registers of words.
///
/// # Safety
/// 16 words must be readable at `words`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn registers(words: *const u32) -> [uint32x4_t; 4] {
    // SAFETY: by the caller's promise.
    unsafe {
        [
            vld1q_u32(words),
            vld1q_u32(words.add(LANES)),
            vld1q_u32(words.add(2 * LANES)),
            vld1q_u32(words.add(3 * LANES)),
        ]
    }
}

/// Multiplies four pairs of rows by four pairs of columns.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn multiply(sums: &mut TileSums, a: [uint32x4_t; 4], b: [uint32x4_t; 4]) {
    for (sums, a) in sums.iter_mut().zip(a) {
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = bfmmla(*sum, a, b);
        }
    }
}

/// Returns the first or the second row of two pairs of columns.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn row_of(pairs: [float32x4_t; 2], row: usize) -> float32x4_t {
    let [first, second] = [vreinterpretq_f64_f32(pairs[0]), vreinterpretq_f64_f32(pairs[1])];
    vreinterpretq_f32_f64(if row == 0 { vzip1q_f64(first, second) } else { vzip2q_f64(first, second) })
}

#[inline]
#[target_feature(enable = "neon")]
fn load_sums(c: &[f32], sums: &mut TileSums) {
    for (pair, sums) in sums.iter_mut().enumerate() {
        let rows = [&c[2 * pair * PANEL..], &c[(2 * pair + 1) * PANEL..]];
        for (i, sums) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let lanes = [rows[0], rows[1]].map(|row| &row[i * LANES..][..LANES]);
            // SAFETY: 4 values of either row.
            let rows = unsafe { [vld1q_f32(lanes[0].as_ptr()), vld1q_f32(lanes[1].as_ptr())] };
            *sums = [row_of(rows, 0), row_of(rows, 1)];
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_sums(sums: &TileSums, c: &mut [f32]) {
    for (pair, sums) in sums.iter().enumerate() {
        for row in 0..2 {
            let c = &mut c[(2 * pair + row) * PANEL..];
            for (i, sums) in sums.as_chunks::<2>().0.iter().enumerate() {
                let to = &mut c[i * LANES..][..LANES];
                // SAFETY: 4 values.
                unsafe { vst1q_f32(to.as_mut_ptr(), row_of(*sums, row)) };
            }
        }
    }
}
