//! `phi3v completions`: a script that teaches a shell the commands and flags.

use crate::args::{Cli, CompletionsArgs};
use crate::error::CliError;
use crate::terminal::print;
use clap::CommandFactory;

/// Prints the script.
///
/// # Errors
/// stdout cannot be written to.
pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "phi3v", &mut script);
    print(String::from_utf8_lossy(&script)).map_err(CliError::Output)
}
