//! The model text: Phi-3-vision's forward passes, written once for all devices and weight formats.
//!
//! Follows `modeling_phi3_v.py` of the checkpoints; MODEL.md is the specification. The model operates on token ids, pixel
//! values and rows, and does not know strings, files, requests or schedules.

mod decoder;
mod linear;
mod projector;
mod rope;
mod vision_tower;

pub use decoder::{Chunk, Segment, kv_layout, step_bytes};
pub use rope::{Rope, RopeFactors};

use crate::config::ModelConfig;
use crate::image::{HdGrid, ImageInputs, TILE_VALUES};
use crate::weights::Weights;
use crate::{Error, Result};
use decoder::{Decoder, HiddenStates, Outputs, Workspace};
use linear::Loader;
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS, KvFormat, KvLayout, Precision, Span};
use projector::Projector;
use std::fmt;
use std::ops::ControlFlow;
use vision_tower::VisionTower;

/// Maximum number of sequences of a decode step that allocates nothing: the data of each sequence is on the stack.
pub const SEQUENCES_ON_STACK: usize = 16;

/// Steps of work that a caller can observe and stop by returning [`ControlFlow::Break`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A decoder layer's weights are about to be loaded.
    Load {
        /// Layers loaded so far.
        done: usize,
        /// Number of all layers.
        layers: usize,
    },
    /// An encoder layer of the vision tower is about to run.
    VisionLayer {
        /// Layers run so far.
        done: usize,
        /// Number of all layers.
        layers: usize,
    },
    /// A decoder layer is about to run.
    DecoderLayer {
        /// Layers run so far.
        done: usize,
        /// Number of all layers.
        layers: usize,
    },
}

impl Progress {
    /// Returns the finished part of a pass over the layers, from 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        let (Self::Load { done, layers }
        | Self::VisionLayer { done, layers }
        | Self::DecoderLayer { done, layers }) = self;
        done as f64 / layers as f64
    }
}

fn check(flow: ControlFlow<()>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}

/// Arithmetic of a loaded model: of its products, and of its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// Arithmetic of products with dense weights and of the vision tower's attention.
    pub precision: Precision,
    /// Storage format of cached keys and values, and thereby the arithmetic of the decoder's attention.
    pub kv_format: KvFormat,
}

impl ModelOptions {
    /// f32 throughout, including keys and values. The reference's golden values are compared with this.
    pub const F32: Self = Self { precision: Precision::F32, kv_format: KvFormat::F32 };
    /// bf16 products with f32 sums, and keys and values in bf16: the format in which the checkpoint is stored.
    pub const BF16: Self = Self { precision: Precision::Bf16, kv_format: KvFormat::Bf16 };

    /// Returns the options that suit `weights`: bf16, with keys and values in 8 bits if the weights are quantized.
    #[must_use]
    pub fn of(weights: &Weights) -> Self {
        match weights.quant() {
            Some(_) => Self { kv_format: KvFormat::Q8, ..Self::BF16 },
            None => Self::BF16,
        }
    }
}

/// An image whose tiles are being processed by the vision tower and the projector. The work can be done tile by tile,
/// between the steps of other sequences, or all at once.
pub struct ImageJob<B: Backend> {
    rows: B::Tensor, // [tiles * 144 + 2, hidden_size], see Projector::rows_of
    tiles: usize,
    done: usize,
}

impl<B: Backend> fmt::Debug for ImageJob<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tiles, done, .. } = self;
        f.debug_struct("ImageJob").field("tiles", tiles).field("done", done).finish_non_exhaustive()
    }
}

/// Returns the maximum bytes that an image of `tiles` tiles takes in the vision tower and the projector, which process
/// `tiles_at_once` tiles at a time. This includes its pixel values, its [`ImageJob`], and either the buffers of a run or,
/// at the end, the resulting rows.
#[must_use]
pub fn image_bytes(config: &ModelConfig, tiles: usize, tiles_at_once: usize) -> u64 {
    let image_size = config.img_processor.image_size;
    let pixels = 3 * image_size * image_size * size_of::<f32>();
    let at_once = tiles_at_once.min(tiles);
    let run = vision_tower::run_bytes(&config.img_processor, at_once);
    let passing =
        run.max(projector::run_bytes(config, at_once)).max(projector::embedding_bytes(config, tiles));
    (tiles as u64)
        .saturating_mul(pixels as u64)
        .saturating_add(projector::rows_bytes(config, tiles))
        .saturating_add(passing)
}

impl<B: Backend> ImageJob<B> {
    /// Returns how many of the job's distinct tiles have not been through the tower yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.tiles - self.done
    }
}

/// A loaded model and its device: vision tower, projector and decoder, ready to run.
pub struct Phi3V<B: Backend> {
    backend: B,
    config: ModelConfig,
    options: ModelOptions,
    vision_tower: VisionTower<B>,
    projector: Projector<B>,
    decoder: Decoder<B>,
}

impl<B: Backend> fmt::Debug for Phi3V<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phi3V").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<B: Backend> Phi3V<B> {
    /// Loads every part by its name in the checkpoint. `observe` is called before each decoder layer.
    ///
    /// # Errors
    /// If the weights are wrong, or the device reports an error.
    pub fn load(
        backend: B,
        config: &ModelConfig,
        weights: &Weights,
        options: ModelOptions,
        observe: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        Self::load_unless_stopped(backend, config, weights, options, &mut |progress| {
            observe(progress);
            ControlFlow::Continue(())
        })
    }

    /// Like [`load`](Self::load), but stops when `observe` returns `Break`.
    ///
    /// # Errors
    /// [`Error::Stopped`], an error in the weights, or an error of the device.
    pub fn load_unless_stopped(
        backend: B,
        config: &ModelConfig,
        weights: &Weights,
        options: ModelOptions,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self> {
        let loader = Loader { backend: &backend, weights, precision: options.precision };
        let vision_tower = VisionTower::load(&loader, &config.img_processor)?;
        let projector = Projector::load(&loader, config)?;
        let layers = config.num_hidden_layers;
        let decoder = Decoder::load(&loader, config, &mut |done| observe(Progress::Load { done, layers }))?;
        // computations on the weights may have failed; that must show here, not in a request or not at all
        backend.finish()?;
        Ok(Self { config: config.clone(), options, vision_tower, projector, decoder, backend })
    }

    /// Returns the configuration with which the model was loaded: shapes, norms and rotary factors.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the device that holds the weights and runs the operations.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the rotary embedding, which selects the set of factors for a length.
    pub fn rope(&self) -> &Rope {
        &self.decoder.rope
    }

    /// Returns the layout of the KV cache: layers, heads and the format of keys and values.
    pub fn kv_layout(&self) -> KvLayout {
        kv_layout(&self.config, self.options.kv_format)
    }

    /// Begins an image of `tiles` distinct tiles.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn begin_image(&self, tiles: usize) -> Result<ImageJob<B>> {
        Ok(ImageJob { rows: self.projector.rows_of(&self.backend, tiles)?, tiles, done: 0 })
    }

    /// Sends the next `tiles`, `[n, 3, 336, 336]`, through the vision tower and the projector. Returns the tower's features,
    /// `[n * 577, hidden_size]`, class row first in each tile.
    ///
    /// # Errors
    /// [`Error::Stopped`], or an error of the device.
    pub fn vision_tower(
        &self,
        job: &mut ImageJob<B>,
        tiles: &[f32],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<B::Tensor> {
        let features = self.vision_tower.forward(&self.backend, tiles, observe)?;
        self.projector.project_tiles(&self.backend, &features, job.done, &mut job.rows)?;
        job.done += tiles.len() / TILE_VALUES;
        Ok(features)
    }

    /// Returns the finished image's rows in the prompt, `[num_img_tokens, hidden_size]`. `tile_of` maps the global view,
    /// then each tile in row-major order, to the distinct tiles in the order in which they went through the tower.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If tiles remain.
    pub fn finish_image(&self, job: ImageJob<B>, grid: &HdGrid, tile_of: &[usize]) -> Result<B::Tensor> {
        assert_eq!(job.done, job.tiles, "every tile goes through the vision tower first");
        self.projector.embed(&self.backend, &job.rows, grid, tile_of)
    }

    /// Returns an image's rows in the prompt, `[num_img_tokens, hidden_size]`, in a single call.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn embed_image(&self, image: &ImageInputs) -> Result<B::Tensor> {
        let mut job = self.begin_image(image.distinct_tiles())?;
        for tiles in image.distinct.chunks(self.backend.sizes().tiles_at_once * TILE_VALUES) {
            self.vision_tower(&mut job, tiles, &mut |_| ControlFlow::Continue(()))?;
        }
        self.finish_image(job, &image.grid, &image.tile_of)
    }

    /// Runs `batch` through the decoder and stores the logits that its chunks ask for, `[n, vocab_size]`, in `logits`. A
    /// step of up to [`SEQUENCES_ON_STACK`] sequences allocates nothing if a similar step has run before with the same
    /// `cache` and `logits`.
    ///
    /// # Errors
    /// [`Error::Stopped`], after which the chunks' keys and values are unspecified; or an error of the device.
    pub fn forward(
        &self,
        batch: &[Chunk<'_, B::Tensor>],
        cache: &mut Cache<B>,
        logits: &mut Vec<f32>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let outputs = Outputs { logits, hidden: None };
        self.decoder.forward(&self.backend, batch, cache, outputs, observe)
    }

    /// Like [`forward`](Self::forward), but also records the values between the layers: the embeddings, the output of
    /// every layer, and that of the final norm, each `[rows, hidden_size]`.
    ///
    /// # Errors
    /// As for `forward`.
    pub fn forward_recording(
        &self,
        batch: &[Chunk<'_, B::Tensor>],
        cache: &mut Cache<B>,
        logits: &mut Vec<f32>,
        hidden_states: &mut HiddenStates,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let outputs = Outputs { logits, hidden: Some(hidden_states) };
        self.decoder.forward(&self.backend, batch, cache, outputs, observe)
    }

    /// Returns a KV cache of `blocks` blocks, with the buffers of a step.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn cache(&self, blocks: usize) -> Result<Cache<B>> {
        Ok(Cache {
            pool: self.backend.kv_pool(self.kv_layout(), blocks)?,
            workspace: Workspace::new(&self.backend)?,
        })
    }

    /// Allocates the memory of the cache's first `blocks` blocks.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn grow_cache(&self, cache: &mut Cache<B>, blocks: usize) -> Result<()> {
        Ok(self.backend.kv_grow(&mut cache.pool, blocks)?)
    }

    /// Fills the cache's first `blocks` blocks with made-up keys and values of all layers, as if a sequence of that length had
    /// been computed. A benchmark of steps at some depth then need not wait for the prompt.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn fill_cache(&self, cache: &mut Cache<B>, blocks: usize) -> Result<()> {
        const BLOCKS_AT_ONCE: usize = 8;
        self.grow_cache(cache, blocks)?;
        let (rows, width) = (BLOCKS_AT_ONCE * KV_BLOCK_TOKENS, self.config.qkv_size());
        let mut qkv = self.backend.tensor(rows, width)?;
        // between -1 and 1, and no two rows the same
        let value = |i: usize| (i * 7919 % 10_007) as f32 / 5003.0 - 1.0;
        self.backend.upload(&(0..rows * width).map(value).collect::<Vec<f32>>(), 0, &mut qkv);
        let table: Vec<u32> = (0..blocks as u32).collect();
        let (mut batch, tokens) = (self.backend.batch(), blocks * KV_BLOCK_TOKENS);
        for past in (0..tokens).step_by(rows) {
            let count = rows.min(tokens - past);
            self.backend.reshape(&mut qkv, count, width)?;
            self.backend.set_batch(&[Span { rows: 0..count, past, blocks: &table }], &mut batch)?;
            for layer in 0..self.config.num_hidden_layers {
                self.backend.copy_kv(&qkv, layer, &batch, &mut cache.pool);
            }
        }
        Ok(())
    }
}

/// Storage of keys and values, and the buffers of a step. The engine decides who may use which block.
pub struct Cache<B: Backend> {
    pool: B::KvPool,
    workspace: Workspace<B>,
}

impl<B: Backend> fmt::Debug for Cache<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}
