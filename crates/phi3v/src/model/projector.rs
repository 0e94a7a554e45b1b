//! HD merge and projector: tile features in, the rows that stand for an image in the prompt out.
//!
//! `Phi3ImageEmbedding.hd_feature_transform` of the checkpoint's modelling code, order "sub_glb": the rows of the
//! whole image, each followed by `sub_GN`; one `glb_GN`; the rows of the global view, each followed by `sub_GN`.
//! All rows go through `Linear -> GELU -> Linear`; those of the separators are constants of the checkpoint.

use super::linear::{Loader, linear_into};
use crate::Result;
use crate::config::{ModelConfig, VisionConfig};
use crate::image::HdGrid;
use crate::weights::names;
use phi3v_kernels::{Backend, Epilogue};

/// Patches along one side of a tile: 336 / 14.
const PATCHES: usize = 24;
/// Merged patches along one side of a tile.
const MERGED: usize = PATCHES / 2;
/// Merged rows of one tile.
pub(super) const MERGED_ROWS: usize = MERGED * MERGED;
/// Rows of the separators' tensor.
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

/// Bytes of [`Projector::merge_buffer`] for `tiles` tiles.
pub(super) fn merge_bytes(config: &VisionConfig, tiles: usize) -> u64 {
    (tiles as u64).saturating_mul((config.num_patches() * config.hidden_size * size_of::<f32>()) as u64)
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

    /// A buffer for the merged rows of `tiles` tiles, `[tiles * 144, 4 * image_dim_out]`, viewed as the patches they
    /// are made of: `[tiles * 576, image_dim_out]`.
    pub(super) fn merge_buffer(&self, backend: &B, tiles: usize) -> Result<B::Tensor> {
        Ok(backend.tensor(tiles * PATCHES * PATCHES, self.image_dim_out)?)
    }

    /// Puts the 2 x 2 patches of each merged row of `features`, `[n * 577, image_dim_out]`, side by side, from tile
    /// `first_tile` of `merged` on. The class rows are dropped.
    pub(super) fn merge(&self, backend: &B, features: &B::Tensor, first_tile: usize, merged: &mut B::Tensor) {
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
        backend.gather(features, &rows, first_tile * PATCHES * PATCHES, merged);
    }

    /// The image's rows, `[num_img_tokens, hidden_size]`, of its distinct tiles' merged patches.
    /// `tile_of` maps the global view, then every tile in row-major order, to the distinct tiles.
    pub(super) fn embed(
        &self,
        backend: &B,
        mut merged: B::Tensor,
        grid: &HdGrid,
        tile_of: &[usize],
    ) -> Result<B::Tensor> {
        let rows = backend.shape(&merged).0 / 4;
        backend.reshape(&mut merged, rows, 4 * self.image_dim_out)?;
        let mut projected = self.project(backend, &merged)?;
        // the separators become its last rows, so that one gather puts everything in order
        backend.reshape(&mut projected, rows + SEPARATORS.len(), self.hidden_size)?;
        backend.gather(&self.separators, &SEPARATORS, rows, &mut projected);
        let order = row_order(grid, tile_of, rows as u32);
        let mut out = backend.tensor(grid.num_img_tokens(), self.hidden_size)?;
        backend.gather(&projected, &order, 0, &mut out);
        Ok(out)
    }

    /// `[rows, 4 * image_dim_out] -> [rows, hidden_size]`, which the separators' rows can be added to without an
    /// allocation.
    fn project(&self, backend: &B, merged: &B::Tensor) -> Result<B::Tensor> {
        let rows = backend.shape(merged).0;
        let mut hidden = backend.tensor(rows, self.hidden_size)?;
        let mut out = backend.tensor(rows + SEPARATORS.len(), self.hidden_size)?;
        let [first, second] = &self.img_projection;
        linear_into(backend, merged, first, self.hidden_size, Epilogue::Gelu, &mut hidden)?;
        linear_into(backend, &hidden, second, self.hidden_size, Epilogue::Store, &mut out)?;
        Ok(out)
    }
}

/// Which projected row each of an image's rows is; `separators` is the row of the first of [`SEPARATORS`].
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
