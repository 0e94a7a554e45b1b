//! q4 with AVX2: sums of nibbles in 16 bits.

use super::{LANES, PANEL_REGISTERS, REGISTER, STEP, accumulate, column_scales};
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{Panel, Sums, by_rows};
use crate::quant::{
    GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, SUB_SCALE_BYTES, SUBGROUP, ZERO, ZERO_NIBBLE,
};
use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

/// Registers of weights per tile, as for q8.
const COLS: usize = 2;
/// Subgroups of a group.
const SUBGROUPS: usize = GROUP / SUBGROUP;
/// Quads of a subgroup.
const SUB_QUADS: usize = SUBGROUP / QUAD;
/// Bytes of a block before its values.
const HEAD_BYTES: usize = SCALE_BYTES + SUB_SCALE_BYTES;

/// A block prepared for many rows, 9 KB.
#[repr(C, align(64))]
struct Spread {
    /// Nibbles as bytes, `[32][64][4]`.
    nibbles: [u8; PANEL * GROUP],
    /// A register of sub-scales for each subgroup and 8 columns; each 32-bit lane has its sub-scale twice.
    sub_scales: [[__m256i; PANEL_REGISTERS]; SUBGROUPS],
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let blocks = panel.bytes.chunks_exact(Q4_BLOCK).enumerate();
    if rows.len() == 1 && x.tile_rows(rows.start) == 1 {
        return blocks.for_each(|(group, block)| {
            row_product(block, x.tile_group(rows.start, group), y);
            add_outliers(block, x.tile_group(rows.start, group), y);
        });
    }
    let zero = _mm256_setzero_si256();
    let mut ready = Spread { nibbles: [0; PANEL * GROUP], sub_scales: [[zero; PANEL_REGISTERS]; SUBGROUPS] };
    for (group, block) in blocks {
        spread(block, &mut ready);
        for first in rows.clone().step_by(TILE_ROWS) {
            let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
            by_rows!(tile.meta.len(), product(block, &ready, tile, y));
            add_outliers(block, tile, y);
        }
    }
}

/// Returns the low and the high nibbles of a register of bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

/// Prepares a block. Products read columns in strides, which no hardware prefetcher follows; this function reads in
/// order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn spread(block: &[u8], out: &mut Spread) {
    for (subgroup, registers) in out.sub_scales.iter_mut().enumerate() {
        for (j, register) in registers.iter_mut().enumerate() {
            let s = column_sub_scales(block, j, subgroup);
            *register = _mm256_or_si256(s, _mm256_slli_epi32::<16>(s));
        }
    }
    for (oct, out) in block[HEAD_BYTES..].chunks_exact(STEP).zip(out.nibbles.chunks_exact_mut(2 * STEP)) {
        for at in (0..STEP).step_by(REGISTER) {
            // SAFETY: at is a multiple of 32 below 256: 32 bytes of 256 are read, and twice 32 of 512 written.
            unsafe {
                let bytes = _mm256_loadu_si256(oct.as_ptr().add(at).cast());
                for (i, values) in nibbles(bytes).into_iter().enumerate() {
                    _mm256_store_si256(out.as_mut_ptr().add(i * STEP + at).cast(), values);
                }
            }
        }
    }
}

/// Unpacks a block to the q8 block of the same values: `(v - 8) s + 128`, in bytes. The two nibbles in a 16-bit lane
/// are multiplied in one instruction, because 15 * 15 fits a byte and nothing is carried.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn unpack_block(from: &[u8], to: &mut [u8]) {
    const OCTS: usize = SUB_QUADS / 2;
    assert!(from.len() == Q4_BLOCK && to.len() == Q8_BLOCK);
    to[..SCALE_BYTES].copy_from_slice(&from[..SCALE_BYTES]);
    let (weights, out) = (from[HEAD_BYTES..].as_ptr(), to[SCALE_BYTES..].as_mut_ptr());
    for subgroup in 0..SUBGROUPS {
        for j in 0..PANEL_REGISTERS {
            let s = column_sub_scales(from, j, subgroup);
            let s = _mm256_or_si256(s, _mm256_slli_epi32::<16>(s));
            // 128 - 8 s >= 8 in every byte
            let offset = _mm256_sub_epi16(_mm256_set1_epi16(i16::from(ZERO)), _mm256_slli_epi16::<3>(s));
            let offset = _mm256_or_si256(offset, _mm256_slli_epi16::<8>(offset));
            for oct in subgroup * OCTS..(subgroup + 1) * OCTS {
                // SAFETY: oct < 16 and j < 8: 256 of 4,096 bytes are read, 512 of 8,192 written.
                unsafe {
                    let at = j * REGISTER;
                    let bytes = _mm256_loadu_si256(weights.add(oct * STEP + at).cast());
                    for (i, v) in nibbles(bytes).into_iter().enumerate() {
                        let w = _mm256_add_epi8(_mm256_mullo_epi16(v, s), offset);
                        _mm256_storeu_si256(out.add((2 * oct + i) * STEP + at).cast(), w);
                    }
                }
            }
        }
    }
}

/// Returns the initial value of a lane's sums of a subgroup. Nibbles are 8 too large. -8 * 32 * 127 fits the first of
/// a column's two lanes of 16 bits, and so does any sum.
fn offset(sum: i16) -> i32 {
    i32::from((-i16::from(ZERO_NIBBLE) * sum).cast_unsigned())
}

/// `y += ` the product of a block and a tile's group, without outliers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn product<const ROWS: usize>(block: &[u8], ready: &Spread, tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
    let values = tile.values.as_ptr().cast::<i32>();
    let offsets: [[i32; ROWS]; SUBGROUPS] =
        std::array::from_fn(|s| std::array::from_fn(|row| offset(tile.meta[row].sums[s])));
    // must stay a loop: if the compiler unrolls it, it adds in another order and runs out of registers
    let sub_quads = black_box(SUB_QUADS).min(SUB_QUADS);
    for first in (0..PANEL_REGISTERS).step_by(COLS) {
        let weights = ready.nibbles[first * REGISTER..].as_ptr();
        let mut total = [[_mm256_setzero_si256(); COLS]; ROWS];
        for (subgroup, offsets) in offsets.iter().enumerate() {
            let mut acc: [[__m256i; COLS]; ROWS] =
                std::array::from_fn(|row| [_mm256_set1_epi32(offsets[row]); COLS]);
            for quad in subgroup * SUB_QUADS..subgroup * SUB_QUADS + sub_quads {
                // SAFETY: quad < 32 and j < 2: 64 bytes from column 8 first on, within the step's 256.
                let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                    _mm256_load_si256(weights.add(quad * STEP + j * REGISTER).cast())
                });
                for (row, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: quad * ROWS + row < 32 ROWS quads of 4 bytes, the length of the values.
                    let x = _mm256_set1_epi32(unsafe { values.add(quad * ROWS + row).read_unaligned() });
                    for j in 0..COLS {
                        acc[j] = _mm256_add_epi16(acc[j], _mm256_maddubs_epi16(w[j], x));
                    }
                }
            }
            let scales = &ready.sub_scales[subgroup][first..first + COLS];
            for (total, acc) in total.iter_mut().zip(&acc) {
                for j in 0..COLS {
                    total[j] = _mm256_add_epi32(total[j], _mm256_madd_epi16(acc[j], scales[j]));
                }
            }
        }
        for j in first..first + COLS {
            let scale = column_scales(block, j);
            for (row, (total, meta)) in total.iter().zip(tile.meta).enumerate() {
                accumulate(total[j - first], scale, meta.scale, &mut y.row(row)[j * LANES..]);
            }
        }
    }
}

/// `y += ` the product of a block and a group of a single row, without outliers. The block is read once and in order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn row_product(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    /// Steps of 8 values along K in a subgroup.
    const SUB_OCTS: usize = SUB_QUADS / 2;
    assert!(block.len() == Q4_BLOCK && tile.values.len() == GROUP && tile.meta.len() == 1);
    let (weights, values) = (block[HEAD_BYTES..].as_ptr(), tile.values.as_ptr().cast::<i32>());
    let mut total = [_mm256_setzero_si256(); PANEL_REGISTERS];
    for subgroup in 0..SUBGROUPS {
        let mut acc = [_mm256_set1_epi32(offset(tile.meta[0].sums[subgroup])); PANEL_REGISTERS];
        for oct in subgroup * SUB_OCTS..(subgroup + 1) * SUB_OCTS {
            // SAFETY: oct < 16: 2 of 32 quads.
            let x: [__m256i; 2] = std::array::from_fn(|i| unsafe {
                _mm256_set1_epi32(values.add(2 * oct + i).read_unaligned())
            });
            for (j, acc) in acc.iter_mut().enumerate() {
                // SAFETY: oct < 16 and j < 8: 32 bytes of the 4,096 after the sub-scales.
                let bytes = unsafe { _mm256_loadu_si256(weights.add(oct * STEP + j * REGISTER).cast()) };
                for (w, x) in nibbles(bytes).into_iter().zip(x) {
                    *acc = _mm256_add_epi16(*acc, _mm256_maddubs_epi16(w, x));
                }
            }
        }
        for (j, (total, acc)) in total.iter_mut().zip(acc).enumerate() {
            let s = column_sub_scales(block, j, subgroup);
            let s = _mm256_or_si256(s, _mm256_slli_epi32::<16>(s));
            *total = _mm256_add_epi32(*total, _mm256_madd_epi16(acc, s));
        }
    }
    for (j, total) in total.into_iter().enumerate() {
        accumulate(total, column_scales(block, j), tile.meta[0].scale, &mut y.row(0)[j * LANES..]);
    }
}

/// Returns the sub-scales of the columns `8 j..` for subgroup `subgroup`, one per 32-bit lane.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn column_sub_scales(block: &[u8], j: usize, subgroup: usize) -> __m256i {
    let at = SCALE_BYTES + subgroup / 2 * PANEL + j * LANES;
    let nibbles: [u8; LANES] = *block[at..].first_chunk().expect("a q4 block has 128 bytes of sub-scales");
    let pairs = _mm256_cvtepu8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(nibbles)));
    let pairs = if subgroup.is_multiple_of(2) { pairs } else { _mm256_srli_epi32::<4>(pairs) };
    _mm256_and_si256(pairs, _mm256_set1_epi32(15))
}

/// `y += ` the outliers of a tile's group times their weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_outliers(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    for (row, place, outlier) in tile.outliers() {
        add_outlier(block, place, outlier, y.row(row));
    }
}

/// `y += outlier * ` the weights at `place` of a block.
#[cold]
#[target_feature(enable = "avx2,fma")]
fn add_outlier(block: &[u8], place: usize, outlier: f32, y: &mut [f32]) {
    let (oct, bits) = (place / (2 * QUAD), place % QUAD * 8 + place / QUAD % 2 * 4);
    let shift = _mm_cvtsi64_si128(bits as i64);
    for j in 0..PANEL_REGISTERS {
        let octs: &[u8; REGISTER] =
            block[HEAD_BYTES + oct * STEP + j * REGISTER..].first_chunk().expect("oct < 16");
        // SAFETY: 32 bytes are read from an array of 32.
        let octs = unsafe { _mm256_loadu_si256(octs.as_ptr().cast()) };
        let stored = _mm256_and_si256(_mm256_srl_epi32(octs, shift), _mm256_set1_epi32(15));
        let q = _mm256_sub_epi32(stored, _mm256_set1_epi32(i32::from(ZERO_NIBBLE)));
        let q = _mm256_mullo_epi32(q, column_sub_scales(block, j, place / SUBGROUP));
        accumulate(q, column_scales(block, j), outlier, &mut y[j * LANES..]);
    }
}
