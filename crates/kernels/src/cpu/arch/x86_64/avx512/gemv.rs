//! Products of few rows. Weights are streamed directly from the mapped file, 4 rows at a time with up to 4 rows of
//! input, so that a decode step reads each weight once and has 4 streams in flight.
//!
//! Every sum has one register of 16 partial sums, whatever the number of rows, so a row's result does not depend on
//! the other rows.

use super::gemm::{dot_pairs, fma};
use super::load::{Words, row_words};
use crate::DenseFormat;
use crate::cpu::table::dense::WeightRows;
use std::arch::x86_64::*;

/// Weight rows, and input rows, that are computed together.
const BLOCK: usize = 4;

/// Prefetches the data one block of rows after byte `at` of `row`. Rows are too short for the hardware prefetcher to
/// get going, because it stops at page boundaries.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(row: &[u8], at: usize) {
    let ahead = row.as_ptr().wrapping_add(BLOCK * row.len() + at);
    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
}

/// Where a block's sums go: rows of `n` columns, from column `col` on.
struct Out<'a> {
    y: &'a mut [f32],
    n: usize,
    col: usize,
}

impl Out<'_> {
    fn put(&mut self, row: usize, sums: [f32; BLOCK]) {
        let count = BLOCK.min(self.n - self.col);
        self.y[row * self.n + self.col..][..count].copy_from_slice(&sums[..count]);
    }
}

macro_rules! products {
    ($name:ident, $features:literal, $words:expr, $multiply:ident, $input:ty, $input_format:expr) => {
        /// See the function of this name in [`crate::cpu::arch::scalar::dense`].
        #[target_feature(enable = $features)]
        pub(super) fn $name(rows: &WeightRows<'_>, x: &[$input], y: &mut [f32]) {
            /// `y[i, c] = x[i] · row[c]` for 4 weight rows and `M` rows of input.
            #[inline]
            #[target_feature(enable = $features)]
            fn block<const M: usize>(w: [&[u8]; BLOCK], format: DenseFormat, x: &[$input], mut out: Out<'_>) {
                let k = x.len() / M;
                let x: [&[u8]; M] = std::array::from_fn(|i| bytemuck::cast_slice(&x[i * k..(i + 1) * k]));
                let mut sums = [[_mm512_setzero_ps(); BLOCK]; M];
                let end = $words.whole(k) / 16 * 16;
                for at in (0..end).step_by(16) {
                    let mut words = [_mm512_setzero_si512(); BLOCK];
                    for c in 0..BLOCK {
                        prefetch(w[c], 4 * at);
                        words[c] = row_words::<true>(w[c], format, $words, at);
                    }
                    for i in 0..M {
                        let x = row_words::<true>(x[i], $input_format, $words, at);
                        for c in 0..BLOCK {
                            sums[i][c] = $multiply(sums[i][c], x, words[c]);
                        }
                    }
                }
                if end < $words.count(k) {
                    for i in 0..M {
                        let x = row_words::<false>(x[i], $input_format, $words, end);
                        for c in 0..BLOCK {
                            let w = row_words::<false>(w[c], format, $words, end);
                            sums[i][c] = $multiply(sums[i][c], x, w);
                        }
                    }
                }
                for (i, row) in sums.iter().enumerate() {
                    let mut totals = [0.0; BLOCK];
                    for c in 0..BLOCK {
                        totals[c] = _mm512_reduce_add_ps(row[c]);
                    }
                    out.put(i, totals);
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn all(rows: &WeightRows<'_>, format: DenseFormat, x: &[$input], y: &mut [f32]) {
                let (k, n) = (rows.k, rows.len());
                for col in (0..n).step_by(BLOCK) {
                    // the last block repeats the last row
                    let w: [&[u8]; BLOCK] = std::array::from_fn(|j| rows.row((col + j).min(n - 1)));
                    for (x, y) in x.chunks(BLOCK * k).zip(y.chunks_mut(BLOCK * n)) {
                        let out = Out { y, n, col };
                        match x.len() / k {
                            1 => block::<1>(w, format, x, out),
                            2 => block::<2>(w, format, x, out),
                            3 => block::<3>(w, format, x, out),
                            _ => block::<4>(w, format, x, out),
                        }
                    }
                }
            }

            // the format is a constant within each copy
            match rows.format {
                DenseFormat::F32 => all(rows, DenseFormat::F32, x, y),
                DenseFormat::F16 => all(rows, DenseFormat::F16, x, y),
                DenseFormat::Bf16 => all(rows, DenseFormat::Bf16, x, y),
            }
        }
    };
}

products!(gemv_f32, "avx512f,avx512bw,avx512vl", Words::F32, fma, f32, DenseFormat::F32);
products!(gemv_bf16_widened, "avx512f,avx512bw,avx512vl", Words::Rounded, fma, u16, DenseFormat::Bf16);
products!(gemv_bf16, "avx512f,avx512bw,avx512vl,avx512bf16", Words::Pairs, dot_pairs, u16, DenseFormat::Bf16);
