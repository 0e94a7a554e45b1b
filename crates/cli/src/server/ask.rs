//! A validated question: what every API of the server turns its requests into.

use super::limits::Limits;
use super::openai::errors::ApiError;
use super::openai::types::Detail;
use phi3v::chat_template::Role;
use phi3v::constraint::Grammar;
use phi3v::sampler::SamplingParams;

/// A conversation to be continued, and how.
#[derive(Debug)]
pub struct Ask {
    /// The conversation; the user speaks last.
    pub turns: Vec<Turn>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Answers to make.
    pub choices: usize,
    /// Tokens an answer may have, and the field that says so.
    pub max_tokens: Option<(usize, &'static str)>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// The form the answer must have.
    pub form: Option<Grammar>,
}

/// What one side said.
#[derive(Debug)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub parts: Vec<TurnPart>,
}

/// A text or a picture.
#[derive(Debug)]
pub enum TurnPart {
    /// A text.
    Text(String),
    /// A picture.
    Picture(Picture),
}

/// A picture to be read.
#[derive(Debug)]
pub struct Picture {
    /// Its address.
    pub url: String,
    /// How closely to look.
    pub detail: Detail,
    /// The field it stands in.
    pub param: String,
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
        if self.choices == 0 || self.choices > limits.choices_max {
            let message = format!("n is {}, it must be 1 to {}", self.choices, limits.choices_max);
            return Err(ApiError::invalid_value("n", message));
        }
        if let Some((tokens, name)) = self.max_tokens
            && (tokens == 0 || tokens > limits.max_tokens_max)
        {
            let message = format!("{name} is {tokens}, it must be 1 to {}", limits.max_tokens_max);
            return Err(ApiError::invalid_value(name, message));
        }
        if self.stop.len() > STOP_MAX {
            let message = format!("stop has {} texts, the limit is {STOP_MAX}", self.stop.len());
            return Err(ApiError::invalid_value("stop", message));
        }
        if self.stop.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
            let message = format!("a stop text must have 1 to {STOP_BYTES_MAX} bytes");
            return Err(ApiError::invalid_value("stop", message));
        }
        self.sampling.validate().map_err(|error| ApiError::library(&error.into()))
    }

    fn check_turns(&self, limits: &Limits) -> Result<(), ApiError> {
        let Some(last) = self.turns.last() else {
            return Err(ApiError::invalid_value("messages", "there is no message, at least 1 is needed"));
        };
        if self.turns.len() > limits.messages_max {
            let message =
                format!("there are {} messages, the limit is {}", self.turns.len(), limits.messages_max);
            return Err(ApiError::invalid_value("messages", message));
        }
        if last.role == Role::Assistant {
            let message = "the last message is the assistant's, it must be the user's";
            return Err(ApiError::invalid_value("messages", message).hint("add the user's next message"));
        }
        let parts = || self.turns.iter().flat_map(|turn| &turn.parts);
        let images = parts().filter(|part| matches!(part, TurnPart::Picture(_))).count();
        if images > limits.images_max {
            let message = format!("the request has {images} pictures, the limit is {}", limits.images_max);
            return Err(ApiError::bad_request("too_many_images", message).param("messages"));
        }
        let bytes: usize =
            parts().map(|part| if let TurnPart::Text(text) = part { text.len() } else { 0 }).sum();
        if bytes > limits.text_bytes_max {
            let message =
                format!("the messages have {bytes} bytes of text, the limit is {}", limits.text_bytes_max);
            return Err(ApiError::bad_request("text_too_long", message).param("messages"));
        }
        Ok(())
    }
}
