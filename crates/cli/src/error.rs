//! Errors that end a command.

use crate::batch::BatchError;
use crate::decide::InputError;
use crate::disk;
use crate::hub::HubError;
use crate::paths::system_words;
use crate::sources::NamedImageError;
use phi3v::constraint::ConstraintError;
use phi3v::engine::EngineError;
use phi3v::error::count;
use phi3v::files::WriteError;
use phi3v::image::ImageError;
use phi3v::kernels::BackendError;
use phi3v::memory::{MemoryError, size};
use phi3v::sampler::SamplerError;
use phi3v::weights::convert::ConvertError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed: each variant has a message, an exit code and usually a hint.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An error of the library, with its reason.
    #[error(transparent)]
    Phi3V(#[from] phi3v::Error),
    /// The model cannot be found or downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// `demo` given where a folder is needed.
    #[error("the demo model is part of phi3v and has no folder")]
    DemoIsBuiltIn,
    /// A picture that cannot be read, fetched or decoded.
    #[error(transparent)]
    Picture(#[from] NamedImageError),
    /// More tokens or memory than available, in a command without `--context` that plans for exactly its request.
    #[error("{0}")]
    Fixed(phi3v::Error),
    /// A model that does not fit the memory or the device.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The pictures read so far exceed the context; no more are read.
    #[error("the pictures have {} or more, which exceed the context of {}", count(*.rows, "token"), count(*.context, "token"))]
    Pictures {
        /// Tokens of the pictures read.
        rows: usize,
        /// Tokens that fit into the context.
        context: usize,
        /// Whether pages of a document are among them.
        of_pages: bool,
        /// Whether frames of a video are among them.
        of_frames: bool,
    },
    /// The model, the memory or the device cannot handle the benchmark.
    #[error(transparent)]
    Bench(phi3v::Error),
    /// `-` as a picture although questions come from stdin.
    #[error("stdin cannot be a picture here: the questions come from it")]
    StdinTaken,
    /// A picture given in place of the question.
    #[error("no question was given{}", .names.last().map_or(String::new(), |last| format!(": {last} is a picture")))]
    NoQuestion {
        /// All arguments, each of them a picture; empty if the picture comes from the clipboard or the screen.
        names: Vec<String>,
    },
    /// An unknown preset.
    #[error("there is no preset {name}")]
    NoPreset {
        /// As the user gave it.
        name: String,
    },
    /// A schema file that is not valid JSON.
    #[error("the schema in {path} is not valid JSON: {reason}")]
    Schema {
        /// The file's path, as the user gave it.
        path: String,
        /// The JSON parser's message.
        reason: String,
    },
    /// An answer that cannot be a table.
    #[error("the answer is no table: {reason}")]
    NoTable {
        /// Why the answer is not a table.
        reason: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// A question without words.
    #[error("the question is empty")]
    EmptyQuestion,
    /// A question without words, given by a flag.
    #[error("the question is empty")]
    EmptyPrompt,
    /// The words of an unquoted question, taken for pictures.
    #[error(transparent)]
    LooseQuestion(Box<LooseQuestion>),
    /// A line of `chat` that is neither a question nor a command.
    #[error("{message}")]
    ChatCommand {
        /// What is wrong with it.
        message: String,
    },
    /// A model that is already quantized to another format than requested.
    #[error("{name} is quantized to {quant} already")]
    Quantized {
        /// Name of the model.
        name: String,
        /// The model's format.
        quant: &'static str,
    },
    /// A quantized model as the reference of a comparison, where it could only be compared with itself.
    #[error("{name} is quantized to {quant} already")]
    QuantizedReference {
        /// Name of the model.
        name: String,
        /// The model's format.
        quant: &'static str,
    },
    /// An output that would overwrite its input.
    #[error("writing {path} would destroy the model that it is made from")]
    OverwritesModel {
        /// Path of the output.
        path: String,
    },
    /// A question that is not UTF-8.
    #[error("the question is not UTF-8 text")]
    QuestionText,
    /// The output's path already exists.
    #[error("{path} exists already")]
    Exists {
        /// Path of the file.
        path: String,
    },
    /// Another process writes the same file.
    #[error("{path} is being written by another process")]
    Busy {
        /// Path of the unfinished file.
        path: String,
    },
    /// The disk became full during a write.
    #[error("cannot write {path}: {}", disk::shortage(*.needed, *.available))]
    DiskFull {
        /// Path of the file.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that are free on the disk.
        available: u64,
    },
    /// No room for a quantized model.
    #[error(
        "the quantized model takes {} and {} that stay free, and the disk of {path} has {} left",
        size(*.needed),
        size(disk::RESERVE_BYTES),
        size(*.available)
    )]
    Disk {
        /// Path of the output.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that are free on the disk.
        available: u64,
    },
    /// Why a batch could not begin or continue.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Questions or labels that cannot be used.
    #[error(transparent)]
    Decide(#[from] InputError),
    /// A file or folder named by a flag that cannot be read.
    #[error("cannot read {path}: {}", system_words(.error))]
    Unreadable {
        /// The path, as the user gave it.
        path: String,
        /// Why it cannot be read.
        error: io::Error,
        /// A hint that replaces the usual one for files.
        hint: Option<String>,
    },
    /// A file named by a flag that can be read but not used.
    #[error("{message}")]
    Unusable {
        /// What is wrong, in one sentence.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Any other file that cannot be read or written.
    #[error("cannot {action} {path}: {}", system_words(.error))]
    File {
        /// The attempted action, `read` or `write`.
        action: &'static str,
        /// Path of the file.
        path: String,
        /// Why the system refuses the action.
        error: io::Error,
    },
    /// The server cannot start, or had to stop.
    #[error("{message}")]
    Server {
        /// What is wrong, in one sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// No healthy server answered the health check.
    #[error("{url} does not answer as a healthy server: {reason}")]
    Unhealthy {
        /// The requested address.
        url: String,
        /// What came instead of a healthy answer.
        reason: String,
    },
    /// stdout cannot be written to.
    #[error("cannot write to stdout: {}", unwritten(.0))]
    Output(io::Error),
    /// Any other error within `chat`, with hints that apply there.
    #[error(transparent)]
    InChat(Box<Self>),
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// A model that does not fit the memory or the device, and what would fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Unfit {
    /// Why it does not fit.
    pub error: MemoryError,
    /// Tokens of the context with which the q4 model would fit; `None` if it is already quantized so, or would not fit.
    pub q4_context: Option<usize>,
    /// Whether the processor has room for the model, if a card was to run it.
    pub on_processor: bool,
}

impl From<MemoryError> for Unfit {
    fn from(error: MemoryError) -> Self {
        Self { error, q4_context: None, on_processor: false }
    }
}

/// A missing picture whose name is probably a word of an unquoted question.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct LooseQuestion {
    /// Why there is no picture with that name.
    pub error: NamedImageError,
    /// The words from the first that is not a picture, separated by blanks.
    pub question: String,
}

/// The exit codes of a command, as `phi3v --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Any failure without a code of its own.
    Failure = 1,
    /// Wrong usage; the code that clap uses.
    Usage = 2,
    /// A picture cannot be read.
    Picture = 3,
    /// The model cannot be found, read or downloaded.
    Model = 4,
    /// Memory or context are too small.
    Memory = 5,
    /// A batch is done, and some inputs have an error instead of an answer.
    SomeFailed = 6,
    /// 128 + SIGINT, as in shells.
    Interrupted = 130,
}

impl CliError {
    /// The error for a file or folder named by a flag that cannot be read.
    #[must_use]
    pub fn unreadable(path: &Path, error: io::Error) -> Self {
        Self::Unreadable { path: path.display().to_string(), error, hint: None }
    }

    /// The error for a file of `needed` bytes that could not be written; 0 if the size is unknown.
    #[must_use]
    pub fn written(error: WriteError, needed: u64) -> Self {
        let text = |path: PathBuf| path.display().to_string();
        match error {
            WriteError::Exists { path } => Self::Exists { path: text(path) },
            WriteError::Busy { path } => Self::Busy { path: text(path) },
            WriteError::DiskFull { path } => {
                let available = disk::available(&path).unwrap_or(0);
                Self::DiskFull { path: text(path), needed, available }
            }
            WriteError::Write { path, source } => {
                Self::File { action: "write", path: text(path), error: source }
            }
            other => Self::Phi3V(ConvertError::from(other).into()),
        }
    }

    /// The program's exit code for this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Phi3V(error) | Self::Fixed(error) | Self::Bench(error) => library_code(error),
            Self::Pictures { .. } | Self::Unfit(_) => ExitCode::Memory,
            Self::Picture(NamedImageError::StdinTwice) => ExitCode::Usage,
            Self::Picture(NamedImageError::Unprepared) => ExitCode::Failure,
            Self::Picture(NamedImageError::Image { error: ImageError::OutOfMemory { .. }, .. }) => {
                ExitCode::Memory
            }
            Self::Picture(_) | Self::LooseQuestion(_) => ExitCode::Picture,
            Self::Hub(HubError::Model(error)) => library_code(error),
            Self::Hub(HubError::GivenUp) => ExitCode::Interrupted,
            Self::Hub(_) | Self::DemoIsBuiltIn => ExitCode::Model,
            Self::StdinTaken
            | Self::QuestionText
            | Self::EmptyQuestion
            | Self::EmptyPrompt
            | Self::Unreadable { .. }
            | Self::Unusable { .. }
            | Self::ChatCommand { .. }
            | Self::Quantized { .. }
            | Self::QuantizedReference { .. }
            | Self::OverwritesModel { .. }
            | Self::Exists { .. }
            | Self::NoPreset { .. }
            | Self::Schema { .. }
            | Self::Decide(_)
            | Self::NoQuestion { .. } => ExitCode::Usage,
            Self::Server { .. }
            | Self::NoTable { .. }
            | Self::Unhealthy { .. }
            | Self::File { .. }
            | Self::Busy { .. }
            | Self::Disk { .. }
            | Self::DiskFull { .. }
            | Self::Output(_) => ExitCode::Failure,
            Self::Batch(error) => batch_code(error),
            Self::InChat(error) => error.exit_code(),
            Self::Interrupted => ExitCode::Interrupted,
        }
    }

    /// The same error with the hints of `chat`, where flags no longer help.
    #[must_use]
    pub fn in_chat(self) -> Self {
        if matches!(self, Self::InChat(_)) { self } else { Self::InChat(Box::new(self)) }
    }

    /// Whether the reader of stdout has closed it, which is not a failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        match self {
            Self::InChat(error) => error.is_closed_pipe(),
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

/// Why stdout could not be written to. A full disk has the same message on every system.
fn unwritten(error: &io::Error) -> String {
    if phi3v::files::is_full(error) { "the disk is full".to_owned() } else { system_words(error) }
}

fn batch_code(error: &BatchError) -> ExitCode {
    match error {
        BatchError::NoPrompt { error, .. } => batch_code(error),
        BatchError::SomeFailed { .. } => ExitCode::SomeFailed,
        BatchError::NoPictures { .. } | BatchError::NoPdf { .. } | BatchError::Read { .. } => {
            ExitCode::Picture
        }
        BatchError::Pattern { .. }
        | BatchError::Pipe { .. }
        | BatchError::Mixed { .. }
        | BatchError::SameId { .. }
        | BatchError::Line { .. }
        | BatchError::Questions { .. }
        | BatchError::Flags { .. }
        | BatchError::OtherJob { .. }
        | BatchError::OtherContent { .. }
        | BatchError::OtherVersion { .. }
        | BatchError::NotAJournal { .. }
        | BatchError::Exists { .. }
        | BatchError::NoParquet => ExitCode::Usage,
        BatchError::Damaged { .. }
        | BatchError::Busy { .. }
        | BatchError::DiskFull { .. }
        | BatchError::Write { .. }
        | BatchError::Sidecars { .. }
        | BatchError::Device(_)
        | BatchError::Unprepared { .. } => ExitCode::Failure,
    }
}

/// The exit code of a library error, by the area that caused it.
fn library_code(error: &phi3v::Error) -> ExitCode {
    use phi3v::Error;
    match error.root() {
        Error::Image(ImageError::OutOfMemory { .. }) => ExitCode::Memory,
        Error::Image(_) => ExitCode::Picture,
        Error::Convert(ConvertError::Interrupted) => ExitCode::Interrupted,
        Error::Convert(ConvertError::Quantized { .. }) => ExitCode::Usage,
        Error::Checkpoint(_) | Error::Config(_) | Error::Weights(_) | Error::Tokenizer(_) => ExitCode::Model,
        Error::Memory(_) | Error::Engine(EngineError::ContextLength { .. }) => ExitCode::Memory,
        Error::Backend(error) => match error {
            BackendError::OutOfMemory { .. } => ExitCode::Memory,
            BackendError::MatrixSize { .. } | BackendError::MatrixShape { .. } => ExitCode::Model,
            // a lost card, as in a batch
            _ => ExitCode::Failure,
        },
        Error::Sampler(SamplerError::BadLogit { .. }) => ExitCode::Model,
        Error::Engine(EngineError::DamagedCache) => ExitCode::Failure,
        Error::Constraint(ConstraintError::TooLarge { .. } | ConstraintError::Invalid { .. }) => {
            ExitCode::Usage
        }
        Error::Decide(_) | Error::Calibration(_) => ExitCode::Usage,
        Error::Device(_) | Error::Sampler(_) | Error::Processor(_) | Error::Engine(_) => ExitCode::Usage,
        Error::Stopped => ExitCode::Interrupted,
        _ => ExitCode::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::kernels::Format;
    use std::sync::Arc;

    #[test]
    fn a_device_without_memory_a_lost_one_and_a_wrong_matrix_are_different_failures() {
        let (n, k, format) = (3, 5, Format::Q8);
        for (error, code) in [
            (BackendError::OutOfMemory { bytes: 7 }, ExitCode::Memory),
            (BackendError::Device { reason: "it was lost".to_owned() }, ExitCode::Failure),
            (BackendError::MatrixSize { n, k, format, expected: 9, found: 8 }, ExitCode::Model),
            (BackendError::MatrixShape { n, k, format }, ExitCode::Model),
        ] {
            let told = error.to_string();
            assert_eq!(CliError::from(phi3v::Error::from(error)).exit_code(), code, "{told}");
        }
        let lost = || BackendError::Device { reason: "it was lost".to_owned() };
        let in_batch = CliError::from(BatchError::Device(lost().to_string()));
        assert_eq!(in_batch.exit_code(), CliError::from(phi3v::Error::from(lost())).exit_code());
    }

    #[test]
    fn an_error_that_requests_share_counts_as_itself() {
        let errors: [fn() -> phi3v::Error; 3] = [
            || BackendError::OutOfMemory { bytes: 7 }.into(),
            || EngineError::DamagedCache.into(),
            || SamplerError::BadLogit { token: 1, value: f32::NAN }.into(),
        ];
        for (error, code) in errors.iter().zip([ExitCode::Memory, ExitCode::Failure, ExitCode::Model]) {
            let shared = phi3v::Error::Shared(Arc::new(error()));
            let (shared, own) = (CliError::from(shared), CliError::from(error()));
            assert_eq!((shared.to_string(), shared.hint()), (own.to_string(), own.hint()));
            assert_eq!((shared.exit_code(), own.exit_code()), (code, code));
        }
    }
}
