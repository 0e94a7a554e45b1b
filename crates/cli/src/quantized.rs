//! Quantized models that are made at first use and cached: `--quant` on every command that runs a model.
//!
//! They are stored in `$PHI3V_CACHE`, by default `phi3v` in the user's cache folder, under a name derived from their source
//! files. Deleting them is safe; they are made again. So is a file whose contents turn out to be changed when it is first
//! opened after a change.

use crate::disk;
use crate::error::CliError;
use crate::hub::{self, ModelSource};
use crate::identity::{identity_of, is_noted, note_right};
use crate::interrupt::Interrupt;
use crate::note;
use crate::paths::{folder_of, from_home, noted_text, user_cache};
use crate::progress::Progress;
use crate::variables::variable;
use phi3v::checkpoint::Checkpoint;
use phi3v::files::{Existing, Files, NewFile, ReadError, WriteError, partial_path};
use phi3v::kernels::quant::ENCODER_REVISION;
use phi3v::memory::size;
use phi3v::weights::convert::{self, ConvertError, Target, default_name};
use phi3v::weights::digest;
use phi3v::weights::quantized::{Quant, VERSION};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Environment variable that names the folder of quantized models.
pub const CACHE_VARIABLE: &str = "PHI3V_CACHE";

/// Opens the model at `source`, opened as `checkpoint`, in quantized form: from the cache, or made and cached. A model that is
/// already quantized is returned unchanged.
///
/// # Errors
/// The disk is full or cannot be written to, Ctrl-C, or `given_up` was set.
pub fn open(
    source: &ModelSource,
    checkpoint: Checkpoint,
    quant: Quant,
    given_up: &AtomicBool,
) -> Result<Checkpoint, CliError> {
    if checkpoint.weights.quant().is_some() {
        return Ok(checkpoint);
    }
    let path = cached_path(source, &checkpoint.name, quant);
    let is_wanted = || !given_up.load(Ordering::Relaxed);
    let mut told = false;
    loop {
        if let Some(kept) = kept(&path, &checkpoint, !told, &is_wanted)? {
            return Ok(kept);
        }
        if !told && !std::io::stderr().is_terminal() {
            // if no bar is visible
            let (name, folder) = (quant.name(), path.parent().unwrap_or(&path).display());
            note!(
                "note: the weights are quantized to {name} first, which is done once; {folder} keeps the result"
            );
        }
        // what another process has stored meanwhile may be in use, and its removal would disturb the reader
        let is_new = std::fs::symlink_metadata(&path).is_err();
        let existing = if is_new { Existing::Keep } else { Existing::Replace };
        match write(source, &checkpoint, Target { quant, out: &path, existing }, given_up) {
            Err(CliError::Exists { .. }) if is_new => told = true,
            Err(CliError::Busy { .. }) => {
                if !told {
                    note!("note: waiting for another process that does it already");
                }
                told = true;
                NewFile::wait_for_others(&path, is_wanted);
            }
            written => break written?,
        }
    }
    // this program has just written it
    if let Some(identity) = identity_of(&path) {
        note_right(&checked_path(&path), &identity);
    }
    note_source(&path, source);
    let quantized = Checkpoint::open(&path).map_err(phi3v::Error::from)?;
    Ok(Checkpoint { name: checkpoint.name, ..quantized })
}

/// The cached file of an earlier run. A file that was damaged since is made again, as `tell` reports. An error if `is_wanted`
/// returns false before this is known.
fn kept(
    path: &Path,
    original: &Checkpoint,
    tell: bool,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Option<Checkpoint>, CliError> {
    if !path.is_file() {
        return Ok(None);
    }
    let damage = match is_undamaged(path, is_wanted) {
        Ok(Some(true)) => match Checkpoint::open(path) {
            Ok(checkpoint) => return Ok(Some(Checkpoint { name: original.name.clone(), ..checkpoint })),
            Err(error) => error.to_string(),
        },
        Ok(Some(false)) => "its contents have changed".to_owned(),
        Ok(None) => return Err(CliError::Interrupted),
        Err(error) => error.to_string(),
    };
    if tell {
        note!("note: {} is made again: {damage}", path.display());
    }
    Ok(None)
}

/// Whether the cached file is intact; `None` if `is_wanted` returns false meanwhile. The file is read in full once; later its
/// size and times are sufficient.
fn is_undamaged(path: &Path, is_wanted: &dyn Fn() -> bool) -> Result<Option<bool>, ReadError> {
    let (identity, note) = (identity_of(path), checked_path(path));
    if identity.as_ref().is_some_and(|identity| is_noted(&note, identity)) {
        return Ok(Some(true));
    }
    let undamaged = digest::is_undamaged_while(path, is_wanted)?;
    // the identity from before the read: what was written meanwhile is different
    if let Some(identity) = identity.filter(|_| undamaged == Some(true)) {
        note_right(&note, &identity);
    }
    Ok(undamaged)
}

/// Path of the note with the identity for which a cached file is known to be intact.
fn checked_path(path: &Path) -> PathBuf {
    path.with_extension("checked")
}

/// Path of the note with the folder that a cached file was made from.
fn source_path(path: &Path) -> PathBuf {
    path.with_extension("source")
}

/// Records the folder that the file at `path` was made from, and reports files made from an earlier model in that folder: they
/// are never used again, unless by another version of the program, which only the user can know.
fn note_source(path: &Path, source: &ModelSource) {
    /// Longer than a path.
    const BYTES_MAX: u64 = 1 << 16;
    let ModelSource::Folder(dir) = source else { return };
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
    let Some(text) = dir.to_str() else { return };
    let older = std::fs::read_dir(cache_folder()).into_iter().flatten().flatten();
    let older = older.map(|entry| entry.path().join(path.file_name().unwrap_or_default()));
    for older in older.filter(|older| older != path && older.is_file()) {
        if noted_text(&source_path(&older), BYTES_MAX).is_some_and(|made_from| made_from == text) {
            let bytes = std::fs::metadata(&older).map_or(0, |metadata| metadata.len());
            note!(
                "note: {} ({}) was made from {text} before that changed, and can be deleted",
                older.display(),
                size(bytes)
            );
        }
    }
    let note = || {
        let mut file = NewFile::create(&source_path(path), Existing::Replace)?;
        file.write(text.as_bytes())?;
        file.finish()
    };
    drop(note());
}

/// Quantizes the model at `source` to a file, showing a bar.
///
/// # Errors
/// The disk is full or cannot be written to, Ctrl-C, or `given_up` was set.
pub fn write(
    source: &ModelSource,
    checkpoint: &Checkpoint,
    target: Target<'_>,
    given_up: &AtomicBool,
) -> Result<(), CliError> {
    let Target { quant, out, existing } = target;
    let folder = folder_of(out);
    let failed = |error| CliError::File { action: "write", path: folder.display().to_string(), error };
    std::fs::create_dir_all(folder).map_err(failed)?;
    NewFile::check(out, existing).map_err(|error| CliError::written(error, 0))?;
    let needed = convert::quantized_bytes(&checkpoint.weights, &checkpoint.config, quant);
    let available = disk::available(folder).map_err(failed)?;
    // an unfinished file's space is not needed twice: another run fills it, or this one overwrites it
    let held = std::fs::metadata(partial_path(out)).map_or(0, |metadata| metadata.len());
    if needed.saturating_add(disk::RESERVE_BYTES) > available.saturating_add(held) {
        return Err(CliError::Disk { path: folder.display().to_string(), needed, available });
    }
    let interrupt = Interrupt::install();
    let is_stopped = || interrupt.requested() || given_up.load(Ordering::Relaxed);
    interrupt.begin_answer();
    let mut bar = Progress::new();
    let files = match source {
        ModelSource::Folder(dir) => Files::Folder(dir.clone()),
        ModelSource::Demo => phi3v::demo::files(),
    };
    let written =
        convert::quantize(&files, &checkpoint.weights, &checkpoint.config, target, &mut |progress| {
            bar.quantize(progress.done, progress.total);
            if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    let stopped = is_stopped();
    interrupt.end_answer();
    bar.clear();
    match written {
        // Ctrl-C came during the final write, or another process was found writing the file or to have finished it
        Ok(()) | Err(ConvertError::File(WriteError::Busy { .. } | WriteError::Exists { .. })) if stopped => {
            Err(CliError::Interrupted)
        }
        Err(ConvertError::File(error)) => Err(CliError::written(error, needed)),
        written => Ok(written.map_err(phi3v::Error::from)?),
    }
}

/// The path at which the quantized form of the model at `source` is cached.
fn cached_path(source: &ModelSource, name: &str, quant: Quant) -> PathBuf {
    let mut key = String::new();
    for byte in &fingerprint(source)[..8] {
        write!(key, "{byte:02x}").expect("a string takes everything");
    }
    cache_folder().join(key).join(default_name(name, quant))
}

/// The folder of quantized models: `PHI3V_CACHE`, or a folder in the user's cache.
#[must_use]
pub fn cache_folder() -> PathBuf {
    variable(CACHE_VARIABLE)
        .map_or_else(|| user_cache(|name| std::env::var_os(name)).join("phi3v"), from_home)
}

/// Hashes names and contents: the built-in model may change without the program's version.
fn hash_contents(hasher: &mut Sha256, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        hasher.update(name);
        hasher.update(bytes.len().to_le_bytes());
        hasher.update(bytes);
    }
}

/// A digest of the quantizer and of the model's source files, ignoring others in their folder: of names and times, or of
/// contents if there are no times.
fn fingerprint(source: &ModelSource) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(VERSION);
    hasher.update(ENCODER_REVISION.to_le_bytes());
    let ModelSource::Folder(dir) = source else {
        hash_contents(&mut hasher, &phi3v::demo::contents());
        return hasher.finalize().into();
    };
    let canonical = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    hasher.update(canonical.as_os_str().as_encoded_bytes());
    for name in hub::checkpoint_files(dir) {
        hasher.update(&name);
        hasher.update(identity_of(&dir.join(&name)).unwrap_or_default());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;

    #[test]
    fn quantizing_that_nobody_waits_for_any_more_ends() {
        Interrupt::leave_to_host();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny");
        let (checkpoint, folder) = (Checkpoint::open(&tiny).unwrap(), tempfile::tempdir().unwrap());
        let (out, given_up) = (folder.path().join("tiny.q8"), AtomicBool::new(true));
        let target = Target { quant: Quant::Q8, out: &out, existing: Existing::Keep };
        let written = write(&ModelSource::Folder(tiny), &checkpoint, target, &given_up);
        assert_eq!(written.err().map(|error| error.exit_code()), Some(ExitCode::Interrupted));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn checking_a_kept_file_ends_when_nobody_waits_any_more() {
        Interrupt::leave_to_host();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny");
        let (checkpoint, folder) = (Checkpoint::open(&tiny).unwrap(), tempfile::tempdir().unwrap());
        let out = folder.path().join("tiny.q8");
        let target = Target { quant: Quant::Q8, out: &out, existing: Existing::Keep };
        write(&ModelSource::Folder(tiny), &checkpoint, target, &AtomicBool::new(false)).unwrap();
        let left = kept(&out, &checkpoint, true, &|| false).map(|kept| kept.is_some());
        assert!(matches!(left, Err(CliError::Interrupted)), "{left:?}");
        assert!(!checked_path(&out).exists(), "what was not read is not known to be right");
        assert!(kept(&out, &checkpoint, true, &|| true).unwrap().is_some());
        assert!(kept(&out, &checkpoint, true, &|| false).unwrap().is_some(), "nothing is read again");
    }

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
