//! q8 with AVX2: pairs of 16-bit products.

use super::{LANES, PANEL_REGISTERS, QUADS, REGISTER, STEP, accumulate, column_scales};
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{Panel, Sums, by_rows};
use crate::quant::{GROUP, PANEL, Q8_BLOCK, QUAD, SCALE_BYTES, ZERO};
use std::arch::x86_64::*;
use std::ops::Range;

/// Registers of weights per tile: 6 rows by 2 registers of 8 columns are 12 sums; with the weights and a broadcast
/// they take 15 of 16 registers.
const COLS: usize = 2;
/// Bytes of a pair of values along K of a panel's columns, in 16 bits.
const PAIR_STEP: usize = PANEL * 2 * size_of::<i16>();

/// A block's weights in 16 bits, `[64][64][2]`: pairs along K, columns, values of a pair. 16 KB, half of the L1
/// cache.
#[repr(C, align(64))]
struct Pairs([u8; 2 * PANEL * GROUP]);

/// A tile's activations in 16 bits, `[32][rows][4]`.
type Widened = [i16; TILE_ROWS * GROUP];

#[target_feature(enable = "avx2,fma")]
pub(super) fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let blocks = panel.bytes.chunks_exact(Q8_BLOCK).enumerate();
    if rows.len() == 1 && x.tile_rows(rows.start) == 1 {
        return blocks.for_each(|(group, block)| {
            row_product(block, x.tile_group(rows.start, group), y);
            add_outliers(block, x.tile_group(rows.start, group), y);
        });
    }
    let mut pairs = Pairs([0; 2 * PANEL * GROUP]);
    for (group, block) in blocks {
        widen(block, &mut pairs);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), product(block, &pairs, tile, y));
            add_outliers(block, tile, y);
        }
    }
}

/// Splits four columns of four bytes into the first two and the second two of each column, in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn halves(bytes: __m256i) -> [__m256i; 2] {
    const Z: i8 = -1; // makes a zero
    let low = _mm_setr_epi8(0, Z, 1, Z, 4, Z, 5, Z, 8, Z, 9, Z, 12, Z, 13, Z);
    let high = _mm_setr_epi8(2, Z, 3, Z, 6, Z, 7, Z, 10, Z, 11, Z, 14, Z, 15, Z);
    [low, high].map(|order| _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order)))
}

/// Widens a block's weights to 16 bits. Products read columns in strides, which no hardware prefetcher follows; this
/// function reads in order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(block: &[u8], pairs: &mut Pairs) {
    assert!(block.len() == Q8_BLOCK);
    let (weights, out) = (block[SCALE_BYTES..].as_ptr(), pairs.0.as_mut_ptr());
    for quad in 0..QUADS {
        for j in 0..PANEL_REGISTERS {
            // SAFETY: quad < 32 and j < 8: 32 bytes of the block's 8,192 and twice 32 of 16,384.
            unsafe {
                let bytes = _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast());
                for (half, values) in halves(bytes).into_iter().enumerate() {
                    let at = (2 * quad + half) * PAIR_STEP + j * REGISTER;
                    _mm256_store_si256(out.add(at).cast(), values);
                }
            }
        }
    }
}

/// Returns a tile's values in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widened(tile: TileGroup<'_>) -> Widened {
    let mut out: Widened = [0; TILE_ROWS * GROUP];
    for (wide, byte) in out.iter_mut().zip(tile.values) {
        *wide = i16::from(byte.cast_signed());
    }
    out
}

/// `y += ` the product of a block and a tile's group, without outliers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn product<const ROWS: usize>(block: &[u8], pairs: &Pairs, tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let widened = widened(tile);
    let values = widened.as_ptr().cast::<i32>();
    for first in (0..PANEL_REGISTERS).step_by(COLS) {
        let weights = pairs.0[first * REGISTER..].as_ptr();
        let mut acc: [[__m256i; COLS]; ROWS] =
            std::array::from_fn(|row| [_mm256_set1_epi32(tile.meta[row].offset); COLS]);
        for quad in 0..QUADS {
            for half in 0..2 {
                // SAFETY: quad < 32 and j < 2: 64 bytes from column 8 first on, within the pair's 256.
                let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                    _mm256_load_si256(weights.add((2 * quad + half) * PAIR_STEP + j * REGISTER).cast())
                });
                for (row, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: (quad * ROWS + row) * 2 + half < 64 ROWS pairs, of which `widened` has 64 * 6.
                    let x = unsafe { values.add((quad * ROWS + row) * 2 + half).read_unaligned() };
                    let x = _mm256_set1_epi32(x);
                    for j in 0..COLS {
                        acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(w[j], x));
                    }
                }
            }
        }
        for j in first..first + COLS {
            let scale = column_scales(block, j);
            for (row, (acc, meta)) in acc.iter().zip(tile.meta).enumerate() {
                accumulate(acc[j - first], scale, meta.scale, &mut y.row(row)[j * LANES..]);
            }
        }
    }
}

/// `y += ` the product of a block and a group of a single row, without outliers. The block is read once and in order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn row_product(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q8_BLOCK && tile.values.len() == GROUP && tile.meta.len() == 1);
    let widened = widened(tile);
    let (weights, values) = (block[SCALE_BYTES..].as_ptr(), widened.as_ptr().cast::<i32>());
    let mut acc = [_mm256_set1_epi32(tile.meta[0].offset); PANEL_REGISTERS];
    for quad in 0..QUADS {
        // SAFETY: quad < 32: 2 of 64 pairs.
        let x: [__m256i; 2] = std::array::from_fn(|half| unsafe {
            _mm256_set1_epi32(values.add(2 * quad + half).read_unaligned())
        });
        for (j, acc) in acc.iter_mut().enumerate() {
            // SAFETY: quad < 32 and j < 8: 32 bytes of the block's 8,192.
            let bytes = unsafe { _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast()) };
            for (w, x) in halves(bytes).into_iter().zip(x) {
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(w, x));
            }
        }
    }
    for (j, acc) in acc.into_iter().enumerate() {
        accumulate(acc, column_scales(block, j), tile.meta[0].scale, &mut y.row(0)[j * LANES..]);
    }
}

/// `y += ` the outliers of a tile's group times their weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn add_outliers(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    for (row, place, outlier) in tile.outliers() {
        add_outlier(block, place, outlier, y.row(row));
    }
}

/// `y += outlier * ` the weights at `place` of a block.
#[cold]
#[target_feature(enable = "avx2,fma")]
fn add_outlier(block: &[u8], place: usize, outlier: f32, y: &mut [f32]) {
    let (quad, byte) = (place / QUAD, place % QUAD);
    let shift = _mm_cvtsi64_si128(8 * byte as i64);
    for j in 0..PANEL_REGISTERS {
        let at = SCALE_BYTES + quad * STEP + j * REGISTER;
        let quads: &[u8; REGISTER] = block[at..].first_chunk().expect("quad < 32");
        // SAFETY: 32 bytes are read from an array of 32.
        let quads = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
        let stored = _mm256_and_si256(_mm256_srl_epi32(quads, shift), _mm256_set1_epi32(255));
        let q = _mm256_sub_epi32(stored, _mm256_set1_epi32(i32::from(ZERO)));
        accumulate(q, column_scales(block, j), outlier, &mut y[j * LANES..]);
    }
}
