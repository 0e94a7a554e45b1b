//! The formats of weights, products and keys, as flags name them.

use clap::ValueEnum;
use phi3v::model::ModelOptions;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::KvFormat;

/// Arithmetic of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floating point: slower, closest to the reference
    F32,
    /// 16-bit floating point, as the checkpoint's weights
    Bf16,
}

impl Dtype {
    /// The library's words for it.
    #[must_use]
    pub fn options(self) -> ModelOptions {
        match self {
            Self::F32 => ModelOptions::F32,
            Self::Bf16 => ModelOptions::BF16,
        }
    }

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A quantized format that weights can be written in, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    /// All matrices in 8 bits
    Q8,
    /// The decoder's matrices in 4 bits, all others in 8
    Q4,
}

impl Bits {
    /// The library's word for it.
    #[must_use]
    pub fn quant(self) -> Quant {
        match self {
            Self::Q8 => Quant::Q8,
            Self::Q4 => Quant::Q4,
        }
    }
}

/// Whether and how far weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QuantChoice {
    /// As the checkpoint has them
    None,
    /// All matrices in 8 bits: near lossless
    Q8,
    /// The decoder's matrices in 4 bits, all others in 8
    Q4,
}

impl QuantChoice {
    /// The library's word for it.
    #[must_use]
    pub fn quant(self) -> Option<Quant> {
        match self {
            Self::None => None,
            Self::Q8 => Some(Quant::Q8),
            Self::Q4 => Some(Quant::Q4),
        }
    }
}

/// Formats that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchFormat {
    /// 16 bits
    Bf16,
    /// 8 bits
    Q8,
    /// The decoder in 4 bits
    Q4,
}

impl BenchFormat {
    /// The library's word for it.
    #[must_use]
    pub fn quant(self) -> Option<Quant> {
        match self {
            Self::Bf16 => None,
            Self::Q8 => Some(Quant::Q8),
            Self::Q4 => Some(Quant::Q4),
        }
    }
}

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    /// 32 bits
    F32,
    /// 16 bits
    Bf16,
    /// 8 bits, with a scale for each token and head
    Q8,
}

impl Kv {
    /// The library's word for it.
    #[must_use]
    pub fn format(self) -> KvFormat {
        match self {
            Self::F32 => KvFormat::F32,
            Self::Bf16 => KvFormat::Bf16,
            Self::Q8 => KvFormat::Q8,
        }
    }

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
        }
    }
}
