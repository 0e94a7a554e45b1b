//! The flags of `phi3v decide` and `phi3v calibrate`.

use super::ask::{check_last, is_picture};
use super::{ContextArgs, ModelArgs, OverwriteArgs, PictureArgs, written_path};
use crate::decide::InputError;
use crate::error::CliError;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// `phi3v decide`
#[derive(Debug, Args)]
#[command(
    override_usage = "phi3v decide [OPTIONS] [IMAGE|-]... <QUESTION> --choices A,B\n       phi3v decide [OPTIONS] [IMAGE|-]... --questions FILE",
    after_long_help = "Examples:
  phi3v decide door.jpg \"Is the door open? Answer yes or no.\" --choices yes,no
  phi3v decide scan.png \"Is it an invoice, or a letter?\" --choices invoice,letter
  phi3v decide photo.jpg --questions questions.txt --choices yes,no
  phi3v decide -j photo.jpg --questions questions.txt --choices yes,no | jq '.decisions[].choice'
  phi3v decide --calibration door.json door.jpg \"Is it open? Answer yes or no.\" --choices yes,no"
)]
pub struct DecideArgs {
    /// Pictures (files, addresses with --allow-url, or - for stdin), and last the question, which is asked as it is; without
    /// it where there is --questions
    // one argument, since flags may stand between its values
    #[arg(value_name = "IMAGE|QUESTION")]
    pub inputs: Vec<OsString>,
    /// The answers to choose from, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub choices: Vec<String>,
    /// A file of several questions: one a line, or JSON objects with name, prompt and choices
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// A file of temperatures, made by phi3v calibrate, at which the choices are compared
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Print one JSON object: decisions with their probabilities, usage, timings, model, pictures
    #[arg(long, short, help_heading = None::<&str>)]
    pub json: bool,
    /// Size, tiles and tokens of every picture; and what will be taken of the memory, which is told of models of more than 1 GB in
    /// any case
    #[arg(long, short, help_heading = None::<&str>)]
    pub verbose: bool,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
}

/// `phi3v calibrate`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  # pictures are in doors/yes and doors/no
  phi3v calibrate doors --prompt \"Is it open? Answer yes or no.\" --out door.json
  phi3v calibrate labels.jsonl --out scans.json
  phi3v decide --calibration door.json new.jpg \"Is it open? Answer yes or no.\" --choices yes,no")]
pub struct CalibrateArgs {
    /// A folder with a subfolder of pictures for each choice, which it is called by; or a file of JSON lines with image,
    /// prompt and answer
    #[arg(value_name = "FOLDER|FILE")]
    pub labels: PathBuf,
    /// The question that is asked about every picture of a folder
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The file to write
    #[arg(long, short, value_name = "FILE", default_value = "calibration.json", value_parser = written_path())]
    pub out: PathBuf,
    /// Whether it may replace what is there
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Print the file that is written, JSON, in place of the table
    #[arg(long, short, help_heading = None::<&str>)]
    pub json: bool,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
}

impl DecideArgs {
    /// The pictures' names, and the question where it is not in a file.
    ///
    /// # Errors
    /// A question is missing, empty, not text, or given twice; a folder stands in its place.
    pub fn images_and_question(&self) -> Result<(&[OsString], Option<&str>), CliError> {
        if self.questions.is_some() {
            return match self.inputs.iter().find(|input| !is_picture(input) && looks_like_question(input)) {
                Some(_) => Err(InputError::TwoQuestions.into()),
                None => Ok((&self.inputs, None)),
            };
        }
        let question = self.inputs.split_last().filter(|(last, _)| !is_picture(last));
        let Some((question, images)) = question else {
            check_last(&self.inputs)?;
            return Err(InputError::NoQuestion.into());
        };
        let question = question.to_str().ok_or(CliError::QuestionText)?;
        if question.trim().is_empty() {
            return Err(CliError::EmptyQuestion);
        }
        Ok((images, Some(question)))
    }
}

/// Whether a word that is no picture is rather a question than the wrong name of one.
fn looks_like_question(word: &OsString) -> bool {
    word.to_str().is_some_and(|word| word.contains(char::is_whitespace))
}
