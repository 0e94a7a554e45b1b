//! Predicts how much of the machine's memory a model takes, before anything is loaded.
//!
//! The weights are mapped, so they count against what is *available* (free memory, or page cache that can be released),
//! whether or not they are already in the page cache. The KV cache counts in full, although the processor allocates its
//! memory only on use (a card allocates all at once): a promised context must not fail halfway through an answer.

mod groups;

use crate::config::ModelConfig;
use crate::device::{Device, DeviceOptions};
use crate::error::count;
use crate::model::{image_bytes, kv_layout, step_bytes};
use phi3v_kernels::{Backend, HeadDims, KV_BLOCK_TOKENS, KvFormat, Sizes};

/// The context chosen by default if memory allows. It holds six images of 2,509 tokens; at 393 KB per token
/// (Phi-3.5-vision, bf16) it takes 6.4 GB.
pub const CONTEXT_DEFAULT_MAX: usize = 16_384;
/// The smallest context chosen by default: one image at num_crops 1 (313 tokens), a question and an answer.
pub const CONTEXT_DEFAULT_MIN: usize = 1_024;
/// Most tokens that an answer with its prompt is expected to take if many run together: those of the largest picture and
/// the longest answer by default.
const ANSWER_TOKENS: usize = 4_096;

/// Why a model cannot be loaded: too little memory, an impossible context, or heads that the device does not support.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The plan is larger than what is available.
    #[error(
        "the model needs {} with a context of {}, and {} of memory are available",
        size(*.needed),
        count(*.context, "token"),
        size(*.available)
    )]
    TooLittle {
        /// Bytes that the plan needs.
        needed: u64,
        /// Bytes that are available.
        available: u64,
        /// Context in tokens.
        context: usize,
        /// The longest context that would fit, in tokens; 0 if none.
        fits: usize,
    },
    /// One buffer of the device must hold the keys and values of a layer, and is too small.
    #[error(
        "a context of {} takes {} for each layer, and a buffer of the device holds {}",
        count(*.context, "token"),
        size(*.needed),
        size(*.limit)
    )]
    BufferTooSmall {
        /// Context in tokens.
        context: usize,
        /// Bytes of its keys and values in a layer.
        needed: u64,
        /// Most bytes of a buffer.
        limit: u64,
        /// The longest context that would fit, in tokens; 0 if none.
        fits: usize,
    },
    /// The context is longer than the model was trained for.
    #[error("a context of {context} tokens is longer than the model's {limit}")]
    ContextTooLong {
        /// Context in tokens.
        context: usize,
        /// Most tokens that the model supports.
        limit: usize,
    },
    /// The device's attention does not support heads as large as the model's.
    #[error("heads of {part} have {dim} values, and the device takes at most {limit}")]
    HeadsTooLarge {
        /// The part that has the heads: the decoder or the vision tower.
        part: &'static str,
        /// Values of one head.
        dim: usize,
        /// Most values that the device supports.
        limit: usize,
    },
    /// The context has no tokens.
    #[error("a context of 0 tokens holds nothing")]
    NoContext,
}

impl MemoryError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooLittle { fits, .. } if *fits >= CONTEXT_DEFAULT_MIN => {
                format!("choose a context of at most {fits} tokens, or close other programs")
            }
            Self::BufferTooSmall { fits, .. } => {
                format!("choose a context of at most {}, or another device", count(*fits, "token"))
            }
            Self::TooLittle { .. } => "close other programs, or choose a smaller model".to_owned(),
            Self::ContextTooLong { limit, .. } => {
                format!("choose a context of at most {limit} tokens")
            }
            Self::HeadsTooLarge { .. } => "choose the processor, which takes heads of any size".to_owned(),
            Self::NoContext => {
                "choose a context of at least 1 token, or leave the choice to free memory".to_owned()
            }
        })
    }
}

/// What determines a model's memory besides its configuration and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Bytes of the mapped weights.
    pub weights_bytes: u64,
    /// Storage format of cached keys and values.
    pub kv_format: KvFormat,
    /// Most tiles per image, the global view not counted.
    pub num_crops: usize,
    /// Prompt tokens that go through the decoder at once; `None` means what suits the device.
    pub prefill_chunk: Option<usize>,
    /// Bytes of image embeddings kept for later questions.
    pub image_cache_bytes: u64,
    /// Bytes that the caller allocates and keeps besides the model, such as logits of many answers. They count as if they
    /// were in the same memory as the model.
    pub kept_bytes: u64,
    /// Tokens of the context; `None` chooses by the available memory.
    pub context: Option<usize>,
}

/// What a plan needs to know about the device that runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How much work suits the device at a time, which determines the size of its buffers.
    pub sizes: Sizes,
    /// Bytes available now for weights, cache and buffers in the device's memory; `None` if unknown.
    pub available_bytes: Option<u64>,
    /// Most bytes of one buffer, which must hold the keys and values of a layer.
    pub buffer_bytes_max: u64,
    /// Most values of an attention head.
    pub head_dims_max: HeadDims,
}

impl Capacity {
    /// The current capacity of a device.
    #[must_use]
    pub fn of<B: Backend>(backend: &B) -> Self {
        let available_bytes = backend.memory().available_bytes(available_bytes());
        Self {
            sizes: backend.sizes(),
            available_bytes,
            buffer_bytes_max: backend.buffer_bytes_max(),
            head_dims_max: backend.head_dims_max(),
        }
    }

    fn check_heads(&self, config: &ModelConfig) -> Result<(), MemoryError> {
        let HeadDims { causal, full } = self.head_dims_max;
        let heads = [
            ("the decoder", config.head_dim(), causal),
            ("the vision tower", config.img_processor.head_dim(), full),
        ];
        match heads.into_iter().find(|(_, dim, limit)| dim > limit) {
            Some((part, dim, limit)) => Err(MemoryError::HeadsTooLarge { part, dim, limit }),
            None => Ok(()),
        }
    }
}

/// Where the memory goes, part by part; all sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of the mapped weights.
    pub weights_bytes: u64,
    /// Keys and values of one token in all layers.
    pub kv_bytes_per_token: u64,
    /// Tokens that the KV cache holds.
    pub context_tokens: usize,
    /// Largest buffers of a prefill step plus those of the vision tower.
    pub activation_bytes: u64,
    /// Most bytes of image embeddings that are kept for later questions.
    pub image_cache_bytes: u64,
    /// Most bytes that the caller keeps besides the model.
    pub kept_bytes: u64,
    /// Bytes available now; `None` if unknown.
    pub available_bytes: Option<u64>,
    /// Tokens whose keys and values, for one layer, fit a buffer of the device.
    pub buffer_tokens_max: usize,
}

impl MemoryPlan {
    /// Plans the memory of a model of shape `config`. If no context is requested, chooses the largest power of two from
    /// [`CONTEXT_DEFAULT_MIN`] to [`CONTEXT_DEFAULT_MAX`] that fits with an eighth to spare, limited by the model and by
    /// the device's buffers.
    ///
    /// ```
    /// use phi3v::device::{Device, DeviceOptions};
    /// use phi3v::memory::{Capacity, MemoryPlan, MemoryRequest};
    ///
    /// let checkpoint = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?;
    /// let device = Device::open(&DeviceOptions::default())?;
    /// let request = MemoryRequest {
    ///     weights_bytes: checkpoint.weights.bytes_total(),
    ///     kv_format: phi3v::kernels::KvFormat::Bf16,
    ///     num_crops: 4,
    ///     prefill_chunk: None,
    ///     image_cache_bytes: 0,
    ///     kept_bytes: 0,
    ///     context: Some(4096),
    /// };
    /// let plan = MemoryPlan::new(&checkpoint.config, &request, Capacity::of(&device))?;
    /// assert_eq!((plan.context_tokens, plan.weights_bytes), (4096, request.weights_bytes));
    /// println!("{plan}");
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`MemoryError`] if the plan does not fit, the model does not support the context, or the device does not support
    /// the model.
    pub fn new(
        config: &ModelConfig,
        request: &MemoryRequest,
        capacity: Capacity,
    ) -> Result<Self, MemoryError> {
        capacity.check_heads(config)?;
        let limit = config.context_max();
        let kv_bytes_per_token = kv_bytes_per_token(config, request.kv_format);
        // of a token in one layer
        let layer_bytes = (kv_bytes_per_token / config.num_hidden_layers.max(1) as u64).max(1);
        // the cache grows by whole blocks
        let in_blocks = |tokens: usize| {
            let blocks = tokens.div_ceil(KV_BLOCK_TOKENS) as u64;
            blocks.saturating_mul(layer_bytes.saturating_mul(KV_BLOCK_TOKENS as u64))
        };
        let mut plan = Self {
            weights_bytes: request.weights_bytes,
            kv_bytes_per_token,
            context_tokens: request.context.unwrap_or(CONTEXT_DEFAULT_MAX),
            activation_bytes: activation_bytes(config, request, capacity.sizes),
            image_cache_bytes: request.image_cache_bytes,
            kept_bytes: request.kept_bytes,
            available_bytes: capacity.available_bytes,
            buffer_tokens_max: whole_blocks(capacity.buffer_bytes_max / layer_bytes),
        };
        match request.context {
            Some(0) => return Err(MemoryError::NoContext),
            Some(context) if context > limit => return Err(MemoryError::ContextTooLong { context, limit }),
            Some(context) if in_blocks(context) > capacity.buffer_bytes_max => {
                return Err(MemoryError::BufferTooSmall {
                    context,
                    needed: in_blocks(context),
                    limit: capacity.buffer_bytes_max,
                    fits: plan.buffer_tokens_max.min(limit),
                });
            }
            Some(_) => {}
            None => {
                while plan.context_tokens > CONTEXT_DEFAULT_MIN && !plan.leaves_spare() {
                    plan.context_tokens /= 2;
                }
                plan.context_tokens = plan.context_tokens.min(plan.buffer_tokens_max).min(limit);
            }
        }
        plan.check().map(|()| plan)
    }

    /// Returns the plan for `device`, which was opened with `options`, and that device. If a card that was chosen
    /// automatically has too little memory or does not support the model's heads, and the processor can run the model,
    /// returns the processor and its plan instead. `tell` then receives a sentence about it.
    ///
    /// # Errors
    /// As for [`new`](Self::new), for the returned device.
    pub fn on_fitting(
        device: Device,
        options: &DeviceOptions,
        config: &ModelConfig,
        request: &MemoryRequest,
        tell: &mut dyn FnMut(&str),
    ) -> (Device, Result<Self, MemoryError>) {
        let plan = |device: &Device| Self::new(config, request, Capacity::of(device));
        let planned = plan(&device);
        let why = match &planned {
            Err(MemoryError::TooLittle { .. } | MemoryError::BufferTooSmall { .. }) => {
                "has too little memory"
            }
            Err(MemoryError::HeadsTooLarge { .. }) => "takes no heads as large as the model's",
            _ => return (device, planned),
        };
        if let Some(card) = device.card()
            && options.choice.is_free()
            && let Ok(processor) = Device::processor(options)
        {
            let by_processor = plan(&processor);
            if by_processor.is_ok() {
                tell(&format!("{} {why}, so the processor runs the model", card.name));
                return (processor, by_processor);
            }
        }
        (device, planned)
    }

    /// Bytes of a full KV cache, in whole blocks.
    #[must_use]
    pub fn kv_bytes(&self) -> u64 {
        let blocks = self.context_tokens.div_ceil(KV_BLOCK_TOKENS) as u64;
        self.kv_bytes_per_token.saturating_mul(blocks).saturating_mul(KV_BLOCK_TOKENS as u64)
    }

    /// All bytes of the plan: weights, KV cache, activations, cached image embeddings and what the caller keeps.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.fixed_bytes().saturating_add(self.kv_bytes())
    }

    /// Bytes that do not depend on the context.
    fn fixed_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.buffer_bytes())
    }

    /// Most bytes of activations, cached image embeddings, and what the caller keeps.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        self.activation_bytes.saturating_add(self.image_cache_bytes).saturating_add(self.kept_bytes)
    }

    /// Tokens that a KV cache for many sequences may hold. The context is doubled as long as it fits with an eighth to
    /// spare, up to `tokens_max`; the result is never less than the context itself.
    #[must_use]
    pub fn cache_tokens(&self, tokens_max: usize) -> usize {
        let tokens_max = tokens_max.min(self.buffer_tokens_max);
        let mut tokens = self.context_tokens;
        while tokens < tokens_max {
            let more = tokens.saturating_mul(2).min(tokens_max);
            if !(Self { context_tokens: more, ..*self }).leaves_spare() {
                break;
            }
            tokens = more;
        }
        tokens
    }

    /// Like [`cache_tokens`](Self::cache_tokens), for `answers` answers at a time. Each takes the tokens of the largest
    /// picture and the longest answer by default, or the context if that is smaller.
    #[must_use]
    pub fn cache_tokens_of(&self, answers: usize) -> usize {
        self.cache_tokens(answers.saturating_mul(self.context_tokens.min(ANSWER_TOKENS)))
    }

    /// Like [`cache_tokens_of`](Self::cache_tokens_of), for a program that asks one question or many at a time, and does other things
    /// too: as many answers as run together on `device`. On a card, which takes the memory of the whole cache at once, it is 0, which
    /// [`EngineOptions`](crate::engine::EngineOptions) takes for one context.
    #[must_use]
    pub fn cache_tokens_on(&self, device: &Device) -> usize {
        if device.card().is_some() { 0 } else { self.cache_tokens_of(device.sizes().few_rows_max) }
    }

    /// Whether the plan fits with an eighth to spare, for other programs and for what the plan does not count.
    fn leaves_spare(&self) -> bool {
        self.available_bytes.is_none_or(|available| self.total_bytes() <= available - available / 8)
    }

    fn check(&self) -> Result<(), MemoryError> {
        let Some(available) = self.available_bytes else { return Ok(()) };
        if self.total_bytes() <= available {
            return Ok(());
        }
        let for_kv = available.saturating_sub(self.fixed_bytes());
        let block_bytes = self.kv_bytes_per_token.saturating_mul(KV_BLOCK_TOKENS as u64).max(1);
        Err(MemoryError::TooLittle {
            needed: self.total_bytes(),
            available,
            context: self.context_tokens,
            fits: ((for_kv / block_bytes) as usize)
                .saturating_mul(KV_BLOCK_TOKENS)
                .min(self.buffer_tokens_max),
        })
    }
}

/// Bytes that this process can allocate now without displacing others: what the system reports as available (on macOS,
/// what is not used), and in a container at most what its limit leaves. `None` if the system does not report it.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    use sysinfo::{MemoryRefreshKind, System};
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let available = Some(unused_bytes(&system)).filter(|&bytes| bytes > 0)?;
    Some(groups::bytes_left().map_or(available, |left| available.min(left)))
}

/// Memory that no program uses. On macOS, where processor and GPU share all memory, what the system reports as available
/// includes pages that other programs use and that it would compress.
fn unused_bytes(system: &sysinfo::System) -> u64 {
    if cfg!(target_os = "macos") {
        system.total_memory().saturating_sub(system.used_memory())
    } else {
        system.available_memory()
    }
}

/// Rounds `tokens` down to whole blocks of the cache.
fn whole_blocks(tokens: u64) -> usize {
    usize::try_from(tokens).unwrap_or(usize::MAX) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS
}

fn kv_bytes_per_token(config: &ModelConfig, format: KvFormat) -> u64 {
    (kv_layout(config, format).block_bytes() / KV_BLOCK_TOKENS) as u64
}

/// Buffers of one request. Those of a prefill step stay while the next image goes through the vision tower, so both add
/// up.
fn activation_bytes(config: &ModelConfig, request: &MemoryRequest, sizes: Sizes) -> u64 {
    let tiles = request.num_crops.saturating_add(1);
    let image = image_bytes(config, tiles, sizes.tiles_at_once);
    step_bytes(config, request.prefill_chunk.unwrap_or(sizes.prefill_chunk)).saturating_add(image)
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (weights, kv, buffers) =
            (size(self.weights_bytes), size(self.kv_bytes()), size(self.buffer_bytes()));
        let tokens = count(self.context_tokens, "token");
        write!(f, "{weights} of weights, {kv} of keys and values for {tokens}, {buffers} of buffers")?;
        match self.available_bytes {
            Some(bytes) => write!(f, "; {} are available", size(bytes)),
            None => Ok(()),
        }
    }
}

/// Formats bytes in the decimal unit that leaves one to three digits before the point, since disks and the hub use
/// decimal units. MiB and GiB are only for limits that are powers of two.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let value = bytes as f64;
    match units.iter().find(|(unit, _)| value >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", value / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VisionConfig;

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
        prefill_chunk: None,
        image_cache_bytes: 256 << 20,
        kept_bytes: 0,
        context: None,
    };

    const SIZES: Sizes = Sizes { few_rows_max: 16, tiles_at_once: 4, prefill_chunk: 2048 };

    fn having(available_bytes: Option<u64>) -> Capacity {
        let head_dims_max = HeadDims { causal: 256, full: 128 };
        Capacity { sizes: SIZES, available_bytes, buffer_bytes_max: u64::MAX, head_dims_max }
    }

    #[test]
    fn heads_that_the_device_does_not_take_are_refused() {
        let plan = |config: &ModelConfig| MemoryPlan::new(config, &REQUEST, having(None));
        let decoder = |num_attention_heads| ModelConfig { num_attention_heads, ..config() };
        assert!(plan(&decoder(12)).is_ok());
        let error = plan(&decoder(6)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "heads of the decoder have 512 values, and the device takes at most 256"
        );
        let img_processor = VisionConfig { num_attention_heads: 4, ..config().img_processor };
        let error = plan(&ModelConfig { img_processor, ..config() }).unwrap_err();
        assert_eq!(error, MemoryError::HeadsTooLarge { part: "the vision tower", dim: 256, limit: 128 });
        assert!(error.hint().unwrap().contains("the processor"));
    }

    #[test]
    fn a_token_takes_393_kilobytes_in_bf16() {
        let plan = MemoryPlan::new(&config(), &REQUEST, having(None)).unwrap();
        assert_eq!(plan.kv_bytes_per_token, 393_216);
        assert_eq!(plan.context_tokens, CONTEXT_DEFAULT_MAX);
        assert_eq!(plan.kv_bytes(), 393_216 * 16_384);
    }

    #[test]
    fn the_default_context_is_the_largest_power_of_two_with_memory_to_spare() {
        let context = |available| {
            MemoryPlan::new(&config(), &REQUEST, having(Some(available))).map(|plan| plan.context_tokens)
        };
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
        let error = MemoryPlan::new(&config(), &request, having(Some(16_000_000_000))).unwrap_err();
        let MemoryError::TooLittle { fits, .. } = error else { panic!("{error}") };
        let fitting = MemoryRequest { context: Some(fits), ..REQUEST };
        assert!(MemoryPlan::new(&config(), &fitting, having(Some(16_000_000_000))).is_ok());
        let next = MemoryRequest { context: Some(fits + KV_BLOCK_TOKENS), ..REQUEST };
        assert!(MemoryPlan::new(&config(), &next, having(Some(16_000_000_000))).is_err());
        assert!(error.hint().unwrap().contains(&fits.to_string()));
    }

    /// A driver that lets a kernel see 128 MiB at a time, as WebGPU guarantees, holds 10,922 tokens of a layer in bf16.
    #[test]
    fn a_context_fits_the_buffers_of_the_device() {
        let small = Capacity { buffer_bytes_max: 128 << 20, ..having(None) };
        let plan = MemoryPlan::new(&config(), &REQUEST, small).unwrap();
        assert_eq!((plan.context_tokens, plan.buffer_tokens_max), (10_880, 10_880));
        assert_eq!(plan.cache_tokens(65_536), 10_880);
        let fitting = MemoryRequest { context: Some(10_880), ..REQUEST };
        assert!(MemoryPlan::new(&config(), &fitting, small).is_ok());
        let error = MemoryPlan::new(&config(), &MemoryRequest { context: Some(10_881), ..REQUEST }, small)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a context of 10881 tokens takes 134.5 MB for each layer, and a buffer of the device holds 134.2 MB"
        );
        assert!(error.hint().unwrap().contains("at most 10880 tokens"));
        // 131,072 tokens in f32 take 3.2 GB for each layer, more than the 2 GiB of some drivers
        let long = MemoryRequest { context: Some(131_072), kv_format: KvFormat::F32, ..REQUEST };
        let gigabytes = Capacity { buffer_bytes_max: (1 << 31) - 1, ..having(None) };
        assert!(matches!(
            MemoryPlan::new(&config(), &long, gigabytes),
            Err(MemoryError::BufferTooSmall { fits: 87_360, .. })
        ));
    }

    #[test]
    fn a_context_beyond_the_model_is_refused_and_a_default_one_is_cut() {
        let request = MemoryRequest { context: Some(131_073), ..REQUEST };
        let refused = MemoryPlan::new(&config(), &request, having(None));
        assert_eq!(refused, Err(MemoryError::ContextTooLong { context: 131_073, limit: 131_072 }));
        let none = MemoryRequest { context: Some(0), ..REQUEST };
        assert_eq!(MemoryPlan::new(&config(), &none, having(None)), Err(MemoryError::NoContext));
        let small = ModelConfig { max_position_embeddings: 2_000, ..config() };
        assert_eq!(MemoryPlan::new(&small, &REQUEST, having(None)).unwrap().context_tokens, 2_000);
    }

    #[test]
    fn images_take_the_buffers_of_the_tiles_at_once_and_their_cache() {
        let plan = |num_crops, tiles_at_once| {
            let request = MemoryRequest { num_crops, ..REQUEST };
            let sizes = Sizes { tiles_at_once, ..SIZES };
            MemoryPlan::new(&config(), &request, Capacity { sizes, ..having(None) }).unwrap()
        };
        // 577 rows of six times 1024 values and once 4096 values, 4 bytes each
        let tile = 577 * (6 * 1024 + 4096) * 4;
        assert_eq!(plan(16, 4).activation_bytes - plan(16, 3).activation_bytes, tile);
        assert_eq!(plan(1, 4).activation_bytes, plan(1, 2).activation_bytes, "there are but two tiles");
        // each tile keeps 144 rows of 3072 values, which are put in order at the end, with the separators of 12
        let (pixels, kept, ordered) = (3 * 336 * 336 * 4, 144 * 3072 * 4, (144 + 12) * 3072 * 4);
        assert_eq!(plan(16, 4).activation_bytes - plan(15, 4).activation_bytes, pixels + kept);
        assert_eq!(plan(256, 4).activation_bytes - plan(255, 4).activation_bytes, pixels + kept + ordered);
        assert_eq!(plan(16, 4).buffer_bytes() - plan(16, 4).activation_bytes, 256 << 20);
    }

    #[test]
    fn what_the_caller_keeps_is_part_of_the_plan() {
        let plan = |kept_bytes, available| {
            let request = MemoryRequest { kept_bytes, context: Some(1024), ..REQUEST };
            MemoryPlan::new(&config(), &request, having(available))
        };
        let without = plan(0, None).unwrap().total_bytes();
        assert_eq!(plan(1_000_000, None).unwrap().total_bytes(), without + 1_000_000);
        assert!(plan(1_000_000, Some(without + 1_000_000)).is_ok());
        let error = plan(1_000_001, Some(without + 1_000_000)).unwrap_err();
        assert!(matches!(error, MemoryError::TooLittle { needed, .. } if needed == without + 1_000_001));
        assert!(plan(u64::MAX, Some(u64::MAX - 1)).is_err());
    }

    #[test]
    fn a_plan_beyond_all_bounds_is_refused_and_no_overflow() {
        let endless = ModelConfig { max_position_embeddings: usize::MAX, ..config() };
        let request = MemoryRequest {
            context: Some(usize::MAX),
            num_crops: usize::MAX,
            prefill_chunk: Some(usize::MAX),
            ..REQUEST
        };
        let error = MemoryPlan::new(&endless, &request, having(Some(1 << 40))).unwrap_err();
        assert!(matches!(error, MemoryError::TooLittle { needed: u64::MAX, fits: 0, .. }), "{error}");
        let heavy = MemoryRequest { weights_bytes: u64::MAX, ..REQUEST };
        assert!(MemoryPlan::new(&config(), &heavy, having(Some(1 << 40))).is_err());
    }

    #[test]
    fn a_plan_tells_where_the_memory_goes() {
        let request = MemoryRequest { context: Some(1024), ..REQUEST };
        assert_eq!(
            MemoryPlan::new(&config(), &request, having(Some(12_345_678_901))).unwrap().to_string(),
            "8.0 GB of weights, 402.7 MB of keys and values for 1024 tokens, 635.8 MB of buffers; 12.3 GB are available"
        );
    }

    #[test]
    fn this_machine_has_memory() {
        let available = available_bytes().expect("every system that tests run on tells");
        assert!(available > 1 << 20, "{available}");
    }
}
