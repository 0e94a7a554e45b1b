//! Finds the files of a folder that hold the weights.

use super::WeightsError;
use crate::files::Files;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The file that holds all weights, if there is a single file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The file that lists all tensors and the shard that holds each, if there are several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Longest index that is read: the real one has 68 KiB.
const INDEX_BYTES_MAX: usize = 16 << 20;
/// Maximum number of shards; the real model has 2.
const SHARDS_MAX: usize = 256;

/// The weight files of a checkpoint.
pub(super) struct Shards {
    /// Plain file names, sorted.
    pub(super) names: Vec<String>,
    /// The file of each tensor; empty for a single file.
    pub(super) index: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the weight files among `files`. A single file takes precedence over an index, as in the reference.
pub(super) fn find(files: &Files) -> Result<Shards, WeightsError> {
    if files.get(SINGLE_FILE)?.is_some() {
        return Ok(Shards { names: vec![SINGLE_FILE.to_owned()], index: BTreeMap::new() });
    }
    let Some(bytes) = files.get(INDEX_FILE)? else {
        return Err(WeightsError::NoWeights { location: files.location() });
    };
    let index = parse_index(&bytes)?;
    let names: BTreeSet<&String> = index.values().collect();
    Ok(Shards { names: names.into_iter().cloned().collect(), index })
}

/// Reads the bytes of an index: tensor names and the plain file name of the shard that holds each.
///
/// # Errors
/// [`WeightsError`] if the bytes are not an index, or if a file name leads out of the folder.
pub fn parse_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, WeightsError> {
    if bytes.len() > INDEX_BYTES_MAX {
        return Err(WeightsError::IndexSize { bytes: bytes.len(), limit: INDEX_BYTES_MAX });
    }
    let Index { weight_map } = serde_json::from_slice(bytes).map_err(WeightsError::Index)?;
    if let Some(file) = weight_map.values().find(|file| !is_plain_file_name(file)) {
        return Err(WeightsError::ShardName { file: file.clone() });
    }
    let count = weight_map.values().collect::<BTreeSet<_>>().len();
    if count > SHARDS_MAX {
        return Err(WeightsError::ShardCount { count, limit: SHARDS_MAX });
    }
    Ok(weight_map)
}

/// Accepts only letters, digits, `-`, `_` and `.`, not beginning with a dot: neither a path nor a device on any system.
fn is_plain_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= 255 && name.ends_with(".safetensors") && !name.starts_with('.') && name.bytes().all(plain)
}
