//! Entry point of the `phi3v` binary.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use phi3v_cli::args::Cli;
use phi3v_cli::error::{self, CliError};
use phi3v_cli::{commands, disk, terminal};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

fn run() -> Result<ExitCode, CliError> {
    disk::outlive_size_limits();
    let cli = match Cli::from_words(std::env::args_os().collect()) {
        Ok(cli) => cli,
        // wrong usage; it keeps its number where it cannot be told
        Err(told) if told.use_stderr() => {
            let _ = told.print();
            return Ok(ExitCode::from(error::ExitCode::Usage as u8));
        }
        // help, and the version
        Err(asked) => {
            asked.print().and_then(|()| std::io::stdout().flush()).map_err(CliError::Output)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if cli.quiet {
        terminal::be_quiet();
    }
    commands::run(&cli.command).map(|()| ExitCode::SUCCESS)
}
