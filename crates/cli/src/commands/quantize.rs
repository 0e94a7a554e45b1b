//! `phi3v quantize`: a model in one file.

use crate::args::QuantizeArgs;
use crate::error::CliError;
use crate::hub::{self, HubOptions};
use crate::{quantised, runtime};
use phi3v::weights::convert::default_name;
use std::io::Write;
use std::path::PathBuf;

/// Writes the file and prints its name.
///
/// # Errors
/// There is no such model, it is quantised already, or the file cannot be written.
pub(super) fn run(args: &QuantizeArgs) -> Result<(), CliError> {
    let quant = args.to.quant();
    let source = hub::resolve(&args.model, &HubOptions::from_env(), &mut *hub::for_stderr())?;
    let checkpoint = runtime::open_source(&source)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(default_name(&checkpoint.name, quant)));
    quantised::write(&source, &checkpoint, quant, &out)?;
    let bytes = std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
    let before = checkpoint.weights.bytes_total();
    eprintln!("{:.2} GB of weights are now {:.2} GB", before as f64 / 1e9, bytes as f64 / 1e9);
    writeln!(std::io::stdout(), "{}", out.display()).map_err(CliError::Output)
}
