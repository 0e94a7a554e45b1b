//! What the `phi3v` binary does, for it and for programs that bring the command along.

use crate::args::Cli;
use crate::error::{CliError, ExitCode};
use crate::{commands, documents, sys, terminal};
use std::ffi::OsString;
use std::io::Write;

/// Runs the command line `words`, the program's name first, and returns the number to exit with. Ctrl-C is taken over
/// where the command needs it, and may end the process.
#[must_use]
pub fn main(words: Vec<OsString>) -> u8 {
    // one that draws for another: nothing of the command line is its business
    if documents::worker::is_asked_for(&words) {
        return documents::worker::main();
    }
    match run(words) {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => 0,
        Err(error) => {
            error.print();
            error.exit_code() as u8
        }
    }
}

fn run(words: Vec<OsString>) -> Result<u8, CliError> {
    sys::outlive_size_limits();
    let cli = match Cli::from_words(words) {
        Ok(cli) => cli,
        // wrong usage; it keeps its number where it cannot be told
        Err(told) if told.use_stderr() => {
            let _ = told.print();
            return Ok(ExitCode::Usage as u8);
        }
        // help, and the version
        Err(asked) => {
            asked.print().and_then(|()| std::io::stdout().flush()).map_err(CliError::Output)?;
            return Ok(0);
        }
    };
    if cli.quiet {
        terminal::be_quiet();
    }
    commands::run(&cli.command).map(|()| 0)
}
