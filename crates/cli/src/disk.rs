//! Free space on disks.

use phi3v::memory::size;
use std::path::Path;

/// Free space that phi3v leaves on a disk: 268 MB.
pub const RESERVE_BYTES: u64 = 256 << 20;

/// Free bytes on the disk where `path` is or will be.
///
/// # Errors
/// The system's error.
pub fn available(path: &Path) -> std::io::Result<u64> {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    // Windows needs the full form of long paths
    fs4::available_space(there.canonicalize().unwrap_or_else(|_| there.to_owned()))
}

/// Describes a full disk in a message: `needed` bytes were still to be written.
#[must_use]
pub fn shortage(needed: u64, available: u64) -> String {
    let cause = if available > needed {
        // no inode is free, or the user's quota is exhausted
        "the disk takes no more files or has a quota"
    } else {
        "the disk is full, or the user's share of it"
    };
    let needed = if needed == 0 { String::new() } else { format!("{} are needed and ", size(needed)) };
    format!("{cause}: {needed}{} are free", size(available))
}

/// A disk with the given number of free bytes, for tests.
#[cfg(test)]
pub(crate) struct Disk(pub(crate) usize);

#[cfg(test)]
impl std::io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_is_not_called_full() {
        let told = |needed, available| shortage(needed, available);
        assert!(
            told(7_500_000, 16_700_000)
                .starts_with("the disk takes no more files or has a quota: 7.5 MB are")
        );
        assert_eq!(told(0, 16_700_000), "the disk takes no more files or has a quota: 16.7 MB are free");
        assert!(
            told(16_700_000, 7_500_000)
                .starts_with("the disk is full, or the user's share of it: 16.7 MB are")
        );
        assert_eq!(told(0, 0), "the disk is full, or the user's share of it: 0 bytes are free");
    }
}
