//! Quantized activations, packed for the tiles of the matrix kernels.
//!
//! Rows are cut into tiles of six, or sixteen for AMX (the last may have fewer), and tiles into groups of 128 values.
//! A group of a tile of R rows is `[32][R][4]` signed bytes (AMX: `[R][128]`), then one [`RowMeta`] per row. That is
//! 160 bytes per row and group, so a tile starts where the rows before it end. Values past `k` are zero.
//!
//! Language models have channels 50 to 100 times as large as the others (Dettmers et al. 2022, LLM.int8()). The one
//! or two values of a group that are far larger than the rest are *outliers*. They count as zero in the integers and
//! are multiplied in f32, so that they lose no precision and their neighbours keep all of their 8 bits.

use crate::quant::{GROUP, QUAD, SUBGROUP, ZERO};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Rows of a tile. Six rows by 64 columns are 24 accumulators of 16 lanes; with 4 registers of weights and one of
/// activations they fill the 32 registers.
pub(crate) const TILE_ROWS: usize = 6;

/// What a kernel needs to know about the 128 values of a row's group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RowMeta {
    /// A byte `q` represents `q * scale`.
    pub(crate) scale: f32,
    /// `-128 Σ q`, because stored weights are 128 too large.
    pub(crate) offset: i32,
    /// `Σ q` of each 32 values, because q4 nibbles are 8 too large.
    pub(crate) sums: [i16; GROUP / SUBGROUP],
    /// The values of the outliers, largest first; 0 in unused places.
    outliers: [f32; OUTLIERS],
    /// The positions of the outliers in the group.
    places: [u8; OUTLIERS],
    /// The number of outliers.
    count: u16,
    _padding: [u8; 4],
}

// SAFETY: numbers, for which all zeros is a valid value.
unsafe impl Zeroable for RowMeta {}
// SAFETY: numbers for which any bit pattern is valid, 4 + 4 + 8 + 8 + 2 + 2 + 4 = 32 bytes in that order: no padding
// except the named one.
unsafe impl Pod for RowMeta {}

/// Maximum number of outliers per group.
pub(crate) const OUTLIERS: usize = 2;
/// How many times larger than the next value an outlier is at least. With a smaller ratio, int8 loses at most two
/// bits for a group. Bell-shaped values never reach the ratio, so the common case costs nothing.
pub(crate) const OUTLIER_RATIO: f32 = 4.0;

impl RowMeta {
    /// Returns the outliers, as position in the group and value.
    pub(crate) fn outliers(&self) -> impl Iterator<Item = (usize, f32)> {
        let pairs = self.places.into_iter().zip(self.outliers);
        pairs.take(usize::from(self.count)).map(|(place, value)| (usize::from(place), value))
    }
}

/// Bytes of a row's group.
pub(crate) const ROW_GROUP: usize = GROUP + size_of::<RowMeta>();

/// If the largest magnitude is below this, the group counts as zeros, so that 127 / largest stays finite.
const TINY: f32 = 1e-30;

/// Returns the bytes of `rows` rows of `k` values.
pub(crate) fn bytes(rows: usize, k: usize) -> usize {
    rows * k.div_ceil(GROUP) * ROW_GROUP
}

/// Returns the byte range of group `group` of the tile that begins at `row` and has `tile_rows` rows, for rows of `k`
/// values.
pub(crate) fn group_range(row: usize, tile_rows: usize, group: usize, k: usize) -> Range<usize> {
    let start = bytes(row, k) + group * tile_rows * ROW_GROUP;
    start..start + tile_rows * ROW_GROUP
}

/// Quantized rows, see the [module documentation](self).
#[derive(Clone, Copy)]
pub(crate) struct QuantizedRows<'a> {
    bytes: &'a [u8],
    rows: usize,
    k: usize,
    /// Rows of a tile.
    tile_rows: usize,
}

/// A group of a tile.
#[derive(Clone, Copy)]
pub(crate) struct TileGroup<'a> {
    /// `[32][rows][4]`, signed; `[rows][128]` on AMX.
    pub(crate) values: &'a [u8],
    /// `[rows]`
    pub(crate) meta: &'a [RowMeta],
}

impl TileGroup<'_> {
    /// A group without rows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const EMPTY: Self = TileGroup { values: &[], meta: &[] };

    /// Returns whether any row has an outlier, which is rare.
    fn has_outliers(&self) -> bool {
        self.meta.iter().fold(0, |all, meta| all | meta.count) != 0
    }

    /// Returns all outliers, as row of the tile, position in the group and value. If there are none, the rows are not
    /// searched again.
    pub(crate) fn outliers(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        let rows = if self.has_outliers() { self.meta } else { &[] };
        let rows = rows.iter().enumerate();
        rows.flat_map(|(row, meta)| meta.outliers().map(move |(place, value)| (row, place, value)))
    }
}

impl<'a> QuantizedRows<'a> {
    pub(crate) fn new(bytes: &'a [u8], rows: usize, k: usize, tile_rows: usize) -> Self {
        assert_eq!(bytes.len(), self::bytes(rows, k), "bytes of {rows} rows of {k}");
        Self { bytes, rows, k, tile_rows }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of values per row.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Returns the number of groups per row.
    pub(crate) fn groups(&self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Returns the number of rows of the tile that begins at `row`.
    pub(crate) fn tile_rows(&self, row: usize) -> usize {
        self.tile_rows.min(self.rows - row)
    }

    /// Returns group `group` of the tile that begins at `row`.
    pub(crate) fn tile_group(&self, row: usize, group: usize) -> TileGroup<'a> {
        debug_assert!(row.is_multiple_of(self.tile_rows), "row {row} begins no tile");
        let rows = self.tile_rows(row);
        let (values, meta) = self.bytes[group_range(row, rows, group, self.k)].split_at(rows * GROUP);
        TileGroup { values, meta: bytemuck::cast_slice(meta) }
    }
}

/// Returns group `group` of a tile of `rows` rows for writing: values and metadata.
pub(crate) fn tile_group_mut(tile: &mut [u8], rows: usize, group: usize) -> (&mut [u8], &mut [RowMeta]) {
    let start = group * rows * ROW_GROUP;
    let (values, meta) = tile[start..start + rows * ROW_GROUP].split_at_mut(rows * GROUP);
    (values, bytemuck::cast_slice_mut(meta))
}

/// How a group is quantized. Computed from its three largest values, which each level finds in its own way.
pub(crate) struct Plan {
    /// Factor of the values before rounding.
    pub(crate) inverse: f32,
    scale: f32,
    /// How many of the largest values are outliers.
    pub(crate) outliers: usize,
}

impl Plan {
    /// Plans a group whose three largest magnitudes are `largest`, descending. A non-finite one makes the scale NaN,
    /// so that it shows in the output.
    pub(crate) fn new(largest: [f32; OUTLIERS + 1]) -> Self {
        if !largest[0].is_finite() {
            return Self { inverse: 0.0, scale: f32::NAN, outliers: 0 };
        }
        let outliers = if largest[1] > OUTLIER_RATIO * largest[2] {
            2
        } else {
            usize::from(largest[0] > OUTLIER_RATIO * largest[1])
        };
        let rest = largest[outliers];
        if rest < TINY {
            return Self { inverse: 0.0, scale: 0.0, outliers };
        }
        Self { inverse: 127.0 / rest, scale: rest / 127.0, outliers }
    }

    /// Returns the metadata stored with the integers. `places` are the positions of the largest values, `x` is the
    /// group.
    pub(crate) fn meta(&self, sums: [i16; GROUP / SUBGROUP], places: [u8; OUTLIERS], x: &[f32]) -> RowMeta {
        let sum: i32 = sums.iter().map(|&s| i32::from(s)).sum();
        let mut meta =
            RowMeta { scale: self.scale, offset: -i32::from(ZERO) * sum, sums, ..RowMeta::zeroed() };
        meta.count = u16::from(self.outliers > 0) + u16::from(self.outliers > 1);
        for i in 0..self.outliers {
            (meta.outliers[i], meta.places[i]) = (x[usize::from(places[i])], places[i]);
        }
        meta
    }
}

/// Returns the index of the four values `4 quad..` of `row` in a group of a tile of `rows` rows.
pub(crate) fn quad_index(rows: usize, row: usize, quad: usize) -> usize {
    (quad * rows + row) * QUAD
}
