//! What can be wrong with a checkpoint's files.

use crate::error::count;
use crate::files::ReadError;

/// Why a checkpoint's weights were refused, with the file or tensor that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The folder has no safetensors file.
    #[error("{location} holds neither model.safetensors nor model.safetensors.index.json")]
    NoWeights {
        /// Path of the folder.
        location: String,
    },
    /// The index names a file that does not exist.
    #[error("{file} is missing from {location}")]
    MissingFile {
        /// Name of the file.
        file: String,
        /// Path of the folder.
        location: String,
    },
    /// A file cannot be opened or mapped.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index is longer than any real one.
    #[error("model.safetensors.index.json has {bytes} bytes, more than the {limit} allowed")]
    IndexSize {
        /// Its length in bytes.
        bytes: usize,
        /// The greatest length that is read.
        limit: usize,
    },
    /// The index is not the expected JSON.
    #[error("model.safetensors.index.json cannot be read: {0}")]
    Index(serde_json::Error),
    /// The index names a file that is not a plain file name.
    #[error(
        "model.safetensors.index.json names {file:?}, which is not a safetensors file in the same folder"
    )]
    ShardName {
        /// The name in the index.
        file: String,
    },
    /// The index names more files than any real one.
    #[error("model.safetensors.index.json names {count} files, more than the {limit} allowed")]
    ShardCount {
        /// The number of files.
        count: usize,
        /// The largest allowed number.
        limit: usize,
    },
    /// A file ends before its header does.
    #[error("{file} is truncated: it has {} and needs at least {needed}", count(*.bytes, "byte"))]
    Truncated {
        /// Name of the file.
        file: String,
        /// Its length in bytes.
        bytes: u64,
        /// Length that its first bytes require.
        needed: u64,
    },
    /// The header's length is implausible.
    #[error("{file} says that its header has {bytes} bytes, more than the {limit} allowed")]
    HeaderSize {
        /// Name of the file.
        file: String,
        /// Length stated in the file.
        bytes: u64,
        /// The greatest length that is read.
        limit: u64,
    },
    /// The header is not the expected JSON.
    #[error("the header of {file} cannot be read: {source}")]
    Header {
        /// Name of the file.
        file: String,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// The file is in a format that this release does not know.
    #[error("{file} is in the format {format:?}, which this release does not know")]
    FileFormat {
        /// Name of the file.
        file: String,
        /// The format named in its metadata.
        format: String,
    },
    /// A safetensors file was given instead of a model's folder, but it is not a complete model.
    #[error("{file} holds tensors alone, without the model's configuration and tokenizer")]
    NotWhole {
        /// Name of the file.
        file: String,
    },
    /// Two tensors share bytes.
    #[error("{second} overlaps {first} in {file}")]
    Overlap {
        /// Name of the file.
        file: String,
        /// The tensor that begins first.
        first: String,
        /// The tensor that overlaps it.
        second: String,
    },
    /// A tensor's offsets leave a gap or end before they begin.
    #[error("the offsets of {name} in {file} do not continue where the tensor before it ends")]
    Offsets {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor extends past the end of the file.
    #[error("{file} is truncated: {name} ends at byte {end} of the data, and there are {bytes}")]
    TruncatedTensor {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Where it ends, counted from the end of the header.
        end: u64,
        /// Bytes after the header.
        bytes: u64,
    },
    /// Bytes at the end belong to no tensor.
    #[error("{file} ends with {} of no tensor", count(*.bytes, "byte"))]
    TrailingBytes {
        /// Name of the file.
        file: String,
        /// The number of such bytes.
        bytes: u64,
    },
    /// A tensor's length does not match its dtype and shape.
    #[error("{name} in {file} has {}, which is not what {dtype} {shape:?} takes", count(*.found, "byte"))]
    TensorBytes {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its length in bytes.
        found: u64,
    },
    /// Two files hold the same tensor.
    #[error("{name} is in {first} and again in {second}")]
    Duplicate {
        /// Name of the tensor.
        name: String,
        /// A file that holds it.
        first: String,
        /// The file that repeats it.
        second: String,
    },
    /// The index names a file that does not hold the tensor.
    #[error("model.safetensors.index.json says that {name} is in {file}, and it is not")]
    NotInShard {
        /// Name of the tensor.
        name: String,
        /// The file the index names.
        file: String,
    },
    /// A tensor that the model needs is missing.
    #[error("the checkpoint has no tensor {name}")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// The model does not have this tensor.
    #[error("{file} holds a tensor {name} that the model of config.json does not have")]
    Extra {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than config.json requires.
    #[error("{name} in {file} is {found:?}, and config.json asks for {expected:?}")]
    Shape {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape in the table.
        expected: Vec<usize>,
    },
    /// A tensor has an unsupported dtype.
    #[error("{name} in {file} is stored as {dtype}, expected F32, F16 or BF16")]
    Dtype {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// Dense values of a quantized matrix were requested.
    #[error("{name} is quantized and has no plain values")]
    NotDense {
        /// Name of the tensor.
        name: String,
    },
}

impl WeightsError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoWeights { .. } => "give the folder of a checkpoint whose weights are safetensors files",
            Self::MissingFile { .. } | Self::Truncated { .. } | Self::TruncatedTensor { .. } => {
                "the download may have been interrupted; fetch the file again"
            }
            Self::Read(_) => "check that the file can be read",
            Self::Missing { .. } | Self::Extra { .. } | Self::Shape { .. } => {
                "config.json and the weights may come from different models; phi3v runs Phi-3-vision and Phi-3.5-vision"
            }
            Self::Dtype { .. } | Self::NotDense { .. } => "use the original checkpoint",
            Self::NotWhole { .. } => {
                "give the folder of the checkpoint, or a file that holds the whole model"
            }
            Self::FileFormat { .. } => "use a newer release of phi3v, or the original checkpoint",
            Self::IndexSize { .. }
            | Self::Index(_)
            | Self::ShardName { .. }
            | Self::ShardCount { .. }
            | Self::HeaderSize { .. }
            | Self::Header { .. }
            | Self::Overlap { .. }
            | Self::Offsets { .. }
            | Self::TrailingBytes { .. }
            | Self::TensorBytes { .. }
            | Self::Duplicate { .. }
            | Self::NotInShard { .. } => {
                "the file is damaged or was not made for this model; fetch the checkpoint again from a source you trust"
            }
        };
        Some(hint.to_owned())
    }
}
