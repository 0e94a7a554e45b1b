//! Room on disks.

use phi3v::memory::size;
use std::path::Path;

/// Free space that is left on the disk by what phi3v puts there: 268 MB.
pub const RESERVE_BYTES: u64 = 256 << 20;

/// Free bytes where `path` is or will be.
///
/// # Errors
/// The system's refusal.
pub fn available(path: &Path) -> std::io::Result<u64> {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    fs4::available_space(there)
}

/// What a disk without room refuses, in a message: `needed` bytes were still to be written.
#[must_use]
pub fn shortage(needed: u64, available: u64) -> String {
    let needed = if needed == 0 { String::new() } else { format!("{} are needed and ", size(needed)) };
    format!("the disk is full, or the user's share of it: {needed}{} are free", size(available))
}
