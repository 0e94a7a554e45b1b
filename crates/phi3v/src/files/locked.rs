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
pub struct LockedFile(File);

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

    /// A file that needs no lock to be ours alone.
    #[cfg(windows)]
    pub(super) fn not_locked(file: File) -> Self {
        Self(file)
    }

    /// Locks `file`; None where somebody else has locked it.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn try_lock(file: File) -> Result<Option<Self>> {
        Ok(lock_now(&file)?.then(|| Self(file)))
    }

    /// Locks `file` beside others who only wait; None where somebody has it for himself.
    ///
    /// # Errors
    /// The system's refusal, and a file system without locks.
    pub fn try_lock_shared(file: File) -> Result<Option<Self>> {
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Locks `file`, or does nothing on a file system without locks; false where somebody else has locked it.
fn lock_now(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // where there is no lock, nothing is to be ended
        drop(self.0.unlock());
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Read for LockedFile {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for LockedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

impl Seek for LockedFile {
    fn seek(&mut self, place: SeekFrom) -> Result<u64> {
        self.0.seek(place)
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
