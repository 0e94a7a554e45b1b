//! Quantised models that are made at first use and kept: `--quant` on every command that runs a model.
//!
//! They are kept in `$PHI3V_CACHE`, by default `phi3v` in the user's cache folder, under a name that changes with the
//! files they were made from. Deleting them is safe; they are made again.

use crate::error::CliError;
use crate::hub::ModelSource;
use crate::interrupt::Interrupt;
use crate::note;
use crate::paths::folder_of;
use crate::progress::Progress;
use phi3v::checkpoint::Checkpoint;
use phi3v::files::Files;
use phi3v::weights::convert::{self, ConvertError, default_name};
use phi3v::weights::quantized::{Quant, VERSION};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Environment variable that names the folder of quantised models.
pub const CACHE_VARIABLE: &str = "PHI3V_CACHE";

/// Free space that is left on the disk.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// How often it is looked whether another process has finished.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The model at `source`, opened as `checkpoint`, quantised: from the cache, or made and put there. A model that is
/// quantised already is left as it is.
///
/// # Errors
/// The disk is full or cannot be written to, or Ctrl-C.
pub fn open(source: &ModelSource, checkpoint: Checkpoint, quant: Quant) -> Result<Checkpoint, CliError> {
    if checkpoint.weights.quant().is_some() {
        return Ok(checkpoint);
    }
    let path = cached_path(source, &checkpoint.name, quant);
    let mut told = false;
    loop {
        if let Some(kept) = kept(&path, &checkpoint, !told) {
            return Ok(kept);
        }
        if !told && !std::io::stderr().is_terminal() {
            // where there is no bar to see
            let (name, folder) = (quant.name(), path.parent().unwrap_or(&path).display());
            note!(
                "note: the weights are quantised to {name} first, which is done once; {folder} keeps the result"
            );
        }
        match write(source, &checkpoint, quant, &path) {
            Err(CliError::Phi3V(phi3v::Error::Convert(ConvertError::Busy { .. }))) => {
                if !told {
                    note!("note: waiting for another process that does it already");
                }
                told = true;
                std::thread::sleep(LOOK_AGAIN);
            }
            written => break written?,
        }
    }
    let quantised = Checkpoint::open(&path).map_err(phi3v::Error::from)?;
    Ok(Checkpoint { name: checkpoint.name, ..quantised })
}

/// What an earlier run has kept. A file that does not open was damaged since, and is made again, which `tell` says.
fn kept(path: &Path, original: &Checkpoint, tell: bool) -> Option<Checkpoint> {
    if !path.is_file() {
        return None;
    }
    match Checkpoint::open(path) {
        Ok(checkpoint) => Some(Checkpoint { name: original.name.clone(), ..checkpoint }),
        Err(error) => {
            if tell {
                note!("note: {} is made again: {error}", path.display());
            }
            None
        }
    }
}

/// Quantises the model at `source` to the file `out`, with a bar.
///
/// # Errors
/// The disk is full or cannot be written to, or Ctrl-C.
pub fn write(
    source: &ModelSource,
    checkpoint: &Checkpoint,
    quant: Quant,
    out: &Path,
) -> Result<(), CliError> {
    let folder = folder_of(out);
    let failed = |error| CliError::File { action: "write", path: folder.display().to_string(), error };
    std::fs::create_dir_all(folder).map_err(failed)?;
    if out.exists() && !out.is_file() {
        let (path, error) = (out.display().to_string(), std::io::Error::other("it is not a file"));
        return Err(CliError::File { action: "write", path, error });
    }
    let needed = convert::quantised_bytes(&checkpoint.weights, &checkpoint.config, quant);
    let available = fs4::available_space(folder).map_err(failed)?;
    // an unfinished file's room is not needed twice: another run fills it, or this one overwrites it
    let held = std::fs::metadata(convert::partial_path(out)).map_or(0, |metadata| metadata.len());
    if needed.saturating_add(DISK_RESERVE_BYTES) > available.saturating_add(held) {
        return Err(CliError::Disk { path: folder.display().to_string(), needed, available });
    }
    let interrupt = Interrupt::install();
    interrupt.begin_answer();
    let mut bar = Progress::new();
    let files = match source {
        ModelSource::Folder(dir) => Files::Folder(dir.clone()),
        ModelSource::Demo => phi3v::demo::files(),
    };
    let model = (&checkpoint.weights, &checkpoint.config);
    let written = convert::quantise(&files, model, quant, out, &mut |progress| {
        bar.quantise(progress.done, progress.total);
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = interrupt.requested();
    interrupt.end_answer();
    bar.clear();
    match written {
        // pressed while the file was put on the disk, or another process was found at work
        Ok(()) | Err(ConvertError::Busy { .. }) if stopped => Err(CliError::Interrupted),
        written => Ok(written.map_err(phi3v::Error::from)?),
    }
}

/// The folder of quantised models.
#[must_use]
pub fn cache_folder() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given(CACHE_VARIABLE).unwrap_or_else(|| {
        let user = given("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        user.unwrap_or_else(|| PathBuf::from(".cache")).join("phi3v")
    })
}

/// Where the quantised form of the model at `source` is kept.
fn cached_path(source: &ModelSource, name: &str, quant: Quant) -> PathBuf {
    let cache = cache_folder();
    let mut key = String::new();
    for byte in &fingerprint(source)[..8] {
        write!(key, "{byte:02x}").expect("a string takes everything");
    }
    cache.join(key).join(default_name(name, quant))
}

/// Names and contents: the built-in model may change while the program's version does not.
fn hash_contents(hasher: &mut Sha256, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        hasher.update(name);
        hasher.update(bytes.len().to_le_bytes());
        hasher.update(bytes);
    }
}

/// Of the files that a model is made from: names, sizes and times of change, or contents where there are no times.
fn fingerprint(source: &ModelSource) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(VERSION);
    let ModelSource::Folder(dir) = source else {
        hash_contents(&mut hasher, &phi3v::demo::FILES);
        return hasher.finalize().into();
    };
    let canonical = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    hasher.update(canonical.as_os_str().as_encoded_bytes());
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "safetensors" || e == "json"));
    files.sort();
    for path in files {
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        hasher.update(metadata.len().to_le_bytes());
        let changed = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        hasher.update(changed.map_or(0, |time| time.as_nanos()).to_le_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_contents_are_another_model() {
        let hash = |weights: &[u8]| {
            let mut hasher = Sha256::new();
            hash_contents(&mut hasher, &[("config.json", b"{}"), ("model.safetensors", weights)]);
            hasher.finalize()
        };
        assert_eq!(hash(b"old"), hash(b"old"));
        assert_ne!(hash(b"old"), hash(b"new"));
    }
}
