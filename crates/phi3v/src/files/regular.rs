//! Opens files that must be regular, without waiting for the other end of a pipe and without touching a device.

use super::sys::{Links, kind, prepare, refuse_device_name};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// The system's error, or [`ErrorKind::Other`] with our own message for a pipe, a device or a socket.
pub fn open_regular(path: &Path) -> Result<File> {
    open_regular_with(path, File::options().read(true))
}

/// Opens a regular file with `options`, which may create it. Links are followed.
///
/// # Errors
/// As for [`open_regular`].
pub fn open_regular_with(path: &Path, options: &mut OpenOptions) -> Result<File> {
    // check first, since opening a device may have effects
    open(path, options, check_regular(path), Links::Follow)
}

/// Opens the regular file at `path` itself, or creates it if `options` say so. Links are not followed.
///
/// # Errors
/// As for [`open_regular`], and if `path` is a link.
pub fn open_in_place(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let looked = refuse_device_name(path)
        .and_then(|()| std::fs::symlink_metadata(path))
        .and_then(|metadata| refuse_special(&metadata));
    open(path, options, looked, Links::Refuse)
}

/// Refuses what [`open_regular`] would refuse, as far as can be known without opening the file.
///
/// # Errors
/// As for [`open_regular`].
pub fn check_regular(path: &Path) -> Result<()> {
    refuse_device_name(path)?;
    refuse_special(&std::fs::metadata(path)?)
}

/// Opens a file, without waiting, after a first check whose result is `looked`. Then checks the opened file, since
/// another file may have taken the name meanwhile.
fn open(path: &Path, options: &mut OpenOptions, looked: Result<()>, links: Links) -> Result<File> {
    match looked {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => prepare(options, links),
    }
    let file = options.open(path)?;
    refuse_special(&file.metadata()?)?;
    Ok(file)
}

/// Refuses everything but a regular file; the error names the kind of file.
///
/// # Errors
/// [`ErrorKind::IsADirectory`], or [`ErrorKind::Other`] with our own message.
pub(super) fn refuse_special(metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Err(Error::other(format!("it is {} and not a file", kind(metadata))))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_file_is_refused_by_its_kind_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refusal = |name: &str| open_regular(&path(name)).unwrap_err().to_string();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(refusal("socket"), "it is a socket and not a file");
        assert_eq!(refusal("."), ErrorKind::IsADirectory.to_string());
        assert_eq!(
            open_regular(Path::new("/dev/zero")).unwrap_err().to_string(),
            "it is a device and not a file"
        );
        assert_eq!(open_regular(&path("absent")).unwrap_err().kind(), ErrorKind::NotFound);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status();
        if made.is_ok_and(|status| status.success()) {
            assert_eq!(refusal("pipe"), "it is a pipe and not a file");
            std::os::unix::fs::symlink("pipe", path("to a pipe")).unwrap();
            assert_eq!(refusal("to a pipe"), "it is a pipe and not a file");
            let create = || open_regular_with(&path("pipe"), File::options().append(true).create(true));
            assert_eq!(create().unwrap_err().to_string(), "it is a pipe and not a file");
        } else {
            phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
        }
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert!(open_regular(&path("link")).is_ok());
        let in_place = open_in_place(&path("link"), File::options().write(true));
        assert_eq!(in_place.unwrap_err().to_string(), "it is a link and not a file");
    }
}
