//! Linux, macOS and the BSDs.

use super::Desktop;
use cap_std::fs::{OpenOptions, OpenOptionsExt};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The variable besides `XDG_CACHE_HOME` that names the user's cache folder: none.
pub(crate) const CACHE_VARIABLE: Option<&str> = None;

/// The signs that introduce variables in a path.
pub(crate) const SIGNS_OF_VARIABLES: &[char] = &['$'];

/// Whether an open file can be replaced by another: readers of the open file keep the old one.
pub(crate) const REPLACES_OPEN_FILES: bool = true;

/// Whether file names that differ only in letter case usually refer to the same file.
pub(crate) const FOLDS_CASE: bool = cfg!(target_os = "macos");

/// The system that shows windows and keeps the clipboard.
pub(crate) const DESKTOP: Desktop = if cfg!(target_os = "macos") { Desktop::Macos } else { Desktop::Server };

/// The extension of executable files.
pub(crate) const PROGRAM_ENDING: &str = "";

/// Whether a backslash in a typed or dropped path escapes the next character, as in a shell.
pub(crate) const BACKSLASH_ESCAPES: bool = true;

/// Whether the path leads to an open file of this process, whose other end is in use.
#[must_use]
pub(crate) fn is_own_descriptor(path: &Path) -> bool {
    (path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd"))
        && std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// Whether both paths lead to the same existing file or folder.
#[must_use]
pub(crate) fn lead_to_one_file(a: &Path, b: &Path) -> bool {
    let file = |path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    file(a).is_some_and(|a| file(b) == Some(a))
}

/// The time of a file's last change of any kind, which programs cannot set back.
#[must_use]
pub(crate) fn changed(metadata: &Metadata) -> String {
    format!("{}.{:09}", metadata.ctime(), metadata.ctime_nsec())
}

/// The file name with these bytes.
#[must_use]
pub(crate) fn name_of_bytes(bytes: &[u8]) -> Option<OsString> {
    Some(OsStr::from_bytes(bytes).to_owned())
}

/// Makes a blob of a cache available at `link`: by a relative link, so that the cache can be moved.
///
/// # Errors
/// The system's error.
pub(crate) fn link_blob(blob: &Path, link: &Path) -> std::io::Result<()> {
    let linked = symlink(Path::new("../../blobs").join(blob.file_name().unwrap_or_default()), link);
    // FAT, exFAT and some network folders do not support links
    linked.or_else(|_| std::fs::hard_link(blob, link)).or_else(|_| std::fs::copy(blob, link).map(drop))
}

/// Bytes that another program can read as a seekable file. The file has no name, so it disappears however this process ends.
pub(crate) struct HandedFile(File);

impl HandedFile {
    /// Creates a file with `bytes`.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub(crate) fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        Ok(Self(file))
    }

    /// Returns the path at which `command` can read the file from its beginning.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn give_to(&self, command: &mut Command) -> std::io::Result<PathBuf> {
        let mut file = self.0.try_clone()?;
        // if opening the path does not open the file anew, the position is shared
        file.rewind()?;
        command.stdin(file);
        Ok("/dev/stdin".into())
    }
}

/// The path of this program for starting it again, even if another file has taken its name.
///
/// # Errors
/// The system does not know the path.
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let running = Path::new("/proc/self/exe");
    Ok(if cfg!(target_os = "linux") && !program.exists() { running.to_owned() } else { program })
}

/// Makes opening a pipe return without waiting for its other end.
pub(crate) fn open_without_waiting(options: &mut OpenOptions) {
    /// `O_NONBLOCK` of Linux on the supported processors, and of macOS and the BSDs.
    const NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 4 };
    options.custom_flags(NONBLOCK);
}

/// Makes writes beyond the file size limit (`ulimit -f`) fail with an error; by default, a signal ends the program.
pub(crate) fn outlive_size_limits() {
    let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // if this is refused, the default remains
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, reached);
}

/// Puts `command` in its own process group, so that a terminal's Ctrl-C, which goes to a whole group, does not reach it.
pub(crate) fn away_from_ctrl_c(command: &mut Command) {
    command.process_group(0);
}

/// Asks a system that runs out of memory to kill this process first, if the system supports it: this process works for one
/// file, its parent for all.
pub(crate) fn give_way_for_memory() {
    // without permission, it is as likely to be killed as others
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Ends this process soon after its parent, even if a fork of the parent still holds the other end of stdin.
pub(crate) fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(1);
    });
}

/// Resolves at the next Ctrl-C or SIGTERM, for an orderly shutdown.
///
/// # Errors
/// The system provides no signals.
pub(crate) async fn termination() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// A canonical path as shown to users and in addresses: unchanged.
#[must_use]
pub(crate) fn as_named(canonical: PathBuf) -> PathBuf {
    canonical
}

/// The shell command that sets a variable for this session, for a value without special characters.
#[must_use]
pub(crate) fn setting(variable: &str, value: &str) -> String {
    format!("export {variable}={value}")
}

/// A word in shell quotes.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
