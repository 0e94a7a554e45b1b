//! Whether a model has room: the memory that it will take, before its files are here too, and what would fit where it does not.

use super::{device_options, tell_device};
use crate::args::{ContextArgs, DeviceArgs, ModelArgs, QuantChoice};
use crate::error::Unfit;
use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::device::Device;
use phi3v::engine::EngineOptions;
use phi3v::image::ImageParams;
use phi3v::memory::{CONTEXT_DEFAULT_MIN, Capacity, MemoryError, MemoryPlan, MemoryRequest};
use phi3v::weights::quantized::Quant;
use phi3v::weights::weights_bytes;
use phi3v::weights::{Weights, convert};
use phi3v_kernels::Format;

/// What a model asks of the memory.
pub struct Need<'a> {
    /// Its shape.
    pub config: &'a ModelConfig,
    /// As the flags have it.
    pub request: MemoryRequest,
    /// The same with its weights quantized to q4; `None` where they are so already, or cannot be quantized.
    pub in_q4: Option<MemoryRequest>,
}

impl<'a> Need<'a> {
    /// That of a checkpoint.
    #[must_use]
    pub fn of(
        checkpoint: &'a Checkpoint,
        model: &ModelArgs,
        num_crops: usize,
        context: &ContextArgs,
    ) -> Self {
        let Checkpoint { weights, config, .. } = checkpoint;
        let request = |model: &ModelArgs| MemoryRequest {
            context: context.context,
            ..request_of(weights, config, model, num_crops)
        };
        let in_q4 = to_q4(model).filter(|_| weights.quant().is_none()).map(|model| request(&model));
        Self { config, request: request(model), in_q4 }
    }

    /// That of a model whose files are not here: one of those that are called by name, which have one shape, given as `config`.
    #[must_use]
    pub fn unseen(
        config: &'a ModelConfig,
        model: &ModelArgs,
        num_crops: usize,
        context: &ContextArgs,
    ) -> Self {
        let request = |model: &ModelArgs| {
            let quant = quant_unseen(config, model);
            let bytes = weights_bytes(config, quant);
            MemoryRequest {
                context: context.context,
                ..request_for(bytes, quant.is_some(), model, num_crops)
            }
        };
        Self { config, request: request(model), in_q4: to_q4(model).map(|model| request(&model)) }
    }

    /// The plan on the device that the flags have opened, and that device, as [`on_fitting`] has them; or why there is none, and
    /// what would fit.
    pub fn plan(&self, device: Device, args: &DeviceArgs) -> (Device, Result<MemoryPlan, Unfit>) {
        let (device, plan) = on_fitting(device, args, self.config, &self.request);
        let plan = plan.map_err(|error| {
            let card = device.card().is_some();
            let processor = if card { Device::processor(&device_options(args)).ok() } else { None };
            let processor = processor.map(|processor| Capacity::of(&processor));
            self.unfit(error, Capacity::of(&device), processor)
        });
        (device, plan)
    }

    /// What would fit where `error` says that this does not, on the device of `capacity`; `processor` is the capacity of the
    /// processor, where a card is the device.
    fn unfit(&self, error: MemoryError, capacity: Capacity, processor: Option<Capacity>) -> Unfit {
        let MemoryError::TooLittle { .. } = error else { return error.into() };
        let plan = |request: &MemoryRequest, capacity| MemoryPlan::new(self.config, request, capacity);
        let q4_context = self.in_q4.and_then(|in_q4| match plan(&in_q4, capacity) {
            Ok(plan) => Some(plan.context_tokens),
            // less than was asked for, and more than without
            Err(MemoryError::TooLittle { fits, .. }) if fits >= CONTEXT_DEFAULT_MIN => Some(fits),
            Err(_) => None,
        });
        let on_processor = processor.is_some_and(|processor| plan(&self.request, processor).is_ok());
        Unfit { error, q4_context, on_processor }
    }
}

/// How far a model called by name will be quantized, whose files are not here.
#[must_use]
pub fn quant_unseen(config: &ModelConfig, model: &ModelArgs) -> Option<Quant> {
    model.quantized_from(Format::Bf16, weights_bytes(config, None))
}

/// Most tiles of a picture for a model whose files are not here: as the older one has it; fewer take no more.
#[must_use]
pub fn num_crops_unseen() -> usize {
    ImageParams::default().num_crops
}

/// The flags with q4 in place of what they ask for, unless that is what they ask for.
fn to_q4(model: &ModelArgs) -> Option<ModelArgs> {
    let quant = Some(QuantChoice::Q4);
    (model.quant != quant).then(|| ModelArgs { quant, ..model.clone() })
}

/// The plan on the device that the flags have opened, and that device; or on the processor, of which a line tells, where the flags
/// leave the choice and a card has too little memory ([`MemoryPlan::on_fitting`]).
pub fn on_fitting(
    device: Device,
    args: &DeviceArgs,
    config: &ModelConfig,
    request: &MemoryRequest,
) -> (Device, Result<MemoryPlan, MemoryError>) {
    MemoryPlan::on_fitting(device, &device_options(args), config, request, &mut tell_device)
}

/// What an engine with the default options takes for this checkpoint, quantized as the flags will have it.
#[must_use]
pub fn memory_request(checkpoint: &Checkpoint, model: &ModelArgs, num_crops: usize) -> MemoryRequest {
    request_of(&checkpoint.weights, &checkpoint.config, model, num_crops)
}

fn request_of(weights: &Weights, config: &ModelConfig, model: &ModelArgs, num_crops: usize) -> MemoryRequest {
    let quant = model.quantized(weights);
    let bytes =
        quant.map_or_else(|| weights.bytes_total(), |quant| convert::quantized_bytes(weights, config, quant));
    request_for(bytes, quant.or(weights.quant()).is_some(), model, num_crops)
}

/// Of weights that take so many bytes and are `quantized` by the time they are loaded.
fn request_for(weights_bytes: u64, quantized: bool, model: &ModelArgs, num_crops: usize) -> MemoryRequest {
    let options = EngineOptions::default();
    MemoryRequest {
        weights_bytes,
        kv_format: model.options_when(quantized).kv_format,
        num_crops,
        prefill_chunk: options.prefill_chunk_alone,
        image_cache_bytes: options.image_cache_bytes_max as u64,
        kept_bytes: 0,
        context: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, InfoArgs};
    use clap::Parser;

    fn args(words: &[&str]) -> InfoArgs {
        let words = [&["phi3v", "info", "--device", "cpu"], words].concat();
        let Command::Info(args) = Cli::parse_from(words).command else { panic!("another command") };
        args
    }

    /// What is told of phi-3.5-vision with so much memory, on a card where the processor has `processor` bytes.
    fn told(words: &[&str], available: u64, processor: Option<u64>) -> Unfit {
        let args = args(words);
        let device = Device::processor(&device_options(&args.model.device)).unwrap();
        let capacity = |bytes| Capacity {
            available_bytes: Some(bytes),
            buffer_bytes_max: u64::MAX,
            ..Capacity::of(&device)
        };
        let config = ModelConfig::phi_3_5_vision();
        let need = Need::unseen(&config, &args.model, 4, &args.context);
        let error = MemoryPlan::new(&config, &need.request, capacity(available)).unwrap_err();
        need.unfit(error, capacity(available), processor.map(capacity))
    }

    #[test]
    fn q4_and_the_processor_are_named_where_they_fit() {
        const TOO_LITTLE_FOR_Q8: u64 = 4_500_000_000;
        let chosen = told(&[], TOO_LITTLE_FOR_Q8, None).q4_context.unwrap();
        assert!((CONTEXT_DEFAULT_MIN..8192).contains(&chosen), "{chosen}");
        assert_eq!(told(&["--quant", "none"], TOO_LITTLE_FOR_Q8, None).q4_context, Some(chosen));
        assert_eq!(told(&["--context", "1100"], TOO_LITTLE_FOR_Q8, None).q4_context, Some(1100));
        let less = told(&["--context", "131072"], TOO_LITTLE_FOR_Q8, Some(64 << 30));
        assert!(less.q4_context.is_some_and(|fits| (chosen..131_072).contains(&fits)) && less.on_processor);
        for words in [&["--quant", "q4"][..], &[]] {
            let nothing = told(words, 2_000_000_000, Some(2_000_000_000));
            assert_eq!((nothing.q4_context, nothing.on_processor), (None, false), "{words:?}");
        }
    }
}
