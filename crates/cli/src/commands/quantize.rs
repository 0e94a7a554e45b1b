//! `phi3v quantize`: a model in one file.

use crate::args::QuantizeArgs;
use crate::error::CliError;
use crate::hub::{self, HubOptions, ModelSource};
use crate::paths::folder_of;
use crate::terminal::print;
use crate::{note, quantised, runtime};
use phi3v::memory::size;
use phi3v::weights::convert::default_name;
use std::path::{Path, PathBuf};

/// Writes the file and prints its name.
///
/// # Errors
/// There is no such model, it is quantised already, or the file cannot be written.
pub(super) fn run(args: &QuantizeArgs) -> Result<(), CliError> {
    let quant = args.to.quant();
    let source = hub::resolve(&args.model, &HubOptions::from_env(), &mut *hub::for_stderr())?;
    let checkpoint = runtime::open_source(&source)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(default_name(&checkpoint.name, quant)));
    if is_part_of(&source, &out) {
        return Err(CliError::OverwritesModel { path: out.display().to_string() });
    }
    quantised::write(&source, &checkpoint, quant, &out)?;
    let bytes = std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
    let before = checkpoint.weights.bytes_total();
    note!("{} of weights are now {}", size(before), size(bytes));
    print(format_args!("{}\n", out.display())).map_err(CliError::Output)
}

/// Whether `out` is a file that the model at `source` consists of.
fn is_part_of(source: &ModelSource, out: &Path) -> bool {
    let ModelSource::Folder(dir) = source else { return false };
    let folder = folder_of(out);
    let same = folder.canonicalize().is_ok_and(|folder| dir.canonicalize().is_ok_and(|dir| dir == folder));
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    same && out.exists() && (name.starts_with("model") || name.ends_with(".json"))
}
