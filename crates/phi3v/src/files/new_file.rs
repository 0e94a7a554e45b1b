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

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new one is refused.
    Keep,
    /// The new one takes its place. Of a link it is the link's place: what it leads to stays as it is. A link to a
    /// device, a pipe or a socket stays, and the new file is refused.
    Replace,
}

/// Why a file was not written; what had the name is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Another process writes the same file.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// Path of the unfinished file.
        path: PathBuf,
    },
    /// Something has the name, and is to be kept.
    #[error("{} exists already", path.display())]
    Exists {
        /// Path of the file.
        path: PathBuf,
    },
    /// No room on the disk, or none that the user may take.
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
        /// What the operating system says.
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

    /// What the user can do about it.
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

/// Whether the system refuses to write for want of room, on the disk or in the user's share of it.
#[must_use]
pub fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Where `out` is written to before it is whole, where files can be locked: `.NAME.phi3v-partial`, or a digest of the
/// name where that would be too long.
#[must_use]
pub fn partial_path(out: &Path) -> PathBuf {
    beside(out, "phi3v-partial")
}

/// A file beside `out` that no other program uses, with that ending.
fn beside(out: &Path, ending: &str) -> PathBuf {
    /// What a name may have on most systems.
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

/// A part of a file name that no other thread of any process uses. Processes of containers that share a folder may have
/// the same number, so chance decides.
#[must_use]
pub fn unique_name() -> String {
    // every state has keys of its own
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

/// How a file that was opened to be written to is made ours alone.
type Lock = fn(File) -> std::io::Result<Option<LockedFile>>;

/// An unfinished file. It is written to [`partial_path`], which is locked against a second writer, overwritten where a
/// killed run has left it, and removed when this is dropped. Where files cannot be locked each writer has a file of its
/// own beside that, which a killed run leaves. [`finish`](Self::finish) gives it its name.
#[derive(Debug)]
pub struct NewFile {
    file: Option<BufWriter<LockedFile>>,
    partial: PathBuf,
    out: PathBuf,
    existing: Existing,
}

impl NewFile {
    /// Refuses what [`create`](Self::create) or [`finish`](Self::finish) would refuse, as far as that can be known
    /// before, so that nobody works for nothing.
    ///
    /// # Errors
    /// [`WriteError`]: `out` exists and is to be kept, is a folder, a device or the like, a link to a device
    /// or the like, or its folder is not there.
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

    /// Begins the file that is to be `out`.
    ///
    /// # Errors
    /// [`WriteError`]: as of [`check`](Self::check), another process writes it, or it cannot be written.
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
            // two writers at once would damage each other's part
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

    /// Writes `bytes` after what was written so far, all of them or none that count.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file().write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Hands what was written to the system, which may find that the disk is full.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.file().flush().map_err(|source| self.failed(source))
    }

    /// Writes over what lies at `position` bytes from the beginning; [`write`](Self::write) goes on behind it.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_at(&mut self, position: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let sought = self.file().seek(SeekFrom::Start(position));
        sought.and_then(|_| self.file().write_all(bytes)).map_err(|source| self.failed(source))
    }

    /// Puts everything on the disk and gives the file its name. In the place of another file it has the same
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
        // the lock lasts until the file has its name; where it is given, nothing is left to be removed
        let named = self.name();
        if named.is_ok() {
            self.file = None;
        }
        named?;
        // the name too; where folders cannot be opened (Windows) there is nothing to be done
        drop(File::open(folder_of(&self.out)).and_then(|folder| sync_all(&folder)));
        Ok(())
    }

    fn name(&self) -> Result<(), WriteError> {
        if self.existing == Existing::Keep {
            match std::fs::hard_link(&self.partial, &self.out) {
                Ok(()) => {
                    // `out` is whole; whoever begins it anew takes a second name away
                    drop(std::fs::remove_file(&self.partial));
                    return Ok(());
                }
                // a file system without hard links, where the look and the renaming are two steps
                Err(_) if std::fs::symlink_metadata(&self.out).is_err() => {}
                Err(_) => return Err(WriteError::Exists { path: self.out.clone() }),
            }
        }
        std::fs::rename(&self.partial, &self.out).map_err(|source| self.failed(source))
    }

    /// Waits until nobody writes `out` any more, this process or another, or until `is_wanted` says no.
    pub fn wait_for_others(out: &Path, is_wanted: impl Fn() -> bool) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
        while is_wanted() {
            let opened = open_in_place(&partial_path(out), File::options().read(true));
            let locked = opened.and_then(LockedFile::try_lock_shared);
            if matches!(locked, Ok(Some(_))) {
                return;
            }
            std::thread::sleep(PAUSE);
            // files cannot be locked, or the other has just finished
            if locked.is_err() {
                return;
            }
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // the name goes before the lock, which ends with the file; an error on the way is being reported already
            drop(std::fs::remove_file(&self.partial));
        }
    }
}

/// Opens the unfinished file `partial` that all writers of `out` use, and locks it where it can be.
fn open_shared(lock: Lock, partial: &Path, out: &Path) -> Result<LockedFile, WriteError> {
    // the name that the user knows, but where something else has the other
    let failed = |source| {
        WriteError::new(if std::fs::symlink_metadata(partial).is_ok() { partial } else { out }, source)
    };
    // truncated only once it is ours alone
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false);
    let mut file = open_in_place(partial, options).map_err(failed)?;
    if is_at(&file, out).unwrap_or(false) {
        // a second name of what is finished, which must not be written to
        drop(file);
        std::fs::remove_file(partial).map_err(failed)?;
        file = open_in_place(partial, options).map_err(failed)?;
    }
    let busy = || WriteError::Busy { path: partial.to_owned() };
    let file = lock(file).map_err(failed)?.ok_or_else(busy)?;
    // another writer may have finished in between, and what was opened be its result under its name
    let is_ready = !file.is_ours_alone() || is_at(&file, partial).map_err(failed)?;
    if is_ready { Ok(file) } else { Err(busy()) }
}

/// An unfinished file of `out` that is no other writer's, and its path.
fn open_own(out: &Path) -> Result<(LockedFile, PathBuf), WriteError> {
    let partial = beside(out, &format!("{}.phi3v-partial", unique_name()));
    match open_in_place(&partial, File::options().write(true).create_new(true)) {
        Ok(file) => Ok((LockedFile::ours_unlocked(file), partial)),
        Err(source) => Err(WriteError::new(out, source)),
    }
}

/// Refuses a link such as /dev/stdout, which programs rely on: one to a device, a pipe or a socket, or to an open file.
fn refuse_link_to_special(link: &Path) -> std::io::Result<()> {
    if let Ok(metadata) = std::fs::metadata(link)
        && !metadata.is_dir()
    {
        refuse_special(&metadata)?;
    }
    // what an open file is changes with who looks
    if std::fs::read_link(link)?.starts_with("/proc") || folder_of(link) == Path::new("/dev") {
        return Err(std::io::Error::other("it is a link to an open file"));
    }
    Ok(())
}

/// The folder that a file stands in: this one for a bare name.
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
