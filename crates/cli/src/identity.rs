//! What changes whenever a file's contents may have: a look at it that costs nothing.

use crate::sys::changed;
use std::fs::Metadata;
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
