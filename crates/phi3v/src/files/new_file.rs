//! Files that appear whole or not at all.

use super::locked::LockedFile;
use super::regular::{open_in_place, refuse_special};
use super::sync::sync_all;
use super::sys::{is_at, refuse_device_name};
use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What happens to an existing file of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new file is refused.
    Keep,
    /// The new file replaces it. A link is replaced itself, and its target stays as it is. A link to a device, a pipe or
    /// a socket stays, and the new file is refused.
    Replace,
}

/// Why a file was not written. Whatever had the name is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Another process is writing the same file.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// Path of the unfinished file.
        path: PathBuf,
    },
    /// The name exists, and its file is to be kept.
    #[error("{} exists already", path.display())]
    Exists {
        /// Path of the file.
        path: PathBuf,
    },
    /// The disk or the user's quota is full.
    #[error("{} cannot be written: its disk is full, or the user's share of it", path.display())]
    DiskFull {
        /// Path of the file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

impl WriteError {
    /// The error that `source` means for `path`.
    #[must_use]
    pub fn new(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) { Self::DiskFull { path } } else { Self::Write { path, source } }
    }

    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Busy { .. } => "wait until the other run has finished",
            Self::Exists { .. } => "give another name",
            Self::DiskFull { .. } => "free some space, or write to another disk",
            Self::Write { source, .. } if source.kind() == ErrorKind::FileTooLarge => {
                "raise the limit on the size of files (ulimit -f), or write to another disk"
            }
            Self::Write { source, .. } if source.kind() == ErrorKind::InvalidFilename => {
                "give a shorter name"
            }
            Self::Write { .. } => "check that the folder can be written to",
        };
        hint.to_owned()
    }
}

/// Whether the system's error means that the disk or the user's quota is full.
#[must_use]
pub fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The path that `out` is written to until it is whole, if files can be locked: `.NAME.phi3v-partial`, or a digest of the
/// name if that would be too long.
#[must_use]
pub fn partial_path(out: &Path) -> PathBuf {
    beside(out, "phi3v-partial")
}

/// A path next to `out`, with the given ending, that no other program uses.
fn beside(out: &Path, ending: &str) -> PathBuf {
    /// The longest name that most systems allow.
    const NAME_BYTES_MAX: usize = 255;
    let name = out.file_name().unwrap_or_default();
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{ending}"));
    if hidden.len() > NAME_BYTES_MAX {
        hidden = format!(".{}.{ending}", blake3::hash(name.as_encoded_bytes()).to_hex()).into();
    }
    out.with_file_name(hidden)
}

/// A part of a file name that no other thread of any process uses. It is random, because processes of containers that
/// share a folder may have the same process number.
#[must_use]
pub fn unique_name() -> String {
    // every state has keys of its own
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

/// Makes a file that was opened for writing ours alone.
type Lock = fn(File) -> std::io::Result<Option<LockedFile>>;

/// An unfinished file. It is written to [`partial_path`], which is locked against a second writer, overwritten if a
/// killed run has left it behind, and removed when this value is dropped. If files cannot be locked, each writer has its
/// own file next to that path, which a killed run leaves behind. [`finish`](Self::finish) gives the file its name.
#[derive(Debug)]
pub struct NewFile {
    file: Option<BufWriter<LockedFile>>,
    partial: PathBuf,
    out: PathBuf,
    existing: Existing,
}

impl NewFile {
    /// Refuses what [`create`](Self::create) or [`finish`](Self::finish) would refuse, as far as can be known beforehand,
    /// so that nobody works in vain.
    ///
    /// # Errors
    /// [`WriteError`] if `out` exists and is to be kept, is a folder, a device or the like, or a link to a device or the
    /// like, or if its folder does not exist.
    pub fn check(out: &Path, existing: Existing) -> Result<(), WriteError> {
        let failed = |source| WriteError::new(out, source);
        refuse_device_name(out).map_err(failed)?;
        match std::fs::symlink_metadata(out) {
            Ok(metadata) if metadata.is_symlink() => refuse_link_to_special(out).map_err(failed)?,
            Ok(metadata) => refuse_special(&metadata).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = std::fs::metadata(folder_of(out)).map_err(failed)?;
                let is_folder = folder.is_dir() && out.file_name().is_some();
                return if is_folder { Ok(()) } else { Err(failed(ErrorKind::NotADirectory.into())) };
            }
            Err(error) => return Err(failed(error)),
        }
        match existing {
            Existing::Keep => Err(WriteError::Exists { path: out.to_owned() }),
            Existing::Replace => Ok(()),
        }
    }

    /// Creates the file that is to become `out`.
    ///
    /// # Errors
    /// [`WriteError`] as for [`check`](Self::check), if another process writes the file, or if it cannot be written.
    pub fn create(out: &Path, existing: Existing) -> Result<Self, WriteError> {
        Self::create_by(LockedFile::try_lock, out, existing)
    }

    fn create_by(lock: Lock, out: &Path, existing: Existing) -> Result<Self, WriteError> {
        Self::check(out, existing)?;
        let shared = partial_path(out);
        let is_new = std::fs::symlink_metadata(&shared).is_err();
        let file = open_shared(lock, &shared, out)?;
        let (file, partial) = if file.is_ours_alone() {
            (file, shared)
        } else {
            // two writers at once would damage each other's partial file
            drop(file);
            if is_new {
                drop(std::fs::remove_file(&shared));
            }
            open_own(out)?
        };
        let truncated = file.set_len(0);
        let new = Self { file: Some(BufWriter::new(file)), partial, out: out.to_owned(), existing };
        truncated.map_err(|source| new.failed(source))?;
        Ok(new)
    }

    fn failed(&self, source: std::io::Error) -> WriteError {
        WriteError::new(&self.out, source)
    }

    fn file(&mut self) -> &mut BufWriter<LockedFile> {
        self.file.as_mut().expect("the file is taken by finish alone")
    }

    /// Appends all of `bytes`. After an error, none of them count.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file().write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Passes buffered bytes to the system, which may find that the disk is full.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.file().flush().map_err(|source| self.failed(source))
    }

    /// Overwrites bytes at `position` from the beginning; [`write`](Self::write) then continues after them.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_at(&mut self, position: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let sought = self.file().seek(SeekFrom::Start(position));
        sought.and_then(|_| self.file().write_all(bytes)).map_err(|source| self.failed(source))
    }

    /// Syncs everything to disk and gives the file its name. If it replaces a file, it takes over that file's
    /// permissions.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(mut self) -> Result<(), WriteError> {
        let mut flushed = self.file().flush();
        if let Ok(metadata) = std::fs::symlink_metadata(&self.out)
            && metadata.is_file()
        {
            flushed = flushed.and_then(|()| self.file().get_ref().set_permissions(metadata.permissions()));
        }
        flushed.and_then(|()| sync_all(self.file().get_ref())).map_err(|source| self.failed(source))?;
        // the lock lasts until the file has its name; then nothing remains to be removed
        let named = self.name();
        if named.is_ok() {
            self.file = None;
        }
        named?;
        // sync the name too; if folders cannot be opened (Windows), nothing can be done
        drop(File::open(folder_of(&self.out)).and_then(|folder| sync_all(&folder)));
        Ok(())
    }

    fn name(&self) -> Result<(), WriteError> {
        if self.existing == Existing::Keep {
            match std::fs::hard_link(&self.partial, &self.out) {
                Ok(()) => {
                    // `out` is whole; the next writer removes the second name
                    drop(std::fs::remove_file(&self.partial));
                    return Ok(());
                }
                // a file system without hard links, where the check and the renaming are two steps
                Err(_) if std::fs::symlink_metadata(&self.out).is_err() => {}
                Err(_) => return Err(WriteError::Exists { path: self.out.clone() }),
            }
        }
        std::fs::rename(&self.partial, &self.out).map_err(|source| self.failed(source))
    }

    /// Waits until no thread or process writes `out` any more, or until `is_wanted` returns `false`.
    pub fn wait_for_others(out: &Path, is_wanted: impl Fn() -> bool) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
        while is_wanted() {
            let opened = open_in_place(&partial_path(out), File::options().read(true));
            let locked = opened.and_then(LockedFile::try_lock_shared);
            if matches!(locked, Ok(Some(_))) {
                return;
            }
            std::thread::sleep(PAUSE);
            // files cannot be locked, or the other writer has just finished
            if locked.is_err() {
                return;
            }
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // remove the name before the lock, which ends with the file; any error on the way is already being reported
            drop(std::fs::remove_file(&self.partial));
        }
    }
}

/// Opens the unfinished file `partial` that all writers of `out` share, and locks it if possible.
fn open_shared(lock: Lock, partial: &Path, out: &Path) -> Result<LockedFile, WriteError> {
    // report the name that the user knows, unless something else occupies the partial file's name
    let failed = |source| {
        WriteError::new(if std::fs::symlink_metadata(partial).is_ok() { partial } else { out }, source)
    };
    // truncated only once the file is ours alone
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false);
    let mut file = open_in_place(partial, options).map_err(failed)?;
    if is_at(&file, out).unwrap_or(false) {
        // this is a second name of the finished file, which must not be written to
        drop(file);
        std::fs::remove_file(partial).map_err(failed)?;
        file = open_in_place(partial, options).map_err(failed)?;
    }
    let busy = || WriteError::Busy { path: partial.to_owned() };
    let file = lock(file).map_err(failed)?.ok_or_else(busy)?;
    // another writer may have finished in between, so that the opened file is its result
    let is_ready = !file.is_ours_alone() || is_at(&file, partial).map_err(failed)?;
    if is_ready { Ok(file) } else { Err(busy()) }
}

/// Creates an unfinished file of `out` that no other writer uses, and returns it with its path.
fn open_own(out: &Path) -> Result<(LockedFile, PathBuf), WriteError> {
    let partial = beside(out, &format!("{}.phi3v-partial", unique_name()));
    match open_in_place(&partial, File::options().write(true).create_new(true)) {
        Ok(file) => Ok((LockedFile::ours_unlocked(file), partial)),
        Err(source) => Err(WriteError::new(out, source)),
    }
}

/// Refuses a link that programs rely on, such as /dev/stdout: one to a device, a pipe, a socket or an open file.
fn refuse_link_to_special(link: &Path) -> std::io::Result<()> {
    if let Ok(metadata) = std::fs::metadata(link)
        && !metadata.is_dir()
    {
        refuse_special(&metadata)?;
    }
    // what such a link leads to depends on the process that follows it
    if std::fs::read_link(link)?.starts_with("/proc") || folder_of(link) == Path::new("/dev") {
        return Err(std::io::Error::other("it is a link to an open file"));
    }
    Ok(())
}

/// The folder that contains a file: the working folder for a bare name.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_refusals() {
        let error = |kind: ErrorKind| WriteError::new(Path::new("a"), kind.into());
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert!(matches!(error(kind), WriteError::DiskFull { .. }), "{kind}");
        }
        assert!(matches!(error(ErrorKind::PermissionDenied), WriteError::Write { .. }));
    }

    fn write(out: &Path, text: &str, existing: Existing) -> Result<(), WriteError> {
        let mut file = NewFile::create(out, existing)?;
        file.write(text.as_bytes())?;
        file.finish()
    }

    #[test]
    fn what_exists_is_kept_or_replaced_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        write(&out, "first", Existing::Keep).unwrap();
        assert!(matches!(NewFile::check(&out, Existing::Keep), Err(WriteError::Exists { .. })));
        assert!(matches!(write(&out, "second", Existing::Keep), Err(WriteError::Exists { .. })));
        let late = NewFile::create(&folder.path().join("late"), Existing::Keep).unwrap();
        std::fs::write(folder.path().join("late"), "sooner").unwrap();
        assert!(matches!(late.finish(), Err(WriteError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(folder.path().join("late")).unwrap(), "sooner");
        std::fs::remove_file(folder.path().join("late")).unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "first");
        write(&out, "third", Existing::Replace).unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "third");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left");
        for nowhere in ["", ".", "..", "absent/x"] {
            let out = folder.path().join(nowhere);
            assert!(NewFile::create(&out, Existing::Keep).is_err(), "{}", out.display());
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_the_system_lets_it_be() {
        let folder = tempfile::tempdir().unwrap();
        for length in [239, 240, 241, 255] {
            let out = folder.path().join("n".repeat(length));
            write(&out, "long", Existing::Keep).unwrap();
            assert_eq!(std::fs::read_to_string(&out).unwrap(), "long");
            let other = folder.path().join(format!("m{}", "n".repeat(length - 1)));
            assert_ne!(partial_path(&out), partial_path(&other));
        }
        let longer = write(&folder.path().join("n".repeat(256)), "x", Existing::Keep).unwrap_err();
        assert!(matches!(longer, WriteError::Write { .. }), "{longer}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no part is left");
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        std::fs::write(partial_path(&out), "what a killed run has left").unwrap();
        let mut file = NewFile::create(&out, Existing::Keep).unwrap();
        assert!(matches!(NewFile::create(&out, Existing::Keep), Err(WriteError::Busy { .. })));
        file.write(b"abc").unwrap();
        file.write_at(1, b"x").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_locks_no_writer_touches_the_part_of_another() {
        let without_locks: Lock = |file| Ok(Some(LockedFile::anybodys(file)));
        for (existing, left) in [(Existing::Keep, "first"), (Existing::Replace, "second")] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let begin = || NewFile::create_by(without_locks, &out, existing).unwrap();
            let (mut first, mut second, third) = (begin(), begin(), begin());
            first.write(b"fir").unwrap();
            first.flush().unwrap();
            second.write(b"second").unwrap();
            second.flush().unwrap();
            drop(third);
            first.write(b"st").unwrap();
            first.finish().unwrap();
            assert_eq!(std::fs::read_to_string(&out).unwrap(), "first");
            let late = second.finish();
            assert_eq!(
                matches!(late, Err(WriteError::Exists { .. })),
                existing == Existing::Keep,
                "{late:?}"
            );
            assert_eq!(std::fs::read_to_string(&out).unwrap(), left);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left");
        }
    }

    #[test]
    fn without_locks_the_part_of_a_machine_that_has_locks_stays() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut first = NewFile::create(&out, Existing::Replace).unwrap();
        first.write(b"first").unwrap();
        let without_locks: Lock = |file| Ok(Some(LockedFile::anybodys(file)));
        drop(NewFile::create_by(without_locks, &out, Existing::Replace).unwrap());
        first.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "first");
    }

    #[test]
    fn files_of_other_programs_are_no_parts_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let theirs = folder.path().join("out.partial");
        std::fs::write(&theirs, "theirs").unwrap();
        drop(NewFile::create(&out, Existing::Replace).unwrap());
        write(&out, "ours", Existing::Keep).unwrap();
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    }

    #[test]
    fn a_second_name_that_was_left_is_no_way_into_the_finished_file() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        write(&out, "first", Existing::Keep).unwrap();
        std::fs::hard_link(&out, partial_path(&out)).unwrap();
        let mut file = NewFile::create(&out, Existing::Replace).unwrap();
        file.write(b"half of the").unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "first");
        drop(file);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "first");
        write(&out, "second", Existing::Replace).unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "second");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_never_written_through() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("precious"), "precious").unwrap();
        symlink("precious", path("out")).unwrap();
        symlink("absent", path("dangling")).unwrap();
        for link in ["out", "dangling"] {
            assert!(matches!(write(&path(link), "new", Existing::Keep), Err(WriteError::Exists { .. })));
            write(&path(link), "new", Existing::Replace).unwrap();
            assert_eq!(std::fs::read_to_string(path(link)).unwrap(), "new");
        }
        symlink("precious", partial_path(&path("other"))).unwrap();
        let refused = write(&path("other"), "new", Existing::Replace).unwrap_err();
        assert!(refused.to_string().ends_with("it is a link and not a file"), "{refused}");
        assert_eq!(std::fs::read_to_string(path("precious")).unwrap(), "precious");
        assert!(!path("absent").exists());
        // a private file stays private
        std::fs::set_permissions(path("out"), std::fs::Permissions::from_mode(0o600)).unwrap();
        write(&path("out"), "newer", Existing::Replace).unwrap();
        assert_eq!(path("out").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_what_is_no_file_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, target, told) in [
            #[cfg(target_os = "linux")]
            ("open", "/proc/self/cmdline", "it is a link to an open file"),
            ("null", "/dev/null", "it is a device and not a file"),
            ("to a socket", "socket", "it is a socket and not a file"),
            ("to a link", "null", "it is a device and not a file"),
        ] {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
            let refused = write(&path(name), "new", Existing::Replace).unwrap_err().to_string();
            assert!(refused.ends_with(told), "{refused}");
            assert_eq!(std::fs::read_link(path(name)).unwrap(), Path::new(target));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_renamed_is_no_longer_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.partial");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&path, folder.path().join("a")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let other = File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        assert!(is_at(&other, &path).unwrap());
    }
}
