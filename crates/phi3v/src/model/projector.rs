//! HD merge and projector: from tile features to the rows that stand for an image in the prompt.
//!
//! `Phi3ImageEmbedding.hd_feature_transform` of the checkpoint's modelling code, order "sub_glb": the rows of the
//! whole image, each followed by `sub_GN`; one `glb_GN`; the rows of the global view, each followed by `sub_GN`.
//! All rows go through `Linear -> GELU -> Linear`; those of the separators are constants of the checkpoint.

use super::linear::{Loader, linear_into};
use crate::Result;
use crate::config::ModelConfig;
use crate::image::HdGrid;
use crate::weights::names;
use phi3v_kernels::{Backend, Epilogue};

/// Patches along one side of a tile: 336 / 14.
const PATCHES: usize = 24;
/// Merged patches along one side of a tile.
const MERGED: usize = PATCHES / 2;
/// Merged rows of one tile.
const MERGED_ROWS: usize = MERGED * MERGED;
/// Row indices of the separators' tensor.
const SUB_GN: u32 = 0;
const GLB_GN: u32 = 1;
const SEPARATORS: [u32; 2] = [SUB_GN, GLB_GN];

/// The projector's weights.
pub(super) struct Projector<B: Backend> {
    hidden_size: usize,
    image_dim_out: usize,
    img_projection: [B::Linear; 2], // [hidden, 4 * image_dim_out], [hidden, hidden]
    separators: B::Tensor,          // [2, hidden]: projected sub_GN, glb_GN
}

/// Returns the bytes of `rows` rows of `cols` values.
fn row_bytes(rows: usize, cols: usize) -> u64 {
    (rows as u64).saturating_mul((cols * size_of::<f32>()) as u64)
}

/// Returns the bytes of [`Projector::rows_of`] for `tiles` tiles.
pub(super) fn rows_bytes(config: &ModelConfig, tiles: usize) -> u64 {
    row_bytes(tiles.saturating_mul(MERGED_ROWS).saturating_add(SEPARATORS.len()), config.hidden_size)
}

/// Returns the maximum bytes that [`Projector::project_tiles`] takes for `tiles` tiles: their features, the merged
/// features, and two rows of the decoder's width for each merged row.
pub(super) fn run_bytes(config: &ModelConfig, tiles: usize) -> u64 {
    let merged = MERGED_ROWS * (4 * config.img_processor.hidden_size + 2 * config.hidden_size);
    let features = config.img_processor.num_positions() * config.img_processor.hidden_size;
    row_bytes(tiles, features + merged)
}

/// Returns the maximum bytes of the rows that stand for an image of `tiles` tiles. It is reached if the tiles are stacked
/// vertically: then every row of every tile has a separator.
pub(super) fn embedding_bytes(config: &ModelConfig, tiles: usize) -> u64 {
    row_bytes(tiles.saturating_mul(MERGED_ROWS + MERGED).saturating_add(1), config.hidden_size)
}

impl<B: Backend> Projector<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &ModelConfig) -> Result<Self> {
        let backend = loader.backend;
        let [first, second] = names::IMG_PROJECTION;
        let img_projection = [loader.linear(first)?, loader.linear(second)?];
        let image_dim_out = config.img_processor.hidden_size;
        let separators = backend.tensor(2, config.hidden_size)?;
        let mut projector =
            Self { hidden_size: config.hidden_size, image_dim_out, img_projection, separators };
        let mut raw = backend.tensor(2, 4 * image_dim_out)?;
        for (row, separator) in [(SUB_GN, names::SUB_GN), (GLB_GN, names::GLB_GN)] {
            backend.upload(&loader.weights.vector(separator)?, row as usize, &mut raw);
        }
        projector.separators = projector.project(backend, &raw)?;
        Ok(projector)
    }

    /// Returns space for the projected rows of `tiles` tiles, followed by the rows of the separators:
    /// `[tiles * 144 + 2, hidden_size]`.
    pub(super) fn rows_of(&self, backend: &B, tiles: usize) -> Result<B::Tensor> {
        let separators = tiles * MERGED_ROWS;
        let mut rows = backend.tensor(separators + SEPARATORS.len(), self.hidden_size)?;
        backend.gather(&self.separators, &SEPARATORS, separators, &mut rows);
        Ok(rows)
    }

    /// Merges and projects tiles of `features`, `[n * 577, image_dim_out]`, into `rows`, from tile `first_tile` on. A row does
    /// not depend on the number of tiles: even a single tile has more rows than the device's kernels for few rows accept.
    pub(super) fn project_tiles(
        &self,
        backend: &B,
        features: &B::Tensor,
        first_tile: usize,
        rows: &mut B::Tensor,
    ) -> Result<()> {
        let merged = self.merge(backend, features)?;
        let projected = self.project(backend, &merged)?;
        let all: Vec<u32> = (0..backend.shape(&projected).0 as u32).collect();
        backend.gather(&projected, &all, first_tile * MERGED_ROWS, rows);
        Ok(())
    }

    /// Places the 2 x 2 patches of each merged row of `features`, `[n * 577, image_dim_out]`, side by side:
    /// `[n * 144, 4 * image_dim_out]`. The class rows are dropped.
    fn merge(&self, backend: &B, features: &B::Tensor) -> Result<B::Tensor> {
        let rows_per_tile = 1 + PATCHES * PATCHES;
        let tiles = backend.shape(features).0 / rows_per_tile;
        let mut rows = Vec::with_capacity(tiles * PATCHES * PATCHES);
        for tile in 0..tiles {
            for y in 0..MERGED {
                for x in 0..MERGED {
                    for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        rows.push((tile * rows_per_tile + 1 + (2 * y + dy) * PATCHES + 2 * x + dx) as u32);
                    }
                }
            }
        }
        let mut merged = backend.tensor(rows.len(), self.image_dim_out)?;
        backend.gather(features, &rows, 0, &mut merged);
        backend.reshape(&mut merged, rows.len() / 4, 4 * self.image_dim_out)?;
        Ok(merged)
    }

    /// Assembles the image's rows, `[num_img_tokens, hidden_size]`, from `rows`: the projected rows of its distinct tiles and
    /// the separators. `tile_of` maps the global view, then every tile in row-major order, to the distinct tiles.
    pub(super) fn embed(
        &self,
        backend: &B,
        rows: &B::Tensor,
        grid: &HdGrid,
        tile_of: &[usize],
    ) -> Result<B::Tensor> {
        let separators = backend.shape(rows).0 - SEPARATORS.len();
        let order = row_order(grid, tile_of, separators as u32);
        let mut out = backend.tensor(grid.num_img_tokens(), self.hidden_size)?;
        backend.gather(rows, &order, 0, &mut out);
        Ok(out)
    }

    /// `[rows, 4 * image_dim_out] -> [rows, hidden_size]`.
    fn project(&self, backend: &B, merged: &B::Tensor) -> Result<B::Tensor> {
        let rows = backend.shape(merged).0;
        let mut hidden = backend.tensor(rows, self.hidden_size)?;
        let mut out = backend.tensor(rows, self.hidden_size)?;
        let [first, second] = &self.img_projection;
        linear_into(backend, merged, first, self.hidden_size, Epilogue::Gelu, &mut hidden)?;
        linear_into(backend, &hidden, second, self.hidden_size, Epilogue::Store, &mut out)?;
        Ok(out)
    }
}

/// Returns the index of the projected row for each of an image's rows; `separators` is the row of the first of
/// [`SEPARATORS`].
fn row_order(grid: &HdGrid, tile_of: &[usize], separators: u32) -> Vec<u32> {
    // row `y` of a distinct tile: 12 merged patches
    let tile_row = |tile: usize, y: usize| {
        let first = (tile * MERGED_ROWS + y * MERGED) as u32;
        first..first + MERGED as u32
    };
    let mut order = Vec::with_capacity(grid.num_img_tokens());
    for y in 0..MERGED * grid.h_crop {
        for crop_x in 0..grid.w_crop {
            order.extend(tile_row(tile_of[1 + (y / MERGED) * grid.w_crop + crop_x], y % MERGED));
        }
        order.push(separators + SUB_GN);
    }
    order.push(separators + GLB_GN);
    for y in 0..MERGED {
        order.extend(tile_row(tile_of[0], y));
        order.push(separators + SUB_GN);
    }
    order
}
