//! Quantized activations, packed for the tiles of the matrix kernels.
//!
//! Rows are cut into tiles of six, or sixteen for AMX (the last may have fewer), tiles into groups of 128 values. A
//! group of a tile of R rows is `[32][R][4]` signed bytes (AMX: `[R][128]`), then one [`RowMeta`] per row: 160 bytes a
//! row and group in all, so a tile starts where the rows before it end. Values past `k` are zero.
//!
//! Language models have channels 50 to 100 times as large as the others (Dettmers et al. 2022, LLM.int8()). Within a
//! group, the one or two values that tower above the rest are *outliers*: they count as zero in the integers and are
//! multiplied in f32, so that they lose nothing and their neighbours keep all of their 8 bits.

use crate::quant::{GROUP, QUAD, SUBGROUP, ZERO};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// Rows of a tile. Six rows by 64 columns are 24 accumulators of 16 lanes; with 4 registers of weights and one of
/// activations that is what 32 registers hold.
pub(crate) const TILE_ROWS: usize = 6;

/// What a kernel needs to know of the 128 values of a row's group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RowMeta {
    /// A byte `q` stands for `q * scale`.
    pub(crate) scale: f32,
    /// `-128 Σ q`: stored weights are 128 too large.
    pub(crate) offset: i32,
    /// `Σ q` of each 32 values, for q4 nibbles, which are 8 too large.
    pub(crate) sums: [i16; GROUP / SUBGROUP],
    /// The outliers' values, largest first; 0 where there is none.
    outliers: [f32; OUTLIERS],
    /// Their places in the group.
    places: [u8; OUTLIERS],
    /// How many there are.
    count: u16,
    _padding: [u8; 4],
}

// SAFETY: numbers, of which all zeros is a value.
unsafe impl Zeroable for RowMeta {}
// SAFETY: numbers of any bit pattern, 4 + 4 + 8 + 8 + 2 + 2 + 4 = 32 bytes in that order: no padding but the named one.
unsafe impl Pod for RowMeta {}

/// Outliers of a group at most.
pub(crate) const OUTLIERS: usize = 2;
/// How much larger than the next value an outlier is at least. Below, int8 loses two bits at most, for a group;
/// bell-shaped values never get there, so the common case pays nothing.
pub(crate) const OUTLIER_RATIO: f32 = 4.0;

impl RowMeta {
    /// The outliers, as place in the group and value.
    pub(crate) fn outliers(&self) -> impl Iterator<Item = (usize, f32)> {
        let pairs = self.places.into_iter().zip(self.outliers);
        pairs.take(usize::from(self.count)).map(|(place, value)| (usize::from(place), value))
    }
}

/// Bytes of a row's group.
pub(crate) const ROW_GROUP: usize = GROUP + size_of::<RowMeta>();

/// Below this a group counts as zeros, so that 127 / largest stays finite.
const TINY: f32 = 1e-30;

/// Bytes of `rows` rows of `k` values.
pub(crate) fn bytes(rows: usize, k: usize) -> usize {
    rows * k.div_ceil(GROUP) * ROW_GROUP
}

/// The bytes of group `group` of the tile that begins at `row` and has `tile_rows` rows, among rows of `k` values.
pub(crate) fn group_range(row: usize, tile_rows: usize, group: usize, k: usize) -> Range<usize> {
    let start = bytes(row, k) + group * tile_rows * ROW_GROUP;
    start..start + tile_rows * ROW_GROUP
}

/// Quantized rows, see the module's introduction.
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
    /// `[32][rows][4]`, signed; `[rows][128]` where the level has it so.
    pub(crate) values: &'a [u8],
    /// `[rows]`
    pub(crate) meta: &'a [RowMeta],
}

impl TileGroup<'_> {
    /// No rows at all.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const EMPTY: Self = TileGroup { values: &[], meta: &[] };

    /// Whether any row has an outlier, which is rare.
    fn has_outliers(&self) -> bool {
        self.meta.iter().fold(0, |all, meta| all | meta.count) != 0
    }

    /// All outliers, as row of the tile, place in the group and value; where there are none, no row is looked at again.
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

    /// Values of a row.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Rows of the tile that begins at `row`.
    pub(crate) fn tile_rows(&self, row: usize) -> usize {
        self.tile_rows.min(self.rows - row)
    }

    /// Group `group` of the tile that begins at `row`.
    pub(crate) fn tile_group(&self, row: usize, group: usize) -> TileGroup<'a> {
        debug_assert!(row.is_multiple_of(self.tile_rows), "row {row} begins no tile");
        let rows = self.tile_rows(row);
        let (values, meta) = self.bytes[group_range(row, rows, group, self.k)].split_at(rows * GROUP);
        TileGroup { values, meta: bytemuck::cast_slice(meta) }
    }
}

/// Group `group` of a tile of `rows` rows, to be written: values and meta.
pub(crate) fn tile_group_mut(tile: &mut [u8], rows: usize, group: usize) -> (&mut [u8], &mut [RowMeta]) {
    let start = group * rows * ROW_GROUP;
    let (values, meta) = tile[start..start + rows * ROW_GROUP].split_at_mut(rows * GROUP);
    (values, bytemuck::cast_slice_mut(meta))
}

/// How a group is quantized: found from its three largest values, which a level finds in its own way.
pub(crate) struct Plan {
    /// Multiplies the values before rounding.
    pub(crate) inverse: f32,
    scale: f32,
    /// Outliers, how many of `largest` they are.
    pub(crate) outliers: usize,
}

impl Plan {
    /// `largest` are magnitudes, descending. One that is no number makes the scale NaN, so that it shows in the output.
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

    /// What is stored beside the integers; `places` are those of the largest values, `x` the group.
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

/// Where the four values `4 quad..` of `row` lie in a group of a tile of `rows` rows.
pub(crate) fn quad_index(rows: usize, row: usize, quad: usize) -> usize {
    (quad * rows + row) * QUAD
}
