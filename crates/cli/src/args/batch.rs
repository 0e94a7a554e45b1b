//! The flags of `phi3v batch`.

use super::{ContextArgs, FormArgs, GenerationArgs, ModelArgs, PictureArgs, written_path};
use crate::batch::shard::Shard;
use crate::batch::sidecar;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// `phi3v batch`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v batch photos --prompt \"What is written here?\" --out results.jsonl
  phi3v batch photos --prompt \"Describe this picture.\" --sidecar txt --csv captions.csv
  phi3v batch 'scans/**/*.png' --questions questions.txt --schema fields.json
  phi3v batch receipts --schema @receipt --csv receipts.csv
  find . -name '*.jpg' | phi3v batch - --prompt \"What is this?\"
  phi3v batch requests.jsonl --allow-image-dir \"$PWD/photos\" --out results.jsonl
  jq -r 'select(.custom_id) | .response.body.choices[0].message.content' results.jsonl")]
pub struct BatchArgs {
    /// Folders, pictures, patterns in quotes, - for a list of names on stdin; or one file (or -) of requests as JSON lines
    /// in OpenAI's batch form
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<OsString>,
    /// The question that is asked about every picture
    #[arg(long, short, value_name = "TEXT", conflicts_with = "questions")]
    pub prompt: Option<String>,
    /// Where the results go, a JSON object on each line; the same command goes on with what is there
    #[arg(long, short, value_name = "FILE", default_value = "results.jsonl", value_parser = written_path())]
    pub out: PathBuf,
    /// Write the results as a table for spreadsheets, too
    #[arg(long, value_name = "FILE", value_parser = written_path())]
    pub csv: Option<PathBuf>,
    /// Write each answer beside its picture, too: as text, as JSON, or as XMP for photo tools
    #[arg(long, value_enum, value_name = "FORM")]
    pub sidecar: Option<Sidecar>,
    /// Try again what has failed before
    #[arg(long)]
    pub retry_errors: bool,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// A file of several questions about every picture: one a line, or JSON objects with name, prompt and schema, regex or choices
    #[arg(long, value_name = "FILE", help_heading = "Questions")]
    pub questions: Option<PathBuf>,
    /// The form of answers to questions that bring none
    #[command(flatten)]
    pub form: FormArgs,
    /// Look at N pictures or requests and no more, for a trial; the next run goes on with others
    #[arg(long, value_name = "N", help_heading = "Job", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// Part I of N of the inputs, for several machines, each with its own --out
    #[arg(long, value_name = "I/N", help_heading = "Job")]
    pub shard: Option<Shard>,
    /// Answers that are made together: 1 to 16; they are the same whatever it is [default: as many as suit the device]
    #[arg(long, value_name = "N", help_heading = "Job", value_parser = RangedU64ValueParser::<usize>::new().range(1..=16))]
    pub width: Option<usize>,
    /// Write the results as a Parquet file, too; only where phi3v was built with the feature parquet
    #[arg(long, value_name = "FILE", help_heading = "Job", value_parser = written_path())]
    pub parquet: Option<PathBuf>,
    /// Replace tables and files beside pictures that were there before the job, but for those of answers that are there already
    #[arg(long, help_heading = "Job")]
    pub force: bool,
    /// A folder that requests may name pictures of, by file:// addresses
    #[arg(long, value_name = "DIR", help_heading = "Network")]
    pub allow_image_dir: Option<PathBuf>,
    /// How the answer is made
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
}

/// The form of what is written beside pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sidecar {
    /// The answer alone
    Txt,
    /// The answer, what was asked and which model answered
    Json,
    /// Description and alt text
    Xmp,
}

impl Sidecar {
    /// The batch's word for it.
    #[must_use]
    pub fn form(self) -> sidecar::Form {
        match self {
            Self::Txt => sidecar::Form::Txt,
            Self::Json => sidecar::Form::Json,
            Self::Xmp => sidecar::Form::Xmp,
        }
    }
}
