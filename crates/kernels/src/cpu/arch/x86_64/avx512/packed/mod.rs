//! Products with packed weights, with VNNI. [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes: weights are stored 128 too large and so unsigned, and the
//! accumulators start at `-128 Σ q` of the activations instead of at zero.

mod quantize;

use crate::cpu::prefetch::LINE;
use crate::cpu::table::activations::{QuantizedRows, ROW_GROUP, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{PackedKernels, Panel, SWEEP_BYTES, Sums};
use crate::quant::{GROUP, PANEL, Q4_BLOCK, Q8_BLOCK, QUAD, SCALE_BYTES, SUB_SCALE_BYTES, SUBGROUP};
use quantize::quantize;
pub(crate) use quantize::quantize_group;
use std::arch::x86_64::*;
use std::ops::Range;

/// The kernels.
pub(crate) const KERNELS: PackedKernels = PackedKernels {
    quantize,
    q8,
    q4,
    unpack_q4: Some(unpack),
    tile_rows: TILE_ROWS,
    chunk_rows: CHUNK_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Three tiles: 18 x 64 f32 are 4.6 KB, next to a q8 block of 8 KB.
const CHUNK_ROWS: usize = 3 * TILE_ROWS;
/// 32-bit lanes of a register.
pub(crate) const LANES: usize = 16;
/// Registers per 64 columns of a panel.
const COLS: usize = PANEL / LANES;
/// Bytes of four values along K of a panel's columns.
pub(crate) const STEP: usize = PANEL * QUAD;
/// Quads (four values along K) in a group.
const QUADS: usize = GROUP / QUAD;
/// How many blocks before its use a q8 block is prefetched: one block is 0.4 us at 20 GB/s, twice the latency of
/// memory.
const Q8_AHEAD: usize = 1;
/// Same as [`Q8_AHEAD`] for q4, whose blocks are half as large.
pub(crate) const Q4_AHEAD: usize = 2;
/// Bytes of a q4 block before its values.
const HEAD_BYTES: usize = SCALE_BYTES + SUB_SCALE_BYTES;

/// A separate q8 block, aligned to a cache line.
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [u8; Q8_BLOCK]);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
        y.keep = keep(group);
        for first in rows.clone().step_by(TILE_ROWS) {
            let ahead = (first == rows.start).then(|| panel.ahead(group + Q8_AHEAD, Q8_BLOCK));
            tile_step(block, x.tile_group(first, group), ahead, &mut y.rows(first - rows.start));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
    if x.rows() == 1 {
        for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
            let ahead = panel.ahead(group + Q4_AHEAD, Q4_BLOCK);
            q4_row(block, ahead, x.tile_group(0, group), keep(group), y.row(0));
        }
        return;
    }
    let mut unpacked = Block([0; Q8_BLOCK]);
    for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
        y.keep = keep(group);
        unpack_block(block, panel.ahead(group + Q4_AHEAD, Q4_BLOCK), &mut unpacked.0);
        for first in rows.clone().step_by(TILE_ROWS) {
            tile_step(&unpacked.0, x.tile_group(first, group), None, &mut y.rows(first - rows.start));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn unpack(q4: &[u8], q8: &mut [u8]) {
    for (from, to) in q4.chunks_exact(Q4_BLOCK).zip(q8.chunks_exact_mut(Q8_BLOCK)) {
        unpack_block(from, from.as_ptr().wrapping_add(Q4_AHEAD * Q4_BLOCK), to);
    }
}

/// `y += ` the product of a block and a tile's group. Meanwhile the block at `ahead` is prefetched into the cache.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile_step(block: &[u8], tile: TileGroup<'_>, ahead: Option<*const u8>, y: &mut Sums<'_>) {
    let fetches = ahead.is_some();
    let ahead = ahead.unwrap_or(block.as_ptr());
    match (tile.meta.len(), fetches) {
        (6, false) => tile_product::<6, false>(block, ahead, tile, y),
        (6, true) => tile_product::<6, true>(block, ahead, tile, y),
        (5, _) => tile_product::<5, true>(block, ahead, tile, y),
        (4, _) => tile_product::<4, true>(block, ahead, tile, y),
        (3, _) => tile_product::<3, true>(block, ahead, tile, y),
        (2, _) => tile_product::<2, true>(block, ahead, tile, y),
        _ => tile_product::<1, true>(block, ahead, tile, y),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile_product<const ROWS: usize, const AHEAD: bool>(
    block: &[u8],
    ahead: *const u8,
    tile: TileGroup<'_>,
    y: &mut Sums<'_>,
) {
    assert!(block.len() == Q8_BLOCK && tile.values.len() == ROWS * GROUP);
    assert!(tile.meta.len() == ROWS);
    let mut acc: [[__m512i; COLS]; ROWS] =
        std::array::from_fn(|row| [_mm512_set1_epi32(tile.meta[row].offset); COLS]);
    let weights = block[SCALE_BYTES..].as_ptr();
    let values = tile.values.as_ptr().cast::<i32>();
    if AHEAD {
        fetch_scales(ahead);
    }
    for quad in 0..QUADS {
        // prefetches the tile's next group, a quad's share of its bytes at a time
        let next = tile.values.as_ptr().wrapping_add(ROWS * (ROW_GROUP + quad * (ROW_GROUP / QUADS)));
        _mm_prefetch::<_MM_HINT_T0>(next.cast());
        // SAFETY: quad < 32, so the last byte read is 32 * 256 = 8192 bytes past the scales: the end of the block.
        let w: [__m512i; COLS] = std::array::from_fn(|j| unsafe {
            let at = quad * STEP + j * LINE;
            if AHEAD {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(SCALE_BYTES + at).cast());
            }
            _mm512_loadu_si512(weights.add(at).cast())
        });
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: quad * ROWS + row < 32 ROWS quads of 4 bytes, the length of the values.
            let x = _mm512_set1_epi32(unsafe { values.add(quad * ROWS + row).read_unaligned() });
            for j in 0..COLS {
                acc[j] = _mm512_dpbusd_epi32(acc[j], w[j], x);
            }
        }
    }
    for j in 0..COLS {
        let scale = column_scales(block, j);
        for (row, (acc, meta)) in acc.iter().zip(tile.meta).enumerate() {
            accumulate(acc[j], scale, meta.scale, y.keep, &mut y.row(row)[j * LANES..]);
        }
    }
    for (row, place, outlier) in tile.outliers() {
        add_outlier(block, 0..COLS, place, outlier, y.row(row));
    }
}

/// Prefetches the scales and sub-scales of the block that begins at `ahead`: at most 4 lines.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch_scales(ahead: *const u8) {
    for line in 0..HEAD_BYTES / LINE {
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE).cast());
    }
}

/// `y += outlier * ` the weights at `place` of a q8 block, for the registers `columns` of y.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn add_outlier(block: &[u8], columns: Range<usize>, place: usize, outlier: f32, y: &mut [f32]) {
    let (quad, byte) = (place / QUAD, place % QUAD);
    let shift = _mm_cvtsi64_si128(8 * byte as i64);
    for j in columns {
        let quads: &[u8; LINE] =
            block[SCALE_BYTES + quad * STEP + j * LINE..].first_chunk().expect("quad < 32");
        // SAFETY: 64 bytes are read from an array of 64.
        let quads = unsafe { _mm512_loadu_si512(quads.as_ptr().cast()) };
        let stored = _mm512_and_si512(_mm512_srl_epi32(quads, shift), _mm512_set1_epi32(255));
        let q = _mm512_sub_epi32(stored, _mm512_set1_epi32(128));
        accumulate(q, column_scales(block, j), outlier, !0, &mut y[j * LANES..]);
    }
}

/// Returns which values of y a group adds to: none for the first group, all for the others.
pub(crate) fn keep(group: usize) -> __mmask16 {
    if group == 0 { 0 } else { !0 }
}

/// `y = fma(f32(sum) * column_scale, row_scale, y)` for 16 columns; y counts as 0 in lanes where `keep` is unset.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn accumulate(sum: __m512i, column_scale: __m512, row_scale: f32, keep: __mmask16, y: &mut [f32]) {
    let y: &mut [f32; LANES] = y.first_chunk_mut().expect("y holds 64 columns of the row");
    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), column_scale);
    // SAFETY: y has 16 values.
    unsafe {
        let sum = _mm512_fmadd_ps(scaled, _mm512_set1_ps(row_scale), _mm512_maskz_loadu_ps(keep, y.as_ptr()));
        _mm512_storeu_ps(y.as_mut_ptr(), sum);
    }
}

/// Returns the scales of the columns `16 j..` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn column_scales(block: &[u8], j: usize) -> __m512 {
    let bits: &[u8; 2 * LANES] = block[j * 2 * LANES..].first_chunk().expect("a block begins with 64 scales");
    // SAFETY: 32 bytes are read from an array of 32.
    let bits = unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) };
    // a bf16 is the upper half of an f32
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// Returns the sub-scales of the columns `16 j..` for subgroup `subgroup`, one per lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn column_sub_scales(block: &[u8], j: usize, subgroup: usize) -> __m512i {
    let at = SCALE_BYTES + subgroup / 2 * PANEL + j * LANES;
    let nibbles: &[u8; LANES] = block[at..].first_chunk().expect("a q4 block has 128 bytes of sub-scales");
    // SAFETY: 16 bytes are read from an array of 16.
    let pairs = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(nibbles.as_ptr().cast()) });
    let pairs = if subgroup.is_multiple_of(2) { pairs } else { _mm512_srli_epi32::<4>(pairs) };
    _mm512_and_si512(pairs, _mm512_set1_epi32(15))
}

/// Returns the low and the high nibbles of a register of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(bytes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// `y += ` the product of a q4 block and the group of a single row, without unpacking. Nibbles are unsigned; sums of
/// 32 products are multiplied by the sub-scale in integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn q4_row(block: &[u8], ahead: *const u8, tile: TileGroup<'_>, keep: __mmask16, y: &mut [f32]) {
    /// Registers of 8 values along K in a subgroup.
    const OCTS: usize = SUBGROUP / (2 * QUAD);
    assert!(block.len() == Q4_BLOCK && tile.values.len() == GROUP && y.len() >= PANEL);
    let weights = block[HEAD_BYTES..].as_ptr();
    let values = tile.values.as_ptr().cast::<i32>();
    fetch_scales(ahead);
    let mut total = [_mm512_setzero_si512(); COLS];
    for subgroup in 0..GROUP / SUBGROUP {
        // nibbles are 8 too large
        let offset = _mm512_set1_epi32(-8 * i32::from(tile.meta[0].sums[subgroup]));
        let mut acc = [[offset, _mm512_setzero_si512()]; COLS];
        for oct in subgroup * OCTS..(subgroup + 1) * OCTS {
            // SAFETY: oct < 16: two quads of the 32, and 256 bytes of the 4096 after the sub-scales.
            let x: [__m512i; 2] = std::array::from_fn(|i| unsafe {
                _mm512_set1_epi32(values.add(2 * oct + i).read_unaligned())
            });
            for (j, acc) in acc.iter_mut().enumerate() {
                // SAFETY: as above.
                let w = unsafe {
                    let at = oct * STEP + j * LINE;
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(HEAD_BYTES + at).cast());
                    _mm512_loadu_si512(weights.add(at).cast())
                };
                let w = nibbles(w);
                for i in 0..2 {
                    acc[i] = _mm512_dpbusd_epi32(acc[i], w[i], x[i]);
                }
            }
        }
        for j in 0..COLS {
            let sum = _mm512_add_epi32(acc[j][0], acc[j][1]);
            let scaled = _mm512_mullo_epi32(sum, column_sub_scales(block, j, subgroup));
            total[j] = _mm512_add_epi32(total[j], scaled);
        }
    }
    for (j, total) in total.into_iter().enumerate() {
        accumulate(total, column_scales(block, j), tile.meta[0].scale, keep, &mut y[j * LANES..]);
    }
    for (place, outlier) in tile.meta[0].outliers() {
        add_q4_outlier(block, place, outlier, y);
    }
}

/// `y += outlier * ` the weights at `place` of a q4 block.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_q4_outlier(block: &[u8], place: usize, outlier: f32, y: &mut [f32]) {
    let (oct, nibble) = (place / (2 * QUAD), place % QUAD * 8 + place / QUAD % 2 * 4);
    let shift = _mm_cvtsi64_si128(nibble as i64);
    for j in 0..COLS {
        let at = HEAD_BYTES + oct * STEP + j * LINE;
        let octs: &[u8; LINE] = block[at..].first_chunk().expect("oct < 16");
        // SAFETY: 64 bytes are read from an array of 64.
        let octs = unsafe { _mm512_loadu_si512(octs.as_ptr().cast()) };
        let stored = _mm512_and_si512(_mm512_srl_epi32(octs, shift), _mm512_set1_epi32(15));
        let q = _mm512_sub_epi32(stored, _mm512_set1_epi32(8));
        let q = _mm512_mullo_epi32(q, column_sub_scales(block, j, place / SUBGROUP));
        accumulate(q, column_scales(block, j), outlier, !0, &mut y[j * LANES..]);
    }
}

/// Unpacks a block to the q8 block of the same values: `(v - 8) s + 128`, in bytes. The two nibbles in a 16-bit lane
/// are multiplied in one instruction, because 15 * 15 fits a byte and nothing is carried.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn unpack_block(from: &[u8], ahead: *const u8, to: &mut [u8]) {
    const OCTS: usize = SUBGROUP / (2 * QUAD);
    assert!(from.len() == Q4_BLOCK && to.len() == Q8_BLOCK);
    to[..SCALE_BYTES].copy_from_slice(&from[..SCALE_BYTES]);
    fetch_scales(ahead);
    let weights = from[HEAD_BYTES..].as_ptr();
    let out = to[SCALE_BYTES..].as_mut_ptr();
    for subgroup in 0..GROUP / SUBGROUP {
        for j in 0..COLS {
            let s = column_sub_scales(from, j, subgroup);
            let s = _mm512_or_si512(s, _mm512_slli_epi32::<16>(s));
            // 128 - 8 s >= 8 in every byte
            let offset = _mm512_sub_epi16(_mm512_set1_epi16(128), _mm512_slli_epi16::<3>(s));
            let offset = _mm512_or_si512(offset, _mm512_slli_epi16::<8>(offset));
            for oct in subgroup * OCTS..(subgroup + 1) * OCTS {
                // SAFETY: oct < 16: 256 of 4096 bytes are read, 512 of 8192 written.
                unsafe {
                    let at = oct * STEP + j * LINE;
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(HEAD_BYTES + at).cast());
                    for (i, w) in nibbles(_mm512_loadu_si512(weights.add(at).cast())).into_iter().enumerate()
                    {
                        let w = _mm512_add_epi8(_mm512_mullo_epi16(w, s), offset);
                        _mm512_storeu_si512(out.add((2 * oct + i) * STEP + j * LINE).cast(), w);
                    }
                }
            }
        }
    }
}
