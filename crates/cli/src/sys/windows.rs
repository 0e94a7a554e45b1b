//! Windows.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The variable besides `XDG_CACHE_HOME` that names the user's cache folder.
#[cfg(windows)]
pub(crate) const CACHE_VARIABLE: Option<&str> = Some("LOCALAPPDATA");

/// The signs that introduce variables in a path.
#[cfg(windows)]
pub(crate) const SIGNS_OF_VARIABLES: &[char] = &['$', '%'];

/// Whether an open file can be replaced by another: only on some file systems, and if the file's opener allows it.
#[cfg(windows)]
pub(crate) const REPLACES_OPEN_FILES: bool = false;

/// Whether file names that differ only in letter case usually refer to the same file.
#[cfg(windows)]
pub(crate) const FOLDS_CASE: bool = true;

/// The system that shows windows and keeps the clipboard.
#[cfg(windows)]
pub(crate) const DESKTOP: super::Desktop = super::Desktop::Windows;

/// The extension of executable files.
#[cfg(windows)]
pub(crate) const PROGRAM_ENDING: &str = ".exe";

/// Whether a backslash in a typed or dropped path escapes the next character: it separates folders.
#[cfg(windows)]
pub(crate) const BACKSLASH_ESCAPES: bool = false;

/// No path leads to an open file of this process.
#[cfg(windows)]
#[must_use]
pub(crate) fn is_own_descriptor(_: &Path) -> bool {
    false
}

/// Whether both paths lead to the same existing file or folder.
#[must_use]
pub(crate) fn lead_to_one_file(a: &Path, b: &Path) -> bool {
    same_file::is_same_file(a, b).unwrap_or(false)
}

/// The creation time of a file, which distinguishes a file moved here from the one it replaced. Overwriting a file keeps this
/// time. So does, on NTFS, creating a file within 15 seconds of the removal of one with its name: the two then differ at
/// most in size or modification time. The time of the last change of any kind requires an `unsafe` call.
#[must_use]
pub(crate) fn changed(metadata: &Metadata) -> String {
    let made = metadata.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    made.map_or(0, |time| time.as_nanos()).to_string()
}

/// The file name with these bytes, which must be UTF-8.
#[cfg(windows)]
#[must_use]
pub(crate) fn name_of_bytes(bytes: &[u8]) -> Option<std::ffi::OsString> {
    std::str::from_utf8(bytes).ok().map(Into::into)
}

/// Makes a blob of a cache available at `link`. Symbolic links need privileges, so this creates a hard link, or else a copy.
///
/// # Errors
/// The system's error.
pub(crate) fn link_blob(blob: &Path, link: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, link).or_else(|_| std::fs::copy(blob, link).map(drop))
}

/// Bytes that another program can read as a file, in a folder that is removed with this value.
#[cfg(windows)]
pub(crate) struct HandedFile(tempfile::TempDir);

#[cfg(windows)]
impl HandedFile {
    /// Creates a file with `bytes`.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub(crate) fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("phi3v-").tempdir()?;
        std::fs::write(folder.path().join("file"), bytes)?;
        Ok(Self(folder))
    }

    /// Returns the path at which `command` can read the file from its beginning.
    ///
    /// # Errors
    /// Never on Windows.
    pub(crate) fn give_to(&self, command: &mut std::process::Command) -> std::io::Result<PathBuf> {
        command.stdin(std::process::Stdio::null());
        Ok(self.0.path().join("file"))
    }
}

/// The path of this program for starting it again.
///
/// # Errors
/// The system does not know the path.
#[cfg(windows)]
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Does nothing: opening a file never waits for another process.
#[cfg(windows)]
pub(crate) fn open_without_waiting(_: &mut cap_std::fs::OpenOptions) {}

/// Does nothing: file sizes are not limited.
#[cfg(windows)]
pub(crate) fn outlive_size_limits() {}

/// Puts `command` in its own process group, so that a console's Ctrl-C, which goes to a whole group, does not reach it.
#[cfg(windows)]
pub(crate) fn away_from_ctrl_c(command: &mut std::process::Command) {
    /// `CREATE_NEW_PROCESS_GROUP`.
    const NEW_GROUP: u32 = 0x200;
    std::os::windows::process::CommandExt::creation_flags(command, NEW_GROUP);
}

/// Does nothing: a system that runs out of memory refuses allocations and ends no process.
#[cfg(windows)]
pub(crate) fn give_way_for_memory() {}

/// Does nothing: the other end of stdin closes with the process that owns it.
#[cfg(windows)]
pub(crate) fn end_with_parent() {}

/// Resolves at the next Ctrl-C or Ctrl-Break, or when the console closes, the user logs off or the machine shuts down, for an
/// orderly shutdown.
///
/// # Errors
/// The system provides no signals.
#[cfg(windows)]
pub(crate) async fn termination() -> std::io::Result<()> {
    use tokio::signal::windows;
    let (mut interrupt, mut end) = (windows::ctrl_c()?, windows::ctrl_break()?);
    let (mut close, mut leave, mut shutdown) =
        (windows::ctrl_close()?, windows::ctrl_logoff()?, windows::ctrl_shutdown()?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = end.recv() => {}
        _ = close.recv() => {}
        _ = leave.recv() => {}
        _ = shutdown.recv() => {}
    }
    Ok(())
}

/// A canonical path as shown to users and in addresses: `C:\a` for `\\?\C:\a`, `\\server\share` for `\\?\UNC\server\share`.
#[must_use]
pub(crate) fn as_named(canonical: PathBuf) -> PathBuf {
    let plain = canonical.to_str().and_then(|text| {
        let rest = text.strip_prefix(r"\\?\")?;
        match rest.strip_prefix(r"UNC\") {
            Some(share) => Some(format!(r"\\{share}")),
            None => rest.get(1..).is_some_and(|rest| rest.starts_with(r":\")).then(|| rest.to_owned()),
        }
    });
    plain.map_or(canonical, PathBuf::from)
}

/// The PowerShell command that sets a variable for this session, for a value without quotes.
#[must_use]
pub(crate) fn setting(variable: &str, value: &str) -> String {
    format!("$env:{variable} = '{value}'")
}

/// A word in quotes that every Windows shell understands.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_set_in_powershell_s_words() {
        assert_eq!(setting("PHI3V_MODEL", "phi-3.5-vision"), "$env:PHI3V_MODEL = 'phi-3.5-vision'");
    }

    #[test]
    fn canonical_paths_are_shown_as_people_write_them() {
        let named = |path: &str| as_named(path.into()).to_str().unwrap().to_owned();
        for (canonical, plain) in [
            (r"\\?\C:\pictures\a b.png", r"C:\pictures\a b.png"),
            (r"\\?\UNC\server\share\a.png", r"\\server\share\a.png"),
            (r"\\?\Volume{0123}\a.png", r"\\?\Volume{0123}\a.png"),
            (r"C:\a.png", r"C:\a.png"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(named(canonical), plain);
        }
    }

    #[test]
    fn one_file_has_many_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "").unwrap();
        std::fs::write(path("b"), "").unwrap();
        std::fs::create_dir(path("in")).unwrap();
        std::fs::hard_link(path("a"), path("second")).unwrap();
        assert!(lead_to_one_file(&path("a"), &path("second")));
        assert!(
            lead_to_one_file(&path("a"), &path("in/../a")) && lead_to_one_file(dir.path(), &path("in/.."))
        );
        assert!(!lead_to_one_file(&path("a"), &path("b")) && !lead_to_one_file(&path("c"), &path("c")));
    }

    #[test]
    fn a_blob_appears_without_a_symbolic_link() {
        let dir = tempfile::tempdir().unwrap();
        let (blob, link) = (dir.path().join("blob"), dir.path().join("link"));
        std::fs::write(&blob, "bytes").unwrap();
        link_blob(&blob, &link).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(std::fs::read(&link).unwrap(), b"bytes");
        assert!(link_blob(&dir.path().join("absent"), &dir.path().join("other")).is_err());
    }

    #[test]
    fn a_file_that_is_not_touched_has_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let of = || changed(&std::fs::metadata(&path).unwrap());
        std::fs::write(&path, "bytes").unwrap();
        let before = of();
        assert_eq!(of(), before);
        assert!(before.parse::<u128>().is_ok(), "{before}");
    }

    #[test]
    fn words_stand_between_double_quotes() {
        assert_eq!(quoted(r"C:\my pictures\a.png"), r#""C:\my pictures\a.png""#);
        assert_eq!(quoted("a \"b\""), r#""a \"b\"""#);
    }
}
