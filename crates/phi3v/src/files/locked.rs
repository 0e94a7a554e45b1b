//! Files that one process alone may write to.

use super::sys::{has_no_locks, open_to_write_alone};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::Path;

/// A file that is locked until this is dropped, on file systems that have locks; elsewhere it is only open.
///
/// A lock ends by its own when the last copy of the open file is closed, and a process that is being started holds copies
/// of all that are open until it becomes another program: for that moment a file that was only closed stays locked. This
/// one is unlocked first.
#[derive(Debug)]
pub struct LockedFile {
    file: File,
    is_ours_alone: bool,
}

impl LockedFile {
    /// Opens or, by `options`, creates the file at `path` itself as [`open_in_place`](super::open_in_place) does, to be
    /// written to by this process alone; others may read it meanwhile. None where somebody else writes to it, or has just
    /// put another in its place.
    ///
    /// # Errors
    /// As for [`open_in_place`](super::open_in_place).
    pub fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<Self>> {
        open_to_write_alone(path, options)
    }

    /// A file that needs no lock to be ours alone: by how it was opened, or by a name that nobody else knows.
    pub(super) fn ours_unlocked(file: File) -> Self {
        Self { file, is_ours_alone: true }
    }

    /// A file on a file system without locks, which anybody may write to.
    pub(super) fn anybodys(file: File) -> Self {
        Self { file, is_ours_alone: false }
    }

    /// Locks `file`; None where somebody else has locked it. On a file system without locks it is not
    /// [ours alone](Self::is_ours_alone).
    ///
    /// # Errors
    /// The system's refusal.
    pub fn try_lock(file: File) -> Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, is_ours_alone: true })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Some(Self::anybodys(file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether nobody else has the file to write to as long as this is there. It is not known of a file on a file system
    /// without locks.
    #[must_use]
    pub fn is_ours_alone(&self) -> bool {
        self.is_ours_alone
    }

    /// Locks `file` beside others who only wait; None where somebody has it for himself.
    ///
    /// # Errors
    /// The system's refusal, and a file system without locks.
    pub fn try_lock_shared(file: File) -> Result<Option<Self>> {
        match file.try_lock_shared() {
            // others may have it too, but none to write to
            Ok(()) => Ok(Some(Self { file, is_ours_alone: false })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // where there is no lock, nothing is to be ended
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
        // as a process that is being started has one
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
