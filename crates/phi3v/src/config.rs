//! config.json, generation_config.json, preprocessor_config.json.
//!
//! Fields have the names of the files' keys. The rule for every key: a key that changes the result is honoured or
//! refused by name; a key without effect on inference is ignored. All sizes are bounded here, once, so that products of
//! sizes cannot overflow later and a hostile file cannot request much memory.

mod keys;

use crate::image::{ImageParams, NUM_CROPS_MAX};
use keys::Keys;
use serde_json::{Value, json};

/// Why a configuration file was refused: it is unreadable, or describes a model that phi3v does not support.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is longer than any real one.
    #[error("{file} has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Name of the file.
        file: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The greatest length that is read.
        limit: usize,
    },
    /// The file is not JSON.
    #[error("{file} is not valid JSON: {source}")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// The file contains JSON that is not an object.
    #[error("{file} is not a JSON object")]
    NotAnObject {
        /// Name of the file.
        file: &'static str,
    },
    /// A key without a default is absent.
    #[error("{file} has no {key}")]
    Missing {
        /// Name of the file.
        file: &'static str,
        /// Path of the key, such as `rope_scaling.short_factor`.
        key: String,
    },
    /// A value has the wrong type or is out of range.
    #[error("{key} in {file} is {value}, expected {expected}")]
    Value {
        /// Name of the file.
        file: &'static str,
        /// Path of the key.
        key: String,
        /// The value in the file.
        value: String,
        /// The expected value.
        expected: String,
    },
    /// A value is meaningful, but describes a model that phi3v does not run.
    #[error("{key} in {file} is {value}, and only {supported} is supported")]
    Unsupported {
        /// Name of the file.
        file: &'static str,
        /// Path of the key.
        key: String,
        /// The value in the file.
        value: String,
        /// The supported value or values.
        supported: String,
    },
    /// The checkpoint was quantized by another program.
    #[error("the checkpoint is quantized in another program's format ({key} in {file})")]
    Quantized {
        /// Name of the file.
        file: &'static str,
        /// The key that shows this.
        key: &'static str,
    },
}

impl ConfigError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unsupported { .. } => {
                "phi3v runs Phi-3-vision and Phi-3.5-vision checkpoints and models of the same architecture"
            }
            Self::Quantized { .. } => "use the original checkpoint",
            Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::NotAnObject { .. }
            | Self::Missing { .. }
            | Self::Value { .. } => {
                "the file may be damaged or incomplete; fetch it again, or compare it with the hub's"
            }
        };
        Some(hint.to_owned())
    }
}

const CONFIG: &str = "config.json";

/// Largest `hidden_size`; the real model has 3,072.
const HIDDEN_SIZE_MAX: usize = 1 << 14;
/// Largest `intermediate_size`; the real model has 8,192.
const INTERMEDIATE_SIZE_MAX: usize = 1 << 16;
/// Maximum number of layers; the real model has 32 and 24.
const LAYERS_MAX: usize = 256;
/// Maximum number of attention heads; the real model has 32.
const HEADS_MAX: usize = 256;
/// Largest vocabulary; the real model has 32,064.
const VOCAB_SIZE_MAX: usize = 1 << 18;
/// Longest context; the real model has 131,072.
const POSITIONS_MAX: usize = 1 << 22;

/// Default of `Phi3VConfig.__init__` in the reference for `original_max_position_embeddings`.
const ORIGINAL_POSITIONS: usize = 4096;

/// Keys by which other programs mark a checkpoint that they have quantized.
const QUANTIZATION_KEYS: [&str; 3] = ["quantization_config", "quantization", "compression_config"];

/// The decoder's and the vision tower's shape, from config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Number of values in each row.
    pub hidden_size: usize,
    /// Number of values between gate/up and down projections.
    pub intermediate_size: usize,
    /// Number of the decoder's layers.
    pub num_hidden_layers: usize,
    /// Number of query heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Number of key/value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Rows of the embedding table and of lm_head.
    pub vocab_size: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence the model was trained for.
    pub max_position_embeddings: usize,
    /// Longest sequence that uses the short factors.
    pub original_max_position_embeddings: usize,
    /// LongRoPE factors; `None` is plain RoPE.
    pub rope_scaling: Option<RopeScaling>,
    /// How many tokens back the attention reaches. Not implemented as a mask: it caps [`Self::context_max`], and a shorter
    /// sequence is not masked by it.
    pub sliding_window: Option<usize>,
    /// Ids that end generation, from config.json; generation_config.json and the tokenizer have more.
    pub eos_token_id: Vec<u32>,
    /// Shape of the vision tower.
    pub img_processor: VisionConfig,
}

/// LongRoPE (Ding et al. 2024): each rotary frequency is divided by its own factor.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeScaling {
    /// `[head_dim / 2]`, for sequences of up to `original_max_position_embeddings` tokens.
    pub short_factor: Vec<f64>,
    /// `[head_dim / 2]`, for longer sequences.
    pub long_factor: Vec<f64>,
}

/// The CLIP vision tower (Radford et al. 2021). Its feature is `hidden_states[-2]`, so its last layer is not run.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Number of values in each patch's row.
    pub hidden_size: usize,
    /// Encoder layers in the checkpoint; see [`Self::num_layers_used`].
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Number of values between fc1 and fc2.
    pub intermediate_size: usize,
    /// Side of a tile in pixels: 336.
    pub image_size: usize,
    /// Side of a patch in pixels: 14.
    pub patch_size: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
}

impl ModelConfig {
    /// Returns the shapes of Phi-3.5-vision-instruct, without the parts of its configuration that affect neither speed nor
    /// memory. They allow planning before anything is downloaded.
    ///
    /// # Panics
    /// Never: the text is part of the program.
    #[must_use]
    pub fn phi_3_5_vision() -> Self {
        Self::from_json(include_bytes!("config/phi-3.5-vision.json"))
            .expect("the built-in configuration is valid")
    }

    /// Reads and checks config.json.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, and, naming the key, for every value that the model text does not
    /// support.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        let value = keys::parse(CONFIG, bytes)?;
        let keys = Keys::root(CONFIG, &value)?;
        check_architecture(&keys)?;
        let num_attention_heads = keys.integer("num_attention_heads", None, 1..=HEADS_MAX)?;
        let max_position_embeddings = keys.integer("max_position_embeddings", None, 2..=POSITIONS_MAX)?;
        let window = max_position_embeddings;
        let mut config = Self {
            hidden_size: keys.integer("hidden_size", None, 1..=HIDDEN_SIZE_MAX)?,
            intermediate_size: keys.integer("intermediate_size", None, 1..=INTERMEDIATE_SIZE_MAX)?,
            num_hidden_layers: keys.integer("num_hidden_layers", None, 1..=LAYERS_MAX)?,
            num_attention_heads,
            num_key_value_heads: keys.integer(
                "num_key_value_heads",
                Some(num_attention_heads),
                1..=HEADS_MAX,
            )?,
            vocab_size: keys.integer("vocab_size", None, 1..=VOCAB_SIZE_MAX)?,
            rms_norm_eps: keys.number("rms_norm_eps", Some(1e-5), 1e-12..=1.0)? as f32,
            rope_theta: keys.number("rope_theta", Some(10_000.0), 1.0..=1e12)?,
            max_position_embeddings,
            original_max_position_embeddings: keys.integer(
                "original_max_position_embeddings",
                Some(ORIGINAL_POSITIONS),
                2..=POSITIONS_MAX,
            )?,
            rope_scaling: None,
            sliding_window: keys
                .has("sliding_window")
                .then(|| keys.integer("sliding_window", Some(window), 2..=POSITIONS_MAX))
                .transpose()?,
            eos_token_id: keys.token_ids("eos_token_id")?,
            img_processor: VisionConfig::read(&keys)?,
        };
        config.check_heads(&keys)?;
        config.rope_scaling = RopeScaling::read(&keys, config.head_dim() / 2)?;
        Ok(config)
    }

    fn check_heads(&self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        // RoPE rotates pairs (i, i + head_dim / 2), so head_dim is even
        if !self.hidden_size.is_multiple_of(2 * self.num_attention_heads) {
            let expected = format!("an even multiple of the {} attention heads", self.num_attention_heads);
            return Err(keys.invalid("hidden_size", expected));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of the {} attention heads", self.num_attention_heads);
            return Err(keys.invalid("num_key_value_heads", expected));
        }
        keys.must_be("head_dim", &json!(self.head_dim()), &json!(self.head_dim()))
    }

    /// Returns the values per attention head: `hidden_size` divided by the number of heads.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Returns the rows of `qkv_proj`: all query heads, then all key heads, then all value heads.
    #[must_use]
    pub fn qkv_size(&self) -> usize {
        (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim()
    }

    /// Returns the longest sequence that may be run: `max_position_embeddings`, or `sliding_window` if that is shorter.
    #[must_use]
    pub fn context_max(&self) -> usize {
        self.sliding_window.unwrap_or(usize::MAX).min(self.max_position_embeddings)
    }

    /// Returns the factor by which LongRoPE multiplies cosines and sines, with short and with long factors:
    /// `sqrt(1 + ln(max / original) / ln(original))`, and 1 without scaling.
    #[must_use]
    pub fn rope_attention_scale(&self) -> f64 {
        let original = self.original_max_position_embeddings as f64;
        let scale = self.max_position_embeddings as f64 / original;
        if self.rope_scaling.is_none() || scale <= 1.0 {
            return 1.0;
        }
        (1.0 + scale.ln() / original.ln()).sqrt()
    }
}

/// Checks everything that must match the model text's assumptions and therefore has no field.
fn check_architecture(keys: &Keys<'_>) -> Result<(), ConfigError> {
    for key in QUANTIZATION_KEYS {
        if keys.has(key) {
            return Err(ConfigError::Quantized { file: CONFIG, key });
        }
    }
    keys.must_be("model_type", &json!("phi3_v"), &Value::Null)?;
    if keys.has("architectures") {
        keys.must_be("architectures", &json!(["Phi3VForCausalLM"]), &Value::Null)?;
    }
    keys.must_be("hidden_act", &json!("silu"), &json!("silu"))?;
    keys.must_be("tie_word_embeddings", &json!(false), &json!(false))?;
    keys.must_be("attention_bias", &json!(false), &json!(false))?;
    keys.must_be("mlp_bias", &json!(false), &json!(false))?;
    keys.must_be("partial_rotary_factor", &json!(1.0), &json!(1.0))?;
    // later releases of the reference's library write rope_theta and rope_scaling under this key
    if keys.has("rope_parameters") {
        return Err(keys.unsupported("rope_parameters", "rope_theta with rope_scaling"));
    }

    // for three of these keys, the reference takes an absent key as another value, so none has a default
    let embd_layer = keys.object("embd_layer")?.ok_or_else(|| keys.missing("embd_layer"))?;
    embd_layer.must_be("embedding_cls", &json!("image"), &json!("image"))?;
    embd_layer.must_be("hd_transform_order", &json!("sub_glb"), &Value::Null)?;
    embd_layer.must_be("projection_cls", &json!("mlp"), &Value::Null)?;
    embd_layer.must_be("use_hd_transform", &json!(true), &Value::Null)?;
    embd_layer.must_be("with_learnable_separator", &json!(true), &Value::Null)
}

impl RopeScaling {
    fn read(keys: &Keys<'_>, len: usize) -> Result<Option<Self>, ConfigError> {
        let Some(scaling) = keys.object("rope_scaling")? else { return Ok(None) };
        // newer releases of the reference's library write `rope_type`
        let key = if scaling.has("type") { "type" } else { "rope_type" };
        if scaling.must_be(key, &json!("su"), &Value::Null).is_err() {
            scaling
                .must_be(key, &json!("longrope"), &Value::Null)
                .map_err(|_| scaling.unsupported(key, r#""su" or "longrope""#))?;
        }
        const KNOWN: [&str; 4] = ["type", "rope_type", "short_factor", "long_factor"];
        if let Some(name) = scaling.names().find(|name| !KNOWN.contains(name)) {
            return Err(scaling.unsupported(name, "a rope_scaling with type, short_factor and long_factor"));
        }
        let factors = |key| {
            // far beyond the real factors' 1.0 to 64.84, and far from overflow
            let factors = scaling.numbers(key, len, 1e-3..=1e6)?;
            factors.ok_or_else(|| scaling.missing(key))
        };
        Ok(Some(Self { short_factor: factors("short_factor")?, long_factor: factors("long_factor")? }))
    }
}

impl Default for VisionConfig {
    /// Returns CLIP ViT-L/14-336, which the hub's config.json only names.
    fn default() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            image_size: 336,
            patch_size: 14,
            layer_norm_eps: 1e-5,
        }
    }
}

impl VisionConfig {
    /// Reads `img_processor`. The sizes are in its `clip_config`; absent sizes are those of ViT-L/14-336.
    fn read(keys: &Keys<'_>) -> Result<Self, ConfigError> {
        let processor = keys.object("img_processor")?.ok_or_else(|| keys.missing("img_processor"))?;
        processor.must_be("name", &json!("clip_vision_model"), &json!("clip_vision_model"))?;
        processor.must_be("num_img_tokens", &json!(144), &json!(144))?;
        processor.must_be("layer_idx", &json!(-2), &json!(-2))?;
        processor.must_be("type_feature", &json!("patch"), &json!("patch"))?;
        let config = match processor.object("clip_config")? {
            Some(clip) => Self::read_clip(&clip)?,
            None => Self::default(),
        };
        let hidden_size = json!(config.hidden_size);
        processor.must_be("image_dim_out", &hidden_size, &hidden_size)?;
        Ok(config)
    }

    fn read_clip(clip: &Keys<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        clip.must_be("hidden_act", &json!("quick_gelu"), &json!("quick_gelu"))?;
        clip.must_be("num_channels", &json!(3), &json!(3))?;
        clip.must_be("image_size", &json!(default.image_size), &json!(default.image_size))?;
        clip.must_be("patch_size", &json!(default.patch_size), &json!(default.patch_size))?;
        let integer = |key, default, max| clip.integer(key, Some(default), 1..=max);
        let config = Self {
            hidden_size: integer("hidden_size", default.hidden_size, HIDDEN_SIZE_MAX)?,
            num_hidden_layers: integer("num_hidden_layers", default.num_hidden_layers, LAYERS_MAX)?,
            num_attention_heads: integer("num_attention_heads", default.num_attention_heads, HEADS_MAX)?,
            intermediate_size: integer(
                "intermediate_size",
                default.intermediate_size,
                INTERMEDIATE_SIZE_MAX,
            )?,
            layer_norm_eps: clip.number("layer_norm_eps", Some(1e-5), 1e-12..=1.0)? as f32,
            ..default
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let expected = format!("a multiple of the {} attention heads", config.num_attention_heads);
            return Err(clip.invalid("hidden_size", expected));
        }
        Ok(config)
    }

    /// Returns the values per attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Returns the encoder layers that are run: all except the last.
    #[must_use]
    pub fn num_layers_used(&self) -> usize {
        self.num_hidden_layers - 1
    }

    /// Returns the patches of a tile: 24 x 24 = 576.
    #[must_use]
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Returns the rows of the position embedding: the class token and every patch.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.num_patches() + 1
    }
}

/// The additional settings in generation_config.json. Its sampling settings are not used: greedy is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationConfig {
    /// Ids that end generation; empty if the file has none.
    pub eos_token_id: Vec<u32>,
}

impl GenerationConfig {
    /// Reads generation_config.json.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        const FILE: &str = "generation_config.json";
        let value = keys::parse(FILE, bytes)?;
        Ok(Self { eos_token_id: Keys::root(FILE, &value)?.token_ids("eos_token_id")? })
    }
}

impl ImageParams {
    /// Reads preprocessor_config.json. As in the reference, an absent `num_crops` is 1, and an absent mean or deviation is
    /// CLIP's. `num_crops_max` is phi3v's own key, for models that misread more tiles.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read or describes another image processor.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        const FILE: &str = "preprocessor_config.json";
        let value = keys::parse(FILE, bytes)?;
        let keys = Keys::root(FILE, &value)?;
        let processor = json!("Phi3VImageProcessor");
        keys.must_be("image_processor_type", &processor, &processor)?;
        keys.must_be("num_img_tokens", &json!(144), &json!(144))?;
        let rgb = |key, range, default: [f32; 3]| -> Result<[f32; 3], ConfigError> {
            let values = keys.numbers(key, 3, range)?;
            Ok(values.map_or(default, |v| [v[0] as f32, v[1] as f32, v[2] as f32]))
        };
        let default = Self::default();
        Ok(Self {
            num_crops: keys.integer("num_crops", Some(1), 1..=NUM_CROPS_MAX)?,
            num_crops_max: keys.integer("num_crops_max", Some(NUM_CROPS_MAX), 1..=NUM_CROPS_MAX)?,
            image_mean: rgb("image_mean", -10.0..=10.0, default.image_mean)?,
            image_std: rgb("image_std", 1e-6..=1e3, default.image_std)?,
        })
    }
}
