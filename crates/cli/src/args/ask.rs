//! The arguments of `ask` and `chat`.

use super::{ContextArgs, FormArgs, FrameArgs, GenerationArgs, ModelArgs, PictureArgs, ReportArgs};
use crate::error::{CliError, LooseQuestion};
use crate::paths::{has_picture_ending, is_loose_word};
use crate::sources::{self, AllowedHost, Grab, NamedImageError};
use clap::Args;
use phi3v::sampler::SamplingParams;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::Path;

/// `phi3v ask`
#[derive(Debug, Args)]
#[command(
    override_usage = "phi3v ask [OPTIONS] [IMAGE|-]... <QUESTION>",
    after_long_help = "Examples:
  phi3v ask cover.jpg \"Help me get the title and author information of this book?\"
  phi3v ask before.png after.png \"What is difference in this two images?\"
  curl -s https://example.org/a.png | phi3v ask - \"Could you please introduce this stock to me?\"
  phi3v ask --allow-url images.example.org https://images.example.org/cat.jpg \"What is this?\"
  phi3v ask --json receipt.jpg \"What is the total?\" | jq -r .answer
  phi3v ask --schema @receipt receipt.jpg
  phi3v ask --choices yes,no photo.jpg \"Is there a dog in this picture?\""
)]
pub struct AskArgs {
    /// Pictures (files, addresses with --allow-url, or - for stdin), and last the question, which may call them image 1, image 2 and so on;
    /// a preset of --schema has one of its own
    // one argument, since flags may stand between its values
    #[arg(value_name = "IMAGE|QUESTION", required_unless_present_any = ["clipboard", "screen"])]
    pub inputs: Vec<OsString>,
    /// Look at the picture on the clipboard, before those that are named
    #[arg(long)]
    pub clipboard: bool,
    /// Look at the screen as it is now, before those that are named
    #[arg(long)]
    pub screen: bool,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Which frames of videos
    #[command(flatten)]
    pub frames: FrameArgs,
    /// Print one JSON object: answer, finish reason, usage, timings, model, pictures, words, and the fields of a form
    #[arg(long, short, help_heading = None::<&str>)]
    pub json: bool,
    /// What is told on stderr
    #[command(flatten)]
    pub report: ReportArgs,
    /// How the answer is made
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// The form of the answer
    #[command(flatten)]
    pub form: FormArgs,
    /// With --schema: print the answer as a table (CSV), a row for each object of an array or each row of a table
    #[arg(long, help_heading = "Form of the answer", requires = "schema", conflicts_with = "json")]
    pub csv: bool,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
    /// With --json: the logarithm of every token's probability, and of the N likeliest alternatives to it, 0 to 20
    #[arg(long, value_name = "N", help_heading = "Reports", requires = "json", value_parser = logprobs())]
    pub logprobs: Option<u8>,
}

/// `--logprobs`: as many as the sampler reports.
fn logprobs() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=SamplingParams::LOGPROBS_MAX as i64)
}

/// `phi3v chat`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v chat --model phi-3.5-vision photo.jpg
  phi3v chat report.pdf --pages 1-3
  printf 'What is this?\\nWhat colour is it?\\n' | phi3v chat photo.jpg")]
pub struct ChatArgs {
    /// Pictures to begin with: files, or addresses with --allow-url; more can be added with /image
    #[arg(value_name = "IMAGE")]
    pub images: Vec<OsString>,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Which frames of videos
    #[command(flatten)]
    pub frames: FrameArgs,
    /// What is told on stderr
    #[command(flatten)]
    pub report: ReportArgs,
    /// How the answer is made
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// The form of every answer
    #[command(flatten)]
    pub form: FormArgs,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
}

impl AskArgs {
    /// Pictures that are taken and not named.
    #[must_use]
    pub fn grabbed(&self) -> Vec<Grab> {
        let asked = [(Grab::Clipboard, self.clipboard), (Grab::Screen, self.screen)];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(grab, _)| grab).collect()
    }

    /// The pictures' names, and the question: `own`, where there are pictures alone.
    ///
    /// # Errors
    /// The question is missing, empty or not text; a folder stands in its place.
    pub fn images_and_question<'a>(
        &'a self,
        own: Option<&'a str>,
    ) -> Result<(&'a [OsString], &'a str), CliError> {
        let is_image = |last: &OsString| is_picture(last) || (own.is_some() && self.is_rather_a_name(last));
        let Some((question, images)) = self.inputs.split_last().filter(|(last, _)| !is_image(last)) else {
            if let Some(own) = own {
                return Ok((&self.inputs, own));
            }
            check_last(&self.inputs)?;
            let names = self.inputs.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            return Err(CliError::NoQuestion { names });
        };
        let question = question.to_str().ok_or(CliError::QuestionText)?;
        if question.trim().is_empty() {
            return Err(CliError::EmptyQuestion);
        }
        Ok((images, question))
    }

    /// Whether the last word is rather the wrong name of a picture than a question, where none has to be given. A question mark, also those
    /// of other scripts, tells a question.
    fn is_rather_a_name(&self, last: &OsStr) -> bool {
        let is_about_nothing = self.inputs.len() == 1 && self.grabbed().is_empty();
        let is_question = |word: &str| {
            word.is_empty() || word.contains(char::is_whitespace) || word.ends_with(['?', '？', '؟'])
        };
        let word = last.to_str().filter(|word| !is_question(word));
        word.is_some_and(|word| is_about_nothing || !is_loose_word(word))
    }
}

/// Refuses what stands where a question should and is there, but no file: a folder, a pipe or a device. Of a question without quotes
/// it may be the last word.
///
/// # Errors
/// [`CliError`]: what it is, or that the question has no quotes.
pub(super) fn check_last(inputs: &[OsString]) -> Result<(), CliError> {
    let is_there_but_no_file = |last: &Path| last.exists() && !last.is_file();
    let Some((last, others)) = inputs.split_last().filter(|(last, _)| is_there_but_no_file(last.as_ref()))
    else {
        return Ok(());
    };
    let whole = check_pictures(others, last.to_str(), &[]);
    if matches!(whole, Err(CliError::LooseQuestion(_))) {
        return whole;
    }
    Ok(sources::check_names(std::slice::from_ref(last), &[])?)
}

/// Refuses pictures that are not there, as [`sources::check_names`] does. Where a question was given without quotes, its
/// words are taken for pictures, of which the first that is none is told.
///
/// # Errors
/// [`CliError`]: the first picture that cannot be read.
pub fn check_pictures(
    images: &[OsString],
    last: Option<&str>,
    allowed: &[AllowedHost],
) -> Result<(), CliError> {
    let Err(error) = sources::check_names(images, allowed) else { return Ok(()) };
    let is_loose =
        |name: &OsString| name.to_str().is_some_and(|name| is_loose_word(name) && !is_picture(name.as_ref()));
    let NamedImageError::File { name, error: cause } = &error else { return Err(error.into()) };
    let first = images.iter().position(|image| image == name.as_str() && is_loose(image));
    let (Some(first), Some(last), ErrorKind::NotFound) = (first, last, cause.kind()) else {
        return Err(error.into());
    };
    // of who has put one in quotes the other is no part
    if last.contains(char::is_whitespace) {
        return Err(error.into());
    }
    let words = images[first..].iter().filter_map(|word| word.to_str()).chain([last]);
    let question = words.collect::<Vec<_>>().join(" ");
    Err(CliError::LooseQuestion(Box::new(LooseQuestion { error, question })))
}

/// Whether a word names a picture: stdin, what is there, one word that looks like the name or the address of one, or a data URL. A folder or a
/// pipe is no question, and is refused for what it is.
pub(super) fn is_picture(word: &OsStr) -> bool {
    if word == "-" || Path::new(word).exists() || sources::as_data_url(word).is_some() {
        return true;
    }
    let Some(text) = word.to_str().filter(|text| !text.contains(char::is_whitespace)) else { return false };
    let url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    url || has_picture_ending(text)
}
