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

/// The variable that names the user's folder for what can be made again, beside `XDG_CACHE_HOME`: none.
pub(crate) const CACHE_VARIABLE: Option<&str> = None;

/// What the names of variables within a path stand behind.
pub(crate) const SIGNS_OF_VARIABLES: &[char] = &['$'];

/// Whether a file that is open can be replaced by another: who has opened it goes on with the old one.
pub(crate) const REPLACES_OPEN_FILES: bool = true;

/// Whether names of files that differ in upper and lower case alone are usually one.
pub(crate) const FOLDS_CASE: bool = cfg!(target_os = "macos");

/// What shows windows and keeps the clipboard.
pub(crate) const DESKTOP: Desktop = if cfg!(target_os = "macos") { Desktop::Macos } else { Desktop::Server };

/// What the names of programs end in.
pub(crate) const PROGRAM_ENDING: &str = "";

/// Whether a backslash in a path that was typed or dropped takes the next letter as it is, as in a shell.
pub(crate) const BACKSLASH_ESCAPES: bool = true;

/// Whether the path leads to a file of the program's own that is open: somebody has its other end.
#[must_use]
pub(crate) fn is_own_descriptor(path: &Path) -> bool {
    (path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd"))
        && std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// Whether both paths lead to one file or folder, which is there.
#[must_use]
pub(crate) fn lead_to_one_file(a: &Path, b: &Path) -> bool {
    let file = |path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    file(a).is_some_and(|a| file(b) == Some(a))
}

/// The time of any change at all to a file, which no program can set back.
#[must_use]
pub(crate) fn changed(metadata: &Metadata) -> String {
    format!("{}.{:09}", metadata.ctime(), metadata.ctime_nsec())
}

/// The name of a file that these bytes are.
#[must_use]
pub(crate) fn name_of_bytes(bytes: &[u8]) -> Option<OsString> {
    Some(OsStr::from_bytes(bytes).to_owned())
}

/// Makes a blob of a cache appear at `link`: by a relative link, so that the cache may be moved.
///
/// # Errors
/// The system's refusal.
pub(crate) fn link_blob(blob: &Path, link: &Path) -> std::io::Result<()> {
    let linked = symlink(Path::new("../../blobs").join(blob.file_name().unwrap_or_default()), link);
    // FAT, exFAT and some folders of the network know no links
    linked.or_else(|_| std::fs::hard_link(blob, link)).or_else(|_| std::fs::copy(blob, link).map(drop))
}

/// Bytes that another program reads as a file, in which it may seek. It has no name, so that nothing is left of it however this
/// process ends.
pub(crate) struct HandedFile(File);

impl HandedFile {
    /// A file with `bytes`.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(crate) fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        Ok(Self(file))
    }

    /// The path at which `command` can read it from its beginning.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn give_to(&self, command: &mut Command) -> std::io::Result<PathBuf> {
        let mut file = self.0.try_clone()?;
        // where the path does not open it anew, the place in it is shared
        file.rewind()?;
        command.stdin(file);
        Ok("/dev/stdin".into())
    }
}

/// This program, to be started once more: also where another has taken its name by now.
///
/// # Errors
/// The system does not know.
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let running = Path::new("/proc/self/exe");
    Ok(if cfg!(target_os = "linux") && !program.exists() { running.to_owned() } else { program })
}

/// Makes opening wait for nobody at a pipe's other end.
pub(crate) fn open_without_waiting(options: &mut OpenOptions) {
    /// `O_NONBLOCK` of Linux on the processors it is built for, and of macOS and the BSDs.
    const NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 4 };
    options.custom_flags(NONBLOCK);
}

/// From here on a write beyond the size that a file may have (`ulimit -f`) fails with an error; by itself its signal ends
/// the program.
pub(crate) fn outlive_size_limits() {
    let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // where that is refused, it is as it was
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, reached);
}

/// Makes `command` a process that a terminal's Ctrl-C does not reach: it goes to all of a group, and this is one of its own.
pub(crate) fn away_from_ctrl_c(command: &mut Command) {
    command.process_group(0);
}

/// Offers this process before all others to a system that has run out of memory, where such can be chosen: its work is one
/// file's, that of the process that started it everybody's.
pub(crate) fn give_way_for_memory() {
    // whoever may not say so, is as likely as others
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Ends this process soon after the one that started it, also where a fork of that one still holds the other end of stdin.
pub(crate) fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(1);
    });
}

/// Resolves at the next Ctrl-C or SIGTERM, for who ends in order.
///
/// # Errors
/// The system gives no signals.
pub(crate) async fn termination() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// A canonical path as users and addresses have it: as it is.
#[must_use]
pub(crate) fn as_named(canonical: PathBuf) -> PathBuf {
    canonical
}

/// What a shell is told to set a variable for this session, to a value without signs of its own.
#[must_use]
pub(crate) fn setting(variable: &str, value: &str) -> String {
    format!("export {variable}={value}")
}

/// A word between quotes of the shell.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
