//! Which model, what runs it, and how much it keeps.

use super::{DEFAULT_MODEL, Dtype, Kv, QuantChoice};
use crate::variables::variable;
use clap::Args;
use phi3v::device::DeviceChoice;
use phi3v::model::ModelOptions;
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::{Format, KvFormat};

/// The model as a flag, where it is an argument: other commands have it so.
#[derive(Debug, Args)]
pub struct ModelFlag {
    /// The same as MODEL, as other commands have it
    #[arg(long = "model", short = 'm', value_name = "NAME", conflicts_with = "model")]
    flag: Option<String>,
}

impl ModelFlag {
    /// What the flag has, or else the argument.
    pub(super) fn or<'a>(&'a self, argument: Option<&'a str>) -> Option<&'a str> {
        self.flag.as_deref().or(argument)
    }
}

/// A model that is named by an argument or a flag.
#[derive(Debug, Args)]
pub struct NamedModelArgs {
    /// demo, phi-3-vision, phi-3.5-vision, a folder with a checkpoint, or a repository of a hub (OWNER/NAME or
    /// OWNER/NAME@REVISION) [default: demo]
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// The model as a flag
    #[command(flatten)]
    pub flag: ModelFlag,
}

impl NamedModelArgs {
    /// The model's name: as given, or that of `PHI3V_MODEL`, or the built-in one.
    #[must_use]
    pub fn name(&self) -> String {
        // read here and not by clap, to which it would be an argument beside the flag
        let of_environment = || variable("PHI3V_MODEL").map(|name| name.to_string_lossy().into_owned());
        let given = self.flag.or(self.model.as_deref()).map(str::to_owned);
        given.or_else(of_environment).unwrap_or_else(|| DEFAULT_MODEL.to_owned())
    }
}

/// Which model, and what it may use.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// demo, phi-3-vision, phi-3.5-vision, a folder with a checkpoint, a file made by phi3v quantize, or a repository
    /// of a hub (OWNER/NAME or OWNER/NAME@REVISION)
    #[arg(long, short, env = "PHI3V_MODEL", default_value = DEFAULT_MODEL, hide_env = true, help_heading = None::<&str>)]
    pub model: String,
    /// Arithmetic of the products; sums are always f32
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Quantize the weights, at first use, and keep the result for the next [default: q8 for a bf16 model of more than
    /// 1 GB with --dtype bf16, otherwise none]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub quant: Option<QuantChoice>,
    /// Storage of keys and values [default: q8 with quantized weights, otherwise as --dtype]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub kv: Option<Kv>,
    /// What it runs on
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What runs the model.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// What runs the model: auto (a graphics card where one is worth it), cpu, gpu, gpu:N (as phi3v info numbers them)
    /// or a part of a card's name
    #[arg(long, value_name = "DEVICE", env = "PHI3V_DEVICE", default_value = "auto", hide_env = true)]
    pub device: DeviceChoice,
    /// Threads of the processor [default: one per core, little ones left out]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// How much is kept of a conversation.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ContextArgs {
    /// Tokens that prompt and answer may have together [default: by free memory, up to 16384]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
}

/// Bytes of weights above which a model is quantized unasked: below, there is little to be gained.
const QUANTIZED_MIN_BYTES: u64 = 1_000_000_000;

impl ModelArgs {
    /// How far a checkpoint with these weights is to be quantized; nothing for one that is already.
    #[must_use]
    pub fn quantized(&self, weights: &Weights) -> Option<Quant> {
        if weights.quant().is_some() {
            return None;
        }
        self.quantized_from(weights.dtype(), weights.bytes_total())
    }

    /// How far weights of `bytes` bytes in `format`, which is no quantized one, are to be quantized.
    #[must_use]
    pub fn quantized_from(&self, format: Format, bytes: u64) -> Option<Quant> {
        match self.quant {
            Some(choice) => choice.quant(),
            None => default_quant(self.dtype, format, bytes),
        }
    }

    /// The arithmetic for a model with these weights.
    #[must_use]
    pub fn options(&self, weights: &Weights) -> ModelOptions {
        self.options_when(weights.quant().is_some())
    }

    /// The arithmetic for a model whose weights are `quantized` by the time it is loaded.
    #[must_use]
    pub fn options_when(&self, quantized: bool) -> ModelOptions {
        let mut options = self.dtype.options();
        match self.kv {
            Some(kv) => options.kv_format = kv.format(),
            None if quantized => options.kv_format = KvFormat::Q8,
            None => {}
        }
        options
    }
}

/// What happens unasked: q8, which is near lossless, where it halves something large and no more exact arithmetic was
/// asked for.
fn default_quant(dtype: Dtype, format: Format, bytes: u64) -> Option<Quant> {
    (dtype == Dtype::Bf16 && format == Format::Bf16 && bytes > QUANTIZED_MIN_BYTES).then_some(Quant::Q8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bf16_models_are_quantized_unasked() {
        let real = 8_300_000_000;
        assert_eq!(default_quant(Dtype::Bf16, Format::Bf16, real), Some(Quant::Q8));
        assert_eq!(default_quant(Dtype::F32, Format::Bf16, real), None, "f32 was asked for");
        assert_eq!(default_quant(Dtype::Bf16, Format::Q4, real), None, "quantized already");
        assert_eq!(default_quant(Dtype::Bf16, Format::Bf16, 4_133_440), None, "the built-in model");
    }
}
