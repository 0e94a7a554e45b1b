//! What changes whenever a file's contents may have: a look at it that costs nothing, and notes of files that were read in
//! full and found right.

use crate::paths::noted_text;
use crate::sys::changed;
use phi3v::files::{Existing, NewFile};
use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

/// Size, time of change of the contents, and the time of any change at all, which no program can set back; so that moving a
/// file or changing its permissions changes it too. On Windows the last is when the file was made, and what writes over a file
/// and sets its time back is not noticed.
#[must_use]
pub fn identity(metadata: &Metadata) -> String {
    let since = |time: std::io::Result<SystemTime>| {
        time.ok()
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |t| t.as_nanos())
    };
    format!("{} {} {}", metadata.len(), since(metadata.modified()), changed(metadata))
}

/// The identity of the file at `path`; none where there is none.
#[must_use]
pub fn identity_of(path: &Path) -> Option<String> {
    std::fs::metadata(path).ok().map(|metadata| identity(&metadata))
}

/// Whether the file `note` holds this identity: whoever left it there had found a file of that identity right.
#[must_use]
pub fn is_noted(note: &Path, identity: &str) -> bool {
    /// More than an identity.
    const BYTES_MAX: u64 = 1000;
    noted_text(note, BYTES_MAX).is_some_and(|noted| noted == identity)
}

/// Leaves a note that the file of that identity is right. Where it cannot be left, the file is read again next time.
pub fn note_right(note: &Path, identity: &str) {
    let write = || {
        let mut file = NewFile::create(note, Existing::Replace)?;
        file.write(identity.as_bytes())?;
        file.finish()
    };
    drop(write());
}
