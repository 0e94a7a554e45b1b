//! `phi3v man`: manual pages, one per command.

use crate::args::{Cli, ManArgs};
use crate::error::CliError;
use clap::CommandFactory;

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let written =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir));
    written.map_err(|error| CliError::File { action: "write", path: args.dir.display().to_string(), error })
}
