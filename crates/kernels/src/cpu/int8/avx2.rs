//! The int8 kernels with AVX2. [`super::scalar`] defines what they compute.
//!
//! Without VNNI there is no dot product of bytes in 32 bits. `vpmaddubsw` adds two products in 16 bits and saturates:
//!
//! - q8: 2 * 255 * 127 does not fit, so both sides are widened to 16 bits and `vpmaddwd` adds pairs in 32: half as
//!   many products per instruction, all exact. (Moving the weights' signs to the activations, so that bytes fit, takes
//!   one instruction more per pair and was slower: 106 against 120 G operations/s a core.)
//! - q4: nibbles are small. A lane of 16 bits takes all 16 products of a subgroup, 15 * 127 each, without overflow;
//!   the sub-scale then multiplies and widens at once. So q4 is computed from its nibbles, and faster than q8.

use super::activations::{QuantisedRows, TILE_ROWS, TileGroup};
use super::scalar;
use super::{Int8Kernels, Panel, Sums};
use crate::quant::{
    GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, SUB_SCALE_BYTES, SUBGROUP, ZERO_NIBBLE,
};
use std::arch::x86_64::*;
use std::ops::Range;

/// The AVX2 level.
pub(super) static KERNELS: Int8Kernels = Int8Kernels { quantise, q8, q4, unpack: None };

/// 32-bit lanes of a register.
const LANES: usize = 8;
/// Bytes of a register.
const REGISTER: usize = 32;
/// Bytes of four values along K of a panel's columns.
const STEP: usize = PANEL * QUAD;
/// Four values along K in a group.
const QUADS: usize = GROUP / QUAD;
/// Columns of a tile, in registers of accumulators: 6 rows by 2 are 12 of 16 registers.
const COLS: usize = 2;

/// A tile's activations in 16 bits, `[32][rows][4]`.
type Widened = [i16; TILE_ROWS * GROUP];

/// A q8 block of its own.
#[repr(C, align(64))]
struct Block([u8; Q8_BLOCK]);

/// The nibbles of a q4 block as bytes, `[32][64][4]`.
#[repr(C, align(64))]
struct Nibbles([u8; PANEL * GROUP]);

/// The scalar text compiled for 8 lanes.
#[target_feature(enable = "avx2,fma")]
fn quantise(x: &[f32], k: usize, tile: &mut [u8]) {
    scalar::quantise(x, k, tile);
}

#[target_feature(enable = "avx2,fma")]
fn q8(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    // products read columns in strides, which the processor's prefetcher does not follow; a copy reads in order
    let mut copy = Block([0; Q8_BLOCK]);
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        copy.0.copy_from_slice(block);
        let block = &copy.0[..];
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            match tile.meta.len() {
                6 => q8_product::<6>(block, tile, y),
                5 => q8_product::<5>(block, tile, y),
                4 => q8_product::<4>(block, tile, y),
                3 => q8_product::<3>(block, tile, y),
                2 => q8_product::<2>(block, tile, y),
                _ => q8_product::<1>(block, tile, y),
            }
            for (row, meta) in tile.meta.iter().enumerate() {
                for (place, outlier) in meta.outliers() {
                    add_outlier(block, place, outlier, y.row(row));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn q4(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let mut nibbles = Nibbles([0; PANEL * GROUP]);
    for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
        spread(block, &mut nibbles.0);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            match tile.meta.len() {
                6 => q4_product::<6>((block, &nibbles), tile, y),
                5 => q4_product::<5>((block, &nibbles), tile, y),
                4 => q4_product::<4>((block, &nibbles), tile, y),
                3 => q4_product::<3>((block, &nibbles), tile, y),
                2 => q4_product::<2>((block, &nibbles), tile, y),
                _ => q4_product::<1>((block, &nibbles), tile, y),
            }
            for (row, meta) in tile.meta.iter().enumerate() {
                for (place, outlier) in meta.outliers() {
                    add_q4_outlier((block, &nibbles), place, outlier, y.row(row));
                }
            }
        }
    }
}

/// `y += ` the product of a q8 block and a tile's group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn q8_product<const ROWS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q8_BLOCK && tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let mut widened: Widened = [0; TILE_ROWS * GROUP];
    for (wide, byte) in widened.iter_mut().zip(tile.values) {
        *wide = i16::from(byte.cast_signed());
    }
    let values = widened.as_ptr().cast::<i64>();
    // a register of 16-bit weights holds 4 values of 4 columns, one of sums 2 parts of 4 columns
    for first in (0..PANEL / LANES).step_by(COLS / 2) {
        let weights = block[SCALE_BYTES + first * REGISTER..].as_ptr();
        let mut acc: [[__m256i; COLS]; ROWS] = std::array::from_fn(|row| {
            [_mm256_set1_epi64x(i64::from(tile.meta[row].offset.cast_unsigned())); COLS]
        });
        for quad in 0..QUADS {
            // SAFETY: quad < 32 and j < 2: 32 bytes from column 8 first on, within the step's 256.
            let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                _mm256_cvtepu8_epi16(_mm_loadu_si128(weights.add(quad * STEP + j * REGISTER / 2).cast()))
            });
            for (row, acc) in acc.iter_mut().enumerate() {
                // SAFETY: quad * ROWS + row < 32 ROWS quads of 8 bytes, of which `widened` has 32 * 6.
                let x = _mm256_set1_epi64x(unsafe { values.add(quad * ROWS + row).read_unaligned() });
                for j in 0..COLS {
                    acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(w[j], x));
                }
            }
        }
        let scale = column_scales(block, first);
        for (row, (acc, meta)) in acc.iter().zip(tile.meta).enumerate() {
            // columns 0 1 4 5 2 3 6 7, then in order
            let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(acc[0], acc[1]));
            accumulate(sums, scale, meta.scale, &mut y.row(row)[first * LANES..]);
        }
    }
}

/// `y += ` the product of a q4 block, its nibbles spread to bytes, and a tile's group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn q4_product<const ROWS: usize>((block, nibbles): (&[u8], &Nibbles), tile: TileGroup<'_>, y: &mut Sums<'_>) {
    const SUB_QUADS: usize = SUBGROUP / QUAD;
    assert!(tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr().cast::<i32>();
    for first in (0..PANEL / LANES).step_by(COLS) {
        let weights = nibbles.0[first * REGISTER..].as_ptr();
        let mut total = [[_mm256_setzero_si256(); COLS]; ROWS];
        for subgroup in 0..GROUP / SUBGROUP {
            // nibbles are 8 too large: -8 * 32 * 127 fits the first of a column's two lanes, and so does any sum
            let mut acc: [[__m256i; COLS]; ROWS] = std::array::from_fn(|row| {
                let offset = -i16::from(ZERO_NIBBLE) * tile.meta[row].sums[subgroup];
                [_mm256_set1_epi32(i32::from(offset.cast_unsigned())); COLS]
            });
            for quad in subgroup * SUB_QUADS..(subgroup + 1) * SUB_QUADS {
                // SAFETY: quad < 32 and j < 2: 64 bytes from column 8 first on, within the step's 256.
                let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                    _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast())
                });
                for (row, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: quad * ROWS + row < 32 ROWS quads of 4 bytes, the length of the values.
                    let x = _mm256_set1_epi32(unsafe { values.add(quad * ROWS + row).read_unaligned() });
                    for j in 0..COLS {
                        acc[j] = _mm256_add_epi16(acc[j], _mm256_maddubs_epi16(w[j], x));
                    }
                }
            }
            for j in 0..COLS {
                let s = column_sub_scales(block, first + j, subgroup);
                let s = _mm256_or_si256(s, _mm256_slli_epi32::<16>(s));
                for (total, acc) in total.iter_mut().zip(&acc) {
                    total[j] = _mm256_add_epi32(total[j], _mm256_madd_epi16(acc[j], s));
                }
            }
        }
        for j in 0..COLS {
            let scale = column_scales(block, first + j);
            for (row, (total, meta)) in total.iter().zip(tile.meta).enumerate() {
                accumulate(total[j], scale, meta.scale, &mut y.row(row)[(first + j) * LANES..]);
            }
        }
    }
}

/// `y += outlier * ` the weights at `place` of a block.
#[cold]
#[target_feature(enable = "avx2,fma")]
fn add_outlier(block: &[u8], place: usize, outlier: f32, y: &mut [f32]) {
    let (quad, byte) = (place / QUAD, place % QUAD);
    let shift = _mm_cvtsi64_si128(8 * byte as i64);
    for j in 0..PANEL / LANES {
        let at = SCALE_BYTES + quad * STEP + j * REGISTER;
        let quads: &[u8; REGISTER] = block[at..].first_chunk().expect("quad < 32");
        // SAFETY: 32 bytes are read from an array of 32.
        let quads = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
        let stored = _mm256_and_si256(_mm256_srl_epi32(quads, shift), _mm256_set1_epi32(255));
        let q = _mm256_sub_epi32(stored, _mm256_set1_epi32(128));
        accumulate(q, column_scales(block, j), outlier, &mut y[j * LANES..]);
    }
}

/// `y += outlier * ` the weights at `place` of a q4 block.
#[cold]
#[target_feature(enable = "avx2,fma")]
fn add_q4_outlier((block, nibbles): (&[u8], &Nibbles), place: usize, outlier: f32, y: &mut [f32]) {
    let shift = _mm_cvtsi64_si128(8 * (place % QUAD) as i64);
    for j in 0..PANEL / LANES {
        let at = place / QUAD * STEP + j * REGISTER;
        let quads: &[u8; REGISTER] = nibbles.0[at..].first_chunk().expect("a group has 32 quads");
        // SAFETY: 32 bytes are read from an array of 32.
        let quads = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
        let stored = _mm256_and_si256(_mm256_srl_epi32(quads, shift), _mm256_set1_epi32(15));
        let q = _mm256_sub_epi32(stored, _mm256_set1_epi32(i32::from(ZERO_NIBBLE)));
        let q = _mm256_mullo_epi32(q, column_sub_scales(block, j, place / SUBGROUP));
        accumulate(q, column_scales(block, j), outlier, &mut y[j * LANES..]);
    }
}

/// `y = fma(f32(sum) * column_scale, row_scale, y)` for 8 columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn accumulate(sum: __m256i, column_scale: __m256, row_scale: f32, y: &mut [f32]) {
    let y: &mut [f32; LANES] = y.first_chunk_mut().expect("y holds 64 columns of the row");
    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), column_scale);
    // SAFETY: y has 8 values.
    unsafe {
        let sum = _mm256_fmadd_ps(scaled, _mm256_set1_ps(row_scale), _mm256_loadu_ps(y.as_ptr()));
        _mm256_storeu_ps(y.as_mut_ptr(), sum);
    }
}

/// Scales of the columns `8 j..` of a block.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn column_scales(block: &[u8], j: usize) -> __m256 {
    let bits: &[u8; 2 * LANES] = block[j * 2 * LANES..].first_chunk().expect("a block begins with 64 scales");
    // SAFETY: 16 bytes are read from an array of 16.
    let bits = unsafe { _mm_loadu_si128(bits.as_ptr().cast()) };
    // a bf16 is the upper half of an f32
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

/// Sub-scales of the columns `8 j..` for subgroup `subgroup`, one per 32-bit lane.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn column_sub_scales(block: &[u8], j: usize, subgroup: usize) -> __m256i {
    let at = SCALE_BYTES + subgroup / 2 * PANEL + j * LANES;
    let nibbles: [u8; LANES] = *block[at..].first_chunk().expect("a q4 block has 128 bytes of sub-scales");
    let pairs = _mm256_cvtepu8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(nibbles)));
    let pairs = if subgroup.is_multiple_of(2) { pairs } else { _mm256_srli_epi32::<4>(pairs) };
    _mm256_and_si256(pairs, _mm256_set1_epi32(15))
}

/// Spreads the nibbles of a q4 block to bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn spread(block: &[u8], out: &mut [u8; PANEL * GROUP]) {
    let mask = _mm256_set1_epi8(15);
    let packed = &block[SCALE_BYTES + SUB_SCALE_BYTES..];
    for (oct, out) in packed.chunks_exact(STEP).zip(out.chunks_exact_mut(2 * STEP)) {
        for j in (0..STEP).step_by(REGISTER) {
            // SAFETY: j is a multiple of 32 below 256: 32 bytes of 256 are read, and twice 32 of 512 written.
            unsafe {
                let bytes = _mm256_loadu_si256(oct.as_ptr().add(j).cast());
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                _mm256_storeu_si256(out.as_mut_ptr().add(j).cast(), _mm256_and_si256(bytes, mask));
                _mm256_storeu_si256(out.as_mut_ptr().add(STEP + j).cast(), high);
            }
        }
    }
}
