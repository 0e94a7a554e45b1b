//! Entry point of the `phi3v` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(phi3v_cli::entry::main(std::env::args_os().collect()))
}
