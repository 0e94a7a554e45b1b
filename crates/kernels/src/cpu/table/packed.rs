//! Products of bytes with packed weights ([`crate::quant`]).

use super::activations::QuantizedRows;
use crate::PackedFormat;
use crate::quant::PANEL;
use std::ops::Range;

/// Bytes of packed activations that one sweep over the panels keeps in the shared L3 cache. With 8192 values per row,
/// 2,048 rows are 19 MB and would otherwise be read from memory again for each panel.
pub(crate) const SWEEP_BYTES: usize = 4 << 20;

/// Unpacks a q4 panel to the q8 panel of the same values.
pub(crate) type Unpack = unsafe fn(q4: &[u8], q8: &mut [u8]);

/// Calls a kernel that is compiled for each number of rows of a tile: `by_rows!(rows, kernel(arguments))`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! by_rows {
    ($rows:expr, $kernel:ident($($argument:expr),+)) => {
        match $rows {
            6 => $kernel::<6>($($argument),+),
            5 => $kernel::<5>($($argument),+),
            4 => $kernel::<4>($($argument),+),
            3 => $kernel::<3>($($argument),+),
            2 => $kernel::<2>($($argument),+),
            _ => $kernel::<1>($($argument),+),
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use by_rows;

/// Multiplies a packed panel with some rows of x: `y = x Wᵀ`.
pub(crate) type PanelProduct =
    unsafe fn(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>);

/// The kernels of products with packed weights.
#[derive(Clone, Copy)]
pub(crate) struct PackedKernels {
    /// Quantizes up to `tile_rows` rows, `[rows, k]`, into a tile.
    pub(crate) quantize: unsafe fn(x: &[f32], k: usize, tile: &mut [u8]),
    /// The product with a q8 panel.
    pub(crate) q8: PanelProduct,
    /// The product of few rows with a q4 panel, unpacked on the fly.
    pub(crate) q4: PanelProduct,
    /// Unpacks a q4 panel to a q8 one; `None` if `q4` is also the fastest for many rows.
    pub(crate) unpack_q4: Option<Unpack>,
    /// Rows of a tile of quantized activations.
    pub(crate) tile_rows: usize,
    /// Rows computed between two runs of the epilogue, in whole tiles: their sums stay in the L1 cache together with
    /// the block of weights that all of them use.
    pub(crate) chunk_rows: usize,
    /// Bytes of quantized activations that one sweep over the panels uses.
    pub(crate) sweep_bytes: usize,
}

impl PackedKernels {
    /// Returns the kernel that multiplies panels of `format` as they are stored.
    pub(crate) fn product(&self, format: PackedFormat) -> PanelProduct {
        match format {
            PackedFormat::Q8 => self.q8,
            PackedFormat::Q4 => self.q4,
        }
    }

    /// Returns the function that unpacks panels of `format` to q8 if that pays off for many rows.
    pub(crate) fn unpack(&self, format: PackedFormat) -> Option<Unpack> {
        match format {
            PackedFormat::Q8 => None,
            PackedFormat::Q4 => self.unpack_q4,
        }
    }
}

/// A panel, and the bytes that the thread needs after it: kernels prefetch them while they finish the panel.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) bytes: &'a [u8],
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 fetches ahead"))]
    pub(crate) next: &'a [u8],
}

#[cfg(target_arch = "x86_64")]
impl Panel<'_> {
    /// Returns the address of block `index` of the next panel, for prefetching. Blocks have `size` bytes.
    #[inline(always)]
    pub(crate) fn next_block(&self, index: usize, size: usize) -> *const u8 {
        self.next.as_ptr().wrapping_add(index * size)
    }

    /// Returns the address of block `index`, counted through the panel and what follows it, for prefetching. Blocks
    /// have `size` bytes.
    #[inline(always)]
    pub(crate) fn ahead(&self, index: usize, size: usize) -> *const u8 {
        match (index * size).checked_sub(self.bytes.len()) {
            Some(past) => self.next.as_ptr().wrapping_add(past),
            None => self.bytes.as_ptr().wrapping_add(index * size),
        }
    }
}

/// The sums of one panel for some rows: `[rows, stride]`, of which 64 columns belong to the panel.
pub(crate) struct Sums<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
    /// For the kernel: the lanes of a register of sums that already hold partial sums.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 has masks"))]
    pub(crate) keep: u16,
}

impl Sums<'_> {
    /// Returns the panel's columns of row `row`.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32; PANEL] {
        self.values[row * self.stride..].first_chunk_mut().expect("a row has the panel's columns")
    }

    /// Sets the first `rows` rows to zero.
    pub(crate) fn clear(&mut self, rows: usize) {
        (0..rows).for_each(|row| self.row(row).fill(0.0));
    }

    /// Returns the rows from `first` on.
    #[inline(always)]
    pub(crate) fn rows(&mut self, first: usize) -> Sums<'_> {
        Sums { values: &mut self.values[first * self.stride..], ..*self }
    }
}
