//! The hub's cache on disk.
//!
//! ```text
//! <cache>/models--owner--name/refs/<revision>                the commit a name stands for
//! <cache>/models--owner--name/blobs/<etag>                   each content once
//! <cache>/models--owner--name/blobs/<etag>.incomplete        the part that a download has so far
//! <cache>/models--owner--name/snapshots/<commit>/<file>      links to ../../blobs/<etag>, or the content itself
//! <cache>/.locks/models--owner--name/<etag>.lock             held while a blob is written
//! <cache>/.locks/models--owner--name/<etag>.checked          which file was read in full and found right; phi3v's own
//! ```

use super::HubError;
use super::client::{Client, RemoteFile, is_commit};
use crate::disk;
use crate::identity::{is_noted, note_right};
use crate::paths::noted_text;
use crate::sys::link_blob;
use phi3v::files::{LockedFile, open_in_place, unique_name};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One repository's part of the cache.
pub(super) struct RepoCache {
    cache: PathBuf,
    /// Name of the model's folder, `models--owner--name`.
    folder: String,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        Self { cache: cache.to_owned(), folder: format!("models--{}", id.replace('/', "--")) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.cache
    }

    fn repo(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    pub(super) fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.repo().join("snapshots").join(commit)
    }

    /// The snapshot folder of a revision downloaded before, which may be incomplete.
    pub(super) fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            noted(&self.repo().join("refs").join(revision))?
        };
        is_commit(&commit).then(|| self.snapshot_dir(&commit)).filter(|dir| dir.is_dir())
    }

    /// Records the commit that `revision` now refers to.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.repo().join("refs").join(revision);
        if noted(&path).is_some_and(|noted| noted == commit) {
            return Ok(());
        }
        create_parent(&path)?;
        // renamed into place, so that a reader never sees a partial commit
        let new = self.repo().join(format!("ref.{}", unique_name()));
        fs::write(&new, commit).map_err(|source| HubError::writing(&new, commit.len() as u64, source))?;
        fs::rename(&new, &path).map_err(|source| HubError::io(&path, source))
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo().join("blobs").join(etag)
    }

    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.repo().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Bytes still to be downloaded for a file, or for the replacement of a damaged one.
    pub(super) fn bytes_missing(&self, commit: &str, file: &RemoteFile, is_damaged: bool) -> u64 {
        let len = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.len()).unwrap_or(0);
        if !is_damaged && len(self.read_as(commit, file)) == file.size {
            return 0;
        }
        file.size.saturating_sub(len(self.incomplete(&file.etag)))
    }

    /// Free bytes on the disk of the cache.
    pub(super) fn available_bytes(&self) -> Result<u64, HubError> {
        let blobs = self.repo().join("blobs");
        fs::create_dir_all(&blobs).map_err(|source| HubError::io(&blobs, source))?;
        disk::available(&blobs).map_err(|source| HubError::io(&blobs, source))
    }

    /// The path of a file stored along with a blob, outside the repository's folder.
    fn beside(&self, etag: &str, ending: &str) -> PathBuf {
        self.cache.join(".locks").join(&self.folder).join(format!("{etag}.{ending}"))
    }

    /// The path under which a file of the commit is read: a file of the hub's size that stands in the commit's folder in place
    /// of a link, or else the blob. Without links, that file is a hard link to the blob, a copy, or the only instance: the hub's
    /// own tools move a new blob there. A commit's contents never change, and the file may be in use.
    pub(super) fn read_as(&self, commit: &str, file: &RemoteFile) -> PathBuf {
        let path = self.snapshot_dir(commit).join(&file.name);
        let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
        if metadata.is_some_and(|metadata| metadata.len() == file.size) {
            return path;
        }
        self.blob(&file.etag)
    }

    /// Whether the file with this identity is known to match its checksum.
    pub(super) fn is_known_right(&self, etag: &str, identity: &str) -> bool {
        is_noted(&self.beside(etag, "checked"), identity)
    }

    /// Records that the file with this identity matches its checksum, if the cache is writable.
    pub(super) fn remember_right(&self, etag: &str, identity: &str) {
        let note = self.beside(etag, "checked");
        if create_parent(&note).is_ok() {
            note_right(&note, identity);
        }
    }

    /// Waits until no other process writes the blob, or nobody waits for the model any more. `waiting` is called before a
    /// wait.
    /// Dropping the returned file releases the lock.
    pub(super) fn lock(
        &self,
        etag: &str,
        client: &Client,
        waiting: impl FnOnce(),
    ) -> Result<LockedFile, HubError> {
        const PAUSE: Duration = Duration::from_millis(100);
        let path = self.beside(etag, "lock");
        create_parent(&path)?;
        let io = |source| HubError::io(&path, source);
        // Windows cannot lock a file that is open only for appending
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let mut waiting = Some(waiting);
        loop {
            // without locks, two simultaneous downloads would damage each other, which the checksum detects
            let locked = open_in_place(&path, &mut options).and_then(LockedFile::try_lock).map_err(io)?;
            if let Some(file) = locked {
                return Ok(file);
            }
            if let Some(tell) = waiting.take() {
                tell();
            }
            client.wait(PAUSE)?;
        }
    }

    /// Makes a blob available under its name in the commit's folder. If it is `new`, it replaces a copy of its former
    /// contents.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile, new: bool) -> Result<PathBuf, HubError> {
        let (path, blob) = (self.snapshot_dir(commit).join(&file.name), self.blob(&file.etag));
        // nothing is written to a complete cache, which may be read-only
        if fs::canonicalize(&path).is_ok_and(|there| fs::canonicalize(&blob).is_ok_and(|blob| there == blob))
            || !new && self.read_as(commit, file) == path
        {
            return Ok(path);
        }
        create_parent(&path)?;
        let new = self.snapshot_dir(commit).join(format!(".{}.{}", file.name, unique_name()));
        let io = |source| HubError::io(&path, source);
        link_blob(&blob, &new).map_err(io)?;
        fs::rename(&new, &path).map_err(io)?;
        Ok(path)
    }
}

/// The commit stored in a file of `refs`.
fn noted(path: &Path) -> Option<String> {
    /// Longer than a commit and a line break.
    const BYTES_MAX: u64 = 100;
    Some(noted_text(path, BYTES_MAX)?.trim().to_owned())
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|source| HubError::io(parent, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_the_blob_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(dir.path(), "owner/name");
        let file =
            RemoteFile { name: "a.json".to_owned(), url: String::new(), etag: "0123".to_owned(), size: 5 };
        let (blob, path) = (cache.blob(&file.etag), cache.snapshot_dir("commit").join(&file.name));
        for of in [&blob, &path] {
            create_parent(of).unwrap();
        }
        fs::write(&blob, "bytes").unwrap();
        // as on a system without symbolic links
        fs::hard_link(&blob, &path).unwrap();
        assert_eq!(cache.link("commit", &file, false).unwrap(), path);
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        // truncated, written by another program
        fs::remove_file(&path).unwrap();
        fs::write(&path, "byt").unwrap();
        cache.link("commit", &file, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part is left");
    }
}
