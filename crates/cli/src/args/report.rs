//! What a command tells beside its answer.

use clap::Args;

/// What is told on stderr.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub struct ReportArgs {
    /// Size, tiles and tokens of every picture; and what will be taken of the memory, which is told of models of more
    /// than 1 GB in any case
    #[arg(long, short, help_heading = None::<&str>)]
    pub verbose: bool,
    /// Tokens, time to the first token and tokens per second, after the answer
    #[arg(long)]
    pub stats: bool,
    /// Show words that the model was not sure of in yellow, and those that are rather wrong in red, on a terminal with colours
    #[arg(long)]
    pub unsure: bool,
}
