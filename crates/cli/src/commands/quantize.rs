//! `phi3v quantize`: writes a quantized model as one file.

use crate::args::QuantizeArgs;
use crate::error::CliError;
use crate::hub::{self, HubOptions};
use crate::output::{check_out, source_of};
use crate::paths::folder_of;
use crate::terminal::print;
use crate::{note, quantized, runtime};
use phi3v::memory::size;
use phi3v::weights::convert::{Target, default_name};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Writes the file and prints its path.
///
/// # Errors
/// The model does not exist or is already quantized, or the file cannot be written or exists and must be kept.
pub(super) fn run(args: &QuantizeArgs) -> Result<(), CliError> {
    let quant = args.to.quant();
    let (model, existing) = (args.model.name(), args.overwrite.existing());
    // before a download; a missing folder will be created
    if let Some(out) = args.out.as_ref().filter(|out| folder_of(out).is_dir()) {
        check_out(out, existing, &source_of(&model))?;
    }
    let source = hub::resolve(&model, &HubOptions::from_env(), &mut *hub::for_stderr())?;
    let checkpoint = runtime::open_source(&source)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(default_name(&checkpoint.name, quant)));
    if folder_of(&out).is_dir() {
        check_out(&out, existing, &source)?;
    }
    quantized::write(&source, &checkpoint, Target { quant, out: &out, existing }, &AtomicBool::new(false))?;
    let bytes = std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
    let before = checkpoint.weights.bytes_total();
    note!("{} of weights are now {}", size(before), size(bytes));
    print(format_args!("{}\n", out.display())).map_err(CliError::Output)
}
