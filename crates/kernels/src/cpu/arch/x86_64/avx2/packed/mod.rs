//! Products with packed weights. [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! Without VNNI there is no dot product of bytes in 32 bits. `vpmaddubsw` adds two products in 16 bits and saturates:
//!
//! - q8: 2 * 255 * 127 does not fit. Both sides are therefore widened to 16 bits, and `vpmaddwd` adds pairs in 32
//!   bits, all exact: 16 products in two instructions, where a fused multiply-add does 8 in one. (Moving the weights'
//!   signs to the activations, so that bytes fit, takes one more instruction per pair and was slower.)
//! - q4: nibbles are small. A 16-bit lane takes all 16 products of a subgroup, 15 * 127 each, without overflow; the
//!   sub-scale then multiplies and widens in one instruction. q4 is therefore computed from its nibbles, twice as
//!   fast as q8.

mod q4;
mod q8;
mod quantize;

pub(crate) use q4::{q4 as q4_rows, unpack_block};
pub(crate) use q8::add_outliers as add_q8_outliers;
pub(crate) use quantize::quantize;

use crate::cpu::table::activations::TILE_ROWS;
use crate::cpu::table::packed::{PackedKernels, SWEEP_BYTES};
use crate::quant::{GROUP, PANEL, QUAD};
use std::arch::x86_64::*;

/// The kernels without AVX-VNNI.
pub(crate) const KERNELS: PackedKernels = PackedKernels {
    quantize,
    q8: q8::q8,
    q4: q4::q4,
    unpack_q4: None,
    tile_rows: TILE_ROWS,
    chunk_rows: CHUNK_ROWS,
    sweep_bytes: SWEEP_BYTES,
};

/// Six tiles. The preparation of a block (16 KB for q8, 9 for q4) is shared by as many rows as still fit the L1
/// cache: the sums of 36 x 64 f32 are 9 KB.
const CHUNK_ROWS: usize = 6 * TILE_ROWS;

/// 32-bit lanes of a register.
pub(crate) const LANES: usize = 8;
/// Registers per 64 columns of a panel.
pub(crate) const PANEL_REGISTERS: usize = PANEL / LANES;
/// Bytes of a register.
pub(crate) const REGISTER: usize = 32;
/// Bytes of four values along K of a panel's columns.
pub(crate) const STEP: usize = PANEL * QUAD;
/// Quads (four values along K) in a group.
pub(crate) const QUADS: usize = GROUP / QUAD;

/// `y = fma(f32(sum) * column_scale, row_scale, y)` for 8 columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn accumulate(sum: __m256i, column_scale: __m256, row_scale: f32, y: &mut [f32]) {
    let y: &mut [f32; LANES] = y.first_chunk_mut().expect("y holds 64 columns of the row");
    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), column_scale);
    // SAFETY: y has 8 values.
    unsafe {
        let sum = _mm256_fmadd_ps(scaled, _mm256_set1_ps(row_scale), _mm256_loadu_ps(y.as_ptr()));
        _mm256_storeu_ps(y.as_mut_ptr(), sum);
    }
}

/// Returns the scales of the columns `8 j..` of a block.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn column_scales(block: &[u8], j: usize) -> __m256 {
    let bits: &[u8; 2 * LANES] = block[j * 2 * LANES..].first_chunk().expect("a block begins with 64 scales");
    // SAFETY: 16 bytes are read from an array of 16.
    let bits = unsafe { _mm_loadu_si128(bits.as_ptr().cast()) };
    // a bf16 is the upper half of an f32
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}
