//! Quantizes a checkpoint as a stream: a few megabytes of rows at a time, never a whole matrix.
//!
//! The result is a [`NewFile`], which appears under its name only when it is complete and on disk.

use super::digest;
use super::dtype::dtype;
use super::quantized::{ATTACHED, FORMAT, Quant, VERSION};
use super::safetensors::HEADER_BYTES_MAX;
use super::{TensorView, Weights, WeightsError, shards, table, widen};
use crate::config::ModelConfig;
use crate::files::{Existing, Files, NewFile, WriteError};
use crate::threads::for_each;
use phi3v_kernels::quant::{PackedShape, encode_panel};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::Path;

/// Maximum number of panels encoded between two writes: 64 of the largest take 34 MB of packed bytes.
const PANELS_PER_WRITE: usize = 64;

/// The data and every packed tensor begin on a multiple of this: a cache line.
const ALIGNMENT: usize = 64;

/// Why no quantized file was written. The target is then unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The checkpoint's weights were refused.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint is already quantized.
    #[error("{name} is quantized already")]
    Quantized {
        /// A tensor in packed panels.
        name: String,
    },
    /// A JSON file of the checkpoint is not UTF-8.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// Name of the file.
        file: &'static str,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] WriteError),
    /// The caller asked to stop.
    #[error("quantizing was interrupted")]
    Interrupted,
}

impl ConvertError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Weights(error) => return error.hint(),
            Self::Quantized { .. } => {
                "give the original checkpoint; what quantizing has dropped cannot be restored"
            }
            Self::NotText { .. } => "fetch the checkpoint again",
            Self::File(error) => return Some(error.hint()),
            Self::Interrupted => "nothing was left behind; run it again",
        };
        Some(hint.to_owned())
    }
}

/// The progress of a conversion, in bytes of the file being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written so far.
    pub done: u64,
    /// Bytes of the finished file.
    pub total: u64,
}

/// One tensor of the result.
struct Planned<'a> {
    name: String,
    source: &'a TensorView,
    packed: Option<PackedShape>,
}

impl Planned<'_> {
    fn bytes(&self) -> usize {
        self.packed.map_or(self.source.bytes.len(), PackedShape::bytes)
    }

    /// Returns the tensor's entry in the header.
    fn describe(&self, start: usize) -> Value {
        let dtype = dtype(self.packed.map_or(self.source.format, PackedShape::format));
        let shape = self.packed.map_or_else(|| self.source.shape.clone(), |p| p.dims().to_vec());
        json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, start + self.bytes()] })
    }
}

/// Returns the size of the file of `weights` quantized to `quant`, in bytes, without the header.
#[must_use]
pub fn quantized_bytes(weights: &Weights, config: &ModelConfig, quant: Quant) -> u64 {
    plan(weights, config, quant).map_or(0, |plan| plan.iter().map(|t| t.bytes() as u64).sum())
}

/// The format to which a checkpoint is converted, and the output file.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The quantization.
    pub quant: Quant,
    /// Path of the file to write.
    pub out: &'a Path,
    /// What to do with an existing file.
    pub existing: Existing,
}

/// Writes the checkpoint in `files`, opened as `weights` and `config`, quantized, to the target. `progress` is called
/// several times a second; `Break` ends the run.
///
/// # Errors
/// [`ConvertError`]; the target's file is then unchanged.
pub fn quantize(
    files: &Files,
    weights: &Weights,
    config: &ModelConfig,
    Target { quant, out, existing }: Target<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let plan = plan(weights, config, quant)?;
    let header = header(files, quant, &plan)?;
    let total = (header.len() + plan.iter().map(Planned::bytes).sum::<usize>()) as u64;
    let (file, state) = (NewFile::create(out, existing)?, Progress { done: 0, total });
    let mut output = Output { file, hasher: blake3::Hasher::new(), progress, state };
    output.write(&header)?;
    for tensor in &plan {
        match tensor.packed {
            Some(shape) => write_packed(tensor.source, shape, &mut output)?,
            None => output.write(&tensor.source.bytes)?,
        }
        tensor.source.bytes.forget_pages();
    }
    let Output { mut file, hasher, .. } = output;
    let place = digest::place(&header).expect("the header was made with a place for the digest");
    file.write_at(place.start as u64, hasher.finalize().to_hex().as_bytes())?;
    Ok(file.finish()?)
}

/// Returns the tensors of the result in their order: packed ones first, whose sizes are multiples of 64.
fn plan<'a>(
    weights: &'a Weights,
    config: &ModelConfig,
    quant: Quant,
) -> Result<Vec<Planned<'a>>, ConvertError> {
    let mut plan = Vec::new();
    for spec in table::tensors(config).into_iter().filter(|spec| spec.used) {
        let source = weights.tensor(&spec.name)?;
        if source.format.is_packed() {
            return Err(ConvertError::Quantized { name: spec.name });
        }
        let (n, k) = spec.matrix();
        let packed = quant.format(spec.role).and_then(|format| PackedShape::new(format, n, k));
        plan.push(Planned { name: spec.name, source, packed });
    }
    plan.sort_by_key(|tensor| tensor.packed.is_none());
    Ok(plan)
}

/// Returns length and text of the header, padded with spaces to the alignment.
fn header(files: &Files, quant: Quant, plan: &[Planned<'_>]) -> Result<Vec<u8>, ConvertError> {
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), FORMAT.into());
    metadata.insert("version".to_owned(), VERSION.into());
    metadata.insert("quant".to_owned(), quant.name().into());
    metadata.insert(digest::KEY.to_owned(), digest::BLANK.into());
    for file in ATTACHED {
        if let Some(bytes) = files.get(file).map_err(WeightsError::Read)? {
            let text = std::str::from_utf8(&bytes).map_err(|_| ConvertError::NotText { file })?;
            metadata.insert(file.to_owned(), text.into());
        }
    }
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), Value::Object(metadata));
    let mut start = 0;
    for tensor in plan {
        entries.insert(tensor.name.clone(), tensor.describe(start));
        start += tensor.bytes();
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize((8 + text.len()).next_multiple_of(ALIGNMENT) - 8, b' ');
    let (bytes, limit) = (text.len() as u64, HEADER_BYTES_MAX);
    if bytes > limit {
        // no reader would accept the file
        let file = format!("{}, quantized,", files.location());
        return Err(WeightsError::HeaderSize { file, bytes, limit }.into());
    }
    let mut header = bytes.to_le_bytes().to_vec();
    header.extend(text);
    Ok(header)
}

/// Encodes a matrix, a few panels at a time on all threads, and writes it.
fn write_packed(
    source: &TensorView,
    shape: PackedShape,
    output: &mut Output<'_>,
) -> Result<(), ConvertError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut buffer = vec![0; PANELS_PER_WRITE.min(shape.panels()) * shape.panel_bytes()];
    for first in (0..shape.panels()).step_by(PANELS_PER_WRITE) {
        let count = PANELS_PER_WRITE.min(shape.panels() - first);
        let bytes = &mut buffer[..count * shape.panel_bytes()];
        let share = count.div_ceil(threads);
        let parts = bytes.chunks_mut(share * shape.panel_bytes()).enumerate();
        for_each(threads, parts, |(i, part)| encode(source, shape, first + i * share, part));
        output.write(bytes)?;
    }
    Ok(())
}

/// Encodes the panels from `first` on, as many as `out` holds.
fn encode(source: &TensorView, shape: PackedShape, first: usize, out: &mut [u8]) {
    let (mut rows, row_bytes) = (Vec::new(), source.bytes.len() / shape.n());
    for (panel, out) in (first..).zip(out.chunks_exact_mut(shape.panel_bytes())) {
        let range = shape.panel_rows(panel);
        let bytes = &source.bytes[range.start * row_bytes..range.end * row_bytes];
        assert!(widen(bytes, source.format, &mut rows), "`plan` refuses quantized tensors");
        encode_panel(shape, panel, &rows, out);
    }
}

/// The unfinished file, its digest so far, and the callback for progress.
struct Output<'a> {
    file: NewFile,
    hasher: blake3::Hasher,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    state: Progress,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        /// Bytes between two calls of `progress`: a tenth of a second on a slow disk.
        const STEP: usize = 8 << 20;
        for part in bytes.chunks(STEP) {
            self.file.write(part)?;
            self.hasher.update(part);
            self.state.done += part.len() as u64;
            if (self.progress)(self.state).is_break() {
                return Err(ConvertError::Interrupted);
            }
        }
        Ok(())
    }
}

/// Returns the file name for the quantized checkpoint `name`: `name-q8.safetensors`.
#[must_use]
pub fn default_name(name: &str, quant: Quant) -> String {
    let stem = shards::SINGLE_FILE.trim_end_matches(".safetensors");
    let last = name.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(stem);
    format!("{last}-{}.safetensors", quant.name())
}
