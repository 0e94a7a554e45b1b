//! Pictures below one folder, named by `file://` URLs. The folder is opened once. Paths are resolved from there and
//! never leave it, regardless of `..` and links.

use super::budget::Budget;
use super::error::SourceError;
use super::turns::Turns;
use crate::sys::{as_named, open_without_waiting};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use std::path::{Path, PathBuf};
use url::Url;

/// The folder.
pub(super) struct Folder {
    dir: Dir,
    /// The prefixes of its files' paths: the canonical path of the folder, and the path that was given, which may
    /// contain links.
    paths: [PathBuf; 2],
    /// Turns at reading, since a folder on a network may be slow.
    pub(super) turns: Turns,
}

/// Maximum number of files that are read concurrently.
const READS: usize = 16;

impl Folder {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let (given, path) = (std::path::absolute(path)?, path.canonicalize()?);
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        Ok(Self { dir, paths: [path, given].map(as_named), turns: Turns::new(READS) })
    }

    /// Reads the bytes of a file. Missing and forbidden files give the same error, so that nobody learns what exists.
    pub(super) fn read(
        &self,
        url: &str,
        bytes_max: usize,
        budget: &mut Budget,
    ) -> Result<Vec<u8>, SourceError> {
        let refused = || SourceError::NoFile;
        let path = Url::parse(url).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(refused)?;
        let relative = self.paths.iter().find_map(|folder| path.strip_prefix(folder).ok());
        let relative = relative.ok_or_else(refused)?;
        let file = self.open_file(relative).map_err(|_| refused())?.ok_or_else(refused)?;
        budget.read(file, bytes_max, refused())
    }

    /// Opens the file at `path`, or returns `None` if it is not a file. The check uses the open file, since the path
    /// could lead to a pipe a moment later.
    fn open_file(&self, path: &Path) -> std::io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        open_without_waiting(&mut options);
        let file = self.dir.open_with(path, &options)?;
        Ok(file.metadata()?.is_file().then_some(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::budget::Inputs;
    use std::fs;

    #[test]
    fn a_file_is_named_by_its_url_on_every_system() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("inside/sub")).unwrap();
        fs::write(root.path().join("inside/sub/a b.png"), b"picture").unwrap();
        fs::write(root.path().join("secret"), b"secret").unwrap();
        let folder = Folder::open(&root.path().join("inside")).unwrap();
        let root = as_named(root.path().canonicalize().unwrap());
        let read = |path: &str| {
            let url = Url::from_file_path(root.join(path)).unwrap();
            folder.read(url.as_str(), 100, &mut Inputs::new(1 << 20).budget())
        };
        assert_eq!(read("inside/sub/a b.png").unwrap(), b"picture");
        for path in
            ["secret", "inside/../secret", "inside", "inside/missing", "inside/NUL", "inside/sub/CON.png"]
        {
            assert_eq!(read(path), Err(SourceError::NoFile), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn reads_below_the_folder_and_nowhere_else() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let inside = root.join("inside");
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::write(inside.join("sub/a b.png"), b"picture").unwrap();
        fs::write(root.join("secret"), b"secret").unwrap();
        symlink(root.join("secret"), inside.join("link")).unwrap();
        symlink("../inside/sub", inside.join("loop")).unwrap();
        symlink("sub", inside.join("within")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        let read_url = |url: &str, bytes_max| folder.read(url, bytes_max, &mut Inputs::new(1 << 20).budget());
        let read = |path: &str| read_url(&format!("file://{}/{path}", inside.display()), 100);
        assert_eq!(read("sub/a%20b.png").unwrap(), b"picture");
        assert_eq!(read("within/a%20b.png").unwrap(), b"picture");
        for path in
            ["link", "../secret", "%2e%2e/secret", "up/secret", "loop/../../secret", "", "sub", "missing"]
        {
            assert_eq!(read(path), Err(SourceError::NoFile), "{path}");
        }
        for url in ["file:///etc/passwd", "file://host/etc/passwd", "file:", "file:///"] {
            assert_eq!(read_url(url, 100), Err(SourceError::NoFile), "{url}");
        }
        let long = format!("file://{}/sub/a b.png", inside.display());
        assert_eq!(read_url(&long, 3), Err(SourceError::TooLarge { limit: 3 }));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_given_by_a_link_has_both_names_and_its_borders() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inside")).unwrap();
        fs::write(root.join("real/inside/a.png"), b"picture").unwrap();
        fs::write(root.join("real/secret"), b"secret").unwrap();
        fs::write(root.join("secret"), b"secret").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("real/inside", root.join("direct")).unwrap();
        for given in ["link/inside", "direct", "link/./inside/"] {
            let folder = Folder::open(&root.join(given)).unwrap();
            let read = |path: &str| {
                let url = Url::from_file_path(root.join(path)).unwrap();
                folder.read(url.as_str(), 100, &mut Inputs::new(1 << 20).budget())
            };
            let given = given.replace("/./", "/");
            for named in ["real/inside", given.trim_end_matches('/')] {
                assert_eq!(read(&format!("{named}/a.png")).unwrap(), b"picture", "{given} {named}");
                assert_eq!(read(&format!("{named}/../secret")), Err(SourceError::NoFile), "{given} {named}");
            }
            assert_eq!(read("secret"), Err(SourceError::NoFile), "{given}");
            assert_eq!(read("real/secret"), Err(SourceError::NoFile), "{given}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status();
        if !made.is_ok_and(|status| status.success()) {
            phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
            return;
        }
        let url = format!("file://{}/pipe", root.display());
        let read = Folder::open(&root).unwrap().read(&url, 100, &mut Inputs::new(1 << 20).budget());
        assert_eq!(read, Err(SourceError::NoFile));
    }
}
