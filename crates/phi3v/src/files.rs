//! The files of a checkpoint, by name: those of a folder, or bytes that are part of the program. Also how files are opened,
//! and how new ones are written.

mod locked;
mod new_file;
mod regular;
mod sync;
mod sys;

pub use locked::LockedFile;
pub use new_file::{Existing, NewFile, WriteError, is_full, partial_path, unique_name};
pub use regular::{check_regular, open_in_place, open_regular, open_regular_with};
pub use sync::{sync_all, sync_data};

use phi3v_kernels::Bytes;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The source of a checkpoint's files. Names are plain file names, such as `config.json`.
#[derive(Clone, Debug)]
pub enum Files {
    /// A folder; its files are mapped.
    Folder(PathBuf),
    /// Files whose bytes are in memory.
    Memory {
        /// The name of the whole in messages.
        name: String,
        /// File names and contents.
        files: Vec<(String, Bytes)>,
    },
}

/// Reads a source to its end, but at most one byte more than `bytes_max`. The extra byte lets callers detect that the source
/// is too large, while memory stays bounded.
///
/// # Errors
/// The error of the source.
pub fn read_to_limit(source: impl Read, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file exists but cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", path.display())]
pub struct ReadError {
    /// Path of the file.
    pub path: PathBuf,
    /// The operating system's error, or our own if the path is not a regular file.
    pub source: std::io::Error,
}

impl Files {
    /// Returns the file with the given name, or `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`] for a file that exists but cannot be mapped.
    pub fn get(&self, name: &str) -> Result<Option<Bytes>, ReadError> {
        match self {
            Self::Folder(dir) => map(dir.join(name)),
            Self::Memory { files, .. } => {
                Ok(files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.clone()))
            }
        }
    }

    /// Returns the folder's path, or the name of files in memory, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Folder(dir) => dir.display().to_string(),
            Self::Memory { name, .. } => name.clone(),
        }
    }

    /// Returns a name for the model in the files: the folder's own, or `org/name` for a folder in the hub's cache.
    #[must_use]
    pub fn model_name(&self) -> String {
        match self {
            Self::Folder(dir) => cached_repo(dir).unwrap_or_else(|| folder_name(dir)),
            Self::Memory { name, .. } => name.clone(),
        }
    }
}

fn map(path: PathBuf) -> Result<Option<Bytes>, ReadError> {
    match map_regular(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ReadError { path, source }),
    }
}

/// Maps the regular file at `path`.
///
/// # Errors
/// The system's error, or our own if the path is not a regular file.
pub fn map_regular(path: &Path) -> std::io::Result<Bytes> {
    Bytes::map(&open_regular(path)?)
}

/// Returns `org/name` for `.../models--org--name/snapshots/commit`.
fn cached_repo(dir: &Path) -> Option<String> {
    let snapshots =
        dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let repo = snapshots.parent()?.file_name()?.to_str()?;
    Some(repo.strip_prefix("models--")?.replacen("--", "/", 1))
}

fn folder_name(dir: &Path) -> String {
    let full = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    full.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names() {
        let name = |path: &str| Files::Folder(PathBuf::from(path)).model_name();
        assert_eq!(name("/nowhere/models/tiny"), "tiny");
        assert_eq!(name("/nowhere/models--org--a--b/snapshots/0123"), "org/a--b");
        assert_eq!(name("/nowhere/models--gpt2/snapshots/0123"), "gpt2");
    }
}
