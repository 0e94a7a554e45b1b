//! The entry point of the `phi3v` binary and of programs that include the command.

use crate::args::Cli;
use crate::error::{CliError, ExitCode};
use crate::{commands, documents, sys, terminal};
use std::ffi::OsString;
use std::io::Write;

/// Runs the command line `words`, which starts with the program's name, and returns the exit code. Installs a Ctrl-C
/// handler if the command needs one, which may end the process.
#[must_use]
pub fn main(words: Vec<OsString>) -> u8 {
    // a worker that draws for another process: it has no command line to parse
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
        // wrong usage; the exit code is kept even if the message cannot be written
        Err(told) if told.use_stderr() => {
            let _ = told.print();
            return Ok(ExitCode::Usage as u8);
        }
        // help, or the version
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
