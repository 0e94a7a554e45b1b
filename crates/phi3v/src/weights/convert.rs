//! Quantises a checkpoint in a stream: some megabytes of rows at a time, never a whole matrix.
//!
//! The result appears under its name only when it is complete and on the disk: it is written to `NAME.partial`, which
//! is locked against a second writer, removed on every error, and overwritten by the next run where a run was killed.

use super::quantized::{ATTACHED, FORMAT, Quant, VERSION};
use super::safetensors::HEADER_BYTES_MAX;
use super::{TensorView, Weights, WeightsError, shards, table, widen};
use crate::config::ModelConfig;
use crate::files::Files;
use phi3v_kernels::Format;
use phi3v_kernels::quant::{PackedShape, encode_panel};
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Panels encoded between two writes, at most: 64 of the largest take 34 MB of packed bytes.
const PANELS_PER_WRITE: usize = 64;

/// The data begins on a multiple of this, and so does every packed tensor: a cache line.
const ALIGNMENT: usize = 64;

/// Why no quantised file was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The checkpoint's weights were refused.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint is quantised already.
    #[error("{name} is quantised already")]
    Quantised {
        /// A tensor in packed panels.
        name: String,
    },
    /// A JSON file of the checkpoint is not UTF-8.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: &'static str,
    },
    /// Another run writes the same file.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The caller asked to stop.
    #[error("quantising was interrupted")]
    Interrupted,
}

impl ConvertError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Weights(error) => return error.hint(),
            Self::Quantised { .. } => {
                "give the original checkpoint; what quantising has dropped cannot be had back"
            }
            Self::NotText { .. } => "fetch the checkpoint again",
            Self::Busy { .. } => "wait until the other run has finished",
            Self::Write { .. } => "check that the folder can be written to and that the disk has room",
            Self::Interrupted => "nothing was left behind; run it again",
        };
        Some(hint.to_owned())
    }
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done: u64,
    /// Bytes of the finished file.
    pub total: u64,
}

/// Where `out` is written to before it is whole: `NAME.partial`.
#[must_use]
pub fn partial_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
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

    /// The tensor's entry in the header.
    fn describe(&self, start: usize) -> Value {
        let dtype = match (self.packed, self.source.format) {
            (Some(_), _) | (None, Format::Q8 | Format::Q4) => "U8",
            (None, Format::F32) => "F32",
            (None, Format::F16) => "F16",
            (None, Format::Bf16) => "BF16",
        };
        let shape = self.packed.map_or_else(|| self.source.shape.clone(), |p| p.dims().to_vec());
        json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, start + self.bytes()] })
    }
}

/// Bytes that the file of `weights` quantised to `quant` will have, but for the header.
#[must_use]
pub fn quantised_bytes(weights: &Weights, config: &ModelConfig, quant: Quant) -> u64 {
    plan(weights, config, quant).map_or(0, |plan| plan.iter().map(|t| t.bytes() as u64).sum())
}

/// Writes the checkpoint in `files`, opened as `weights` and `config`, to `out`, quantised to `quant`. `progress` is
/// called several times a second; `Break` ends the run.
///
/// # Errors
/// [`ConvertError`]; `out` is then what it was before.
pub fn quantise(
    files: &Files,
    (weights, config): (&Weights, &ModelConfig),
    quant: Quant,
    out: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let plan = plan(weights, config, quant)?;
    let header = header(files, quant, &plan)?;
    let total = (header.len() + plan.iter().map(Planned::bytes).sum::<usize>()) as u64;
    let mut output = Output::create(out, total, progress)?;
    output.write(&header)?;
    for tensor in &plan {
        match tensor.packed {
            Some(shape) => write_packed(tensor.source, shape, &mut output)?,
            None => output.write(&tensor.source.bytes)?,
        }
        tensor.source.bytes.forget_pages();
    }
    output.finish(out)
}

/// The tensors of the result in their order: packed ones first, whose sizes are multiples of 64.
fn plan<'a>(
    weights: &'a Weights,
    config: &ModelConfig,
    quant: Quant,
) -> Result<Vec<Planned<'a>>, ConvertError> {
    let mut plan = Vec::new();
    for spec in table::tensors(config).into_iter().filter(|spec| spec.used) {
        let source = weights.tensor(&spec.name)?;
        if source.format.is_packed() {
            return Err(ConvertError::Quantised { name: spec.name });
        }
        let (n, k) = spec.matrix();
        let packed = quant.format(spec.role).and_then(|format| PackedShape::new(format, n, k));
        plan.push(Planned { name: spec.name, source, packed });
    }
    plan.sort_by_key(|tensor| tensor.packed.is_none());
    Ok(plan)
}

/// Length and text of the header, padded with spaces to the alignment.
fn header(files: &Files, quant: Quant, plan: &[Planned<'_>]) -> Result<Vec<u8>, ConvertError> {
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), FORMAT.into());
    metadata.insert("version".to_owned(), VERSION.into());
    metadata.insert("quant".to_owned(), quant.name().into());
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
        // no reader would take the file
        let file = format!("{}, quantised,", files.location());
        return Err(WeightsError::HeaderSize { file, bytes, limit }.into());
    }
    let mut header = bytes.to_le_bytes().to_vec();
    header.extend(text);
    Ok(header)
}

/// Encodes a matrix, some panels at a time on all threads, and writes it.
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
        std::thread::scope(|scope| {
            for (i, part) in bytes.chunks_mut(share * shape.panel_bytes()).enumerate() {
                scope.spawn(move || encode(source, shape, first + i * share, part));
            }
        });
        output.write(bytes)?;
    }
    Ok(())
}

/// Encodes the panels from `first` on that `out` has room for.
fn encode(source: &TensorView, shape: PackedShape, first: usize, out: &mut [u8]) {
    let (mut rows, row_bytes) = (Vec::new(), source.bytes.len() / shape.n());
    for (panel, out) in (first..).zip(out.chunks_exact_mut(shape.panel_bytes())) {
        let range = shape.panel_rows(panel);
        let bytes = &source.bytes[range.start * row_bytes..range.end * row_bytes];
        assert!(widen(bytes, source.format, &mut rows), "`plan` refuses quantised tensors");
        encode_panel(shape, panel, &rows, out);
    }
}

/// The unfinished file; dropping it removes it.
struct Output<'a> {
    file: Option<BufWriter<File>>,
    path: PathBuf,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    state: Progress,
}

impl<'a> Output<'a> {
    fn create(
        out: &Path,
        total: u64,
        progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, ConvertError> {
        let path = partial_path(out);
        let failed = |source| ConvertError::Write { path: path.clone(), source };
        // truncated only once it is ours alone
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let ours = match file.try_lock() {
            // another writer may have finished in between, and what was opened be its result under its name
            Ok(()) => is_at(&file, &path).map_err(failed)?,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        };
        if !ours {
            return Err(ConvertError::Busy { path });
        }
        let state = Progress { done: 0, total };
        let output = Self { file: Some(BufWriter::new(file)), path, progress, state };
        output.file().get_ref().set_len(0).map_err(|source| output.failed(source))?;
        Ok(output)
    }

    fn file(&self) -> &BufWriter<File> {
        self.file.as_ref().expect("the file is taken by finish alone")
    }

    fn failed(&self, source: std::io::Error) -> ConvertError {
        ConvertError::Write { path: self.path.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        /// Bytes between two calls of `progress`: a tenth of a second on a slow disk.
        const STEP: usize = 8 << 20;
        for part in bytes.chunks(STEP) {
            let file = self.file.as_mut().expect("the file is taken by finish alone");
            file.write_all(part).map_err(|source| ConvertError::Write { path: self.path.clone(), source })?;
            self.state.done += part.len() as u64;
            if (self.progress)(self.state).is_break() {
                return Err(ConvertError::Interrupted);
            }
        }
        Ok(())
    }

    /// Puts everything on the disk and gives the file its name.
    fn finish(mut self, out: &Path) -> Result<(), ConvertError> {
        let mut file = self.file.take().expect("the file is taken once");
        let flushed = file.flush().and_then(|()| file.get_ref().sync_all());
        flushed.and_then(|()| std::fs::rename(&self.path, out)).map_err(|source| {
            // `drop` no longer knows the file
            drop(std::fs::remove_file(&self.path));
            ConvertError::Write { path: out.to_owned(), source }
        })?;
        // the name too; where folders cannot be opened (Windows) there is nothing to be done
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        drop(File::open(folder).and_then(|folder| folder.sync_all()));
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // the name goes before the lock, which ends with the file; an error on the way is being reported already
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Whether the open `file` is what lies at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let opened = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the open and locked `file` is what lies at `path`: a second opening of it cannot be locked.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> std::io::Result<bool> {
    match File::options().write(true).open(path) {
        Ok(again) => Ok(matches!(again.try_lock(), Err(TryLockError::WouldBlock))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name a quantised file gets beside or instead of the checkpoint `name`: `name-q8.safetensors`.
#[must_use]
pub fn default_name(name: &str, quant: Quant) -> String {
    let stem = shards::SINGLE_FILE.trim_end_matches(".safetensors");
    let last = name.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(stem);
    format!("{last}-{}.safetensors", quant.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_renamed_is_no_longer_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.partial");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&path, folder.path().join("a")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let other = File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        assert!(is_at(&other, &path).unwrap());
    }
}
