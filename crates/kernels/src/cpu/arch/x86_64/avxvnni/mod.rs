//! Products with packed weights on AVX-VNNI: AVX2 with a dot product of bytes, on processors without AVX-512 (Intel
//! since 2021). [`crate::cpu::arch::scalar::packed`] defines the results.
//!
//! As with AVX-512 VNNI, stored weights are unsigned and accumulators start at `-128 Σ q`. One instruction does 32
//! products exactly, four times as many as `vfmadd`; for more than one row, q4 is unpacked to q8.
//!
//! The code is a macro because it is compiled twice: with `vpdpbusd`, and in tests with the same sums computed by
//! AVX2. Processors without AVX-VNNI can therefore check everything except that one instruction.

mod peak;

use crate::cpu::arch::x86_64::avx2::packed::{
    LANES, PANEL_REGISTERS, QUADS, REGISTER, STEP, accumulate, add_q8_outliers, column_scales, q4_rows,
    unpack_block,
};
use crate::cpu::table::activations::{QuantizedRows, TILE_ROWS, TileGroup};
use crate::cpu::table::packed::{PackedKernels, Panel, SWEEP_BYTES, Sums, by_rows};
use crate::quant::{GROUP, Q4_BLOCK, Q8_BLOCK, SCALE_BYTES};
use std::arch::x86_64::*;
use std::ops::Range;

/// Registers of weights per tile: 6 rows by 2 are 12 sums; with the weights and a broadcast they take 15 of 16
/// registers.
const COLS: usize = 2;
/// Six tiles: the sums of 36 x 64 f32 are 9 KB, next to a block of 8 KB.
const CHUNK_ROWS: usize = 6 * TILE_ROWS;

/// A copy of a q8 block. Tiles read columns in strides, which no hardware prefetcher follows; copying reads in order.
#[repr(C, align(64))]
struct Block([u8; Q8_BLOCK]);

macro_rules! kernels {
    ($features:literal, $dot:path) => {
        use super::*;

        pub(crate) const KERNELS: PackedKernels = PackedKernels {
            quantize: crate::cpu::arch::x86_64::avx2::packed::quantize,
            q8,
            q4,
            unpack_q4: Some(unpack),
            tile_rows: TILE_ROWS,
            chunk_rows: CHUNK_ROWS,
            sweep_bytes: SWEEP_BYTES,
        };

        #[target_feature(enable = $features)]
        fn q8(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
            y.clear(rows.len());
            let single = rows.len() == 1 && x.tile_rows(rows.start) == 1;
            let mut copy = Block([0; Q8_BLOCK]);
            for (group, block) in panel.bytes.chunks_exact(Q8_BLOCK).enumerate() {
                if single {
                    let tile = x.tile_group(rows.start, group);
                    row_product(block, tile, y);
                    add_q8_outliers(block, tile, y);
                    continue;
                }
                copy.0.copy_from_slice(block);
                tiles(&copy, x, group, rows.clone(), y);
            }
        }

        #[target_feature(enable = $features)]
        fn q4(panel: Panel<'_>, x: &QuantizedRows<'_>, rows: Range<usize>, y: &mut Sums<'_>) {
            if rows.len() == 1 && x.tile_rows(rows.start) == 1 {
                return q4_rows(panel, x, rows, y);
            }
            y.clear(rows.len());
            let mut unpacked = Block([0; Q8_BLOCK]);
            for (group, block) in panel.bytes.chunks_exact(Q4_BLOCK).enumerate() {
                unpack_block(block, &mut unpacked.0);
                tiles(&unpacked, x, group, rows.clone(), y);
            }
        }

        #[target_feature(enable = $features)]
        fn unpack(q4: &[u8], q8: &mut [u8]) {
            for (from, to) in q4.chunks_exact(Q4_BLOCK).zip(q8.chunks_exact_mut(Q8_BLOCK)) {
                unpack_block(from, to);
            }
        }

        /// `y += ` the product of a block and a group of some rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn tiles(block: &Block, x: &QuantizedRows<'_>, group: usize, rows: Range<usize>, y: &mut Sums<'_>) {
            for first in rows.clone().step_by(TILE_ROWS) {
                let (tile, y) = (x.tile_group(first, group), &mut y.rows(first - rows.start));
                by_rows!(tile.meta.len(), product(block, tile, y));
                add_q8_outliers(&block.0, tile, y);
            }
        }

        /// `y += ` the product of a block and a tile's group, without outliers.
        #[inline]
        #[target_feature(enable = $features)]
        fn product<const ROWS: usize>(block: &Block, tile: TileGroup<'_>, y: &mut Sums<'_>) {
            assert!(tile.values.len() == ROWS * GROUP && tile.meta.len() == ROWS);
            let values = tile.values.as_ptr().cast::<i32>();
            for first in (0..PANEL_REGISTERS).step_by(COLS) {
                let weights = block.0[SCALE_BYTES + first * REGISTER..].as_ptr();
                let mut acc: [[__m256i; COLS]; ROWS] =
                    std::array::from_fn(|row| [_mm256_set1_epi32(tile.meta[row].offset); COLS]);
                for quad in 0..QUADS {
                    // SAFETY: quad < 32 and j < 2: 64 bytes from column 8 first on, within the step's 256.
                    let w: [__m256i; COLS] = std::array::from_fn(|j| unsafe {
                        _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast())
                    });
                    for (row, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: quad * ROWS + row < 32 ROWS quads of 4 bytes, the length of the values.
                        let x = _mm256_set1_epi32(unsafe { values.add(quad * ROWS + row).read_unaligned() });
                        for j in 0..COLS {
                            acc[j] = $dot(acc[j], w[j], x);
                        }
                    }
                }
                for j in first..first + COLS {
                    let scale = column_scales(&block.0, j);
                    for (row, (acc, meta)) in acc.iter().zip(tile.meta).enumerate() {
                        accumulate(acc[j - first], scale, meta.scale, &mut y.row(row)[j * LANES..]);
                    }
                }
            }
        }

        /// `y += ` the product of a block and a group of a single row, without outliers. The block is read in order.
        #[inline]
        #[target_feature(enable = $features)]
        fn row_product(block: &[u8], tile: TileGroup<'_>, y: &mut Sums<'_>) {
            assert!(block.len() == Q8_BLOCK && tile.values.len() == GROUP && tile.meta.len() == 1);
            let (weights, values) = (block[SCALE_BYTES..].as_ptr(), tile.values.as_ptr().cast::<i32>());
            let mut acc = [_mm256_set1_epi32(tile.meta[0].offset); PANEL_REGISTERS];
            for quad in 0..QUADS {
                // SAFETY: quad < 32: 4 of 128 bytes.
                let x = _mm256_set1_epi32(unsafe { values.add(quad).read_unaligned() });
                for (j, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: quad < 32 and j < 8: 32 bytes of the block's 8,192.
                    let w = unsafe { _mm256_loadu_si256(weights.add(quad * STEP + j * REGISTER).cast()) };
                    *acc = $dot(*acc, w, x);
                }
            }
            for (j, acc) in acc.into_iter().enumerate() {
                accumulate(acc, column_scales(block, j), tile.meta[0].scale, &mut y.row(0)[j * LANES..]);
            }
        }
    };
}

pub(crate) use peak::int8 as peak_int8;
/// The kernels.
pub(crate) use vnni::KERNELS;

mod vnni {
    kernels!("avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);
}

/// The same code, with the dot product computed by AVX2.
#[cfg(test)]
mod emulated {
    /// `acc + Σ w x` over the four bytes of each lane, w unsigned and x signed.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn dot(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        let low = _mm256_set1_epi16(255);
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
        let sums = _mm256_add_epi32(
            _mm256_madd_epi16(_mm256_and_si256(w, low), even),
            _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(x)),
        );
        _mm256_add_epi32(acc, sums)
    }

    kernels!("avx2,fma", dot);
}

#[cfg(test)]
mod tests {
    use super::{PackedKernels, Panel, QuantizedRows, Sums, emulated};
    use crate::PackedFormat;
    use crate::cpu::arch::scalar::packed as scalar;
    use crate::cpu::table::activations;
    use crate::quant::{PANEL, PackedShape, encode_panel};
    use crate::testing::Noise;

    /// Returns the `[rows, 64]` sums of a packed panel, computed by a kernel of the table.
    fn sums(kernels: &PackedKernels, format: PackedFormat, panel: &[u8], x: &QuantizedRows<'_>) -> Vec<f32> {
        let mut values = vec![f32::NAN; x.rows() * PANEL];
        let mut y = Sums { values: &mut values, stride: PANEL, keep: 0 };
        let kernel = kernels.product(format);
        // SAFETY: the scalar table runs everywhere, and the emulated one requires AVX2, which the test checked for.
        unsafe { kernel(Panel { bytes: panel, next: panel }, x, 0..x.rows(), &mut y) };
        values
    }

    #[test]
    fn the_text_gives_the_bits_of_the_definition() {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return;
        }
        let (k, mut noise) = (300, Noise::new(3));
        let weights = noise.normal(PANEL * k);
        for format in [PackedFormat::Q8, PackedFormat::Q4] {
            let shape = PackedShape::packed(format, PANEL, k).unwrap();
            let mut panel = vec![0; shape.bytes()];
            encode_panel(shape, 0, &weights, &mut panel);
            for rows in [1, 2, 3, 4, 5, 6, 7, 36, 41] {
                let x = noise.with_outliers(rows, k);
                let mut bytes = vec![0; activations::bytes(rows, k)];
                for (tile, x) in x.chunks(activations::TILE_ROWS * k).enumerate() {
                    let at = activations::bytes(tile * activations::TILE_ROWS, k);
                    let end = at + activations::bytes(x.len() / k, k);
                    scalar::quantize(x, k, &mut bytes[at..end]);
                }
                let x = QuantizedRows::new(&bytes, rows, k, activations::TILE_ROWS);
                let expected = sums(&scalar::KERNELS, format, &panel, &x);
                assert_eq!(sums(&emulated::KERNELS, format, &panel, &x), expected, "{format:?} {rows} rows");
            }
        }
    }

    #[test]
    fn a_panel_is_unpacked_to_the_bytes_of_the_definition() {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return;
        }
        let (k, mut noise) = (300, Noise::new(4));
        let [q4, q8] =
            [PackedFormat::Q4, PackedFormat::Q8].map(|format| PackedShape::packed(format, PANEL, k).unwrap());
        let mut panel = vec![0; q4.bytes()];
        encode_panel(q4, 0, &noise.normal(PANEL * k), &mut panel);
        let [expected, found] = [&scalar::KERNELS, &emulated::KERNELS].map(|kernels| {
            let mut out = vec![0; q8.bytes()];
            // SAFETY: as in `sums`.
            unsafe { kernels.unpack_q4.unwrap()(&panel, &mut out) };
            out
        });
        assert!(found == expected);
    }
}
