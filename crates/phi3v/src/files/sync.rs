//! What was written, put on the disk.

use super::sys::sync_otherwise;
use std::fs::File;
use std::io::Result;

/// Waits until the disk has the bytes of `file` and what is kept about them, as [`File::sync_all`] does.
///
/// On macOS that empties the disk's own cache too, which file systems of networks, of other systems and of FUSE refuse.
/// There the bytes are handed to the disk, and no more can be had.
///
/// # Errors
/// The system's refusal.
pub fn sync_all(file: &File) -> Result<()> {
    file.sync_all().or_else(|refusal| sync_otherwise(file, refusal))
}

/// As [`sync_all`], without what is not needed to read the bytes again, such as the time of the change.
///
/// # Errors
/// The system's refusal.
pub fn sync_data(file: &File) -> Result<()> {
    file.sync_data().or_else(|refusal| sync_otherwise(file, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn what_is_synced_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        sync_data(&file).unwrap();
        sync_all(&file).unwrap();
        file.rewind().unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "text");
    }

    /// Nothing but a refusal to empty the disk's cache is passed over.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_disk_refuses_is_an_error() {
        let device = File::open("/dev/null").unwrap();
        for synced in [sync_all(&device), sync_data(&device)] {
            assert_eq!(synced.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
