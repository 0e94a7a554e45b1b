//! The commands, one per file.

mod ask;
mod batch;
mod bench;
mod calibrate;
mod chat;
mod completions;
mod decide;
mod eval;
mod export_demo;
mod health;
mod info;
mod machine;
mod man;
mod pull;
mod quantize;
mod schemas;
mod serve;
mod trace;

use crate::args::Command;
use crate::error::CliError;

/// Runs a command; its answer goes to stdout, everything else to stderr.
///
/// # Errors
/// Why the command failed.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Ask(args) => ask::run(args),
        Command::Batch(args) => batch::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Decide(args) => decide::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Schemas(args) => schemas::run(args),
        Command::Info(args) => info::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::ExportDemo(args) => export_demo::run(args),
        Command::Health(args) => health::run(args),
    }
}
