//! CLIP ViT-L/14-336 (Radford et al. 2021; `CLIPVisionModel`): from tiles to features of 24 x 24 patches.
//!
//! The feature is `hidden_states[-2]`: the output of the last encoder layer but one, without `post_layernorm`.
//! This module does not know how tiles make an image.

use super::linear::Loader;
use super::{Progress, check};
use crate::Result;
use crate::config::VisionConfig;
use crate::weights::names;
use phi3v_kernels::{Backend, Epilogue, FeedForward, FullAttention, Heads, Norm, Precision};
use std::ops::ControlFlow;

/// One encoder layer: `x += out_proj(attention(layer_norm1(x)))`, then `x += fc2(quick_gelu(fc1(layer_norm2(x))))`.
struct EncoderLayer<B: Backend> {
    layer_norm1: (B::Vector, B::Vector),
    q_proj: B::Linear,
    k_proj: B::Linear,
    v_proj: B::Linear,
    out_proj: B::Linear,
    layer_norm2: (B::Vector, B::Vector),
    fc1: B::Linear,
    fc2: B::Linear,
}

impl<B: Backend> EncoderLayer<B> {
    fn load(loader: &Loader<'_, B>, index: usize) -> Result<Self> {
        let names = names::encoder_layer(index);
        Ok(Self {
            layer_norm1: loader.layer_norm(&names.layer_norm1)?,
            q_proj: loader.linear(&names.q_proj)?,
            k_proj: loader.linear(&names.k_proj)?,
            v_proj: loader.linear(&names.v_proj)?,
            out_proj: loader.linear(&names.out_proj)?,
            layer_norm2: loader.layer_norm(&names.layer_norm2)?,
            fc1: loader.linear(&names.fc1)?,
            fc2: loader.linear(&names.fc2)?,
        })
    }
}

/// The tower's weights.
pub(super) struct VisionTower<B: Backend> {
    config: VisionConfig,
    precision: Precision,
    class_embedding: B::Tensor,    // [1, hidden_size]
    patch_embedding: B::Linear,    // [hidden_size, 3 * patch_size * patch_size]
    position_embedding: B::Tensor, // [1 + patches, hidden_size]
    pre_layrnorm: (B::Vector, B::Vector),
    layers: Vec<EncoderLayer<B>>,
}

/// Buffers of one run; `rows` is tiles x (1 + patches).
struct Buffers<T> {
    x: T,         // [rows, hidden_size]
    normed: T,    // [rows, hidden_size]
    qkv: [T; 3],  // each [rows, hidden_size]
    attention: T, // [rows, hidden_size]
    ffn: T,       // [rows, intermediate_size]
}

/// Returns the maximum bytes of the buffers of one run over `tiles` tiles.
pub(super) fn run_bytes(config: &VisionConfig, tiles: usize) -> u64 {
    let VisionConfig { hidden_size, intermediate_size, .. } = *config;
    // x, its norm, q, k, v and attention; ffn
    let per_row = 6 * hidden_size + intermediate_size;
    (tiles as u64).saturating_mul((config.num_positions() * per_row * size_of::<f32>()) as u64)
}

impl<B: Backend> VisionTower<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &VisionConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            config: config.clone(),
            precision: loader.precision,
            class_embedding: loader.rows(names::CLASS_EMBEDDING, hidden)?,
            patch_embedding: loader.linear(names::PATCH_EMBEDDING)?,
            position_embedding: loader.rows(&names::weight(names::POSITION_EMBEDDING), hidden)?,
            pre_layrnorm: loader.layer_norm(names::PRE_LAYRNORM)?,
            // the last layer's output would be hidden_states[-1], which is not used
            layers: (0..config.num_layers_used())
                .map(|index| EncoderLayer::load(loader, index))
                .collect::<Result<_>>()?,
        })
    }

    /// Returns the features of `tiles`, `[n, 3, image_size, image_size]`: `[n * (1 + patches), hidden_size]`, class row first
    /// in each tile. `observe` is called before every layer and can stop the run.
    pub(super) fn forward(
        &self,
        backend: &B,
        tiles: &[f32],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<B::Tensor> {
        let mut buffers = self.embed(backend, tiles)?;
        let count = self.layers.len();
        for (index, layer) in self.layers.iter().enumerate() {
            check(observe(Progress::VisionLayer { done: index, layers: count }))?;
            self.encoder_layer(backend, layer, &mut buffers)?;
        }
        Ok(buffers.x)
    }

    /// Applies patch convolution, class embedding, position embedding and `pre_layrnorm`.
    fn embed(&self, backend: &B, tiles: &[f32]) -> Result<Buffers<B::Tensor>> {
        let VisionConfig { hidden_size: hidden, image_size, patch_size, .. } = self.config;
        let tile_values = 3 * image_size * image_size;
        let (count, patches) = (tiles.len() / tile_values, (image_size / patch_size).pow(2));
        let patch_values = 3 * patch_size * patch_size;

        let mut values = Vec::with_capacity(tiles.len()); // [tiles * patches, 3 * patch_size * patch_size]
        for tile in tiles.chunks_exact(tile_values) {
            push_patches(tile, image_size, patch_size, &mut values);
        }
        let mut columns = backend.tensor(count * patches, patch_values)?;
        backend.upload(&values, 0, &mut columns);
        let rows = count * (1 + patches);
        // allocated at its final size
        let mut normed = backend.tensor(rows, hidden)?;
        backend.reshape(&mut normed, count * patches, hidden)?;
        backend.linear(&columns, &self.patch_embedding, Epilogue::Store, &mut normed);

        let mut embeddings = backend.tensor(rows, hidden)?;
        for tile in 0..count {
            let first = (tile * patches) as u32;
            let patch_rows: Vec<u32> = (first..first + patches as u32).collect();
            backend.gather(&self.class_embedding, &[0], tile * (1 + patches), &mut embeddings);
            backend.gather(&normed, &patch_rows, tile * (1 + patches) + 1, &mut embeddings);
        }
        backend.add(&self.position_embedding, &mut embeddings);
        let mut x = backend.tensor(rows, hidden)?;
        let (weight, bias) = &self.pre_layrnorm;
        backend.norm(&embeddings, Norm::Layer((weight, bias), self.config.layer_norm_eps), &mut x);

        backend.reshape(&mut normed, rows, hidden)?;
        let qkv =
            [backend.tensor(rows, hidden)?, backend.tensor(rows, hidden)?, backend.tensor(rows, hidden)?];
        // a backend that fuses feed-forward blocks never needs `ffn`
        Ok(Buffers { x, normed, qkv, attention: embeddings, ffn: backend.tensor(0, 1)? })
    }

    fn encoder_layer(
        &self,
        backend: &B,
        layer: &EncoderLayer<B>,
        Buffers { x, normed, qkv, attention, ffn }: &mut Buffers<B::Tensor>,
    ) -> Result<()> {
        let VisionConfig { hidden_size, num_attention_heads: heads, layer_norm_eps: eps, .. } = self.config;
        let (weight, bias) = &layer.layer_norm1;
        let norm = Norm::Layer((weight, bias), eps);
        let [q, k, v] = qkv;
        let products = &mut [(&layer.q_proj, &mut *q), (&layer.k_proj, &mut *k), (&layer.v_proj, &mut *v)];
        backend.normed_linear(x, norm, products, normed)?;
        let shape = FullAttention {
            group: 1 + (self.config.image_size / self.config.patch_size).pow(2),
            heads: Heads { query: heads, key_value: heads, dim: hidden_size / heads },
            precision: self.precision,
        };
        backend.attention_full([q, k, v], shape, attention);
        backend.linear(attention, &layer.out_proj, Epilogue::Add, x);

        let (weight, bias) = &layer.layer_norm2;
        let block = FeedForward {
            first: &layer.fc1,
            epilogue: Epilogue::QuickGelu,
            hidden: self.config.intermediate_size,
            second: &layer.fc2,
        };
        Ok(backend.feed_forward(x, Norm::Layer((weight, bias), eps), block, [normed, ffn])?)
    }
}

/// Appends the patches of `tile`, `[3, image_size, image_size]`, row by row. Each is flattened like the convolution's
/// weight: `[3, patch_size, patch_size]`.
fn push_patches(tile: &[f32], image_size: usize, patch_size: usize, values: &mut Vec<f32>) {
    for patch_y in (0..image_size).step_by(patch_size) {
        for patch_x in (0..image_size).step_by(patch_size) {
            for channel in tile.chunks_exact(image_size * image_size) {
                for row in channel.chunks_exact(image_size).skip(patch_y).take(patch_size) {
                    values.extend_from_slice(&row[patch_x..patch_x + patch_size]);
                }
            }
        }
    }
}
