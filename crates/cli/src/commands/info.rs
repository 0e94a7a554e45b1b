//! `phi3v info`: what would run, on which device, and in how much memory.

use super::machine::{CardInfo, CpuInfo, TriedInfo};
use crate::args::InfoArgs;
use crate::error::{CliError, Unfit};
use crate::hub::{self, HubError, HubOptions};
use crate::quantized;
use crate::runtime::{self, Need, Opened};
use crate::terminal::print;
use crate::version;
use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::device::{self, Card, Device};
use phi3v::error::count;
use phi3v::memory::{Capacity, MemoryPlan, size};
use phi3v::weights::quantized::Quant;
use phi3v::weights::weights_bytes;
use phi3v_kernels::Processor;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Serialize)]
struct Info {
    version: &'static str,
    /// Absent if the build does not know its commit.
    commit: Option<&'static str>,
    features: &'static [&'static str],
    cpu: CpuInfo,
    /// Number of the card that will run the model; absent if the processor runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<usize>,
    /// Graphics cards of this machine.
    cards: Vec<CardInfo>,
    /// The cards that the support was tested on; only with --verbose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tried: Vec<TriedInfo>,
    available_bytes: Option<u64>,
    model: ModelState,
    caches: Caches,
    /// Absent if the model's shape is not known yet, or the model does not fit.
    memory: Option<MemoryInfo>,
    /// Why the model does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// What would fit, or other advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The folders where models are kept.
#[derive(Debug, Serialize)]
struct Caches {
    downloads: PathBuf,
    quantized: PathBuf,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ModelState {
    Here(ModelInfo),
    Elsewhere {
        name: String,
        downloaded: bool,
        /// Bytes of the weights, if the model's shape is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        weights_bytes: Option<u64>,
    },
}

#[derive(Debug, Serialize)]
struct ModelInfo {
    name: String,
    weights_format: String,
    weights_bytes: u64,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    vision_hidden_size: usize,
    vision_num_hidden_layers: usize,
    num_crops: usize,
}

#[derive(Debug, Serialize)]
struct MemoryInfo {
    dtype: &'static str,
    /// The format that the weights will be quantized to at first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    quant: Option<&'static str>,
    weights_bytes: u64,
    kv_bytes_per_token: u64,
    context_tokens: usize,
    kv_bytes: u64,
    activation_bytes: u64,
    image_cache_bytes: u64,
    total_bytes: u64,
    available_bytes: Option<u64>,
}

/// Prints the information.
///
/// # Errors
/// The model cannot be opened, or stdout cannot be written to. A model too large for the memory is not an error here.
pub(super) fn run(args: &InfoArgs) -> Result<(), CliError> {
    let device = runtime::device(&args.model.device)?;
    let processor = runtime::processor(&args.model.device)?;
    // showing information must not download the model
    let offline = HubOptions { offline: true, ..HubOptions::from_env() };
    let info = match runtime::checkpoint(&args.model.model, &offline) {
        Ok(checkpoint) => {
            let opened = runtime::plan(checkpoint, device, &args.model, &args.context, |own| own);
            Info::new(args, processor, &opened)
        }
        Err(CliError::Hub(HubError::NotCached { .. })) => Info::before_download(args, processor, device),
        Err(error) => return Err(error),
    };
    let text = if args.json { crate::report::json(&info) + "\n" } else { info.to_string() };
    print(text).map_err(CliError::Output)
}

impl Info {
    fn new(args: &InfoArgs, processor: Processor, Opened { checkpoint, device, plan, .. }: &Opened) -> Self {
        Self {
            model: ModelState::Here(ModelInfo::new(checkpoint)),
            memory: plan
                .as_ref()
                .ok()
                .map(|plan| MemoryInfo::new(args, args.model.quantized(&checkpoint.weights), plan)),
            refusal: plan.as_ref().err().map(ToString::to_string),
            hint: plan.as_ref().err().and_then(Unfit::hint),
            ..Self::without_model(args, processor, device)
        }
    }

    /// The memory of a well-known model before its download: the well-known models have one shape.
    fn before_download(args: &InfoArgs, processor: Processor, device: Device) -> Self {
        let name = args.model.model.clone();
        if !hub::is_known(&name) {
            return Self::without_model(args, processor, &device);
        }
        let config = ModelConfig::phi_3_5_vision();
        let need = Need::unseen(&config, &args.model, runtime::num_crops_unseen(), &args.context);
        let (device, plan) = need.plan(device, &args.model.device);
        let quant = runtime::quant_unseen(&config, &args.model);
        let weights_bytes = Some(weights_bytes(&config, None));
        Self {
            model: ModelState::Elsewhere { name, downloaded: false, weights_bytes },
            memory: plan.as_ref().ok().map(|plan| MemoryInfo::new(args, quant, plan)),
            refusal: plan.as_ref().err().map(ToString::to_string),
            hint: plan.as_ref().err().and_then(Unfit::hint),
            ..Self::without_model(args, processor, &device)
        }
    }

    fn without_model(args: &InfoArgs, processor: Processor, device: &Device) -> Self {
        let mut cards = device::cards();
        let gpu = device.card().and_then(|used| put_among(used, &mut cards));
        Self {
            gpu,
            cards: cards.into_iter().map(CardInfo::from).collect(),
            tried: if args.verbose { TriedInfo::all() } else { Vec::new() },
            version: version::VERSION,
            commit: version::COMMIT,
            features: version::FEATURES,
            cpu: processor.into(),
            available_bytes: Capacity::of(device).available_bytes,
            model: ModelState::Elsewhere {
                name: args.model.model.clone(),
                downloaded: false,
                weights_bytes: None,
            },
            caches: Caches { downloads: HubOptions::from_env().cache, quantized: quantized::cache_folder() },
            memory: None,
            refusal: None,
            hint: None,
        }
    }
}

/// Puts the opened card in its place in `cards` and returns its number: only an opened card knows what its kernels do.
fn put_among(used: Card, cards: &mut [Card]) -> Option<usize> {
    let number = used.number;
    let place = cards.get_mut(number).filter(|card| card.name == used.name)?;
    *place = Card { available_bytes: place.available_bytes, ..used };
    Some(number)
}

impl ModelInfo {
    fn new(checkpoint: &Checkpoint) -> Self {
        let config = &checkpoint.config;
        Self {
            name: checkpoint.name.clone(),
            weights_format: format!("{:?}", checkpoint.weights.dtype()).to_lowercase(),
            weights_bytes: checkpoint.weights.bytes_total(),
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            vision_hidden_size: config.img_processor.hidden_size,
            vision_num_hidden_layers: config.img_processor.num_hidden_layers,
            num_crops: checkpoint.preprocessor.num_crops,
        }
    }
}

impl MemoryInfo {
    fn new(args: &InfoArgs, quant: Option<Quant>, plan: &MemoryPlan) -> Self {
        Self {
            dtype: args.model.dtype.name(),
            quant: quant.map(Quant::name),
            weights_bytes: plan.weights_bytes,
            kv_bytes_per_token: plan.kv_bytes_per_token,
            context_tokens: plan.context_tokens,
            kv_bytes: plan.kv_bytes(),
            activation_bytes: plan.activation_bytes,
            image_cache_bytes: plan.image_cache_bytes,
            total_bytes: plan.total_bytes(),
            available_bytes: plan.available_bytes,
        }
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, gpu, cards, tried, available_bytes, model, caches, memory, refusal, hint, .. } = self;
        writeln!(f, "phi3v         {}", version::long())?;
        // here as behind a card
        let used = if gpu.is_none() { ", runs the model" } else { "" };
        writeln!(f, "processor     level {}, {}{used}", cpu.level, count(cpu.threads, "thread"))?;
        writeln!(f, "  features    {}", cpu.features)?;
        for (number, card) in cards.iter().enumerate() {
            let used = if *gpu == Some(number) { ", runs the model" } else { "" };
            writeln!(f, "gpu:{number:<10}{}, {}{used}", card.name, card.kind)?;
            card.fmt(f)?;
        }
        if !tried.is_empty() {
            writeln!(f, "tried of the support of graphics cards")?;
            tried.iter().try_for_each(|tried| tried.fmt(f))?;
        }
        match model {
            ModelState::Here(model) => model.fmt(f)?,
            ModelState::Elsewhere { name, weights_bytes, .. } => {
                writeln!(f, "model         {name}, not downloaded yet: phi3v pull {name}")?;
                if let Some(bytes) = weights_bytes {
                    writeln!(f, "  weights     {} in bf16, to be downloaded once", size(*bytes))?;
                }
            }
        }
        writeln!(f, "caches")?;
        writeln!(f, "  downloads   {}", caches.downloads.display())?;
        writeln!(f, "  quantized   {}", caches.quantized.display())?;
        match (memory, refusal, available_bytes) {
            (Some(memory), ..) => memory.fmt(f),
            (None, Some(refusal), _) => {
                writeln!(f, "memory        {refusal}")?;
                hint.iter().try_for_each(|hint| writeln!(f, "  hint        {hint}"))
            }
            (None, None, Some(bytes)) => writeln!(f, "memory        {} available", size(*bytes)),
            (None, None, None) => Ok(()),
        }
    }
}

impl fmt::Display for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model         {}", self.name)?;
        writeln!(f, "  weights     {} in {}", size(self.weights_bytes), self.weights_format)?;
        writeln!(
            f,
            "  decoder     {} of {}, {} ({} for keys and values), feed-forward {}, vocabulary {}",
            count(self.num_hidden_layers, "layer"),
            self.hidden_size,
            count(self.num_attention_heads, "head"),
            self.num_key_value_heads,
            self.intermediate_size,
            self.vocab_size
        )?;
        writeln!(
            f,
            "  vision      {} of {}",
            count(self.vision_num_hidden_layers, "layer"),
            self.vision_hidden_size
        )?;
        writeln!(f, "  pictures    up to {} and the whole", count(self.num_crops, "tile"))?;
        writeln!(f, "  positions   {}", self.max_position_embeddings)
    }
}

impl fmt::Display for MemoryInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of =
            self.available_bytes.map(|bytes| format!(" of {} available", size(bytes))).unwrap_or_default();
        writeln!(f, "memory        {}{of}, with {} arithmetic", size(self.total_bytes), self.dtype)?;
        let quant =
            self.quant.map(|quant| format!(", quantized to {quant} at first use")).unwrap_or_default();
        writeln!(f, "  weights     {}{quant}", size(self.weights_bytes))?;
        writeln!(
            f,
            "  KV cache    {} for {}, {} each",
            size(self.kv_bytes),
            count(self.context_tokens, "token"),
            size(self.kv_bytes_per_token)
        )?;
        writeln!(f, "  activations {}", size(self.activation_bytes))?;
        writeln!(f, "  pictures    up to {}, kept for later questions", size(self.image_cache_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_cards_of_one_name_the_one_that_was_opened_is_shown() {
        let card = |number, name: &str| Card {
            number,
            name: name.to_owned(),
            kind: "discrete".to_owned(),
            api: "Vulkan".to_owned(),
            driver: "a driver 1.2".to_owned(),
            memory_bytes: None,
            available_bytes: Some(7),
            binding_bytes_max: 1 << 31,
            workgroup_bytes: 32_768,
            matrix_units: Some(16),
            matrix_units_fault: None,
            many_rows_times: None,
            bits_differ: None,
        };
        let opened = Card { bits_differ: Some("a norm".to_owned()), ..card(1, "One") };
        let mut cards = [card(0, "One"), card(1, "One")];
        assert_eq!(put_among(opened.clone(), &mut cards), Some(1));
        assert_eq!(cards, [card(0, "One"), opened.clone()]);
        let mut others = [card(0, "One"), card(1, "Other")];
        assert_eq!(put_among(opened.clone(), &mut others), None, "the cards have changed");
        assert_eq!(put_among(opened, &mut others[..1]), None);
    }
}
