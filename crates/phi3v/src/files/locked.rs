//! Files that only one process may write to.

use super::sys::{has_no_locks, open_to_write_alone};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::Path;

/// A file that is locked until this value is dropped. On file systems without locks, it is only open.
///
/// A lock ends on its own only when the last copy of the open file is closed. A process that is being started holds
/// copies of all open files until it becomes another program, so a file that was merely closed stays locked for that
/// moment. This type unlocks the file first.
#[derive(Debug)]
pub struct LockedFile {
    file: File,
    is_ours_alone: bool,
}

impl LockedFile {
    /// Opens the file at `path` itself for writing by this process alone, or creates it if `options` say so, as
    /// [`open_in_place`](super::open_in_place) does. Others may read the file meanwhile. Returns `None` if another
    /// process writes to the file, or has just put another file in its place.
    ///
    /// # Errors
    /// As for [`open_in_place`](super::open_in_place).
    pub fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<Self>> {
        open_to_write_alone(path, options)
    }

    /// A file that needs no lock to be ours alone, because of how it was opened or because nobody else knows its name.
    pub(super) fn ours_unlocked(file: File) -> Self {
        Self { file, is_ours_alone: true }
    }

    /// A file on a file system without locks, which anyone may write to.
    pub(super) fn anybodys(file: File) -> Self {
        Self { file, is_ours_alone: false }
    }

    /// Locks `file`; returns `None` if it is already locked. On a file system without locks, the result is not [ours
    /// alone](Self::is_ours_alone).
    ///
    /// # Errors
    /// The system's error.
    pub fn try_lock(file: File) -> Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, is_ours_alone: true })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Some(Self::anybodys(file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether nobody else can write to the file while this value exists. `false` on a file system without locks, where
    /// this is unknown.
    #[must_use]
    pub fn is_ours_alone(&self) -> bool {
        self.is_ours_alone
    }

    /// Locks `file` together with others that only wait. Returns `None` if it is locked exclusively.
    ///
    /// # Errors
    /// The system's error, also for a file system without locks.
    pub fn try_lock_shared(file: File) -> Result<Option<Self>> {
        match file.try_lock_shared() {
            // others may hold this lock too, but nobody may write
            Ok(()) => Ok(Some(Self { file, is_ours_alone: false })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // if there is no lock, nothing has to be released
        drop(self.file.unlock());
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Read for LockedFile {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.file.read(bytes)
    }
}

impl Write for LockedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Seek for LockedFile {
    fn seek(&mut self, place: SeekFrom) -> Result<u64> {
        self.file.seek(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_others_read_and_do_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let open =
            || LockedFile::open(&path, File::options().write(true).create(true).truncate(false)).unwrap();
        let mut first = open().unwrap();
        first.write_all(b"text").unwrap();
        assert!(open().is_none());
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        drop(first);
        assert!(open().is_some());
    }

    #[test]
    fn a_lock_ends_with_its_owner_whoever_else_holds_the_open_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let open = || File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        let first = LockedFile::try_lock(open()).unwrap().unwrap();
        assert!(LockedFile::try_lock(open()).unwrap().is_none());
        // like the copy that a starting process holds
        let copy = first.try_clone().unwrap();
        drop(first);
        let second = LockedFile::try_lock(open()).unwrap().unwrap();
        drop(copy);
        assert!(LockedFile::try_lock(open()).unwrap().is_none());
        assert!(LockedFile::try_lock_shared(open()).unwrap().is_none());
        drop(second);
        let waiters = [(); 2].map(|()| LockedFile::try_lock_shared(open()).unwrap().unwrap());
        assert!(LockedFile::try_lock(open()).unwrap().is_none());
        drop(waiters);
        assert!(LockedFile::try_lock(open()).unwrap().is_some());
    }
}
