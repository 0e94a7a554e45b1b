//! Files of the cache folder. Several programs and threads may write one at the same time, and the machine may lose
//! power during a write. So a file is first written completely under another name, and a damaged file counts as
//! missing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Length in bytes of the checksum at the end of a file.
pub(crate) const SUM_BYTES: usize = 8;

/// Computes a checksum that detects accidental damage (FNV-1a); it does not protect against attacks.
pub(crate) fn sum(data: &[u8]) -> [u8; SUM_BYTES] {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    data.iter().fold(0xcbf2_9ce4_8422_2325, add).to_le_bytes()
}

/// Reads what [`write`] wrote to `path`; `None` if the file is missing or damaged.
pub(crate) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut data = std::fs::read(path).ok()?;
    let at = data.len().checked_sub(SUM_BYTES)?;
    let found = data.split_off(at);
    (found == sum(&data)).then_some(data)
}

/// Writes `data` to `path`, creating the folder if necessary.
pub(crate) fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let own = format!("{}-{}.part", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let part = path.with_added_extension(own);
    let written = std::fs::write(&part, [data, &sum(data)].concat());
    let written = written.and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("a.b");
        write(&path, b"some bytes").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"some bytes"[..]));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 3, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(read(&path), None, "{len} bytes");
        }
        for at in [0, whole.len() - 1] {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(read(&path), None, "byte {at}");
        }
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn many_may_write_one_file_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write(path, &vec![thread; 10_000 + usize::from(thread)]).unwrap();
                        let found = read(path).unwrap();
                        assert!(found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
