//! Windows, where some names stand for devices, and a lock keeps readers out too.

use same_file::Handle;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
#[cfg(windows)]
use {
    super::super::locked::LockedFile, super::super::regular::open_in_place, super::Links,
    std::fs::OpenOptions, std::os::windows::fs::OpenOptionsExt,
};

/// Does nothing: opening never waits on Windows, and any flag that refuses links would also change how other files are
/// opened.
#[cfg(windows)]
pub(in crate::files) fn prepare(_: &mut OpenOptions, _: Links) {}

/// As [`LockedFile::open`]. Instead of a lock, limits how others may open the file meanwhile.
#[cfg(windows)]
pub(in crate::files) fn open_to_write_alone(
    path: &Path,
    options: &mut OpenOptions,
) -> Result<Option<LockedFile>> {
    /// `FILE_SHARE_READ`: others may read the file, but neither replace nor remove it.
    const SHARE: u32 = 1;
    /// `ERROR_SHARING_VIOLATION`.
    const TAKEN: i32 = 32;
    match open_in_place(path, options.share_mode(SHARE)) {
        Ok(file) => Ok(Some(LockedFile::ours_unlocked(file))),
        Err(error) if error.raw_os_error() == Some(TAKEN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the system refuses to lock a file because its file system has no locks, and not because another process holds
/// one.
pub(in crate::files) fn has_no_locks(error: &Error) -> bool {
    /// `ERROR_INVALID_FUNCTION` and `ERROR_NOT_SUPPORTED`.
    const NONE: [i32; 2] = [1, 50];
    error.kind() == ErrorKind::Unsupported || error.raw_os_error().is_some_and(|code| NONE.contains(&code))
}

/// There is no other way to sync a file than std's, which has failed.
#[cfg(windows)]
pub(in crate::files) fn sync_otherwise(_: &File, refusal: Error) -> Result<()> {
    Err(refusal)
}

/// The kind of something that is neither a file nor a folder, from its metadata.
pub(in crate::files) fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_symlink() { "a link" } else { "something else" }
}

/// Whether the open `file` is the one at `path`.
pub(in crate::files) fn is_at(file: &File, path: &Path) -> Result<bool> {
    match Handle::from_path(path) {
        Ok(found) => Ok(found == Handle::from_file(file.try_clone()?)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses the names that Windows reserves for devices, and paths to a device, a pipe or a whole volume.
pub(in crate::files) fn refuse_device_name(path: &Path) -> Result<()> {
    let text = path.to_string_lossy().replace('/', r"\").to_uppercase();
    let is_device = is_device_name(&text) || is_device_path(&text);
    if is_device { Err(Error::other("its name is one that Windows keeps for a device")) } else { Ok(()) }
}

/// Whether the last name of the path, in capitals, stands for the same device in every folder, on every drive (`C:nul`)
/// and, except in the newest versions of Windows, with any ending, as in `a\nul.png`.
fn is_device_name(path: &str) -> bool {
    let name = path.rsplit('\\').next().unwrap_or_default();
    let name = name.split_once(':').filter(|(drive, _)| drive.len() == 1).map_or(name, |(_, rest)| rest);
    let stem = name.split(['.', ':']).next().unwrap_or_default().trim_end();
    let numbered = ["COM", "LPT"].iter().find_map(|port| stem.strip_prefix(port));
    let is_port = numbered.is_some_and(|number| {
        let mut letters = number.chars();
        // Windows counts the raised digits as digits there
        letters.next().is_some_and(|letter| letter.is_ascii_digit() || "¹²³".contains(letter))
            && letters.next().is_none()
    });
    is_port || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem)
}

/// Whether the path, in capitals, leads into the namespace of devices, `\\.\` or `\\?\`, but not into a volume or a file
/// share there; or into the pipes or mailslots of another machine.
fn is_device_path(path: &str) -> bool {
    if path.starts_with(r"\\.\") {
        return true;
    }
    let root = path.strip_prefix(r"\\?\").or_else(|| path.strip_prefix(r"\??\"));
    // in paths with slashes instead of backslashes, Windows follows `..` out of the volume
    if root.is_some_and(|root| root.split('\\').any(|name| name == "..")) {
        return true;
    }
    let shares = match root {
        Some(root) => root.strip_prefix(r"UNC\"),
        None => path.strip_prefix(r"\\"),
    };
    let Some(shares) = shares else {
        return root.is_some_and(|root| !is_in_volume(root));
    };
    let share = shares.split('\\').filter(|name| !["", ".", ".."].contains(name)).nth(1).unwrap_or_default();
    ["PIPE", "MAILSLOT", "IPC$"].contains(&share.trim_end_matches(['.', ' ']))
}

/// Whether the rest after `\\?\` is a path in a drive, `C:\`, or in a volume, `VOLUME{...}\`, and not the drive or volume
/// itself.
fn is_in_volume(path: &str) -> bool {
    let Some((volume, _)) = path.split_once('\\') else {
        return false;
    };
    match volume.strip_suffix(':') {
        Some(drive) => drive.len() == 1 && drive.starts_with(|letter: char| letter.is_ascii_alphabetic()),
        None => volume.starts_with("VOLUME{") && volume.ends_with('}'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_refused(names: &[&str]) {
        for name in names {
            let refused = refuse_device_name(Path::new(name)).expect_err(name).to_string();
            assert_eq!(refused, "its name is one that Windows keeps for a device");
        }
    }

    fn assert_accepted(names: &[&str]) {
        for name in names {
            refuse_device_name(Path::new(name)).expect(name);
        }
    }

    #[test]
    fn names_of_devices_are_refused_in_every_folder_and_with_every_ending() {
        assert_refused(&[
            "NUL",
            "nul",
            "a/nul.png",
            r"a\Con.tar.gz",
            "AUX ",
            "aux .png",
            "prn:",
            "com1",
            "COM0.jpeg",
        ]);
        assert_refused(&[
            "lpt9",
            "COM²",
            "conin$",
            "CONOUT$",
            r"C:\pictures\LPT³.png",
            "nul.partial",
            "c:nul",
        ]);
        assert_accepted(&[
            "",
            "null",
            "a.nul",
            "con/a.png",
            "icon.png",
            "com",
            "COM10",
            "COMA",
            "com1a",
            "lpt",
        ]);
        assert_accepted(&["prn-1.png", "auxiliary", "c:a.png", "a.png:nul"]);
    }

    #[test]
    fn paths_to_devices_pipes_and_whole_volumes_are_refused() {
        assert_refused(&[
            r"\\.\PhysicalDrive0",
            "//./pipe/x",
            r"\\.\C:\a.png",
            r"\\?\PhysicalDrive0",
            r"\\?\pipe\x",
            "//?/pipe/x",
            r"\??\pipe\x",
            r"\\?\GLOBALROOT\Device\Harddisk0\Partition0",
            r"\\?\C:",
            r"\\?\CD:\a.png",
            r"\\?\Volume{0123}",
            "//?/C:/../PhysicalDrive0",
            r"\\?\UNC\host\pipe\x",
            "//?/UNC/host/share/../pipe/x",
            r"\\host\pipe\x",
            r"\\host\Pipe.\x",
            r"\\host\\pipe\x",
            r"\\host\.\pipe\x",
            r"\\host\..\pipe\x",
            "//host/ipc$/x",
            r"\\host\mailslot\x",
        ]);
        assert_accepted(&[
            r"C:\pictures\..\a.png",
            r"pipe\a.png",
            r"\\?\C:\a.png",
            r"\\?\c:\pictures\a.png",
            r"\??\C:\a.png",
            r"\\?\Volume{0123}\a.png",
            r"\\?\UNC\server\share\a.png",
            r"\\server\share\a.png",
            r"\\server\c$\a.png",
            r"\\server\share\pipe\a.png",
            r"\\server\pipes\a.png",
            r"\\pipe\share\a.png",
        ]);
    }

    #[test]
    fn a_file_system_without_locks_is_told_from_a_lock_that_is_taken() {
        let has_none = |code| has_no_locks(&Error::from_raw_os_error(code));
        assert!(has_none(1) && has_none(50));
        // access denied, invalid handle, another process's file, another process's lock
        for code in [5, 6, 32, 33] {
            assert!(!has_none(code), "{code}");
        }
    }

    #[test]
    fn an_open_file_is_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = File::create(path("a.partial")).unwrap();
        std::fs::hard_link(path("a.partial"), path("second")).unwrap();
        assert!(is_at(&file, &path("a.partial")).unwrap() && is_at(&file, &path("second")).unwrap());
        file.lock().unwrap();
        assert!(is_at(&file, &path("a.partial")).unwrap());
        std::fs::rename(path("a.partial"), path("a")).unwrap();
        assert!(!is_at(&file, &path("a.partial")).unwrap());
        let _other = File::create(path("a.partial")).unwrap();
        assert!(!is_at(&file, &path("a.partial")).unwrap());
        assert!(!is_at(&file, folder.path()).unwrap());
    }

    #[test]
    fn what_is_no_file_has_a_name() {
        let metadata = |path: &Path| kind(&std::fs::symlink_metadata(path).unwrap());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(metadata(folder.path()), "something else");
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert_eq!(metadata(&link), "a link");
        }
    }
}
