//! phi3v's own file: a whole checkpoint with quantized matrices in one safetensors file.
//!
//! docs/internals/weights-format.md specifies the format. In short: `__metadata__` names the format and its version and
//! holds the checkpoint's JSON files as text. A quantized matrix is a `U8` tensor of packed panels,
//! `[panels, groups, block_bytes]` ([`phi3v_kernels::quant`]). All other tensors are as in the checkpoint. Packed tensors
//! come first, at multiples of 64 bytes in the file, so that kernels can use the mapping directly.

use super::safetensors::{self, Entry};
use super::table::{Role, TensorSpec};
use super::{TensorView, WeightsError, shards};
use crate::files::{self, Files, ReadError};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Bytes, Format};
use std::collections::HashMap;
use std::path::Path;

/// The metadata's `format` in phi3v's own files, and only in those.
pub const FORMAT: &str = "phi3v";
/// The metadata's `version`. Readers refuse any other.
pub const VERSION: &str = "1";
/// The checkpoint's files that the metadata holds under their names.
pub const ATTACHED: [&str; 4] =
    ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"];

/// The quantization of a checkpoint: the bits of its decoder, and of all other matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quant {
    /// All matrices in 8 bits: near lossless.
    Q8,
    /// The decoder's matrices in 4 bits, all others in 8.
    Q4,
}

impl Quant {
    /// All quantizations, the least lossy first.
    pub const ALL: [Self; Self::count(Self::Q8)] = [Self::Q8, Self::Q4];

    /// Uses a match, so that a new variant does not compile until it is added to [`ALL`](Self::ALL).
    const fn count(any: Self) -> usize {
        match any {
            Self::Q8 | Self::Q4 => 2,
        }
    }

    /// Returns the quantization whose decoder is stored in `format`; `None` for a dense format.
    #[must_use]
    pub fn of(format: Format) -> Option<Self> {
        match format {
            Format::Q8 => Some(Self::Q8),
            Format::Q4 => Some(Self::Q4),
            Format::F32 | Format::F16 | Format::Bf16 => None,
        }
    }

    /// Returns the name on the command line and in the file's metadata: `q8` or `q4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// Returns the format of a tensor with the given role; `None` if the tensor stays unchanged.
    #[must_use]
    pub fn format(self, role: Role) -> Option<Format> {
        match role {
            Role::Decoder => Some(self.decoder_format()),
            Role::Sensitive => Some(Format::Q8),
            Role::Dense => None,
        }
    }

    /// Returns whether the decoder's matrices have the same format as all others.
    pub(super) fn is_uniform(self) -> bool {
        self.format(Role::Decoder) == self.format(Role::Sensitive)
    }

    /// Returns the format of the decoder's matrices, after which the quantization is named.
    #[must_use]
    pub fn decoder_format(self) -> Format {
        match self {
            Self::Q8 => Format::Q8,
            Self::Q4 => Format::Q4,
        }
    }
}

/// Returns whether a file is in phi3v's own format; all others are dense.
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

/// Checks a tensor of packed panels against its entry in the table.
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
    // the parser has checked that the number of bytes matches the dimensions
    Ok(TensorView { format: shape.format(), shape: spec.shape.clone(), bytes: entry.bytes })
}

/// Returns the files of the checkpoint that the quantized file `path` contains.
///
/// # Errors
/// [`WeightsError`] for a file that cannot be read, is not a safetensors file or not one of phi3v's own.
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
