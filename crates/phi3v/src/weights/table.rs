//! The one list of the checkpoint's tensors: name, shape, what may hold it, and whether the model text reads it.
//!
//! Loader, checker and quantizer all go by this list. Names and shapes are those of the hub's checkpoint, its
//! spelling of `pre_layrnorm` included: 592 tensors for the real model.

use crate::config::{ModelConfig, VisionConfig};
use phi3v_kernels::Format;

/// Prefix of the vision tower's tensors.
const VISION: &str = "model.vision_embed_tokens.img_processor.vision_model";

/// Side of the square of patches that the HD merge joins into one row: 2 x 2 patches.
const MERGE: usize = 2;

const DENSE: &[Format] = &[Format::F32, Format::F16, Format::Bf16];
const DENSE_OR_Q8: &[Format] = &[Format::F32, Format::F16, Format::Bf16, Format::Q8];
const DENSE_OR_QUANTIZED: &[Format] = &[Format::F32, Format::F16, Format::Bf16, Format::Q8, Format::Q4];

/// What a tensor is for, and with it which formats may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A decoder layer's matrix: the bulk of the weights, quantized down to 4 bits.
    Decoder,
    /// A matrix that is never held in less than 8 bits: lm_head, vision tower and projector.
    Sensitive,
    /// Norms, biases, embeddings and separators: always dense.
    Dense,
}

impl Role {
    /// The formats that may hold such a tensor.
    #[must_use]
    pub fn formats(self) -> &'static [Format] {
        match self {
            Self::Decoder => DENSE_OR_QUANTIZED,
            Self::Sensitive => DENSE_OR_Q8,
            Self::Dense => DENSE,
        }
    }
}

/// One tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its full name, such as `model.layers.0.self_attn.qkv_proj.weight`.
    pub name: String,
    /// Its shape; the first number counts output features of a matrix.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// Whether the model text reads it. The checkpoint also holds CLIP's last encoder layer and `post_layernorm`,
    /// which the feature `hidden_states[-2]` does not need: a file may leave them out.
    pub used: bool,
}

impl TensorSpec {
    /// Number of values.
    #[must_use]
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows and columns of a matrix; a convolution's `[n, channels, height, width]` is `[n, channels * height * width]`.
    #[must_use]
    pub fn matrix(&self) -> (usize, usize) {
        let n = self.shape.first().copied().unwrap_or(1);
        (n, self.shape.iter().skip(1).product())
    }
}

/// The tensors of the model that `config` describes.
#[must_use]
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    let hidden = config.hidden_size;
    list.add("model.embed_tokens.weight", &[config.vocab_size, hidden], Role::Dense);
    for layer in 0..config.num_hidden_layers {
        list.decoder_layer(&format!("model.layers.{layer}"), config);
    }
    list.add("model.norm.weight", &[hidden], Role::Dense);
    list.add("lm_head.weight", &[config.vocab_size, hidden], Role::Sensitive);
    list.vision_tower(&config.img_processor);
    list.projector(config);
    list.0
}

/// Whether a tensor outside the list is known to hold nothing of its own: buffers that some exporters write, and the
/// vision embedding's second name for `model.embed_tokens`.
#[must_use]
pub fn is_ignored(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || name.ends_with(".embeddings.position_ids")
        || name == "model.vision_embed_tokens.wte.weight"
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: &str, shape: &[usize], role: Role) {
        self.0.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec(), role, used: true });
    }

    /// A matrix `[n, k]` with its bias `[n]`.
    fn add_biased(&mut self, name: &str, n: usize, k: usize) {
        self.add(&format!("{name}.weight"), &[n, k], Role::Sensitive);
        self.add(&format!("{name}.bias"), &[n], Role::Dense);
    }

    fn add_layer_norm(&mut self, name: &str, size: usize) {
        self.add(&format!("{name}.weight"), &[size], Role::Dense);
        self.add(&format!("{name}.bias"), &[size], Role::Dense);
    }

    fn decoder_layer(&mut self, layer: &str, config: &ModelConfig) {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        self.add(&format!("{layer}.input_layernorm.weight"), &[hidden], Role::Dense);
        self.add(&format!("{layer}.self_attn.qkv_proj.weight"), &[config.qkv_size(), hidden], Role::Decoder);
        self.add(&format!("{layer}.self_attn.o_proj.weight"), &[hidden, hidden], Role::Decoder);
        self.add(&format!("{layer}.post_attention_layernorm.weight"), &[hidden], Role::Dense);
        self.add(&format!("{layer}.mlp.gate_up_proj.weight"), &[2 * ffn, hidden], Role::Decoder);
        self.add(&format!("{layer}.mlp.down_proj.weight"), &[hidden, ffn], Role::Decoder);
    }

    fn vision_tower(&mut self, config: &VisionConfig) {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        self.add(&format!("{VISION}.embeddings.class_embedding"), &[hidden], Role::Dense);
        let conv = [hidden, 3, patch, patch];
        self.add(&format!("{VISION}.embeddings.patch_embedding.weight"), &conv, Role::Sensitive);
        let positions = [config.num_positions(), hidden];
        self.add(&format!("{VISION}.embeddings.position_embedding.weight"), &positions, Role::Dense);
        self.add_layer_norm(&format!("{VISION}.pre_layrnorm"), hidden);
        for layer in 0..config.num_hidden_layers {
            let first = self.0.len();
            self.encoder_layer(&format!("{VISION}.encoder.layers.{layer}"), config);
            self.mark_used(first, layer < config.num_layers_used());
        }
        let first = self.0.len();
        self.add_layer_norm(&format!("{VISION}.post_layernorm"), hidden);
        self.mark_used(first, false);
    }

    fn encoder_layer(&mut self, layer: &str, config: &VisionConfig) {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        self.add_layer_norm(&format!("{layer}.layer_norm1"), hidden);
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            self.add_biased(&format!("{layer}.self_attn.{name}"), hidden, hidden);
        }
        self.add_layer_norm(&format!("{layer}.layer_norm2"), hidden);
        self.add_biased(&format!("{layer}.mlp.fc1"), ffn, hidden);
        self.add_biased(&format!("{layer}.mlp.fc2"), hidden, ffn);
    }

    fn projector(&mut self, config: &ModelConfig) {
        let merged = MERGE * MERGE * config.img_processor.hidden_size;
        self.add("model.vision_embed_tokens.glb_GN", &[1, 1, merged], Role::Dense);
        self.add("model.vision_embed_tokens.sub_GN", &[1, 1, 1, merged], Role::Dense);
        self.add_biased("model.vision_embed_tokens.img_projection.0", config.hidden_size, merged);
        self.add_biased("model.vision_embed_tokens.img_projection.2", config.hidden_size, config.hidden_size);
    }

    fn mark_used(&mut self, first: usize, used: bool) {
        for spec in &mut self.0[first..] {
            spec.used = used;
        }
    }
}
