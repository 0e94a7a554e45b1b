//! Models by name: found in a folder or in the hub's cache on this machine, or downloaded from a hub.
//!
//! The cache is the hub's standard one, shared with other programs. Only files that phi3v reads are downloaded. A name is
//! first resolved to a commit, and all files come from that commit. Each file is downloaded to an `.incomplete` file, which
//! a later run resumes, and enters the cache only after its checksum was verified. The checksum of an existing file is
//! verified once, when the hub is asked, and damaged files are downloaded again. The access token is sent only to the
//! configured endpoint. If a storage host refuses, a fresh address is requested: the hub's addresses expire quickly.
//!
//! Follows the hub's documented cache layout and the API of `api/models` and `resolve`.

mod cache;
mod client;
mod download;
mod error;
mod file_kind;
mod name;
mod options;
mod progress;
mod proxy;
mod token;

pub use error::HubError;
pub use file_kind::FileKind;
pub use name::{ModelName, is_known};
pub use options::{HubOptions, OFFLINE_VARIABLES};
pub use progress::{DownloadBar, DownloadLines, Progress, for_stderr};
pub use proxy::{Proxies, Proxy};
pub use token::Token;

use crate::disk;
use cache::RepoCache;
use client::{Client, RemoteFile};
use download::Download;
use name::Repo;
use phi3v::files::map_regular;
use phi3v::weights::shards;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The location of a model: built into the program, or a folder or file on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The checkpoint that is part of the program.
    Demo,
    /// A folder with a checkpoint, or a file made by `phi3v quantize`.
    Folder(PathBuf),
}

/// Files that a checkpoint must have besides its weights.
const REQUIRED: [&str; 3] = ["config.json", "preprocessor_config.json", "tokenizer.json"];
/// Files that are downloaded if the repository has them.
const OPTIONAL: [&str; 1] = ["generation_config.json"];

/// Finds the model that the user named, downloading it if necessary. Without `options.refresh`, a cached model is used
/// without asking the hub.
///
/// # Errors
/// [`HubError`] if the name leads nowhere, or a download cannot be completed.
pub fn resolve(
    model: &str,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<ModelSource, HubError> {
    let repo = match ModelName::parse(model)? {
        ModelName::Demo => return Ok(ModelSource::Demo),
        ModelName::Folder(dir) => return Ok(ModelSource::Folder(dir)),
        ModelName::Repo(repo) => repo.at(options.revision.as_deref())?,
    };
    let cache = RepoCache::new(&options.cache, &repo.id);
    let cached = cache.snapshot(&repo.revision).filter(|dir| is_complete(dir));
    match cached {
        Some(dir) if options.offline || !options.refresh => Ok(ModelSource::Folder(dir)),
        _ if options.offline => {
            Err(HubError::NotCached { model: repo.to_string(), offline_by: options.offline_by })
        }
        cached => match (fetch(&repo, &cache, options, progress), cached) {
            (Err(error), Some(dir)) if error.is_unreachable() => {
                progress.note(&format!("{error}; using the copy in the cache"));
                Ok(ModelSource::Folder(dir))
            }
            (fetched, _) => fetched.map(ModelSource::Folder),
        },
    }
}

/// Downloads the revision's files that are missing from the cache or damaged.
fn fetch(
    repo: &Repo,
    cache: &RepoCache,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    let client = Client::new(options, repo)?;
    let revision = client.revision()?;
    let has = |name: &str| revision.files.contains(name);
    if let Some(missing) = REQUIRED.into_iter().find(|name| !has(name)) {
        return Err(HubError::NotACheckpoint { model: repo.to_string(), file: missing.to_owned() });
    }
    let small = REQUIRED.into_iter().chain(OPTIONAL.into_iter().filter(|name| has(name)));
    let snapshot = cache.snapshot_dir(&revision.commit);
    let mut download = Download { client: &client, cache, commit: &revision.commit, progress };
    for name in small {
        download.small_file(name)?;
    }
    let weights = weight_files(repo, &revision.files, &mut download)?;
    let weights: Vec<RemoteFile> =
        weights.iter().map(|name| client.head(&revision.commit, name)).collect::<Result<_, _>>()?;
    let damaged: Vec<_> = weights.iter().map(|file| download.damaged(file)).collect::<Result<_, _>>()?;
    let missing = weights.iter().zip(&damaged);
    let missing =
        missing.map(|(file, damaged)| cache.bytes_missing(&revision.commit, file, damaged.is_some()));
    let missing = missing.fold(0, u64::saturating_add);
    if missing > 0 {
        check_disk(cache, missing)?;
        let total = weights.iter().map(|file| file.size).fold(0, u64::saturating_add);
        download.progress.start(&repo.to_string(), total);
    }
    for (file, damaged) in weights.iter().zip(&damaged) {
        download.file(file, damaged.as_deref())?;
    }
    if missing > 0 {
        download.progress.finish();
    }
    cache.write_ref(&repo.revision, &revision.commit)?;
    Ok(snapshot)
}

/// Names of the weight files: a single one, or the shards of the index, which is downloaded to find them.
fn weight_files(
    repo: &Repo,
    files: &BTreeSet<String>,
    download: &mut Download<'_>,
) -> Result<Vec<String>, HubError> {
    if files.contains(shards::SINGLE_FILE) {
        return Ok(vec![shards::SINGLE_FILE.to_owned()]);
    }
    if !files.contains(shards::INDEX_FILE) {
        let file = shards::SINGLE_FILE.to_owned();
        return Err(HubError::NotACheckpoint { model: repo.to_string(), file });
    }
    let path = download.small_file(shards::INDEX_FILE)?;
    let bytes = map_regular(&path).map_err(|source| HubError::io(&path, source))?;
    let names: BTreeSet<String> =
        shards::parse_index(&bytes).map_err(phi3v::Error::from)?.into_values().collect();
    match names.iter().find(|name| !files.contains(*name)) {
        Some(file) => Err(HubError::NotACheckpoint { model: repo.to_string(), file: file.clone() }),
        None => Ok(names.into_iter().collect()),
    }
}

/// Whether a snapshot has every file needed for loading.
fn is_complete(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    REQUIRED.into_iter().all(has) && weights_in(dir).is_some_and(|names| names.iter().all(|name| has(name)))
}

/// Names of the files read from the checkpoint in `dir`, in a fixed order; other files are ignored.
#[must_use]
pub fn checkpoint_files(dir: &Path) -> Vec<String> {
    let beside = REQUIRED.into_iter().chain(OPTIONAL).map(str::to_owned);
    let files = beside.chain(weights_in(dir).unwrap_or_default());
    files.filter(|name| dir.join(name).is_file()).collect()
}

/// Names of the weight files of the checkpoint in `dir`, whether they exist or not; an index comes first. `None` if there is
/// neither a single file nor a readable index.
fn weights_in(dir: &Path) -> Option<Vec<String>> {
    if dir.join(shards::SINGLE_FILE).is_file() {
        return Some(vec![shards::SINGLE_FILE.to_owned()]);
    }
    let index = map_regular(&dir.join(shards::INDEX_FILE)).ok()?;
    let names: BTreeSet<String> = shards::parse_index(&index).ok()?.into_values().collect();
    Some([shards::INDEX_FILE.to_owned()].into_iter().chain(names).collect())
}

/// Refuses a download that exceeds the free disk space.
fn check_disk(cache: &RepoCache, needed: u64) -> Result<(), HubError> {
    let available = cache.available_bytes()?;
    if needed.saturating_add(disk::RESERVE_BYTES) > available {
        return Err(HubError::DiskSpace { path: cache.root().to_owned(), needed, available });
    }
    Ok(())
}
