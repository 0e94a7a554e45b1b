//! Downloads one file from the hub into the cache: resumes an earlier attempt, and verifies the checksum.

use super::cache::RepoCache;
use super::client::{Client, RemoteFile, header};
use super::{HubError, Progress};
use crate::identity::{identity, identity_of};
use phi3v::error::count;
use phi3v::files::{open_in_place, open_regular, sync_data};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Consecutive connections without progress before the download is given up.
const FAILURES_MAX: u32 = 5;

/// Size limit of files other than weights; tokenizer.json has 1.8 MB.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// A download of several files of one commit.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepoCache,
    pub(super) commit: &'a str,
    pub(super) progress: &'a mut dyn Progress,
}

impl Download<'_> {
    /// Ensures that a small file other than weights is in the cache and intact, and returns its path there. The free disk
    /// space is not checked for it.
    pub(super) fn small_file(&mut self, name: &str) -> Result<PathBuf, HubError> {
        let file = self.client.head(self.commit, name)?;
        if file.size > SMALL_BYTES_MAX {
            return Err(HubError::FileSize { file: file.name, bytes: file.size, limit: SMALL_BYTES_MAX });
        }
        let damaged = self.damaged(&file)?;
        self.file(&file, damaged.as_deref())
    }

    /// The identity of the cached file if its contents do not match its checksum or cannot be read.
    pub(super) fn damaged(&mut self, file: &RemoteFile) -> Result<Option<String>, HubError> {
        let damaged = self.damaged_at(&self.cache.read_as(self.commit, file), file)?;
        if damaged.is_some() {
            self.progress.note(&format!("{} in the cache is damaged and is downloaded again", file.name));
        }
        Ok(damaged)
    }

    /// Like `damaged`, for the file at `path`. The file is read in full once; later its size and times are sufficient.
    fn damaged_at(&mut self, path: &Path, file: &RemoteFile) -> Result<Option<String>, HubError> {
        let Some(metadata) = fs::metadata(path).ok().filter(|metadata| metadata.len() == file.size) else {
            return Ok(None);
        };
        let identity = identity(&metadata);
        if self.cache.is_known_right(&file.etag, &identity) {
            return Ok(None);
        }
        if file.size > SMALL_BYTES_MAX {
            self.progress.note(&format!("checking {} in the cache", file.name));
        }
        let mut hasher = Hasher::new(file);
        let read = match open_regular(path) {
            Ok(mut opened) => hasher.read(&mut opened, self.client)?,
            Err(source) => Err(source),
        };
        match read {
            Ok(_) if hasher.finish() == file.etag => {
                self.cache.remember_right(&file.etag, &identity);
                Ok(None)
            }
            Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                Err(HubError::io(path, source))
            }
            // or the disk can no longer read it
            _ => Ok(Some(identity)),
        }
    }

    /// Ensures that the file is in the cache, and returns its path there. Waits for another process that is downloading the
    /// same file. An existing file with the identity `damaged` is replaced once its replacement is complete.
    pub(super) fn file(&mut self, file: &RemoteFile, damaged: Option<&str>) -> Result<PathBuf, HubError> {
        let blob = self.cache.blob(&file.etag);
        let (cache, commit) = (self.cache, self.commit);
        let is_there = || {
            let there = fs::metadata(cache.read_as(commit, file)).ok();
            let there = there.filter(|metadata| metadata.len() == file.size);
            there.is_some_and(|metadata| damaged.is_none_or(|damaged| identity(&metadata) != damaged))
        };
        let already_there = is_there();
        let mut is_new = false;
        if !already_there {
            let progress = &mut *self.progress;
            let note = format!("waiting for another download of {}", file.name);
            let _lock = self.cache.lock(&file.etag, self.client, || progress.note(&note))?;
            if !is_there() {
                // if only a copy is damaged, it is copied from the blob again
                let other =
                    damaged.is_some_and(|damaged| identity_of(&blob).is_some_and(|blob| blob != damaged));
                if !other || self.damaged_at(&blob, file)?.is_some() {
                    self.fetch(file, &blob)?;
                }
                is_new = true;
            }
        }
        self.progress.file_done(file.size, already_there);
        let path = self.cache.link(self.commit, file, is_new)?;
        if let Some(identity) = identity_of(&path).filter(|_| is_new) {
            self.cache.remember_right(&file.etag, &identity);
        }
        Ok(path)
    }

    /// Downloads and verifies the file. A damaged part from an earlier run is discarded once.
    fn fetch(&mut self, file: &RemoteFile, blob: &Path) -> Result<(), HubError> {
        let path = self.cache.incomplete(&file.etag);
        let mut partial = Partial::open(&path, file, self.client)?;
        let resumed = partial.len > 0;
        self.progress.file_resumed(partial.len);
        let mut checksum = self.complete(&mut partial, file)?;
        if checksum != file.etag && resumed {
            partial.restart(file)?;
            self.progress.file_resumed(0);
            checksum = self.complete(&mut partial, file)?;
        }
        let io = |source| HubError::io(&path, source);
        if checksum != file.etag {
            fs::remove_file(&path).map_err(io)?;
            let (file, expected) = (file.name.clone(), file.etag.clone());
            return Err(HubError::Checksum { file, found: checksum, expected });
        }
        sync_data(&partial.file).map_err(|source| HubError::writing(&path, file.size, source))?;
        drop(partial);
        fs::rename(&path, blob).map_err(io)
    }

    /// Receives until the file is complete, over as many connections as needed. Returns its checksum.
    fn complete(&mut self, partial: &mut Partial, file: &RemoteFile) -> Result<String, HubError> {
        let mut failures = 0;
        while partial.len < file.size {
            let (before, restarts) = (partial.len, partial.restarts);
            let Err(error) = self.receive(partial, file) else { continue };
            if !error.may_pass() {
                return Err(error);
            }
            // repeated restarts from zero would never end
            let continued = partial.restarts == restarts && partial.len > before;
            failures = if continued { 0 } else { failures + 1 };
            if failures > FAILURES_MAX {
                return Err(error);
            }
            if failures > 0 {
                self.progress.note(&format!("{error}; trying again"));
                self.client.wait(self.client.retry_pause * (1 << (failures - 1)))?;
            }
        }
        Ok(partial.hasher.clone().finish())
    }

    /// Receives from one connection.
    fn receive(&mut self, partial: &mut Partial, file: &RemoteFile) -> Result<(), HubError> {
        let response = self.client.open(file, partial.len)?;
        if let Some(size) = stated_size(&response).filter(|size| *size != file.size) {
            // a proxy's page, or another file: the bytes received so far are kept
            let reason = format!("it answers with {}, and the file has {}", count(size, "byte"), file.size);
            return Err(unreachable_error(file, &reason));
        }
        let begins_at = match response.status().as_u16() {
            206 => content_range_start(&response),
            200 => Some(0),
            _ => None,
        };
        if begins_at != Some(partial.len) {
            // the server does not support ranges, or its file has become shorter
            partial.restart(file)?;
            self.progress.file_resumed(0);
            if begins_at != Some(0) {
                return Err(unreachable_error(file, "it does not continue the file"));
            }
        }
        let mut body = response.into_body().into_reader().take(file.size - partial.len);
        let mut chunk = vec![0; CHUNK_BYTES];
        while partial.len < file.size {
            match body.read(&mut chunk) {
                Ok(0) => return Err(unreachable_error(file, "the connection ended early")),
                Ok(bytes) => partial.append(&chunk[..bytes])?,
                Err(error) => return Err(unreachable_error(file, &error.to_string())),
            }
            self.progress.file_bytes(partial.len);
            self.client.check_wanted()?;
        }
        Ok(())
    }
}

fn unreachable_error(file: &RemoteFile, reason: &str) -> HubError {
    HubError::Unreachable { url: file.url.clone(), proxy: None, reason: reason.to_owned() }
}

/// The whole file's size according to the response: the total of `Content-Range: bytes 100-199/200`, or the length of a
/// complete body.
fn stated_size(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    match response.status().as_u16() {
        206 => header(response.headers(), "content-range")?.rsplit_once('/')?.1.parse().ok(),
        200 => response.body().content_length(),
        _ => None,
    }
}

/// The position of the first byte in `Content-Range: bytes 100-199/200`.
fn content_range_start(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let range = header(response.headers(), "content-range")?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The received part of a file, on disk and in its checksum.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    /// Bytes of the whole file.
    size: u64,
    hasher: Hasher,
    /// Restarts from zero.
    restarts: u32,
}

impl Partial {
    /// Continues an `.incomplete` file, or begins one.
    fn open(path: &Path, remote: &RemoteFile, client: &Client) -> Result<Self, HubError> {
        let io = |source| HubError::io(path, source);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| HubError::io(parent, source))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_in_place(path, &mut options).map_err(io)?;
        let (size, hasher) = (remote.size, Hasher::new(remote));
        let mut partial = Self { path: path.to_owned(), file, len: 0, size, hasher, restarts: 0 };
        if partial.file.metadata().map_err(io)?.len() > remote.size {
            partial.restart(remote)?;
        }
        partial.len = partial.hasher.read(&mut partial.file, client)?.map_err(io)?;
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let missing = self.size.saturating_sub(self.len);
        self.file.write_all(bytes).map_err(|source| HubError::writing(&self.path, missing, source))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, remote: &RemoteFile) -> Result<(), HubError> {
        let io = |source| HubError::io(&self.path, source);
        self.file.set_len(0).map_err(io)?;
        self.file.seek(SeekFrom::Start(0)).map_err(io)?;
        (self.len, self.hasher) = (0, Hasher::new(remote));
        self.restarts += 1;
        Ok(())
    }
}

/// The kind of checksum that the hub gives for a file: sha256 for large files, git's for others.
#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        if file.etag.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        // git hashes an object's kind, size and content with sha1
        Self::Git(Sha1::new_with_prefix(format!("blob {}\0", file.size)))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// Hashes the rest of a file, and returns its number of bytes, or the disk's error. Fails if nobody waits for the model
    /// any more.
    fn read(&mut self, file: &mut File, client: &Client) -> Result<io::Result<u64>, HubError> {
        let (mut chunk, mut total) = (vec![0; CHUNK_BYTES], 0);
        loop {
            client.check_wanted()?;
            let bytes = match file.read(&mut chunk) {
                Ok(0) => return Ok(Ok(total)),
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            self.update(&chunk[..bytes]);
            total += bytes as u64;
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}
