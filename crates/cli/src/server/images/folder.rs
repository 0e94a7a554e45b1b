//! Pictures below one folder, named by `file://` URLs. The folder is opened once and every path is walked from
//! there without leaving it, whatever `..` and links say.

use super::too_large;
use crate::server::openai::errors::ApiError;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::io::Read;
use std::path::{Path, PathBuf};
use url::Url;

/// The folder.
pub(super) struct Folder {
    dir: Dir,
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        Ok(Self { dir: Dir::open_ambient_dir(&path, ambient_authority())?, path })
    }

    /// The file's bytes. What is missing and what is forbidden give the same error: it tells nobody what exists.
    pub(super) fn read(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
        let refused = || {
            ApiError::bad_request(
                "image_source_not_allowed",
                "there is no picture that may be read at this address",
            )
            .hint("give the path of a file below the folder of --allow-image-dir")
        };
        let path = Url::parse(url).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(refused)?;
        let relative = path.strip_prefix(&self.path).map_err(|_| refused())?;
        // a pipe or a device would block on opening
        let metadata = self.dir.metadata(relative).map_err(|_| refused())?;
        if !metadata.is_file() {
            return Err(refused());
        }
        let file = self.dir.open(relative).map_err(|_| refused())?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|_| refused())?;
        if bytes.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        Ok(bytes)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn reads_below_the_folder_and_nowhere_else() {
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
        let read = |path: &str| folder.read(&format!("file://{}/{path}", inside.display()), 100);
        assert_eq!(read("sub/a%20b.png").unwrap(), b"picture");
        assert_eq!(read("within/a%20b.png").unwrap(), b"picture");
        for path in
            ["link", "../secret", "%2e%2e/secret", "up/secret", "loop/../../secret", "", "sub", "missing"]
        {
            let error = read(path).unwrap_err();
            assert_eq!(error.code, "image_source_not_allowed", "{path}");
            assert!(!error.json().contains("secret"), "{path}");
        }
        for url in ["file:///etc/passwd", "file://host/etc/passwd", "file:", "file:///"] {
            assert_eq!(folder.read(url, 100).unwrap_err().code, "image_source_not_allowed", "{url}");
        }
        let long = format!("file://{}/sub/a b.png", inside.display());
        assert_eq!(folder.read(&long, 3).unwrap_err().code, "image_too_large");
    }
}
