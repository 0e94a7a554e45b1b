//! What a command ends with when it does not succeed.

use crate::disk;
use crate::hub::HubError;
use crate::paths::{quoted, system_words};
use crate::server::ServeError;
use crate::sources::{PictureError, SourceError, Unallowed};
use crate::tell;
use crate::terminal::printable;
use phi3v::engine::EngineError;
use phi3v::files::WriteError;
use phi3v::image::ImageError;
use phi3v::memory::size;
use phi3v::sampler::SamplerError;
use phi3v::weights::convert::ConvertError;
use phi3v_kernels::CpuError;
use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The library's refusal.
    #[error(transparent)]
    Phi3V(#[from] phi3v::Error),
    /// The model cannot be found or downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// `demo` where a folder is needed.
    #[error("the demo model is part of phi3v and has no folder")]
    DemoIsBuiltIn,
    /// The processor cannot be used as asked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A picture that cannot be had.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// More tokens or memory than there is room for, where the command has no `--context`.
    #[error("{0}")]
    Fixed(phi3v::Error),
    /// `-` where questions come from stdin.
    #[error("stdin cannot be a picture here: the questions come from it")]
    StdinTaken,
    /// A picture where the question should be.
    #[error("no question was given: {} is a picture", .names.last().map_or("-", String::as_str))]
    NoQuestion {
        /// All arguments, pictures every one.
        names: Vec<String>,
    },
    /// No words in the question.
    #[error("the question is empty")]
    EmptyQuestion,
    /// A line of `chat` that is no question and no command.
    #[error("{message}")]
    ChatCommand {
        /// What is wrong with it.
        message: String,
    },
    /// A model that something is to be made of, or to be compared with.
    #[error("{name} is quantised to {quant} already")]
    Quantised {
        /// What the model is called.
        name: String,
        /// How far.
        quant: &'static str,
    },
    /// A result in the place of what it is made from.
    #[error("writing {path} would destroy the model that it is made from")]
    OverwritesModel {
        /// Where it was to go.
        path: String,
    },
    /// A question in another encoding.
    #[error("the question is not UTF-8 text")]
    QuestionText,
    /// Something has the name of what is to be written.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: String,
    },
    /// Another process writes the same file.
    #[error("{path} is being written by another process")]
    Busy {
        /// The unfinished file.
        path: String,
    },
    /// The disk has become full while something was written.
    #[error("cannot write {path}: {}", disk::shortage(*.needed, *.available))]
    DiskFull {
        /// The file.
        path: String,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// No room for a quantised model.
    #[error(
        "the quantised model takes {} and {} that stay free, and the disk of {path} has {} left",
        size(*.needed),
        size(disk::RESERVE_BYTES),
        size(*.available)
    )]
    Disk {
        /// Where it was to go.
        path: String,
        /// Its size.
        needed: u64,
        /// What is free.
        available: u64,
    },
    /// Any other file.
    #[error("cannot {action} {path}: {}", system_words(.error))]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which one.
        path: String,
        /// The system's refusal.
        error: io::Error,
    },
    /// The server cannot start, or had to end.
    #[error("{message}")]
    Server {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// stdout cannot be written to.
    #[error("cannot write the answer: {}", system_words(.0))]
    Output(io::Error),
    /// Any of the others in `chat`, where other things can be done about it.
    #[error(transparent)]
    InChat(Box<Self>),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// The numbers that the help explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Anything without a number of its own.
    Failure = 1,
    /// Wrong usage; clap's own number.
    Usage = 2,
    /// A picture cannot be read.
    Picture = 3,
    /// The model cannot be found, read or downloaded.
    Model = 4,
    /// Memory or context are too small.
    Memory = 5,
    /// 128 + SIGINT, as shells have it.
    Interrupted = 130,
}

impl CliError {
    /// What the user can do about it, one sentence, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Phi3V(error) => return error.hint(),
            Self::Hub(error) => return error.hint(),
            Self::Cpu(error) => return error.hint(),
            Self::Picture(error) => return picture_hint(error),
            Self::Server { hint, .. } => return hint.clone(),
            Self::Fixed(_) => {
                "shorten the prompt, use fewer or smaller pictures (--num-crops), or lower --max-new-tokens"
                    .to_owned()
            }
            Self::DemoIsBuiltIn => "write its files to a folder with phi3v export-demo DIR".to_owned(),
            Self::NoQuestion { names } => no_question_hint(names),
            Self::InChat(error) => return chat_hint(error).or_else(|| error.hint()),
            Self::File { action: "read", error, .. } if error.kind() == io::ErrorKind::FileTooLarge => {
                "check that it is the text you mean, or shorten it".to_owned()
            }
            Self::EmptyQuestion => "put a question last, in quotes: \"What is in this picture?\"".to_owned(),
            Self::ChatCommand { .. } => "/help lists the commands".to_owned(),
            Self::Quantised { .. } => "give the original checkpoint, or leave --quant out".to_owned(),
            Self::Exists { .. } => "give another name, or replace it with --force".to_owned(),
            Self::Busy { .. } => "wait until the other run has finished".to_owned(),
            Self::DiskFull { .. } => "free some space, or write to another disk".to_owned(),
            Self::OverwritesModel { .. } => "give another name with --out".to_owned(),
            Self::Disk { .. } => {
                "free some space, or use another disk (--out, or PHI3V_CACHE); q4 takes three fifths of q8"
                    .to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// Of a file of `needed` bytes that could not be written, where so much is known.
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

    /// Prints the error, and the hint on a line of its own.
    pub fn print(&self) {
        // who pressed Ctrl-C knows
        if self.exit_code() == ExitCode::Interrupted {
            return;
        }
        tell!("error: {}", printable(&self.to_string()));
        if let Some(hint) = self.hint() {
            tell!("hint: {}", printable(&hint));
        }
    }

    /// The number the program ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Phi3V(error) | Self::Fixed(error) => library_code(error),
            Self::Picture(PictureError::StdinTwice) => ExitCode::Usage,
            Self::Picture(_) => ExitCode::Picture,
            Self::Hub(HubError::Model(error)) => library_code(error),
            Self::Hub(_) | Self::DemoIsBuiltIn => ExitCode::Model,
            Self::Cpu(_)
            | Self::StdinTaken
            | Self::QuestionText
            | Self::EmptyQuestion
            | Self::ChatCommand { .. }
            | Self::Quantised { .. }
            | Self::OverwritesModel { .. }
            | Self::Exists { .. }
            | Self::NoQuestion { .. } => ExitCode::Usage,
            Self::Server { .. }
            | Self::File { .. }
            | Self::Busy { .. }
            | Self::Disk { .. }
            | Self::DiskFull { .. }
            | Self::Output(_) => ExitCode::Failure,
            Self::InChat(error) => error.exit_code(),
            Self::Interrupted => ExitCode::Interrupted,
        }
    }

    /// The same with the hints of `chat`.
    #[must_use]
    pub fn in_chat(self) -> Self {
        if matches!(self, Self::InChat(_)) { self } else { Self::InChat(Box::new(self)) }
    }

    /// Whether the reader of stdout has left, which is no failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        match self {
            Self::InChat(error) => error.is_closed_pipe(),
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

/// A command that would have worked; of `ask`'s words the pictures that are there, and the question if there was one.
fn no_question_hint(names: &[String]) -> String {
    let is_address = |name: &str| name.starts_with("http://") || name.starts_with("https://");
    let is_there = |name: &&String| *name == "-" || is_address(name) || std::path::Path::new(name).is_file();
    let (pictures, words): (Vec<&String>, Vec<&String>) = names.iter().partition(is_there);
    let question = match words[..] {
        [] => "What is this?",
        [question] if question.contains(char::is_whitespace) => question,
        _ => return "put the question last, in quotes: \"What is this?\"".to_owned(),
    };
    let mut command = "phi3v ask".to_owned();
    for host in pictures.iter().filter_map(|name| http_host(name)) {
        command += &format!(" --allow-url {host}");
    }
    for picture in pictures {
        command += &format!(" {}", quoted(picture));
    }
    let question = if words.is_empty() { format!("\"{question}\"") } else { quoted(question) };
    format!("put the question last: {command} {question}")
}

/// What can be done within `chat`, where it is something else than elsewhere.
fn chat_hint(error: &CliError) -> Option<String> {
    Some(match error {
        CliError::Picture(PictureError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            "check the path; after /image Tab completes it".to_owned()
        }
        CliError::Picture(
            PictureError::Url { url }
            | PictureError::Fetch { url, error: SourceError::NotAllowed(_) | SourceError::NoFile },
        ) if http_host(url).is_some() => {
            let host = http_host(url)?;
            format!("begin with phi3v chat --allow-url {host}; or {}", download(url))
        }
        CliError::Picture(PictureError::Fetch { url, .. }) => download(url),
        CliError::Phi3V(phi3v::Error::Engine(EngineError::ContextLength { .. })) => {
            "/reset makes room; chat --context gives more of it".to_owned()
        }
        _ => return None,
    })
}

/// How a picture of an address comes into `chat`.
fn download(url: &str) -> String {
    format!("fetch it yourself: curl -sL -o picture {}, then /image picture", quoted(url))
}

/// What can be done about a picture.
fn picture_hint(error: &PictureError) -> Option<String> {
    Some(match error {
        PictureError::Image { error, .. } => return image_hint(error),
        PictureError::File { name, error } if error.kind() == io::ErrorKind::NotFound => {
            // of several words it is rather a question than a path
            if name.contains(char::is_whitespace) {
                "check the path; the question of ask comes last and in quotes".to_owned()
            } else {
                "check the path".to_owned()
            }
        }
        PictureError::File { .. } | PictureError::StdinTwice => return None,
        PictureError::Url { url } => url_hint(url),
        PictureError::Fetch { url, error: SourceError::NotAllowed(Unallowed::Host) } => format!(
            "name its host with --allow-url, as well as one that it redirects to; or {}",
            fetch_yourself(url)
        ),
        PictureError::Fetch { error: SourceError::TooLarge { .. }, .. } => {
            "raise the limit with --max-image-bytes if you trust the host".to_owned()
        }
        PictureError::Fetch { url, .. } => fetch_yourself(url),
    })
}

/// The library's hint, with the flag of the command line.
fn image_hint(error: &ImageError) -> Option<String> {
    let flag = match error {
        ImageError::Bytes { bytes: 1.., .. } => "--max-image-bytes",
        ImageError::Pixels { .. } => "--max-pixels",
        ImageError::Side { width: 1.., height: 1.., .. } => "--max-side",
        // a JPEG's scans are none
        ImageError::Frames { format, .. } if *format != "JPEG" => "--max-frames",
        other => return other.hint(),
    };
    Some(format!("scale the picture down, or raise the limit with {flag} if you trust the file"))
}

/// How a picture comes from an address without phi3v fetching it.
fn fetch_yourself(url: &str) -> String {
    format!("fetch it yourself: curl -sL {} | phi3v ask - \"...\"", quoted(url))
}

/// The host of an http address, with its port where it has one.
fn http_host(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn url_hint(url: &str) -> String {
    match http_host(url) {
        Some(host) => {
            let address = quoted(url);
            format!(
                "allow its host: phi3v ask --allow-url {host} {address} \"...\"; or {}",
                fetch_yourself(url)
            )
        }
        None if url.starts_with("file:") => "give the path of the file".to_owned(),
        None => fetch_yourself(url),
    }
}

/// The area that refused decides.
fn library_code(error: &phi3v::Error) -> ExitCode {
    use phi3v::Error;
    match error.root() {
        Error::Image(_) => ExitCode::Picture,
        Error::Convert(ConvertError::Interrupted) => ExitCode::Interrupted,
        Error::Checkpoint(_) | Error::Config(_) | Error::Weights(_) | Error::Tokenizer(_) => ExitCode::Model,
        Error::Memory(_) | Error::Backend(_) | Error::Engine(EngineError::ContextLength { .. }) => {
            ExitCode::Memory
        }
        Error::Sampler(SamplerError::BadLogit { .. }) => ExitCode::Model,
        Error::Engine(EngineError::DamagedCache) => ExitCode::Failure,
        Error::Sampler(_) | Error::Processor(_) | Error::Engine(_) => ExitCode::Usage,
        Error::Stopped => ExitCode::Interrupted,
        _ => ExitCode::Failure,
    }
}

impl From<ServeError<Self>> for CliError {
    fn from(error: ServeError<Self>) -> Self {
        match error {
            ServeError::Load(error) => error,
            other => Self::Server { message: other.to_string(), hint: other.hint() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::ApiError;
    use phi3v_kernels::BackendError;
    use std::sync::Arc;

    #[test]
    fn an_error_that_requests_share_counts_as_itself() {
        let errors: [fn() -> phi3v::Error; 3] = [
            || BackendError::OutOfMemory { bytes: 7 }.into(),
            || EngineError::DamagedCache.into(),
            || SamplerError::BadLogit { token: 1, value: f32::NAN }.into(),
        ];
        for (error, code) in errors.iter().zip([ExitCode::Memory, ExitCode::Failure, ExitCode::Model]) {
            let shared = phi3v::Error::Shared(Arc::new(error()));
            assert_eq!(ApiError::library(&shared), ApiError::library(&error()));
            let (shared, own) = (CliError::from(shared), CliError::from(error()));
            assert_eq!((shared.to_string(), shared.hint()), (own.to_string(), own.hint()));
            assert_eq!((shared.exit_code(), own.exit_code()), (code, code));
        }
    }
}
