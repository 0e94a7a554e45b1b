//! The int8 kernels with AVX2. [`super::scalar`] defines what they compute.
//!
//! `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits and saturates: 2 * 255 * 127 does not
//! fit. So the weights' sign is moved to the activations: `|w| * sign(x, w)`, with |w| <= 128 and |x| <= 127, is at
//! most 2 * 128 * 127 = 32,512 and fits.

use super::activations::{QuantisedRows, TILE_ROWS, TileGroup};
use super::scalar;
use super::{Int8Kernels, Panel, Sums};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, SUB_SCALE_BYTES, SUBGROUP};
use std::arch::x86_64::*;
use std::ops::Range;

/// The AVX2 level.
pub(super) static KERNELS: Int8Kernels = Int8Kernels { quantise, q8, q4, unpack };

/// 32-bit lanes of a register.
const LANES: usize = 8;
/// Bytes of four values along K of a panel's columns.
const STEP: usize = PANEL * QUAD;
/// Four values along K in a group.
const QUADS: usize = GROUP / QUAD;
/// Bytes of a register.
const REGISTER: usize = 32;
/// Columns of a tile, in registers: 6 rows by 2 registers are 12 accumulators of 16 registers.
const COLS: usize = 2;

/// A q8 block of its own, on a cache line's border.
#[repr(C, align(64))]
struct Block([u8; Q8_BLOCK]);

/// The scalar text compiled for 8 lanes.
#[target_feature(enable = "avx2,fma")]
fn quantise(x: &[f32], k: usize, tile: &mut [u8]) {
    scalar::quantise(x, k, tile);
}

#[target_feature(enable = "avx2,fma")]
fn q8(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        for first in rows.clone().step_by(TILE_ROWS) {
            tile_step(block, x.tile_group(first, group), &mut y.rows(first - rows.start));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn q4(panel: Panel<'_>, x: &QuantisedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    y.clear(rows.len());
    let mut unpacked = Block([0; Q8_BLOCK]);
    for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
        unpack_block(block, &mut unpacked.0);
        for first in rows.clone().step_by(TILE_ROWS) {
            tile_step(&unpacked.0, x.tile_group(first, group), &mut y.rows(first - rows.start));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn unpack(q4: &[u8], q8: &mut [u8]) {
    for (from, to) in q4.chunks_exact(Q4_BLOCK).zip(q8.chunks_exact_mut(Q8_BLOCK)) {
        unpack_block(from, to);
    }
}

/// `y += ` the product of a block and a tile's group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_step(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    match tile.meta.len() {
        6 => tile_product::<6>(block, tile, y),
        5 => tile_product::<5>(block, tile, y),
        4 => tile_product::<4>(block, tile, y),
        3 => tile_product::<3>(block, tile, y),
        2 => tile_product::<2>(block, tile, y),
        _ => tile_product::<1>(block, tile, y),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_product<const ROWS: usize>(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
    assert!(block.len() == Q8_BLOCK && tile.values.len() == ROWS * GROUP);
    assert!(tile.meta.len() == ROWS);
    let values = tile.values.as_ptr().cast::<i32>();
    let ones = _mm256_set1_epi16(1);
    let zero = _mm256_set1_epi8(-128);
    for first in (0..PANEL / LANES).step_by(COLS) {
        let weights = block[SCALE_BYTES + first * REGISTER..].as_ptr();
        let mut acc = [[_mm256_setzero_si256(); COLS]; ROWS];
        for quad in 0..QUADS {
            // SAFETY: quad < 32 and j < 2: 64 bytes from column 8 first on, within the step's 256.
            let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast())
            });
            let w: [__m256i; COLS] = std::array::from_fn(|j| _mm256_xor_si256(w[j], zero));
            let magnitude: [__m256i; COLS] = std::array::from_fn(|j| _mm256_abs_epi8(w[j]));
            for (row, acc) in acc.iter_mut().enumerate() {
                // SAFETY: quad * ROWS + row < 32 ROWS quads of 4 bytes, the length of the values.
                let x = _mm256_set1_epi32(unsafe { values.add(quad * ROWS + row).read_unaligned() });
                for j in 0..COLS {
                    let pairs = _mm256_maddubs_epi16(magnitude[j], _mm256_sign_epi8(x, w[j]));
                    acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for j in 0..COLS {
            let scale = column_scales(block, first + j);
            for (row, (acc, meta)) in acc.iter().zip(tile.meta).enumerate() {
                accumulate(acc[j], scale, meta.scale, &mut y.row(row)[(first + j) * LANES..]);
            }
        }
    }
    for (row, meta) in tile.meta.iter().enumerate() {
        for (place, outlier) in meta.outliers() {
            add_outlier(block, place, outlier, y.row(row));
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

/// Turns a q4 block into the q8 block of the same values, see the AVX-512 level.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn unpack_block(from: &[u8], to: &mut [u8]) {
    const OCTS: usize = SUBGROUP / (2 * QUAD);
    assert!(from.len() == Q4_BLOCK && to.len() == Q8_BLOCK);
    to[..SCALE_BYTES].copy_from_slice(&from[..SCALE_BYTES]);
    let weights = from[SCALE_BYTES + SUB_SCALE_BYTES..].as_ptr();
    let out = to[SCALE_BYTES..].as_mut_ptr();
    let mask = _mm256_set1_epi8(15);
    for subgroup in 0..GROUP / SUBGROUP {
        for j in 0..PANEL / LANES {
            let s = column_sub_scales(from, j, subgroup);
            let s = _mm256_or_si256(s, _mm256_slli_epi32::<16>(s));
            // 128 - 8 s >= 8 in every byte
            let offset = _mm256_sub_epi16(_mm256_set1_epi16(128), _mm256_slli_epi16::<3>(s));
            let offset = _mm256_or_si256(offset, _mm256_slli_epi16::<8>(offset));
            for oct in subgroup * OCTS..(subgroup + 1) * OCTS {
                // SAFETY: oct < 16: 256 of 4096 bytes are read, 512 of 8192 written.
                unsafe {
                    let bytes = _mm256_loadu_si256(weights.add(oct * STEP + j * REGISTER).cast());
                    let low = _mm256_and_si256(bytes, mask);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                    for (i, w) in [low, high].into_iter().enumerate() {
                        let w = _mm256_add_epi8(_mm256_mullo_epi16(w, s), offset);
                        _mm256_storeu_si256(out.add((2 * oct + i) * STEP + j * REGISTER).cast(), w);
                    }
                }
            }
        }
    }
}
