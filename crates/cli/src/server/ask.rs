//! A validated question: the form into which every API of the server converts its requests.

use super::error::{ApiError, Code};
use super::hints::question;
use super::limits::Limits;
use crate::documents::PageChoice;
use phi3v::chat_template::Role;
use phi3v::constraint::Grammar;
use phi3v::engine::CacheSalt;
use phi3v::error::count;
use phi3v::sampler::SamplingParams;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The field names an API reports when a check fails.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Field with the conversation's messages.
    pub turns: &'static str,
    /// Field with the form of the answer.
    pub form: &'static str,
}

/// A conversation to continue, and how: the one form into which all APIs of the server convert their requests.
#[derive(Debug)]
pub struct Ask {
    /// Field names of the API that received the request.
    pub names: Names,
    /// The conversation; the user speaks last.
    pub turns: Vec<Turn>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Number of answers to generate.
    pub choices: usize,
    /// Maximum number of tokens of an answer, and the field that set it.
    pub max_tokens: Option<(usize, &'static str)>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// The form the answer must have.
    pub form: Option<Grammar>,
    /// Keeps the prompt caches of one client apart from those of others.
    pub cache_salt: CacheSalt,
}

/// A message of the conversation: who wrote it, and its texts and images in order.
#[derive(Debug)]
pub struct Turn {
    /// Who wrote the message.
    pub role: Role,
    /// Texts and images of the message.
    pub parts: Vec<TurnPart>,
}

/// A part of a message: a text, or an image that is still to be read.
#[derive(Debug)]
pub enum TurnPart {
    /// Text, exactly as sent.
    Text(String),
    /// An image that is still to be read.
    Image(RequestImage),
}

/// Into how many tiles an image is cut, which decides how many details the model can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The model's own number of tiles, or that of --num-crops.
    #[default]
    Auto,
    /// One tile: fewest tokens.
    Low,
    /// Up to 16 tiles: small print.
    High,
    /// As `high`: the most that there is.
    Original,
}

/// An image to read and cut, as named in the request.
#[derive(Debug)]
pub struct RequestImage {
    /// Address or data URL of the image.
    pub url: String,
    /// How closely to look.
    pub detail: Detail,
    /// Which pages of a document, if chosen.
    pub pages: Option<PageChoice>,
    /// The field that contains the image.
    pub param: String,
}

/// A file to read, as named in the request.
#[derive(Debug)]
pub struct RequestFile {
    /// A data URL, or bare base64.
    pub data: Option<String>,
    /// The address from which to read the file.
    pub url: Option<String>,
    /// How closely to look at each page.
    pub detail: Detail,
    /// Which pages, as `1-3,7`.
    pub pages: Option<String>,
}

impl TurnPart {
    /// Creates an image part for a message of `role`, in the field `param`.
    ///
    /// # Errors
    /// The message is not the user's.
    pub fn image(role: Role, url: String, detail: Detail, param: String) -> Result<Self, ApiError> {
        if role != Role::User {
            let message = format!("a picture stands in a message of the {}", role.name());
            let error = ApiError::invalid_value(param, message);
            return Err(error.hint(question::PICTURE_OF_USER));
        }
        Ok(Self::Image(RequestImage { url, detail, pages: None, param }))
    }

    /// Creates a part for a file in a message of `role`, in the field `param`: a document, or possibly a picture.
    ///
    /// # Errors
    /// The message is not the user's, there is no file, or the page selection is invalid.
    pub fn file(role: Role, file: RequestFile, param: String) -> Result<Self, ApiError> {
        let pages = file.pages.map(|pages| pages.parse::<PageChoice>()).transpose();
        let pages = pages.map_err(|reason| ApiError::invalid_value(format!("{param}.pages"), reason))?;
        let url = match (file.data, file.url) {
            (Some(data), _) if data.trim_start().starts_with("data:") => data,
            (Some(data), _) => format!("data:application/pdf;base64,{data}"),
            (None, Some(url)) => url,
            (None, None) => {
                let error = ApiError::invalid_value(param, "the file has no data");
                return Err(error.hint(question::FILE_DATA));
            }
        };
        let mut part = Self::image(role, url, file.detail, param)?;
        if let Self::Image(image) = &mut part {
            image.pages = pages;
        }
        Ok(part)
    }

    /// Creates a text part for the assistant's refusal, in a message of `role`, in the field `param`.
    ///
    /// # Errors
    /// The message is not the assistant's.
    pub fn refusal(role: Role, refusal: String, param: String) -> Result<Self, ApiError> {
        if role != Role::Assistant {
            let message = format!("a refusal stands in a message of the {}", role.name());
            let error = ApiError::invalid_value(param, message);
            return Err(error.hint(question::REFUSAL_OF_ASSISTANT));
        }
        Ok(Self::Text(refusal))
    }
}

/// Maximum number of stop texts, as in OpenAI's API.
const STOP_MAX: usize = 4;
/// Maximum number of bytes of each stop text.
const STOP_BYTES_MAX: usize = 256;

impl Ask {
    /// Checks everything that can be checked without the model.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        self.check_turns(limits)?;
        // a request for more answers than the queue holds could never be admitted
        let choices_max = limits.choices_max.min(limits.queue_max);
        if self.choices == 0 || self.choices > choices_max {
            let message = format!("n is {}, it must be 1 to {choices_max}", self.choices);
            return Err(ApiError::invalid_value("n", message).hint(question::CHOICES));
        }
        if let Some((tokens, name)) = self.max_tokens
            && (tokens == 0 || tokens > limits.max_tokens_max)
        {
            let message = format!("{name} is {tokens}, it must be 1 to {}", limits.max_tokens_max);
            // no server accepts 0
            let hint = if tokens == 0 { question::option(name).into() } else { question::max_tokens(name) };
            return Err(ApiError::invalid_value(name, message).hint(hint));
        }
        if self.stop.len() > STOP_MAX {
            let message = format!("stop has {} texts, the limit is {STOP_MAX}", self.stop.len());
            return Err(ApiError::invalid_value("stop", message));
        }
        if let Some(stop) = self.stop.iter().find(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
            let message = format!("a stop text has {} bytes, it must have 1 to {STOP_BYTES_MAX}", stop.len());
            return Err(ApiError::invalid_value("stop", message));
        }
        self.sampling.validate().map_err(|error| ApiError::library(&error.into()))
    }

    fn check_turns(&self, limits: &Limits) -> Result<(), ApiError> {
        let name = self.names.turns;
        let Some(last) = self.turns.last() else {
            let message = "there is no message, at least 1 is needed";
            return Err(ApiError::invalid_value(name, message).hint(question::NO_MESSAGE));
        };
        if self.turns.len() > limits.messages_max {
            let message =
                format!("there are {} messages, the limit is {}", self.turns.len(), limits.messages_max);
            return Err(ApiError::invalid_value(name, message).hint(question::MESSAGES));
        }
        if last.role == Role::Assistant {
            let message = "the last message is the assistant's, it must be the user's";
            return Err(ApiError::invalid_value(name, message).hint(question::LAST_MESSAGE));
        }
        check_parts(|| self.turns.iter().flat_map(|turn| &turn.parts), 0, name, limits)
    }
}

/// Checks the number of images and the bytes of text in a request's parts, reported for the field `name`. The request
/// has `more` bytes of other text.
///
/// # Errors
/// Too many images, or too much text.
pub(super) fn check_parts<'a, P: Iterator<Item = &'a TurnPart>>(
    parts: impl Fn() -> P,
    more: usize,
    name: &str,
    limits: &Limits,
) -> Result<(), ApiError> {
    let images = parts().filter(|part| matches!(part, TurnPart::Image(_))).count();
    if images > limits.images_max {
        let message =
            format!("the request has {}, the limit is {}", count(images, "picture"), limits.images_max);
        return Err(too_many_images(message).param(name));
    }
    let bytes = text_bytes(parts()) + more;
    if bytes > limits.text_bytes_max {
        let message =
            format!("the messages have {bytes} bytes of text, the limit is {}", limits.text_bytes_max);
        let error = ApiError::new(Code::TextTooLong, message).param(name);
        return Err(error.hint(question::TEXT));
    }
    Ok(())
}

/// Counts the bytes of text in parts of a request.
pub(super) fn text_bytes<'a>(parts: impl Iterator<Item = &'a TurnPart>) -> usize {
    parts.map(|part| if let TurnPart::Text(text) = part { text.len() } else { 0 }).sum()
}

/// Returns the error for a request with more pictures or document pages than the limit.
pub(super) fn too_many_images(message: String) -> ApiError {
    ApiError::new(Code::TooManyImages, message).hint(question::PICTURES)
}
