//! A mark in the cache folder that a card's kernels are being tried. A driver that crashes or hangs on one takes the program with it, or
//! minutes, and would do so at every start: so the mark is left where no result came back, and counts how often.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Trials without a result after which there is no other. One may have been ended by its user.
pub(crate) const FAILURES_MAX: u64 = 2;

/// A trial under way, and those without a result before it.
pub(crate) struct Trial {
    path: PathBuf,
    failures: u64,
    /// Locked, so that another program which begins meanwhile takes this one for no failure.
    _file: File,
}

impl Trial {
    /// Begins a trial whose result will be kept at `result`; None where another program is at it, or
    /// nothing can be kept or locked there.
    pub(crate) fn begin(result: &Path) -> Option<Self> {
        let path = result.with_added_extension("trial");
        std::fs::create_dir_all(path.parent()?).ok()?;
        // Windows locks no file that is open for appending alone
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).ok()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(_)) => return Self::uncounted(&path),
        }
        // a byte each
        let failures = file.metadata().ok()?.len();
        file.write_all(b"x").ok()?;
        // a driver may take the whole machine with it
        let _ = file.sync_all();
        Some(Self { path, failures, _file: file })
    }

    /// Where the file system has no locks: programs that begin together would take each other for failures, and the card be left alone
    /// for good, so nothing is counted.
    fn uncounted(path: &Path) -> Option<Self> {
        let _ = std::fs::remove_file(path);
        None
    }

    /// Whether the card is not to be tried again.
    pub(crate) fn is_last(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// That something came back: what was before is forgotten.
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
        // as where the program ends
        drop(first);
        assert!(!begin().unwrap().is_last());
        let third = begin().unwrap();
        assert!(third.is_last());
        third.end();
        assert_eq!(std::fs::read_dir(result.parent().unwrap()).unwrap().count(), 0);
        assert!(!begin().unwrap().is_last());
        // nor is a file system without locks, on which nothing is left
        let path = result.with_added_extension("trial");
        assert!(path.exists() && Trial::uncounted(&path).is_none() && !path.exists());
        // a folder that cannot be is no hindrance
        std::fs::write(&result, "").unwrap();
        assert!(Trial::begin(&result.join("below a file")).is_none());
    }
}
