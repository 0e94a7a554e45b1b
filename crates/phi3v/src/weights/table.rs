//! The single list of the checkpoint's tensors: name, shape, allowed formats, and whether the model text reads it.
//!
//! Loader, checker and quantizer all use this list. Shapes are those of the hub's checkpoint, names those of [`names`]:
//! 592 tensors for the real model.

use super::names::{self, DecoderLayerNames, EncoderLayerNames, bias, weight};
use crate::config::{ModelConfig, VisionConfig};

/// Side of the square of patches that the HD merge joins into one row: 2 x 2 patches.
const MERGE: usize = 2;

/// The purpose of a tensor, which decides its allowed formats: any dense one, and those of [`Quant::format`].
///
/// [`Quant::format`]: super::quantized::Quant::format
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A decoder layer's matrix: the bulk of the weights, quantized down to 4 bits.
    Decoder,
    /// A matrix that is never stored in less than 8 bits: lm_head, vision tower and projector.
    Sensitive,
    /// Norms, biases, embeddings and separators: always dense.
    Dense,
}

/// One tensor of the checkpoint: its name, its shape, and its purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its full name, such as `model.layers.0.self_attn.qkv_proj.weight`.
    pub name: String,
    /// Its shape. The first number of a matrix is its number of output features.
    pub shape: Vec<usize>,
    /// Its purpose.
    pub role: Role,
    /// Whether the model text reads it. The checkpoint also holds CLIP's last encoder layer and `post_layernorm`,
    /// which the feature `hidden_states[-2]` does not need: a file may leave them out.
    pub used: bool,
}

impl TensorSpec {
    /// Returns the number of values of the tensor: the product of its shape.
    #[must_use]
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns rows and columns of a matrix. A convolution's `[n, channels, height, width]` counts as
    /// `[n, channels * height * width]`.
    #[must_use]
    pub fn matrix(&self) -> (usize, usize) {
        let n = self.shape.first().copied().unwrap_or(1);
        (n, self.shape.iter().skip(1).product())
    }
}

/// Returns the tensors of the model that `config` describes.
#[must_use]
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    let hidden = config.hidden_size;
    list.add(weight(names::EMBED_TOKENS), &[config.vocab_size, hidden], Role::Dense);
    for layer in 0..config.num_hidden_layers {
        list.decoder_layer(&names::decoder_layer(layer), config);
    }
    list.add(weight(names::NORM), &[hidden], Role::Dense);
    list.add(weight(names::LM_HEAD), &[config.vocab_size, hidden], Role::Sensitive);
    list.vision_tower(&config.img_processor);
    list.projector(config);
    list.0
}

/// Returns whether a tensor that is not in the list is known to be redundant: buffers that some exporters write, and the
/// vision embedding's second name for `model.embed_tokens`.
#[must_use]
pub fn is_ignored(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || name.ends_with(".embeddings.position_ids")
        || name == "model.vision_embed_tokens.wte.weight"
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], role: Role) {
        self.0.push(TensorSpec { name, shape: shape.to_vec(), role, used: true });
    }

    /// Adds a matrix `[n, k]` with its bias `[n]`.
    fn add_biased(&mut self, name: &str, n: usize, k: usize) {
        self.add(weight(name), &[n, k], Role::Sensitive);
        self.add(bias(name), &[n], Role::Dense);
    }

    fn add_layer_norm(&mut self, name: &str, size: usize) {
        self.add(weight(name), &[size], Role::Dense);
        self.add(bias(name), &[size], Role::Dense);
    }

    fn decoder_layer(&mut self, names: &DecoderLayerNames, config: &ModelConfig) {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        self.add(weight(&names.input_layernorm), &[hidden], Role::Dense);
        self.add(weight(&names.qkv_proj), &[config.qkv_size(), hidden], Role::Decoder);
        self.add(weight(&names.o_proj), &[hidden, hidden], Role::Decoder);
        self.add(weight(&names.post_attention_layernorm), &[hidden], Role::Dense);
        self.add(weight(&names.gate_up_proj), &[2 * ffn, hidden], Role::Decoder);
        self.add(weight(&names.down_proj), &[hidden, ffn], Role::Decoder);
    }

    fn vision_tower(&mut self, config: &VisionConfig) {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        self.add(names::CLASS_EMBEDDING.to_owned(), &[hidden], Role::Dense);
        self.add(weight(names::PATCH_EMBEDDING), &[hidden, 3, patch, patch], Role::Sensitive);
        self.add(weight(names::POSITION_EMBEDDING), &[config.num_positions(), hidden], Role::Dense);
        self.add_layer_norm(names::PRE_LAYRNORM, hidden);
        for layer in 0..config.num_hidden_layers {
            let first = self.0.len();
            self.encoder_layer(&names::encoder_layer(layer), config);
            self.mark_used(first, layer < config.num_layers_used());
        }
        let first = self.0.len();
        self.add_layer_norm(names::POST_LAYERNORM, hidden);
        self.mark_used(first, false);
    }

    fn encoder_layer(&mut self, names: &EncoderLayerNames, config: &VisionConfig) {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        self.add_layer_norm(&names.layer_norm1, hidden);
        for name in [&names.q_proj, &names.k_proj, &names.v_proj, &names.out_proj] {
            self.add_biased(name, hidden, hidden);
        }
        self.add_layer_norm(&names.layer_norm2, hidden);
        self.add_biased(&names.fc1, ffn, hidden);
        self.add_biased(&names.fc2, hidden, ffn);
    }

    fn projector(&mut self, config: &ModelConfig) {
        let merged = MERGE * MERGE * config.img_processor.hidden_size;
        self.add(names::GLB_GN.to_owned(), &[1, 1, merged], Role::Dense);
        self.add(names::SUB_GN.to_owned(), &[1, 1, 1, merged], Role::Dense);
        let [first, second] = names::IMG_PROJECTION;
        self.add_biased(first, config.hidden_size, merged);
        self.add_biased(second, config.hidden_size, config.hidden_size);
    }

    fn mark_used(&mut self, first: usize, used: bool) {
        for spec in &mut self.0[first..] {
            spec.used = used;
        }
    }
}
