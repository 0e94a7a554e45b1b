//! phi3v's own file: a whole checkpoint, its matrices quantized, in one safetensors file.
//!
//! The format is specified in docs/internals/weights-format.md. In short: `__metadata__` names the format and its
//! version and holds the checkpoint's JSON files as text; a quantized matrix is a `U8` tensor of packed panels,
//! `[panels, groups, block_bytes]` ([`phi3v_kernels::quant`]); every other tensor is as in the checkpoint. Packed
//! tensors come first, on 64-byte borders of the file, so that the mapping can be computed with as it is.

use super::safetensors::{self, Entry};
use super::table::{Role, TensorSpec};
use super::{TensorView, WeightsError, shards};
use crate::files::{self, Files, ReadError};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Bytes, Format};
use std::collections::HashMap;
use std::path::Path;

/// What the metadata's `format` says in a file of phi3v's own, and in no other.
pub const FORMAT: &str = "phi3v";
/// What the metadata's `version` says. A reader refuses every other.
pub const VERSION: &str = "1";
/// The checkpoint's files that the metadata holds, under their names.
pub const ATTACHED: [&str; 4] =
    ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"];

/// How far a checkpoint is quantized: the bits of its decoder, and of all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quant {
    /// All matrices in 8 bits: near lossless.
    Q8,
    /// The decoder's matrices in 4 bits, all others in 8.
    Q4,
}

impl Quant {
    /// Every way to quantize, the least lossy first.
    pub const ALL: [Self; Self::count(Self::Q8)] = [Self::Q8, Self::Q4];

    /// A match counts, so that a new way does not compile without its place in [`ALL`](Self::ALL).
    const fn count(any: Self) -> usize {
        match any {
            Self::Q8 | Self::Q4 => 2,
        }
    }

    /// The way whose decoder is held in `format`; `None` for a dense format.
    #[must_use]
    pub fn of(format: Format) -> Option<Self> {
        match format {
            Format::Q8 => Some(Self::Q8),
            Format::Q4 => Some(Self::Q4),
            Format::F32 | Format::F16 | Format::Bf16 => None,
        }
    }

    /// The name on the command line and in the file's metadata: `q8` or `q4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The format of a tensor of that role; `None` for one that stays as it is.
    #[must_use]
    pub fn format(self, role: Role) -> Option<Format> {
        match role {
            Role::Decoder => Some(self.decoder_format()),
            Role::Sensitive => Some(Format::Q8),
            Role::Dense => None,
        }
    }

    /// Whether the decoder's matrices are held as all others are.
    pub(super) fn is_uniform(self) -> bool {
        self.format(Role::Decoder) == self.format(Role::Sensitive)
    }

    /// The format of the decoder's matrices, by which the whole is called.
    #[must_use]
    pub fn decoder_format(self) -> Format {
        match self {
            Self::Q8 => Format::Q8,
            Self::Q4 => Format::Q4,
        }
    }
}

/// Whether a file is phi3v's own; every other is dense.
pub(super) fn is_packed(file: &str, metadata: &HashMap<String, String>) -> Result<bool, WeightsError> {
    match metadata.get("format").map(String::as_str) {
        None | Some("pt" | "np" | "numpy" | "tf" | "flax" | "mlx") => Ok(false),
        Some(FORMAT) if metadata.get("version").is_some_and(|v| v == VERSION) => Ok(true),
        Some(format) => {
            let version = metadata.get("version").map_or_else(String::new, |v| format!(" {v}"));
            Err(WeightsError::FileFormat { file: file.to_owned(), format: format!("{format}{version}") })
        }
    }
}

/// Checks a tensor of packed panels against its line of the table.
pub(super) fn view(file: &str, entry: Entry, spec: &TensorSpec) -> Result<TensorView, WeightsError> {
    let (n, k) = spec.matrix();
    let mut shapes = Quant::ALL
        .iter()
        .filter_map(|quant| quant.format(spec.role))
        .filter_map(|format| PackedShape::new(format, n, k));
    let Some(shape) = shapes.clone().find(|shape| shape.dims()[..] == entry.shape) else {
        let (file, name) = (file.to_owned(), entry.name);
        return Err(match shapes.next_back() {
            Some(shape) => {
                WeightsError::Shape { file, name, found: entry.shape, expected: shape.dims().to_vec() }
            }
            None => WeightsError::Dtype { file, name, dtype: entry.dtype },
        });
    };
    // the parser has made sure that the bytes are as many as the dimensions say
    Ok(TensorView { format: shape.format(), shape: spec.shape.clone(), bytes: entry.bytes })
}

/// The files of the checkpoint that the quantized file `path` holds.
///
/// # Errors
/// [`WeightsError`] for a file that cannot be read, is no safetensors file or not one of phi3v's own.
pub fn open(path: &Path) -> Result<Files, WeightsError> {
    let bytes = files::map_regular(path)
        .map_err(|source| WeightsError::Read(ReadError { path: path.to_owned(), source }))?;
    let name =
        path.file_stem().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    let file = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let metadata = safetensors::parse(&file, &bytes)?.metadata;
    if !is_packed(&file, &metadata)? {
        return Err(WeightsError::NotWhole { file });
    }
    let mut files = vec![(shards::SINGLE_FILE.to_owned(), bytes)];
    for name in ATTACHED {
        if let Some(text) = metadata.get(name) {
            files.push((name.to_owned(), Bytes::from(text.clone().into_bytes())));
        }
    }
    Ok(Files::Memory { name, files })
}
