//! The names of the checkpoint's tensors, as the hub's files spell them, `pre_layrnorm` included. The table checks files by
//! these names and the model text loads its parts by them, so the two cannot differ.
//!
//! A layer's name is without `.weight` and `.bias`: [`weight`] and [`bias`] add these.

/// The table of the text tokens' embeddings, `[vocab_size, hidden_size]`.
pub const EMBED_TOKENS: &str = "model.embed_tokens";
/// The norm after the last decoder layer, from which logits are computed, `[hidden_size]`.
pub const NORM: &str = "model.norm";
/// The matrix that computes logits from the last rows, `[vocab_size, hidden_size]`.
pub const LM_HEAD: &str = "lm_head";

/// Expands to the full name of a part of the vision tower.
macro_rules! vision_model {
    ($part:literal) => {
        concat!("model.vision_embed_tokens.img_processor.vision_model.", $part)
    };
}

/// The row of the tower's class embedding, a separate tensor without `.weight`.
pub const CLASS_EMBEDDING: &str = vision_model!("embeddings.class_embedding");
/// The convolution that turns patches into rows, `[hidden_size, 3, patch_size, patch_size]`.
pub const PATCH_EMBEDDING: &str = vision_model!("embeddings.patch_embedding");
/// The embedding that is added to each row of a tile by its position.
pub const POSITION_EMBEDDING: &str = vision_model!("embeddings.position_embedding");
/// The norm before the first encoder layer, with the hub's spelling.
pub const PRE_LAYRNORM: &str = vision_model!("pre_layrnorm");
/// The norm after the last encoder layer, which the model text does not read.
pub const POST_LAYERNORM: &str = vision_model!("post_layernorm");

/// The separator between an image and its global view, a separate tensor without `.weight`.
pub const GLB_GN: &str = "model.vision_embed_tokens.glb_GN";
/// The separator that ends each row of patches, a separate tensor without `.weight`.
pub const SUB_GN: &str = "model.vision_embed_tokens.sub_GN";
/// The projector's two matrices, before and after its GELU.
pub const IMG_PROJECTION: [&str; 2] =
    ["model.vision_embed_tokens.img_projection.0", "model.vision_embed_tokens.img_projection.2"];

/// Returns the full name of the matrix, or of the norm's factors, of the layer `name`.
#[must_use]
pub fn weight(name: &str) -> String {
    format!("{name}.weight")
}

/// Returns the full name of the bias of the layer `name`.
#[must_use]
pub fn bias(name: &str) -> String {
    format!("{name}.bias")
}

/// The parts of one decoder layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderLayerNames {
    /// The norm before the attention.
    pub input_layernorm: String,
    /// The matrix that computes queries, keys and values at once.
    pub qkv_proj: String,
    /// The matrix after the attention.
    pub o_proj: String,
    /// The norm before the feed-forward.
    pub post_attention_layernorm: String,
    /// The feed-forward's first matrix: gate and up at once.
    pub gate_up_proj: String,
    /// The feed-forward's second matrix.
    pub down_proj: String,
}

/// Returns the names of decoder layer `index`, counted from 0.
#[must_use]
pub fn decoder_layer(index: usize) -> DecoderLayerNames {
    let name = |part: &str| format!("model.layers.{index}.{part}");
    DecoderLayerNames {
        input_layernorm: name("input_layernorm"),
        qkv_proj: name("self_attn.qkv_proj"),
        o_proj: name("self_attn.o_proj"),
        post_attention_layernorm: name("post_attention_layernorm"),
        gate_up_proj: name("mlp.gate_up_proj"),
        down_proj: name("mlp.down_proj"),
    }
}

/// The parts of one encoder layer of the vision tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderLayerNames {
    /// The norm before the attention.
    pub layer_norm1: String,
    /// The matrix that computes queries.
    pub q_proj: String,
    /// The matrix that computes keys.
    pub k_proj: String,
    /// The matrix that computes values.
    pub v_proj: String,
    /// The matrix after the attention.
    pub out_proj: String,
    /// The norm before the feed-forward.
    pub layer_norm2: String,
    /// The feed-forward's first matrix.
    pub fc1: String,
    /// The feed-forward's second matrix.
    pub fc2: String,
}

/// Returns the names of the vision tower's encoder layer `index`, counted from 0.
#[must_use]
pub fn encoder_layer(index: usize) -> EncoderLayerNames {
    let name = |part: &str| format!(vision_model!("encoder.layers.{}.{}"), index, part);
    EncoderLayerNames {
        layer_norm1: name("layer_norm1"),
        q_proj: name("self_attn.q_proj"),
        k_proj: name("self_attn.k_proj"),
        v_proj: name("self_attn.v_proj"),
        out_proj: name("self_attn.out_proj"),
        layer_norm2: name("layer_norm2"),
        fc1: name("mlp.fc1"),
        fc2: name("mlp.fc2"),
    }
}
