//! Systems whose file trees contain devices, pipes and sockets.

use super::super::locked::LockedFile;
use super::super::regular::open_in_place;
use super::Links;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes opening not wait for the other end of a pipe, and refuse a link if `links` says so.
pub(in crate::files) fn prepare(options: &mut OpenOptions, links: Links) {
    let stop = match links {
        Links::Follow => 0,
        Links::Refuse => libc::O_NOFOLLOW,
    };
    options.custom_flags(libc::O_NONBLOCK | stop);
}

/// The kind of something that is neither a file nor a folder, from its metadata.
pub(in crate::files) fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_symlink() => "a link",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// Whether the open `file` is the one at `path`.
pub(in crate::files) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let opened = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// As [`LockedFile::open`].
pub(in crate::files) fn open_to_write_alone(
    path: &Path,
    options: &mut OpenOptions,
) -> Result<Option<LockedFile>> {
    lock_in_place(open_in_place(path, options)?, path)
}

/// Locks `file`, which was opened at `path`. Returns `None` if it is already locked, or if another file has taken its
/// place meanwhile: what is written to a file without a name is lost.
fn lock_in_place(file: File, path: &Path) -> Result<Option<LockedFile>> {
    let Some(file) = LockedFile::try_lock(file)? else { return Ok(None) };
    Ok(is_at(&file, path)?.then_some(file))
}

/// Whether the system refuses to lock a regular file because it has no locks, and not because another process holds one.
/// On macOS, most network file systems and FUSE return `ENOTSUP`. NFS returns `ENOLCK` if its lock daemon does not run.
/// File systems without that call return `EINVAL`.
pub(in crate::files) fn has_no_locks(error: &Error) -> bool {
    /// `ENOTSUPP`, a kernel-internal number that some cluster file systems pass on.
    const ENOTSUPP: i32 = 524;
    let codes = [libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK, libc::EINVAL, ENOTSUPP];
    error.kind() == ErrorKind::Unsupported || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Accepts every name: here no name stands for a device by itself, and the metadata show what a file is.
pub(in crate::files) fn refuse_device_name(_: &Path) -> Result<()> {
    Ok(())
}

/// Syncs `file` another way after std's way failed with `refusal`.
#[cfg(target_os = "macos")]
pub(in crate::files) fn sync_otherwise(file: &File, refusal: Error) -> Result<()> {
    if !is_refused_full_sync(&refusal) {
        return Err(refusal);
    }
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(file))?)
}

/// There is no other way to sync a file than std's.
#[cfg(not(target_os = "macos"))]
pub(in crate::files) fn sync_otherwise(_: &File, refusal: Error) -> Result<()> {
    Err(refusal)
}

/// Whether a file system of macOS reports that it cannot empty the disk's cache (`F_FULLFSYNC`), and not that the disk
/// has failed: exFAT returns `ENOTTY`, SMB and NTFS `ENOTSUP`, WebDAV `EINVAL`, FUSE any of them.
#[cfg(any(test, target_os = "macos"))]
fn is_refused_full_sync(error: &Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| {
        [libc::ENOTTY, libc::ENOTSUP, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSYS].contains(&code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_has_replaced_before_its_lock_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("a"), folder.path().join("new"));
        std::fs::write(&path, "old").unwrap();
        let open = || open_in_place(&path, File::options().read(true).write(true)).unwrap();
        let first = lock_in_place(open(), &path).unwrap().unwrap();
        assert!(lock_in_place(open(), &path).unwrap().is_none());
        // a process that opened the file earlier gets the lock of a file that no longer has a name
        let late = open();
        std::fs::write(&new, "new").unwrap();
        std::fs::rename(&new, &path).unwrap();
        drop(first);
        assert!(lock_in_place(late, &path).unwrap().is_none());
        assert!(lock_in_place(open(), &path).unwrap().is_some());
        let late = open();
        std::fs::remove_file(&path).unwrap();
        assert!(lock_in_place(late, &path).unwrap().is_none());
    }

    #[test]
    fn a_file_system_without_a_full_sync_is_told_from_a_disk_that_fails() {
        let refused = |code| is_refused_full_sync(&Error::from_raw_os_error(code));
        for code in [libc::ENOTTY, libc::ENOTSUP, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSYS] {
            assert!(refused(code), "{code}");
        }
        for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EBADF, libc::ENXIO] {
            assert!(!refused(code), "{code}");
        }
        assert!(!is_refused_full_sync(&Error::other("words")));
    }

    #[test]
    fn a_file_system_without_locks_is_told_from_a_lock_that_is_taken() {
        let has_none = |code| has_no_locks(&Error::from_raw_os_error(code));
        for code in [libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK, libc::EINVAL, 524] {
            assert!(has_none(code), "{code}");
        }
        for code in [libc::EAGAIN, libc::EWOULDBLOCK, libc::EACCES, libc::EBADF, libc::EINTR, libc::EIO] {
            assert!(!has_none(code), "{code}");
        }
        assert!(has_no_locks(&ErrorKind::Unsupported.into()));
    }
}
