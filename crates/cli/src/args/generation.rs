//! How the answer is made.

use crate::error::CliError;
use clap::Args;
use phi3v::GenerationOptions;
use phi3v::sampler::{SamplerError, SamplingParams};
use phi3v::stop::StopStrings;

/// How the answer is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answer")]
pub struct GenerationArgs {
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Longest answer [default: 1000, or what the context leaves]
    #[arg(long, value_name = "TOKENS")]
    pub max_new_tokens: Option<usize>,
    /// End the answer before this text; repeat it for several
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// 0 always takes the likeliest token, 1 draws by the model's own probabilities, 2 is the most
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub temperature: f32,
    /// Draw from the K likeliest tokens; 0 is no limit
    #[arg(long, help_heading = "Sampling", value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that together have this probability: above 0, at most 1
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Draw from tokens with at least this part of the likeliest one's probability: 0 to 1
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Make tokens that occurred less likely: divides their logits; 0.1 to 10, 1 is off
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Make tokens of the answer less likely: taken off their logits once; -2 to 2
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "R",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub presence_penalty: f32,
    /// Make tokens of the answer less likely: taken off their logits for each time; -2 to 2
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "R",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub frequency_penalty: f32,
    /// The same seed gives the same answer [default: another one every time]
    #[arg(long, help_heading = "Sampling", value_name = "N")]
    pub seed: Option<u64>,
}

/// A number that is not whole, as flags have it.
fn number(text: &str) -> Result<f32, &'static str> {
    text.trim().parse().map_err(|_| "write a number, as 0.5")
}

impl GenerationArgs {
    /// Refuses what no model could follow, before one is loaded.
    ///
    /// # Errors
    /// The first flag out of range.
    pub fn check(&self) -> Result<(), CliError> {
        self.sampling(None).validate().map_err(of_flag)?;
        StopStrings::new(&self.stop).map_err(phi3v::Error::from)?;
        match self.max_new_tokens {
            Some(0) => Err(CliError::Unusable {
                message: "--max-new-tokens is 0, it must be at least 1".to_owned(),
                hint: Some("ask for at least one token, or leave it out".to_owned()),
            }),
            _ => Ok(()),
        }
    }

    /// The library's words for the sampling flags.
    #[must_use]
    pub fn sampling(&self, logprobs: Option<usize>) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            logprobs,
        }
    }

    /// The library's words for all that decides about an answer.
    #[must_use]
    pub fn options(&self, logprobs: Option<usize>) -> GenerationOptions {
        let (sampling, max_new_tokens, stop) =
            (self.sampling(logprobs), self.max_new_tokens, self.stop.clone());
        GenerationOptions { sampling, max_new_tokens, stop }
    }
}

/// The library's error of an option of the sampler, by the flag that has it.
fn of_flag(error: SamplerError) -> CliError {
    match error {
        SamplerError::OutOfRange { name, value, range } => {
            let flag = format!("--{}", name.replace('_', "-"));
            let hint = Some(format!("leave {flag} out to use its default"));
            CliError::Unusable { message: format!("{flag} is {value}, it must be {range}"), hint }
        }
        other => phi3v::Error::from(other).into(),
    }
}
