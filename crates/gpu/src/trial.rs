//! Marks in the cache folder that a card's kernels are being tested. A driver that crashes or hangs on a kernel ends or
//! delays the program, and would do so at every start. So the mark stays if no result came back, and counts how often
//! that happened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Failed tests after which the card is not tested again. One may have been ended by the user.
pub(crate) const FAILURES_MAX: u64 = 2;

/// A running test, and the number of earlier ones without a result.
pub(crate) struct Trial {
    path: PathBuf,
    failures: u64,
    /// Locked, so that another program that starts meanwhile does not count this test as a failure.
    _file: File,
}

impl Trial {
    /// Begins a test whose result will be stored at `result`; `None` if another program is running it, or if nothing
    /// can be stored or locked there.
    pub(crate) fn begin(result: &Path) -> Option<Self> {
        let path = result.with_added_extension("trial");
        std::fs::create_dir_all(path.parent()?).ok()?;
        // Windows cannot lock a file that is open only for appending
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).ok()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(_)) => return Self::uncounted(&path),
        }
        // one byte per failure
        let failures = file.metadata().ok()?.len();
        file.write_all(b"x").ok()?;
        // a driver may crash the whole machine
        let _ = file.sync_all();
        Some(Self { path, failures, _file: file })
    }

    /// Removes the mark, so that nothing is counted. Without locks, programs that start together would count each other
    /// as failures, and the card would never be tested again.
    fn uncounted(path: &Path) -> Option<Self> {
        let _ = std::fs::remove_file(path);
        None
    }

    /// Returns whether the card must not be tested again.
    pub(crate) fn is_last(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Records that a result came back, which erases earlier failures.
    pub(crate) fn end(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_without_a_result_are_counted_until_one_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let result = folder.path().join("new").join("a card.self-test");
        let begin = || Trial::begin(&result);
        let first = begin().unwrap();
        assert!(!first.is_last() && begin().is_none(), "another program is at it");
        // as if the program ended
        drop(first);
        assert!(!begin().unwrap().is_last());
        let third = begin().unwrap();
        assert!(third.is_last());
        third.end();
        assert_eq!(std::fs::read_dir(result.parent().unwrap()).unwrap().count(), 0);
        assert!(!begin().unwrap().is_last());
        // nor does a file system without locks, on which no mark remains
        let path = result.with_added_extension("trial");
        assert!(path.exists() && Trial::uncounted(&path).is_none() && !path.exists());
        // an impossible folder is not an error
        std::fs::write(&result, "").unwrap();
        assert!(Trial::begin(&result.join("below a file")).is_none());
    }
}
