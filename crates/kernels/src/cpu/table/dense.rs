//! Products with dense weights: row-major f32, f16 or bf16, in the layout of a mapped file.

use crate::DenseFormat;
use std::ops::Range;

/// Some rows of a dense weight matrix: one or two runs of consecutive rows, treated as one list.
#[derive(Clone, Debug)]
pub(crate) struct WeightRows<'a> {
    /// The whole matrix, row-major.
    pub(crate) bytes: &'a [u8],
    pub(crate) format: DenseFormat,
    /// Values per row.
    pub(crate) k: usize,
    /// Gate rows, then up rows, for [`Epilogue::SiluMul`](crate::Epilogue::SiluMul); otherwise the second run is
    /// empty.
    pub(crate) runs: [Range<usize>; 2],
}

impl<'a> WeightRows<'a> {
    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.runs[0].len() + self.runs[1].len()
    }

    /// Returns the stored bytes of row `i` of the list.
    pub(crate) fn row(&self, i: usize) -> &'a [u8] {
        let first = self.runs[0].len();
        let row = if i < first { self.runs[0].start + i } else { self.runs[1].start + i - first };
        let bytes = self.k * self.format.value_bytes();
        &self.bytes[row * bytes..(row + 1) * bytes]
    }
}

/// The kernels of products with dense weights.
#[derive(Clone, Copy)]
pub(crate) struct DenseKernels {
    /// `(row, format, out)`: widens a stored row to f32.
    pub(crate) widen: unsafe fn(&[u8], DenseFormat, &mut [f32]),
    pub(crate) gemv_f32: unsafe fn(&WeightRows<'_>, &[f32], &mut [f32]),
    pub(crate) gemv_bf16: unsafe fn(&WeightRows<'_>, &[u16], &mut [f32]),
    /// Products of many rows, in f32 and in bf16; if `None`, rows are computed one by one.
    pub(crate) gemm_f32: Option<&'static GemmKernel>,
    pub(crate) gemm_bf16: Option<&'static GemmKernel>,
}

/// The functions of a product of many rows that depend on the instruction set, see [`crate::cpu::ops::gemm`].
pub(crate) struct GemmKernel {
    /// Rows of a tile.
    pub(crate) rows: usize,
    /// Values in a word: 1 (f32) or 2 (bf16).
    pub(crate) group: usize,
    /// `(x, k, out)`: packs up to `rows` rows of `k` values into a tile of `words * rows` words. The tile is `[words,
    /// rows]`, or in another order known to `tile` within every 16 words. Missing rows and values past the end of a
    /// row are zeros.
    pub(crate) pack_input: unsafe fn(&[f32], usize, &mut [u32]),
    /// `(rows, words, out)`: packs some words of up to 64 weight rows into a panel of `words * 64` words, in an order
    /// known to `tile`. Missing rows and values past the end of a row are zeros.
    pub(crate) pack_weights: unsafe fn(&WeightRows<'_>, Range<usize>, &mut [u32]),
    /// `(words, tile, panel, sums, accumulate)`: multiplies a packed tile and panel, `[rows, 64]`; the results are
    /// added to `sums` if `accumulate`, otherwise written.
    pub(crate) tile: unsafe fn(usize, &[u32], &[u32], &mut [f32], bool),
}
