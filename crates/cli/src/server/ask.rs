//! A validated question: what every API of the server turns its requests into.

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

/// What an API calls the fields that are at fault where a check fails.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Field with the conversation's messages.
    pub turns: &'static str,
    /// The form of the answer.
    pub form: &'static str,
}

/// A conversation to be continued, and how: the one form that all APIs of the server are turned into.
#[derive(Debug)]
pub struct Ask {
    /// The words of the API it came by.
    pub names: Names,
    /// The conversation; the user speaks last.
    pub turns: Vec<Turn>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Number of answers to make.
    pub choices: usize,
    /// Tokens an answer may have, and the field that says so.
    pub max_tokens: Option<(usize, &'static str)>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// The form the answer must have.
    pub form: Option<Grammar>,
    /// Whose caches are used.
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
    /// Text, as it was sent.
    Text(String),
    /// An image that is to be read.
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

/// An image that is to be read and cut, as the request names it.
#[derive(Debug)]
pub struct RequestImage {
    /// Address or data URL of the image.
    pub url: String,
    /// How closely to look.
    pub detail: Detail,
    /// Which pages of a document.
    pub pages: Option<PageChoice>,
    /// The field it stands in.
    pub param: String,
}

/// A file that is to be read, as the request names it.
#[derive(Debug)]
pub struct RequestFile {
    /// A data URL, or base64 alone.
    pub data: Option<String>,
    /// An address that it is to be read from.
    pub url: Option<String>,
    /// How closely to look at each page.
    pub detail: Detail,
    /// Which pages, as `1-3,7`.
    pub pages: Option<String>,
}

impl TurnPart {
    /// An image in a message of `role`, in the field `param`.
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

    /// A file in a message of `role`, in the field `param`: a document, or a picture after all.
    ///
    /// # Errors
    /// The message is not the user's, there is no file, or what should be pages is none.
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

    /// What the assistant refused with, in a message of `role`, in the field `param`.
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

/// Texts that end an answer, as in OpenAI's API.
const STOP_MAX: usize = 4;
/// Bytes of each of them.
const STOP_BYTES_MAX: usize = 256;

impl Ask {
    /// Checks everything that can be checked without the model.
    ///
    /// # Errors
    /// The first field at fault.
    pub fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        self.check_turns(limits)?;
        // more than the queue holds could never be let in
        let choices_max = limits.choices_max.min(limits.queue_max);
        if self.choices == 0 || self.choices > choices_max {
            let message = format!("n is {}, it must be 1 to {choices_max}", self.choices);
            return Err(ApiError::invalid_value("n", message).hint(question::CHOICES));
        }
        if let Some((tokens, name)) = self.max_tokens
            && (tokens == 0 || tokens > limits.max_tokens_max)
        {
            let message = format!("{name} is {tokens}, it must be 1 to {}", limits.max_tokens_max);
            // no server takes 0
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

/// Checks images and texts of the parts of a request, which has `more` bytes of text besides, in the field `name`.
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

/// Bytes of text in parts of a request.
pub(super) fn text_bytes<'a>(parts: impl Iterator<Item = &'a TurnPart>) -> usize {
    parts.map(|part| if let TurnPart::Text(text) = part { text.len() } else { 0 }).sum()
}

/// The error for a request with more pictures, or pages of documents, than the limit.
pub(super) fn too_many_images(message: String) -> ApiError {
    ApiError::new(Code::TooManyImages, message).hint(question::PICTURES)
}
