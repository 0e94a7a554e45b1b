//! The packed weight formats q8 and q4: layout, sizes, and decoding, which defines the meaning of the bytes.
//!
//! The same layout serves matrix and vector products on every instruction set, in memory and on disk. A `[n, k]`
//! matrix is cut into *panels* of 64 rows (output columns of the product), and each panel into *blocks* of 128 values
//! along K: `[ceil(n/64)][ceil(k/128)]` blocks, in which K varies fastest. Numbers are little-endian. A block is
//!
//! | bytes | q8 | q4 |
//! |---|---|---|
//! | 128 | scales of the 64 columns, bf16 | the same |
//! | 128 | - | sub-scales `[2][64]`: low nibble for values `64 i..`, high nibble for values `64 i + 32..` |
//! | rest | `[32][64][4]` bytes: four values along K of each column | `[16][64][4]` bytes: values `8 i..` in the low nibbles, `8 i + 4..` in the high ones |
//!
//! A q8 byte `b` represents `(b - 128) * scale`. A q4 nibble `v` represents `(v - 8) * sub_scale * scale`: unpacking
//! multiplies in integers and gives exactly a q8 block, which a kernel for q8 can then multiply. Rows and values past
//! `n` and `k` are zero.
//!
//! Reasons for these numbers:
//!
//! * The dot product instructions of every instruction set take four values along K.
//! * 64 columns are four registers of AVX-512.
//! * With 128 values per scale, shared with the activations, scaling costs the matrix product 3 to 6 %
//!   (docs/internals/weights-format.md), and an outlier affects only 127 neighbours.
//! * bf16 scales have the range of f32; f16 would lose it for matrices of small values.

mod encode;

use crate::{Format, PackedFormat, Storage};
pub use encode::{ENCODER_REVISION, encode_panel};
use half::bf16;

/// Output columns of a panel, which are rows of the matrix: 4 registers of 16 lanes.
pub const PANEL: usize = 64;
/// Values along K that share one scale, of weights and of activations.
pub const GROUP: usize = 128;
/// Values along K that share one q4 sub-scale.
pub const SUBGROUP: usize = 32;
/// Values along K that one lane of a dot product instruction takes.
pub const QUAD: usize = 4;

/// Bytes of a block's scales.
pub(crate) const SCALE_BYTES: usize = PANEL * size_of::<bf16>();
/// Bytes of a q4 block's sub-scales.
pub(crate) const SUB_SCALE_BYTES: usize = PANEL * (GROUP / SUBGROUP) / 2;
/// Bytes of a q8 block.
pub(crate) const Q8_BLOCK: usize = SCALE_BYTES + PANEL * GROUP;
/// Bytes of a q4 block.
pub(crate) const Q4_BLOCK: usize = SCALE_BYTES + SUB_SCALE_BYTES + PANEL * GROUP / 2;

/// The q8 byte of a zero value.
pub(crate) const ZERO: u8 = 128;
/// The q4 nibble of a zero value.
pub(crate) const ZERO_NIBBLE: u8 = 8;
/// The largest q4 sub-scale: 8 * 15 = 120 still fits a signed byte.
pub(crate) const SUB_SCALE_MAX: u8 = 15;

/// The shape of a packed matrix, and the sizes that follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedShape {
    format: PackedFormat,
    n: usize,
    k: usize,
}

impl PackedShape {
    /// Returns the shape of an `[n, k]` matrix in `format`. `None` if the format is dense, a side is 0, or the size
    /// does not fit the address space.
    #[must_use]
    pub fn new(format: Format, n: usize, k: usize) -> Option<Self> {
        match format.storage() {
            Storage::Dense(_) => None,
            Storage::Packed(format) => Self::packed(format, n, k),
        }
    }

    /// Like [`Self::new`], for a packed format.
    pub(crate) fn packed(format: PackedFormat, n: usize, k: usize) -> Option<Self> {
        if n == 0 || k == 0 {
            return None;
        }
        let shape = Self { format, n, k };
        let blocks = shape.panels().checked_mul(shape.groups())?;
        // `Vec` and slices hold at most `isize::MAX` bytes
        blocks.checked_mul(shape.block_bytes()).filter(|&bytes| isize::try_from(bytes).is_ok())?;
        Some(shape)
    }

    /// Returns the number of rows of the matrix `[n, k]`: output features of a product with it.
    #[must_use]
    pub fn n(self) -> usize {
        self.n
    }

    /// Returns the number of values per row of the matrix `[n, k]`: input features of a product with it.
    #[must_use]
    pub fn k(self) -> usize {
        self.k
    }

    /// Returns the format of the blocks, which is [`Format::Q8`] or [`Format::Q4`].
    #[must_use]
    pub fn format(self) -> Format {
        self.format.into()
    }

    /// Returns the format as a [`PackedFormat`].
    pub(crate) fn packed_format(self) -> PackedFormat {
        self.format
    }

    /// Returns the number of panels of 64 rows that hold the matrix; the last one is padded with zeros.
    #[must_use]
    pub fn panels(self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Returns the number of blocks along K, of 128 values each; the last one is padded with zeros.
    #[must_use]
    pub fn groups(self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Returns the bytes of one block: 128 values of each of 64 rows, with their scales.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.head_bytes() + PANEL * GROUP * self.bits() / 8
    }

    /// Returns the bits of a value.
    pub(crate) fn bits(self) -> usize {
        match self.format {
            PackedFormat::Q8 => 8,
            PackedFormat::Q4 => 4,
        }
    }

    /// Returns the bytes of a block before its values: scales and sub-scales.
    pub(crate) fn head_bytes(self) -> usize {
        match self.format {
            PackedFormat::Q8 => SCALE_BYTES,
            PackedFormat::Q4 => SCALE_BYTES + SUB_SCALE_BYTES,
        }
    }

    /// Returns the bytes of one panel: the blocks of 64 rows along all of K.
    #[must_use]
    pub fn panel_bytes(self) -> usize {
        self.groups() * self.block_bytes()
    }

    /// Returns the bytes of the whole matrix: its panels one after another without a gap.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Returns the dimensions of the matrix as a tensor of bytes: `[panels, groups, block_bytes]`.
    #[must_use]
    pub fn dims(self) -> [usize; 3] {
        [self.panels(), self.groups(), self.block_bytes()]
    }

    /// Returns the rows of panel `panel` that are within the matrix, without padding.
    #[must_use]
    pub fn panel_rows(self, panel: usize) -> std::ops::Range<usize> {
        panel * PANEL..self.n.min((panel + 1) * PANEL)
    }

    /// Decodes the rows of panel `panel` from its bytes, `[panel_bytes]`, to `out`, `[panel_rows, k]`.
    ///
    /// # Panics
    /// If `bytes` or `out` has another length.
    pub fn decode_panel(self, panel: usize, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), self.panel_bytes(), "bytes of a panel of {self:?}");
        assert_eq!(out.len(), self.panel_rows(panel).len() * self.k, "values of a panel of {self:?}");
        for (column, row) in out.chunks_exact_mut(self.k).enumerate() {
            for (block, values) in bytes.chunks_exact(self.block_bytes()).zip(row.chunks_mut(GROUP)) {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = f32::from(self.quantized(block, column, i)) * scale(block, column);
                }
            }
        }
    }

    /// Returns the integer of value `i` of `column` in `block`, in units of the column's scale.
    pub(crate) fn quantized(self, block: &[u8], column: usize, i: usize) -> i8 {
        match self.format {
            PackedFormat::Q8 => (block[q8_index(column, i)] ^ ZERO).cast_signed(),
            PackedFormat::Q4 => {
                let nibble = (block[q4_index(column, i)] >> (i / QUAD % 2 * 4)) & 15;
                (nibble.cast_signed() - ZERO_NIBBLE.cast_signed())
                    * sub_scale(block, column, i / SUBGROUP).cast_signed()
            }
        }
    }
}

/// Returns the index of value `i` of `column` in a q8 block.
pub(crate) fn q8_index(column: usize, i: usize) -> usize {
    SCALE_BYTES + (i / QUAD * PANEL + column) * QUAD + i % QUAD
}

/// Returns the index of the byte with value `i` of `column` in a q4 block: the low nibble if `i / 4` is even, else
/// the high one.
pub(crate) fn q4_index(column: usize, i: usize) -> usize {
    SCALE_BYTES + SUB_SCALE_BYTES + (i / (2 * QUAD) * PANEL + column) * QUAD + i % QUAD
}

/// Returns the scale of `column` in a block of either format.
pub(crate) fn scale(block: &[u8], column: usize) -> f32 {
    bf16::from_le_bytes([block[2 * column], block[2 * column + 1]]).to_f32()
}

/// Returns the sub-scale of `column` for the values `32 subgroup..` of a q4 block.
pub(crate) fn sub_scale(block: &[u8], column: usize, subgroup: usize) -> u8 {
    (block[SCALE_BYTES + subgroup / 2 * PANEL + column] >> (subgroup % 2 * 4)) & 15
}
