//! Detects cheaply whether a file's contents may have changed, and stores notes about files whose contents were read in full
//! and found right.

use crate::paths::noted_text;
use crate::sys::changed;
use phi3v::files::{Existing, NewFile};
use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

/// Size, modification time, and the time of the last change of any kind, which programs cannot set back; moving a file or
/// changing its permissions thus changes the identity too. On Windows the last is the creation time, so a file that was
/// overwritten and had its modification time set back is not detected.
#[must_use]
pub fn identity(metadata: &Metadata) -> String {
    let since = |time: std::io::Result<SystemTime>| {
        time.ok()
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |t| t.as_nanos())
    };
    format!("{} {} {}", metadata.len(), since(metadata.modified()), changed(metadata))
}

/// The identity of the file at `path`; `None` if there is no file.
#[must_use]
pub fn identity_of(path: &Path) -> Option<String> {
    std::fs::metadata(path).ok().map(|metadata| identity(&metadata))
}

/// Whether the file `note` contains this identity, which was left when the file's contents were found right.
#[must_use]
pub fn is_noted(note: &Path, identity: &str) -> bool {
    /// Longer than any identity.
    const BYTES_MAX: u64 = 1000;
    noted_text(note, BYTES_MAX).is_some_and(|noted| noted == identity)
}

/// Writes a note that the file with this identity is right. If that fails, the file is read again next time.
pub fn note_right(note: &Path, identity: &str) {
    let write = || {
        let mut file = NewFile::create(note, Existing::Replace)?;
        file.write(identity.as_bytes())?;
        file.finish()
    };
    drop(write());
}
