//! Why a batch cannot begin, cannot continue, or has not answered everything.

use crate::disk;
use crate::paths::{quoted, system_words, unwritable};
use phi3v::error::count;
use std::io;
use std::path::Path;

/// Why a batch has failed.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A named input that cannot be read.
    #[error("cannot read {path}: {}", system_words(.error))]
    Read {
        /// As the user named it.
        path: String,
        /// Why the system refused it.
        error: io::Error,
    },
    /// An invalid pattern.
    #[error("{pattern} is no pattern for names: {reason}")]
    Pattern {
        /// As the user gave it.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No picture in what was named.
    #[error("there is no picture in {names}")]
    NoPictures {
        /// What the user named.
        names: String,
    },
    /// Only PDF files, in a build that cannot read them.
    #[error("there is no picture in {names}, and this build of phi3v reads no PDF files")]
    NoPdf {
        /// What the user named.
        names: String,
    },
    /// A missing input that is probably the question or its first word, as no flag gave a question.
    #[error("{error}")]
    NoPrompt {
        /// Why the input is missing.
        error: Box<BatchError>,
        /// The probable question.
        question: String,
    },
    /// A pipe that would have to be read twice.
    #[error("{path} is a pipe, and its pictures or names cannot be read twice")]
    Pipe {
        /// As the user named it.
        path: String,
    },
    /// JSON lines combined with other inputs.
    #[error("{path} has requests as JSON lines, which come alone")]
    Mixed {
        /// The file's path, as the user gave it.
        path: String,
    },
    /// Two inputs would have the same `custom_id`.
    #[error("{id} is the name of two inputs: {first} and {second}")]
    SameId {
        /// The duplicate `custom_id`.
        id: String,
        /// Where it occurs first.
        first: String,
        /// Where it occurs again.
        second: String,
    },
    /// A line of a JSON lines file to which no result could be assigned.
    #[error("line {line} of {path} {reason}")]
    Line {
        /// The file's path, as the user gave it.
        path: String,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of questions that cannot be used.
    #[error("the questions in {path} cannot be used: {reason}")]
    Questions {
        /// The file's path, as the user gave it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A flag that is missing or makes no sense with these inputs.
    #[error("{message}")]
    Flags {
        /// What is wrong, as one sentence.
        message: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// The output belongs to another job.
    #[error("{path} holds the results of another job: its {field} is {then}, and now it is {now}")]
    OtherJob {
        /// The path of the journal.
        path: String,
        /// The first flag that differs.
        field: String,
        /// Its value in the journal.
        then: String,
        /// Its value now.
        now: String,
    },
    /// The output belongs to another job that differs in content of which only a digest is known.
    #[error("{path} holds the results of another job: {what} since then")]
    OtherContent {
        /// The path of the journal.
        path: String,
        /// What differs, and how.
        what: &'static str,
    },
    /// The output was begun by a version of the program that writes another format.
    #[error("{path} holds results of form {found}, and this phi3v goes on with form {expected}")]
    OtherVersion {
        /// The path of the journal.
        path: String,
        /// The format's version in the file.
        found: u32,
        /// The version that this program can continue.
        expected: u32,
    },
    /// The output is a file that no batch has written.
    #[error("{path} exists already and was not begun by phi3v batch")]
    NotAJournal {
        /// The file's path, as the user gave it.
        path: String,
    },
    /// A line before the last is not a row.
    #[error("line {line} of {path} is damaged")]
    Damaged {
        /// The path of the journal.
        path: String,
        /// The line's number, from 1.
        line: usize,
    },
    /// Another process writes to the journal.
    #[error("{path} is being written by another process")]
    Busy {
        /// The path of the journal.
        path: String,
    },
    /// An output file exists and is not of this job.
    #[error("{path} exists already")]
    Exists {
        /// The file's path, as the user gave it.
        path: String,
    },
    /// The disk is full.
    #[error("cannot write {path}: {}", disk::shortage(0, *.available))]
    DiskFull {
        /// The file's path, as the user gave it.
        path: String,
        /// Bytes that are free on the disk.
        available: u64,
    },
    /// Writing failed for another reason.
    #[error("cannot write {path}: {}", system_words(.error))]
    Write {
        /// The file's path, as the user gave it.
        path: String,
        /// Why the system refused it.
        error: io::Error,
    },
    /// Sidecar files that could not be written, although everything was answered.
    #[error("{} beside pictures could not be written, the first: {first}", count(*.failed, "file"))]
    Sidecars {
        /// How many files could not be written.
        failed: usize,
        /// Why the first failed.
        first: Box<BatchError>,
    },
    /// The device failed while answers were generated.
    #[error("{0}")]
    Device(String),
    /// A table that this build cannot write.
    #[error("this build of phi3v writes no Parquet files")]
    NoParquet,
    /// Some inputs were answered with an error.
    #[error("{}, the first: {first}", some_failed(*.failed, *.total))]
    SomeFailed {
        /// Rows that have an error.
        failed: usize,
        /// How many of them are about something that is no longer among the inputs.
        gone: usize,
        /// Rows of the whole job.
        total: usize,
        /// The name and error of the first.
        first: String,
        /// What can be done about the first, as its row says.
        first_hint: Option<String>,
        /// The path of the journal.
        path: String,
    },
    /// A bug: a thread that prepares requests ended early.
    #[error("{} were not prepared", count(*.missing, "input"))]
    Unprepared {
        /// How many inputs are missing.
        missing: usize,
    },
}

fn some_failed(failed: usize, total: usize) -> String {
    format!("{failed} of {} failed", count(total, "answer"))
}

/// What can be done about `failed` rows of the results in `path`. `gone` of them are about something that is no longer
/// among the inputs; `first` is the hint of the first.
fn after_failures(failed: usize, gone: usize, first: Option<&str>, path: &str) -> String {
    match (failed, gone, first) {
        (1, 0, Some(first)) if first.contains("--retry-errors") => return first.to_owned(),
        (1, 0, Some(first)) => return format!("{first}; then --retry-errors tries it again"),
        (_, 0, Some(first)) => {
            return format!(
                "of the first: {first}; the other rows with an error in {path} say what to do about theirs, and then --retry-errors \
                 tries all again"
            );
        }
        _ => {}
    }
    match (failed, gone) {
        (1, 1) => format!(
            "its file is not among the inputs any more: take its line out of {path}, and run the same command again"
        ),
        _ if gone == failed => format!(
            "their files are not among the inputs any more: take their lines out of {path}, and run the same command again"
        ),
        (1, _) => "--retry-errors tries it again".to_owned(),
        (_, 0) => format!("the rows with an error in {path} say why; --retry-errors tries them again"),
        _ => format!(
            "the rows with an error in {path} say why; --retry-errors tries those again that are among the inputs"
        ),
    }
}

impl BatchError {
    /// Whether a file's name is longer than the system allows.
    fn is_too_long(&self) -> bool {
        matches!(self, Self::Write { error, .. } if error.kind() == io::ErrorKind::InvalidFilename)
    }

    /// The error for a file that could not be read.
    #[must_use]
    pub fn read(path: &Path, error: io::Error) -> Self {
        Self::Read { path: path.display().to_string(), error }
    }

    /// The error for a file that could not be written.
    #[must_use]
    pub fn written(path: &Path, error: io::Error) -> Self {
        if phi3v::files::is_full(&error) {
            let available = disk::available(path).unwrap_or(0);
            return Self::DiskFull { path: path.display().to_string(), available };
        }
        Self::Write { path: path.display().to_string(), error }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => "check the path",
            Self::NoPrompt { question, .. } => {
                return Some(format!("if it is the question, write --prompt {}", quoted(question)));
            }
            Self::Pattern { .. } => "write it as 'photos/*.jpg' or 'photos/**/*.jpg', in quotes",
            Self::NoPictures { .. } => {
                "give a folder with pictures, their names, a pattern, or - for a list of names on stdin"
            }
            Self::NoPdf { .. } => {
                "build it with --features pdf, or make pictures of the pages: pdftoppm -r 150 -png file.pdf page"
            }
            Self::Pipe { .. } => {
                "give a list of names on stdin as -, pictures as files, and requests as JSON lines alone"
            }
            Self::Mixed { .. } => "run phi3v batch once for the file of requests, and once for the pictures",
            Self::SameId { .. } => "give each input once, and each line a custom_id of its own",
            Self::Line { .. } => {
                r#"write each request on a line, as {"custom_id": "1", "body": {"messages": [...]}}"#
            }
            Self::Questions { .. } => {
                r#"write one question a line, or {"name": "total", "prompt": "What is the total?"} on each"#
            }
            Self::Flags { hint, .. } => hint,
            Self::OtherJob { .. } => "give another file with --out, or the flags of the job that is to go on",
            Self::OtherContent { .. } => {
                "give another file with --out, or what the job was begun with; requests that were added can have a job of their own"
            }
            Self::OtherVersion { .. } => {
                "go on with the version of phi3v that began it, or give another file with --out"
            }
            Self::NotAJournal { .. } => "give another file with --out",
            Self::Damaged { .. } => {
                "delete the line, which is then asked again, or give another file with --out"
            }
            Self::Busy { .. } => "wait until the other run has finished, or give another file with --out",
            Self::Exists { .. } => "move it away, or replace it with --force",
            Self::DiskFull { .. } => "free some space and run the same command again: it goes on from there",
            Self::NoParquet => {
                "use --csv, or the program of a release, or one built with --features parquet; that of the Python package has none"
            }
            Self::SomeFailed { failed, gone, first_hint, path, .. } => {
                return Some(after_failures(*failed, *gone, first_hint.as_deref(), path));
            }
            Self::Sidecars { first, .. } if first.is_too_long() => "give the pictures shorter names",
            Self::Sidecars { .. } => {
                "when they can be written, run the same command again: it writes what is missing"
            }
            Self::Device(_) => "run the same command again: it goes on from there",
            Self::Write { error, .. } => unwritable(error),
            Self::Read { .. } => return None,
            Self::Unprepared { .. } => "run the same command again, and report it if it comes again",
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_among_the_inputs_is_tried_again() {
        let hint = |failed, gone| {
            let (first, path) = ("a".to_owned(), "out.jsonl".to_owned());
            BatchError::SomeFailed { failed, gone, total: 9, first, first_hint: None, path }.hint().unwrap()
        };
        for (failed, gone, words) in [
            (1, 0, "tries it again"),
            (1, 1, "take its line out of out.jsonl"),
            (3, 0, "tries them again"),
            (3, 1, "tries those again that are among the inputs"),
            (3, 3, "take their lines out of out.jsonl"),
        ] {
            let hint = hint(failed, gone);
            assert!(hint.contains(words), "{hint}");
            assert_eq!(hint.contains("--retry-errors"), gone < failed, "{hint}");
        }
    }

    #[test]
    fn what_the_first_row_advises_comes_first() {
        let hint = |failed, gone, first| after_failures(failed, gone, Some(first), "out.jsonl");
        assert_eq!(hint(1, 0, "crop it"), "crop it; then --retry-errors tries it again");
        let itself = "try it again with --retry-errors, or fetch it yourself";
        assert_eq!(hint(1, 0, itself), itself);
        assert_eq!(
            hint(3, 0, "crop it"),
            "of the first: crop it; the other rows with an error in out.jsonl say what to do about theirs, and then \
             --retry-errors tries all again"
        );
        // the first may be one of those
        assert!(!hint(3, 1, "crop it").contains("crop it"));
    }
}
