//! Syncs written files to disk.

use super::sys::sync_otherwise;
use std::fs::File;
use std::io::Result;

/// Waits until the bytes and metadata of `file` are on disk, as [`File::sync_all`] does.
///
/// On macOS, that call empties the disk's own cache too, which network file systems, other systems' file systems and FUSE
/// refuse. On these, the bytes are only handed to the disk, which is the most that is possible.
///
/// # Errors
/// The system's error.
pub fn sync_all(file: &File) -> Result<()> {
    file.sync_all().or_else(|refusal| sync_otherwise(file, refusal))
}

/// Like [`sync_all`], without metadata that is not needed to read the bytes again, such as the modification time.
///
/// # Errors
/// The system's error.
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

    /// Only a refusal to empty the disk's cache is ignored.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_disk_refuses_is_an_error() {
        let device = File::open("/dev/null").unwrap();
        for synced in [sync_all(&device), sync_data(&device)] {
            assert_eq!(synced.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
