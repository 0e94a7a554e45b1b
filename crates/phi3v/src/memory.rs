//! What a model will take of the machine's memory, told before anything is loaded.
//!
//! The weights are mapped, so they count against what is *available* (free, or page cache that can be given back)
//! whether they are in the page cache already or not. The KV cache is counted whole, though its memory is taken only
//! as it is used: a context that is promised must not fail half-way through an answer.

use crate::config::{ModelConfig, VisionConfig};
use phi3v_kernels::{Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout};

/// The context chosen where memory allows and nobody asks for another. It holds six pictures of 2,509 tokens; at
/// 393 KB per token (Phi-3.5-vision, bf16) it takes 6.4 GB.
pub const CONTEXT_DEFAULT_MAX: usize = 16_384;
/// The least context that is chosen unasked: one picture at num_crops 1 (313 tokens), a question and an answer.
pub const CONTEXT_DEFAULT_MIN: usize = 1_024;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The plan is larger than what is available.
    #[error(
        "the model needs {} with a context of {context} tokens, and {} of memory are available",
        gigabytes(*.needed),
        gigabytes(*.available)
    )]
    TooLittle {
        /// Bytes of the plan.
        needed: u64,
        /// Bytes that are available.
        available: u64,
        /// Tokens of the plan's context.
        context: usize,
        /// The longest context that would fit, in tokens; 0 if none.
        fits: usize,
    },
    /// The model was not trained for so long a context.
    #[error("a context of {context} tokens is longer than the model's {limit}")]
    ContextTooLong {
        /// Tokens asked for.
        context: usize,
        /// Tokens the model can take.
        limit: usize,
    },
    /// No token would fit.
    #[error("a context of 0 tokens holds nothing")]
    NoContext,
}

impl MemoryError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooLittle { fits, .. } if *fits >= CONTEXT_DEFAULT_MIN => {
                format!("choose a smaller context, up to --context {fits}, or close other programs")
            }
            Self::TooLittle { .. } => {
                "close other programs, or choose a smaller model with --model".to_owned()
            }
            Self::ContextTooLong { limit, .. } => {
                format!("choose a context of at most {limit} with --context")
            }
            Self::NoContext => {
                "choose a context with --context, or leave it out to have one chosen by free memory"
                    .to_owned()
            }
        })
    }
}

/// What decides about a model's memory besides its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Bytes of the weights that the model uses.
    pub weights_bytes: u64,
    /// Storage format of cached keys and values.
    pub kv_format: KvFormat,
    /// Most sub images per picture.
    pub num_crops: usize,
    /// Prompt tokens that go through the decoder at once.
    pub prefill_chunk: usize,
    /// Tokens of the context; `None` chooses by what is available.
    pub context: Option<usize>,
}

/// Where the memory goes; all sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights, mapped.
    pub weights_bytes: u64,
    /// Keys and values of one token in all layers.
    pub kv_bytes_per_token: u64,
    /// Tokens that the KV cache holds.
    pub context_tokens: usize,
    /// Buffers of a prefill step and of the vision tower at their largest.
    pub activation_bytes: u64,
    /// What programs can have at this moment; `None` where the system does not tell.
    pub available_bytes: Option<u64>,
}

impl MemoryPlan {
    /// Plans the memory of a model of shape `config`, with the largest power of two up to
    /// [`CONTEXT_DEFAULT_MAX`] as its context that fits, if none is asked for.
    ///
    /// # Errors
    /// [`MemoryError`]: the plan does not fit, or the model cannot take such a context.
    pub fn new(
        config: &ModelConfig,
        request: &MemoryRequest,
        available_bytes: Option<u64>,
    ) -> Result<Self, MemoryError> {
        let limit = config.context_max();
        let mut plan = Self {
            weights_bytes: request.weights_bytes,
            kv_bytes_per_token: kv_bytes_per_token(config, request.kv_format),
            context_tokens: request.context.unwrap_or(CONTEXT_DEFAULT_MAX),
            activation_bytes: activation_bytes(config, request),
            available_bytes,
        };
        match request.context {
            Some(0) => return Err(MemoryError::NoContext),
            Some(context) if context > limit => return Err(MemoryError::ContextTooLong { context, limit }),
            Some(_) => {}
            None => {
                while plan.context_tokens > CONTEXT_DEFAULT_MIN && !plan.leaves_room() {
                    plan.context_tokens /= 2;
                }
                plan.context_tokens = plan.context_tokens.min(limit);
            }
        }
        plan.check().map(|()| plan)
    }

    /// Bytes of the KV cache when it is full.
    #[must_use]
    pub fn kv_bytes(&self) -> u64 {
        self.kv_bytes_per_token * self.context_tokens.next_multiple_of(KV_BLOCK_TOKENS) as u64
    }

    /// All bytes of the plan.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.kv_bytes() + self.activation_bytes
    }

    /// Whether the plan fits with an eighth to spare, for the other programs and for what the plan does not count.
    fn leaves_room(&self) -> bool {
        self.available_bytes.is_none_or(|available| self.total_bytes() <= available - available / 8)
    }

    fn check(&self) -> Result<(), MemoryError> {
        let Some(available) = self.available_bytes else { return Ok(()) };
        if self.total_bytes() <= available {
            return Ok(());
        }
        let for_kv = available.saturating_sub(self.weights_bytes + self.activation_bytes);
        let block_bytes = self.kv_bytes_per_token * KV_BLOCK_TOKENS as u64;
        Err(MemoryError::TooLittle {
            needed: self.total_bytes(),
            available,
            context: self.context_tokens,
            fits: (for_kv / block_bytes) as usize * KV_BLOCK_TOKENS,
        })
    }
}

/// Bytes that this process could take now without pushing others out: what the system calls available, and within a
/// container no more than its limit leaves. `None` where the system does not tell.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    use sysinfo::{MemoryRefreshKind, ProcessesToUpdate, System};
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let mut available = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
    let own = sysinfo::get_current_pid().ok();
    if let Some(pid) = own {
        system.refresh_processes(ProcessesToUpdate::Some(&[pid]), false);
    }
    let process = own.and_then(|pid| system.process(pid));
    if let Some(limits) = process.and_then(sysinfo::Process::cgroup_limits) {
        // page cache counts as used in a container, but is given back when needed; only `rss` is not
        available = available.min(limits.total_memory.saturating_sub(limits.rss));
    }
    Some(available)
}

fn kv_bytes_per_token(config: &ModelConfig, format: KvFormat) -> u64 {
    let heads = Heads {
        query: config.num_attention_heads,
        key_value: config.num_key_value_heads,
        dim: config.head_dim(),
    };
    let layout = KvLayout { layers: config.num_hidden_layers, heads, format };
    (layout.block_bytes() / KV_BLOCK_TOKENS) as u64
}

/// Buffers of one request: a prefill step's stay while the next picture goes through the vision tower, so they add.
fn activation_bytes(config: &ModelConfig, request: &MemoryRequest) -> u64 {
    let ModelConfig { hidden_size, intermediate_size, .. } = *config;
    // x, its norm, qkv, attention, the feed-forward's activations, and cosines and sines twice
    let per_token = 3 * hidden_size + config.qkv_size() + intermediate_size + 2 * config.head_dim();
    let prefill = request.prefill_chunk * per_token;

    let VisionConfig { hidden_size, intermediate_size, image_size, .. } = config.img_processor;
    let tiles = 1 + request.num_crops;
    // x, its norm, q, k, v, attention, and the feed-forward's activations
    let per_position = 6 * hidden_size + intermediate_size;
    // each tile's pixels, and its patches without the class row, kept until all tiles are merged
    let per_tile = 3 * image_size * image_size + config.img_processor.num_patches() * hidden_size;
    let vision = tiles * (config.img_processor.num_positions() * per_position + per_tile);
    ((prefill + vision) * size_of::<f32>()) as u64
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phi-3.5-vision's shape.
    fn config() -> ModelConfig {
        ModelConfig {
            hidden_size: 3072,
            intermediate_size: 8192,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            vocab_size: 32_064,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            max_position_embeddings: 131_072,
            original_max_position_embeddings: 4096,
            rope_scaling: None,
            sliding_window: None,
            eos_token_id: vec![2],
            bos_token_id: 1,
            img_processor: VisionConfig {
                hidden_size: 1024,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                intermediate_size: 4096,
                image_size: 336,
                patch_size: 14,
                layer_norm_eps: 1e-5,
            },
        }
    }

    const REQUEST: MemoryRequest = MemoryRequest {
        weights_bytes: 8_000_000_000,
        kv_format: KvFormat::Bf16,
        num_crops: 16,
        prefill_chunk: 2048,
        context: None,
    };

    #[test]
    fn a_token_takes_393_kilobytes_in_bf16() {
        let plan = MemoryPlan::new(&config(), &REQUEST, None).unwrap();
        assert_eq!(plan.kv_bytes_per_token, 393_216);
        assert_eq!(plan.context_tokens, CONTEXT_DEFAULT_MAX);
        assert_eq!(plan.kv_bytes(), 393_216 * 16_384);
    }

    #[test]
    fn the_default_context_is_the_largest_power_of_two_with_room_to_spare() {
        let context =
            |available| MemoryPlan::new(&config(), &REQUEST, Some(available)).map(|plan| plan.context_tokens);
        assert_eq!(context(64_000_000_000), Ok(16_384));
        assert_eq!(context(16_000_000_000), Ok(8_192));
        assert_eq!(context(12_500_000_000), Ok(4_096));
        assert_eq!(context(9_300_000_000), Ok(1_024));
        assert!(
            matches!(context(9_000_000_000), Err(MemoryError::TooLittle { context: 1_024, fits, .. }) if fits < 1_024)
        );
    }

    #[test]
    fn a_context_that_does_not_fit_names_the_longest_that_does() {
        let request = MemoryRequest { context: Some(32_000), ..REQUEST };
        let error = MemoryPlan::new(&config(), &request, Some(16_000_000_000)).unwrap_err();
        let MemoryError::TooLittle { fits, .. } = error else { panic!("{error}") };
        let fitting = MemoryRequest { context: Some(fits), ..REQUEST };
        assert!(MemoryPlan::new(&config(), &fitting, Some(16_000_000_000)).is_ok());
        let next = MemoryRequest { context: Some(fits + KV_BLOCK_TOKENS), ..REQUEST };
        assert!(MemoryPlan::new(&config(), &next, Some(16_000_000_000)).is_err());
        assert!(error.hint().unwrap().contains(&fits.to_string()));
    }

    #[test]
    fn a_context_beyond_the_model_is_refused_and_a_default_one_is_cut() {
        let request = MemoryRequest { context: Some(131_073), ..REQUEST };
        let refused = MemoryPlan::new(&config(), &request, None);
        assert_eq!(refused, Err(MemoryError::ContextTooLong { context: 131_073, limit: 131_072 }));
        let none = MemoryRequest { context: Some(0), ..REQUEST };
        assert_eq!(MemoryPlan::new(&config(), &none, None), Err(MemoryError::NoContext));
        let small = ModelConfig { max_position_embeddings: 2_000, ..config() };
        assert_eq!(MemoryPlan::new(&small, &REQUEST, None).unwrap().context_tokens, 2_000);
    }

    #[test]
    fn this_machine_has_memory() {
        let available = available_bytes().expect("every system that tests run on tells");
        assert!(available > 1 << 20, "{available}");
    }
}
