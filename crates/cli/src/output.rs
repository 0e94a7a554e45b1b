//! Output files of commands.

use crate::error::CliError;
use crate::hub::{ModelName, ModelSource};
use crate::paths::{folded, folder_of, lead_to_one_place};
use phi3v::files::{Existing, NewFile};
use phi3v::weights::quantized::ATTACHED;
use phi3v::weights::shards::{INDEX_FILE, SINGLE_FILE};
use std::borrow::Cow;
use std::path::Path;

/// Refuses an output file that cannot be written, that exists and must be kept, or that is part of the model, before any work
/// is done for it.
///
/// # Errors
/// [`CliError`], naming the file.
pub fn check_out(out: &Path, existing: Existing, model: &ModelSource) -> Result<(), CliError> {
    if is_part_of(model, out) {
        return Err(CliError::OverwritesModel { path: out.display().to_string() });
    }
    // created and removed: a refusal now would also be one when the work is done
    NewFile::create(out, existing).map(drop).map_err(|error| CliError::written(error, 0))
}

/// Refuses to overwrite an input, by whatever name.
///
/// # Errors
/// [`CliError::Unusable`], naming the file.
pub fn check_inputs<P: AsRef<Path>>(out: &Path, inputs: impl IntoIterator<Item = P>) -> Result<(), CliError> {
    // a missing file cannot be overwritten
    if !(out.exists() && inputs.into_iter().any(|input| lead_to_one_place(input.as_ref(), out))) {
        return Ok(());
    }
    Err(CliError::Unusable {
        message: format!("writing {} would destroy what it is made from", out.display()),
        hint: Some("give another name with --out".to_owned()),
    })
}

/// A file that a command writes to a folder.
pub struct Output<'a> {
    /// Name of the file in the folder.
    pub name: String,
    /// Contents of the file.
    pub bytes: Cow<'a, [u8]>,
}

/// Writes files to a folder, which is created if needed: all of them, or none if one exists and must be kept or the disk is
/// full.
///
/// # Errors
/// [`CliError`], naming the folder or the file.
pub fn write_all(dir: &Path, files: &[Output<'_>], existing: Existing) -> Result<(), CliError> {
    let refused = |error| CliError::File { action: "write", path: dir.display().to_string(), error };
    std::fs::create_dir_all(dir).map_err(refused)?;
    let bytes = files.iter().map(|file| file.bytes.len() as u64).sum();
    let failed = |error| CliError::written(error, bytes);
    let mut written = Vec::with_capacity(files.len());
    for Output { name, bytes } in files {
        let mut file = NewFile::create(&dir.join(name), existing).map_err(failed)?;
        file.write(bytes).and_then(|()| file.flush()).map_err(failed)?;
        written.push(file);
    }
    written.into_iter().try_for_each(NewFile::finish).map_err(failed)
}

/// The model called `model`, as far as known without asking a hub.
#[must_use]
pub fn source_of(model: &str) -> ModelSource {
    match ModelName::parse(model) {
        Ok(ModelName::Folder(dir)) => ModelSource::Folder(dir),
        _ => ModelSource::Demo,
    }
}

/// Whether `out` is one of the model's files, or would be read as one if it existed.
#[must_use]
pub fn is_part_of(model: &ModelSource, out: &Path) -> bool {
    let ModelSource::Folder(model) = model else { return false };
    let name = out.file_name().map(folded).unwrap_or_default();
    let is_read = || ATTACHED.iter().chain(&[SINGLE_FILE, INDEX_FILE]).any(|read| name == folded(read));
    let is_like_a_part = |name: &str| name.starts_with("model") || name.ends_with(".json");
    model.is_file() && lead_to_one_place(out, model)
        || lead_to_one_place(folder_of(out), model)
            && (is_read() || out.exists() && is_like_a_part(&name.to_string_lossy()))
}
