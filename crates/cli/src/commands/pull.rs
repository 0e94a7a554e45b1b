//! `phi3v pull`: fetches a model, or what is new of it.

use crate::args::PullArgs;
use crate::error::CliError;
use crate::hub::{self, HubOptions, ModelSource};
use crate::terminal::print;

/// Downloads the model and prints its folder.
///
/// # Errors
/// The model is unknown, or the download failed; what arrived is kept for the next run.
pub(super) fn run(args: &PullArgs) -> Result<(), CliError> {
    let options = HubOptions { refresh: true, ..HubOptions::from_env() };
    match hub::resolve(args.name(), &options, &mut *hub::for_stderr())? {
        ModelSource::Folder(dir) => print(format_args!("{}\n", dir.display())).map_err(CliError::Output),
        ModelSource::Demo => Err(CliError::DemoIsBuiltIn),
    }
}
