//! Quantizes rows of f32 into tiles of bytes.

use super::{LANES, QUADS};
use crate::cpu::prefetch::fetch;
use crate::cpu::table::activations::{
    OUTLIER_RATIO, OUTLIERS, Plan, RowMeta, TILE_ROWS, quad_index, tile_group_mut,
};
use crate::quant::{GROUP, QUAD};
use std::arch::x86_64::*;

/// The 128 bytes of a row's group: 16 quads per register.
pub(crate) type Bytes = [__m512i; 2];

/// See [`PackedKernels::quantize`](crate::cpu::table::packed::PackedKernels).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn quantize(x: &[f32], k: usize, tile: &mut [u8]) {
    let rows = x.len() / k;
    for group in 0..k.div_ceil(GROUP) {
        let (values, meta) = tile_group_mut(tile, rows, group);
        let columns = group * GROUP..k.min((group + 1) * GROUP);
        let mut bytes = [[_mm512_setzero_si512(); 2]; TILE_ROWS];
        for ((x, meta), bytes) in x.chunks_exact(k).zip(meta).zip(&mut bytes) {
            // rows are too far apart for the hardware prefetcher to follow each of them
            fetch(&x[columns.end..k.min(columns.end + GROUP)]);
            (*bytes, *meta) = quantize_group(&x[columns.clone()]);
        }
        if rows == TILE_ROWS {
            interleave(&bytes, values);
        } else {
            spread(&bytes[..rows], values);
        }
    }
}

/// Quantizes up to 128 values of a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn quantize_group(x: &[f32]) -> (Bytes, RowMeta) {
    let mut v = [_mm512_setzero_ps(); GROUP / LANES];
    for (v, x) in v.iter_mut().zip(x.chunks(LANES)) {
        let mask = ((1u32 << x.len()) - 1) as __mmask16;
        // SAFETY: the mask keeps the load within the slice.
        *v = unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) };
    }
    let (largest, places) = largest_three(&v);
    let plan = Plan::new(largest);
    for &place in &places[..plan.outliers] {
        let lane = 1 << (usize::from(place) % LANES);
        let v = &mut v[usize::from(place) / LANES];
        *v = _mm512_mask_mov_ps(*v, lane, _mm512_setzero_ps());
    }
    let inverse = _mm512_set1_ps(plan.inverse);
    let q = v.map(|v| _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse)));
    let bytes = [pack([q[0], q[1], q[2], q[3]]), pack([q[4], q[5], q[6], q[7]])];
    let [a, b] = bytes.map(|q| _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), q));
    let halves = [(0x00ff, a), (0xff00, a), (0x00ff, b), (0xff00, b)];
    let sums = halves.map(|(half, quads)| _mm512_mask_reduce_add_epi32(half, quads) as i16);
    (bytes, plan.meta(sums, places, x))
}

/// Packs 64 integers as bytes, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack([a, b, c, d]: [__m512i; 4]) -> __m512i {
    // packing works within 128 bits: quad i of register m becomes quad 4 i + m
    let packed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, packed)
}

/// The sources of the 16 quads of a register of six interleaved rows.
struct Places {
    /// The number of the quad in its row, plus 16 if the row's number is odd: a permutation of two registers.
    quads: [i32; LANES],
    /// The lanes of rows 2 and 3, and those of rows 4 and 5.
    rows: [__mmask16; 2],
}

/// The sources for each of the six registers that six rows of 16 quads fill.
static PLACES: [Places; TILE_ROWS] = {
    let mut all = [const { Places { quads: [0; LANES], rows: [0; 2] } }; TILE_ROWS];
    let mut at = 0;
    while at < TILE_ROWS * LANES {
        let (quad, row, lane) = (at / TILE_ROWS, at % TILE_ROWS, at % LANES);
        let places = &mut all[at / LANES];
        places.quads[lane] = (quad + LANES * (row % 2)) as i32;
        if row >= 2 {
            places.rows[row / 2 - 1] |= 1 << lane;
        }
        at += 1;
    }
    all
};

/// Interleaves six rows to `[32][6][4]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave(rows: &[Bytes; TILE_ROWS], out: &mut [u8]) {
    let (registers, _) = out.as_chunks_mut::<{ LANES * QUAD }>();
    for (i, out) in registers.iter_mut().enumerate() {
        let (half, places) = (i / TILE_ROWS, &PLACES[i % TILE_ROWS]);
        // SAFETY: 64 bytes are read from 16 integers.
        let quads = unsafe { _mm512_loadu_si512(places.quads.as_ptr().cast()) };
        let of = |row: usize| _mm512_permutex2var_epi32(rows[row][half], quads, rows[row + 1][half]);
        let first = _mm512_mask_mov_epi32(of(0), places.rows[0], of(2));
        let all = _mm512_mask_mov_epi32(first, places.rows[1], of(4));
        // SAFETY: 64 bytes are written to an array of 64.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), all) };
    }
}

/// Interleaves fewer than six rows to `[32][rows][4]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn spread(rows: &[Bytes], out: &mut [u8]) {
    for (row, bytes) in rows.iter().enumerate() {
        let mut quads = [[0; QUAD]; QUADS];
        for (quads, bytes) in quads.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes) {
            // SAFETY: 64 bytes are written to an array of 16 quads.
            unsafe { _mm512_storeu_si512(quads.as_mut_ptr().cast(), *bytes) };
        }
        for (quad, bytes) in quads.iter().enumerate() {
            let at = quad_index(rows.len(), row, quad);
            out[at..at + QUAD].copy_from_slice(bytes);
        }
    }
}

/// Returns the three largest magnitudes of a group, descending, and the positions of the first two; of equal values
/// the earlier comes first. If none can be an outlier, returns the largest three times, which is the same to
/// [`Plan`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn largest_three(v: &[__m512; GROUP / LANES]) -> ([f32; OUTLIERS + 1], [u8; OUTLIERS]) {
    // compared as integers, so that no NaN is lost
    let mut bits = v.map(|v| _mm512_castps_si512(_mm512_abs_ps(v)));
    let (mut largest, mut places) = ([0; OUTLIERS + 1], [0; OUTLIERS + 1]);
    let most = bits.iter().fold(_mm512_setzero_si512(), |m, v| _mm512_max_epu32(m, *v));
    let most = f32::from_bits(_mm512_reduce_max_epu32(most));
    // three values within the ratio of the largest: there is no outlier, whatever the second and third are
    let near = _mm512_set1_ps(most / OUTLIER_RATIO);
    let mut count = _mm512_setzero_si512();
    for v in v {
        let near = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_abs_ps(*v), near);
        count = _mm512_mask_add_epi32(count, near, count, _mm512_set1_epi32(1));
    }
    if _mm512_reduce_add_epi32(count) > OUTLIERS as i32 {
        return ([most; OUTLIERS + 1], [0; OUTLIERS]);
    }
    for (largest, place) in largest.iter_mut().zip(&mut places) {
        let lanes = bits.iter().fold(_mm512_setzero_si512(), |m, v| _mm512_max_epu32(m, *v));
        *largest = _mm512_reduce_max_epu32(lanes);
        let wanted = _mm512_set1_epi32(largest.cast_signed());
        for (i, v) in bits.iter_mut().enumerate() {
            let equal = _mm512_cmpeq_epi32_mask(*v, wanted);
            if equal != 0 {
                *place = (i * LANES) as u8 + equal.trailing_zeros() as u8;
                *v = _mm512_mask_mov_epi32(*v, 1 << equal.trailing_zeros(), _mm512_setzero_si512());
                break;
            }
        }
    }
    (largest.map(f32::from_bits), [places[0], places[1]])
}
