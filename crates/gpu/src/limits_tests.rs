//! Tests of Phi-3.5-vision at its largest, without a card: every dispatch has a grid that a device supports and that
//! covers the computation, and every buffer is small enough for a kernel to bind.

use crate::MatrixUnits;
use crate::attention::{FewCut, full_tiles, tiles_at_once};
use crate::backend::{LARGE_BYTES, SIZES, SIZES_SMALL};
use crate::kernel::SIDES;
use crate::linear::{Blocks, FEW_ROWS_MAX, PartCut, kernel_for, quantized_bytes, rows_of_dispatch, side_for};
use crate::pace::{WORK_FIRST, WORK_MAX, WORK_MIN};
use crate::recorder::{SIDE_MAX, row_grid};
use crate::tensor::value_bytes;
use phi3v_kernels::quant::GROUP;
use phi3v_kernels::{Format, Heads, Precision, Sizes};

/// The largest binding that WebGPU and lavapipe guarantee.
const SMALL_BYTES: u64 = 128 << 20;

const VOCABULARY: usize = 32_064;
const HIDDEN: usize = 3072;
const INTERMEDIATE: usize = 8192;
const HEADS: Heads = Heads { query: 32, key_value: 32, dim: 96 };
const CONTEXT: usize = 131_072;
const SEQUENCES: usize = 16;
/// The vision tower: patches including the class token, then (below) its width and its heads.
const PATCHES: usize = 577;
const TOWER: usize = 1024;
const TOWER_HEADS: Heads = Heads { query: 16, key_value: 16, dim: 64 };
/// All matrices, `[n, k]`, and whether each holds gates and ups side by side: decoder, head, tower, projector.
const MATRICES: [(usize, usize, bool); 10] = [
    (9216, HIDDEN, false),
    (HIDDEN, HIDDEN, false),
    (2 * INTERMEDIATE, HIDDEN, true),
    (HIDDEN, INTERMEDIATE, false),
    (VOCABULARY, HIDDEN, false),
    (TOWER, 588, false),
    (TOWER, TOWER, false),
    (4 * TOWER, TOWER, false),
    (TOWER, 4 * TOWER, false),
    (HIDDEN, 4 * TOWER, false),
];
/// The largest values that a configuration may request: vocabulary, width, values between the products of a block.
const VOCABULARY_MAX: usize = 1 << 18;
const HIDDEN_MAX: usize = 1 << 14;
const INTERMEDIATE_MAX: usize = 1 << 16;
/// Matrices of those sizes: decoder, then the head of a wide model and of a narrow one, which any binding holds whole.
const LARGEST: [(usize, usize, bool); 5] = [
    (3 * HIDDEN_MAX, HIDDEN_MAX, false),
    (2 * INTERMEDIATE_MAX, HIDDEN_MAX, true),
    (HIDDEN_MAX, INTERMEDIATE_MAX, false),
    (VOCABULARY_MAX, HIDDEN_MAX, false),
    (VOCABULARY_MAX, 64, false),
];
const UNITS: MatrixUnits = MatrixUnits { tile: 16, lanes: 32, vectors: true };
const FORMATS: [Format; 5] = [Format::Q8, Format::Q4, Format::F32, Format::F16, Format::Bf16];

/// Returns the largest chunk of a prompt: a remainder too short for a chunk of its own joins the one before it.
fn chunk_max(sizes: Sizes) -> usize {
    sizes.prefill_chunk + FEW_ROWS_MAX
}

/// Returns the numbers of rows that a step, the tower or the projector has.
fn rows_of(sizes: Sizes) -> [usize; 10] {
    let tiles = PATCHES * sizes.tiles_at_once;
    [1, 2, SEQUENCES, SEQUENCES + 1, 128, sizes.prefill_chunk, chunk_max(sizes), PATCHES, tiles, 17 * PATCHES]
}

fn is_possible(grid: [usize; 3]) -> bool {
    grid.iter().all(|side| (1..=SIDE_MAX).contains(side))
}

#[test]
fn products_of_the_real_model_and_of_the_largest_keep_within_grids_and_bindings() {
    for (sizes, bytes_max) in [(SIZES, 1 << 34), (SIZES, LARGE_BYTES), (SIZES_SMALL, SMALL_BYTES)] {
        let matrices = MATRICES.into_iter().chain(LARGEST);
        for ((n, k, gated), format) in matrices.flat_map(|matrix| FORMATS.map(|format| (matrix, format))) {
            let cut = PartCut::new(format, n, k, bytes_max).unwrap();
            for first in (0..n).step_by(cut.cols) {
                let cols = cut.cols.min(n - first);
                assert!(cut.bytes(cols) as u64 <= bytes_max, "{format:?} [{n}, {k}]: {cols} columns");
                // fused only if both halves are in one part
                for gated in [false, gated && cols == n] {
                    let cols = if gated { cols / 2 } else { cols };
                    for (rows, units) in
                        rows_of(sizes).into_iter().flat_map(|rows| [(rows, None), (rows, Some(UNITS))])
                    {
                        let side = side_for(rows, cols);
                        let kernel = kernel_for(format, Precision::F32, rows, units, side);
                        let grid = Blocks::new(kernel, gated).grid(rows, cols);
                        assert!(is_possible(grid), "{format:?} [{n}, {k}], {rows} rows: {grid:?}");
                        let most = SIDES[1] as usize;
                        assert!(grid[0] >= rows.div_ceil(most) && grid[1] >= cols.div_ceil(most), "{grid:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_the_real_model_are_cut_by_what_the_card_shall_be_busy_with() {
    let all = rows_of(SIZES).into_iter().flat_map(|rows| MATRICES.map(|matrix| (rows, matrix)));
    for ((rows, (n, k, gated)), work_max) in
        all.flat_map(|product| [(product, WORK_FIRST), (product, WORK_MAX)])
    {
        let blocks = Blocks::new(kernel_for(Format::Q8, Precision::F32, rows, None, 0), gated);
        let row_work = (n * k) as u64;
        let (mut first, mut dispatches) = (0, 0);
        while first < rows {
            let count = rows_of_dispatch(rows - first, &blocks, row_work, work_max);
            assert!(
                count as u64 * row_work <= work_max,
                "{count} rows of [{n}, {k}] are too long for {work_max}"
            );
            assert!(first + count == rows || count.is_multiple_of(blocks.rows));
            (first, dispatches) = (first + count, dispatches + 1);
        }
        // no more dispatches than necessary: each reads the weights
        let most = (work_max / row_work) as usize / blocks.rows * blocks.rows;
        assert!(first == rows && (rows <= FEW_ROWS_MAX || dispatches == rows.div_ceil(most)));
    }
}

#[test]
fn operations_on_rows_keep_within_grids() {
    for rows in [SIZES, SIZES_SMALL].into_iter().flat_map(rows_of) {
        // quantization, then the kernels with a thread per value, rotation, and keys and values
        let groups = INTERMEDIATE_MAX.div_ceil(GROUP);
        let values = VOCABULARY_MAX.max(2 * INTERMEDIATE_MAX).div_ceil(64);
        for across in [1, groups, values, HEADS.query * HEADS.dim / 64, HEADS.query + 2 * HEADS.key_value] {
            let grid = row_grid(across, rows);
            assert!(is_possible(grid) && grid[1] * grid[2] >= rows, "{rows} rows: {grid:?}");
        }
    }
    // more rows than a side of a grid has
    assert_eq!(row_grid(3, 70_000), [3, 32_768, 3]);
}

#[test]
fn attention_of_the_real_model_keeps_within_grids_and_bindings() {
    for tokens in [1, 257, 4096, CONTEXT] {
        for entries in [1, SEQUENCES, 15 * SEQUENCES, chunk_max(SIZES)] {
            for work_max in [WORK_MIN, WORK_FIRST, WORK_MAX] {
                let cut = FewCut::new(HEADS, tokens, entries, work_max);
                assert!(cut.at_once >= 1 && cut.scratch_bytes() as u64 <= SMALL_BYTES);
                let work = cut.at_once as u64 * FewCut::row_cost(HEADS, tokens);
                assert!(
                    work <= work_max || cut.at_once == 1,
                    "{} rows of {tokens} tokens are too long for {work_max}",
                    cut.at_once
                );
                for count in [1, cut.at_once] {
                    let is_cut = cut.grids(HEADS, count).into_iter().all(is_possible);
                    assert!(is_cut, "{tokens} tokens, {count} rows");
                }
            }
            // on a fast card, the memory for chunks alone limits a step of many sequences
            if entries <= SEQUENCES {
                let [at_once, most] =
                    [WORK_MAX, u64::MAX].map(|work| FewCut::new(HEADS, tokens, entries, work).at_once);
                assert_eq!(at_once, most);
            }
        }
        let tiles = tiles_at_once(HEADS, tokens, WORK_MAX);
        assert!(is_possible([HEADS.query, tiles, 1]), "{tokens} tokens: {tiles} tiles");
    }
    for sizes in [SIZES, SIZES_SMALL] {
        let rows = sizes.tiles_at_once * PATCHES;
        let tiles = full_tiles(rows, PATCHES);
        assert!(tiles * 16 >= rows, "{tiles} tiles");
        let at_once = tiles_at_once(TOWER_HEADS, PATCHES, WORK_MAX).min(tiles);
        assert!(is_possible([TOWER_HEADS.query, at_once, 1]), "{at_once} tiles");
    }
}

#[test]
fn tensors_of_the_real_model_keep_within_bindings() {
    for (sizes, bytes_max) in [(SIZES, LARGE_BYTES), (SIZES_SMALL, SMALL_BYTES)] {
        let (chunk, tiles) = (chunk_max(sizes), sizes.tiles_at_once * PATCHES);
        // activations of a chunk, its logits if an evaluation requests all, those of the tower, a picture in the
        // projector
        let tensors = [
            (chunk, 3 * HIDDEN),
            (chunk, 2 * INTERMEDIATE),
            (chunk, VOCABULARY),
            (tiles, 4 * TOWER),
            (17 * PATCHES, TOWER),
            (17 * 12 * 12 + 16 * 12 + 1, 4 * TOWER),
        ];
        for (rows, cols) in tensors {
            let bytes = value_bytes(rows, cols) as u64;
            assert!(bytes <= bytes_max, "[{rows}, {cols}] has {bytes} bytes of {bytes_max}");
        }
        for (rows, cols) in [(chunk, INTERMEDIATE), (tiles, 4 * TOWER)] {
            assert!(quantized_bytes(rows, cols).into_iter().all(|bytes| bytes as u64 <= bytes_max));
        }
    }
}
