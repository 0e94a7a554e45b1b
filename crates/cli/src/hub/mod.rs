//! Models by name: found in a folder, in the hub's cache on this machine, or downloaded from a hub.
//!
//! The cache is the hub's standard one, so what other programs have downloaded is used and the other way round. Only
//! files that phi3v reads are fetched. A name is resolved to a commit first and all files come from that commit; each
//! goes to an `.incomplete` file that a later run resumes, and into the cache only once its checksum is right. Of what is
//! there already the checksum is compared once, whenever the hub is asked, and damaged files are fetched again. The
//! access token goes to the configured endpoint and nowhere else. A storage host that refuses is asked at a fresh
//! address: those that the hub gives are valid for a short time.
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

/// Where a model is: built into the program, or in a folder or file on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The checkpoint that is part of the program.
    Demo,
    /// A folder with a checkpoint, or a file made by `phi3v quantize`.
    Folder(PathBuf),
}

/// Files that a checkpoint must have beside its weights.
const REQUIRED: [&str; 3] = ["config.json", "preprocessor_config.json", "tokenizer.json"];
/// Files that are fetched where the repository has them.
const OPTIONAL: [&str; 1] = ["generation_config.json"];

/// Finds the model that the user named, downloading it where necessary. Without `options.refresh` a model in the
/// cache is used as it is, without asking the hub.
///
/// # Errors
/// [`HubError`] for a name that leads nowhere, and for a download that cannot be completed.
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

/// Downloads whatever the cache lacks of the revision's files, or has damaged.
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

/// Names of the weight files: a single one, or the shards of the index, which is downloaded for it.
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

/// Whether a snapshot has every file that loading it needs.
fn is_complete(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    REQUIRED.into_iter().all(has) && weights_in(dir).is_some_and(|names| names.iter().all(|name| has(name)))
}

/// Names of the files of the checkpoint in `dir`, in one order: those that are read of it, whatever else is there.
#[must_use]
pub fn checkpoint_files(dir: &Path) -> Vec<String> {
    let beside = REQUIRED.into_iter().chain(OPTIONAL).map(str::to_owned);
    let files = beside.chain(weights_in(dir).unwrap_or_default());
    files.filter(|name| dir.join(name).is_file()).collect()
}

/// Names of the weight files of the checkpoint in `dir`, whether they are there or not, the index of several first; none where
/// there is neither a single file nor an index that can be read.
fn weights_in(dir: &Path) -> Option<Vec<String>> {
    if dir.join(shards::SINGLE_FILE).is_file() {
        return Some(vec![shards::SINGLE_FILE.to_owned()]);
    }
    let index = map_regular(&dir.join(shards::INDEX_FILE)).ok()?;
    let names: BTreeSet<String> = shards::parse_index(&index).ok()?.into_values().collect();
    Some([shards::INDEX_FILE.to_owned()].into_iter().chain(names).collect())
}

/// Refuses to begin what the disk cannot hold.
fn check_disk(cache: &RepoCache, needed: u64) -> Result<(), HubError> {
    let available = cache.available_bytes()?;
    if needed.saturating_add(disk::RESERVE_BYTES) > available {
        return Err(HubError::DiskSpace { path: cache.root().to_owned(), needed, available });
    }
    Ok(())
}
