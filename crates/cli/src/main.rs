//! Entry point of the `phi3v` binary.

use phi3v_cli::args::Cli;
use phi3v_cli::commands;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::from_words(std::env::args_os().collect()).unwrap_or_else(|error| error.exit());
    match commands::run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}
