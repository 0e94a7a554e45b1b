//! Matrix products of many rows, in blocks that stay in cache (Goto & van de Geijn 2008).
//!
//! All sizes are counted in 32-bit *words*: one f32, or a pair of bf16. The input is packed once per call, in tiles
//! of a few rows, in the order that the kernel reads. A task is one panel of 64 output columns for one block of rows.
//! It packs the panel's weights, block by block along K, into its thread's scratch, and sweeps the tiles of its rows
//! over each block.
//!
//! Invariant: K is always cut at the same places, so a row's result does not depend on the other rows.

use super::dense::{Dense, PANEL, Panels, panel_bias};
use super::runner::{Runner, Scratch};
use super::tensor::{Buffer, CpuTensor};
use crate::Epilogue;
use crate::cpu::table::dense::GemmKernel;
use crate::threads::SharedMut;
use std::ops::Range;

/// Words of K in a panel's block: 1536 words x 64 columns x 4 bytes = 393 KB, less than half of an L2 cache of 1 MB.
/// The tiles and sums stream through the rest.
const BLOCK_WORDS: usize = 1536;

/// Words of K that kernels may take together: all blocks except the last are multiples of it.
const WORDS_STEP: usize = 16;

/// Maximum bytes of packed input of a block of rows: 8 MB stay in an L3 cache of 16 MB while the panels pass.
const BLOCK_BYTES: usize = 8 << 20;

/// Minimum number of rows of a block, so that packing a panel, which costs about as much as 20 rows, is a small part
/// of the work.
const BLOCK_ROWS_MIN: usize = 192;

/// Maximum number of rows for which streaming (see `linear.rs`) is better than packing.
pub(crate) const STREAMED_ROWS_MAX: usize = 16;

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    tiles: usize,
    /// Tiles per block of rows.
    block_tiles: usize,
    words: usize,
    /// Words per block of K.
    block_words: usize,
    panels: usize,
}

impl Plan {
    /// Plans a product of `m` rows and `words` words of K in tiles of `tile_rows` rows: as few blocks of rows as the
    /// cache allows, or enough to give every thread three tasks.
    pub(crate) fn new(m: usize, words: usize, tile_rows: usize, panels: usize, threads: usize) -> Self {
        let tiles = m.div_ceil(tile_rows);
        let cached = (BLOCK_BYTES / (4 * words * tile_rows)).max(1);
        let least = BLOCK_ROWS_MIN.div_ceil(tile_rows);
        let wanted = (3 * threads).div_ceil(panels);
        let blocks = tiles.div_ceil(cached).max(wanted).min(tiles.div_ceil(least)).max(1);
        let parts = words.div_ceil(BLOCK_WORDS);
        let block_words = words.div_ceil(parts).next_multiple_of(WORDS_STEP).min(words);
        Self { tiles, block_tiles: tiles.div_ceil(blocks), words, block_words, panels }
    }

    fn tasks(&self) -> usize {
        self.panels * self.tiles.div_ceil(self.block_tiles)
    }

    /// Returns the panel and the tiles of a task. Consecutive tasks change the panel while a block of rows stays in
    /// cache.
    fn task(&self, i: usize) -> (usize, Range<usize>) {
        let first = i / self.panels * self.block_tiles;
        (i % self.panels, first..self.tiles.min(first + self.block_tiles))
    }

    /// Returns the number of tiles whose sums must be kept between blocks of K.
    fn kept_tiles(&self) -> usize {
        if self.block_words < self.words { self.block_tiles } else { 1 }
    }
}

/// The constants of one call.
struct Product<'a> {
    kernel: &'a GemmKernel,
    plan: Plan,
    panels: Panels,
    weight: &'a Dense,
    epilogue: Epilogue,
    /// The packed input, tiles of `words * rows` words.
    input: &'a [u32],
    /// Rows and columns of the output.
    shape: (usize, usize),
}

/// Where a panel's sums go, and the bias added to them.
struct PanelOut<'a> {
    columns: &'a Range<usize>,
    bias: &'a [f32], // one per weight row, [up to 64]
}

impl Runner {
    /// Computes a product of many rows, see the [module documentation](self).
    pub(super) fn gemm(
        &self,
        kernel: &GemmKernel,
        x: &CpuTensor,
        weight: &Dense,
        epilogue: Epilogue,
        out: &mut CpuTensor,
    ) {
        let panels = Panels::new(weight.n, PANEL, epilogue);
        let words = weight.k.div_ceil(kernel.group);
        let plan = Plan::new(x.rows(), words, kernel.rows, panels.count(), self.pool.threads());
        let Scratch { packed, .. } = &mut *self.scratch();
        let input = self.pack_input(kernel, x, &plan, packed);
        let shape = (out.rows(), out.cols());
        let product = Product { kernel, plan, panels, weight, epilogue, input, shape };
        let out = SharedMut::new(out.values_mut());
        self.pool.run(plan.tasks(), |task, thread| {
            let (panel, tiles) = plan.task(task);
            self.gemm_task(&product, panel, tiles, &mut self.thread_scratch(thread).work, &out);
        });
    }

    /// Packs `x` in tiles of `words * rows` words each.
    fn pack_input<'a>(
        &self,
        kernel: &GemmKernel,
        x: &CpuTensor,
        plan: &Plan,
        packed: &'a mut Buffer,
    ) -> &'a [u32] {
        let tile = plan.words * kernel.rows;
        let packed = packed.take::<u32>(plan.tiles * tile);
        let shared = SharedMut::new(packed);
        self.pool.run(plan.tiles, |i, _| {
            let rows = i * kernel.rows..x.rows().min((i + 1) * kernel.rows);
            let values = &x.values()[rows.start * x.cols()..rows.end * x.cols()];
            // SAFETY: every task packs its own tile; the kernel is of a level this processor has.
            unsafe { (kernel.pack_input)(values, x.cols(), shared.slice(i * tile..(i + 1) * tile)) };
        });
        packed
    }

    fn gemm_task(
        &self,
        product: &Product<'_>,
        panel: usize,
        tiles: Range<usize>,
        scratch: &mut Buffer,
        out: &SharedMut<'_, f32>,
    ) {
        let Product { kernel, plan, weight, .. } = product;
        let panel = product.panels.panel(panel);
        let rows = weight.panel_rows(&panel);
        let mut bias = [0.0; PANEL];
        let bias = panel_bias(weight.bias(), &panel, &mut bias);
        let (tile_words, tile_sums) = (plan.words * kernel.rows, kernel.rows * PANEL);
        let scratch = scratch.take::<u32>(plan.block_words * PANEL + plan.kept_tiles() * tile_sums);
        let (packed, sums) = scratch.split_at_mut(plan.block_words * PANEL);
        let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
        for first in (0..plan.words).step_by(plan.block_words) {
            let words = first..plan.words.min(first + plan.block_words);
            // SAFETY: the kernel is of a level this processor has.
            unsafe { (kernel.pack_weights)(&rows, words.clone(), packed) };
            for tile in tiles.clone() {
                let input = &product.input[tile * tile_words..][first * kernel.rows..words.end * kernel.rows];
                let kept = (tile - tiles.start) % plan.kept_tiles() * tile_sums;
                let sums = &mut sums[kept..kept + tile_sums];
                // SAFETY: as above.
                unsafe { (kernel.tile)(words.len(), input, packed, sums, first > 0) };
                if words.end == plan.words {
                    let panel_out = PanelOut { columns: &panel.out, bias };
                    self.write_tile(product, tile, panel_out, sums, out);
                }
            }
        }
    }

    /// Applies the epilogue to a tile's sums, `[rows, 64]`.
    fn write_tile(
        &self,
        product: &Product<'_>,
        tile: usize,
        PanelOut { columns, bias }: PanelOut<'_>,
        sums: &[f32],
        out: &SharedMut<'_, f32>,
    ) {
        let (rows, cols) = product.shape;
        let first = tile * product.kernel.rows;
        for (row, sums) in (first..rows).zip(sums.chunks_exact(PANEL)) {
            // SAFETY: no two tasks share both a tile and a panel; the level is one this processor has.
            unsafe {
                let out = out.slice(row * cols + columns.start..row * cols + columns.end);
                (self.kernels.rows.epilogue)(product.epilogue, &sums[..bias.len()], bias, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(m: usize, words: usize, panels: usize, threads: usize) -> Plan {
        let plan = Plan::new(m, words, 6, panels, threads);
        let mut times = vec![0; plan.tiles * panels];
        for task in 0..plan.tasks() {
            let (panel, tiles) = plan.task(task);
            tiles.for_each(|tile| times[panel * plan.tiles + tile] += 1);
        }
        assert!(times.iter().all(|&times| times == 1), "{plan:?}");
        plan
    }

    #[test]
    fn tasks_cover_every_tile_once() {
        for threads in [1, 2, 8, 64] {
            for m in [17, 18, 577, 1941] {
                for panels in [1, 2, 48, 144] {
                    for words in [16, 294, 1536, 8192] {
                        check(m, words, panels, threads);
                    }
                }
            }
        }
    }

    #[test]
    fn every_thread_has_three_tasks_where_rows_allow() {
        for threads in [2, 8, 64] {
            assert!(check(2048, 1536, 48, threads).tasks() >= 3 * threads);
        }
        // 16 panels x 3 blocks of at least 192 rows
        assert_eq!(check(577, 512, 16, 64).tasks(), 64);
    }

    #[test]
    fn blocks_fit_the_caches() {
        // 2048 rows of 3072 bf16 are 12.6 MB: two blocks; K is not cut
        let plan = check(2048, 1536, 144, 2);
        assert_eq!((plan.block_tiles, plan.block_words), (171, 1536));
        // 8192 bf16: 33 MB in 5 blocks, K in 3
        let plan = check(2048, 4096, 48, 2);
        assert_eq!((plan.block_tiles, plan.block_words), (69, 1376));
    }
}
