//! Content of messages: a text, or parts in any order. Each API names the parts differently; these are the names of
//! `/v1/responses` and `/v1/decisions`.

use super::text_or_list::of_two;
use crate::server::ask::{Detail, RequestFile, TurnPart};
use crate::server::error::ApiError;
use crate::server::hints::question as hint;
use phi3v::chat_template::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Content of a message, or of a question's instructions: a text, or parts in any order.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Content<P = InputPart> {
    /// Text and nothing else.
    Text(String),
    /// Texts, pictures and whatever else there is, in their order.
    Parts(Vec<P>),
}

/// A part of content, in any API.
pub(super) trait Part {
    /// Converts the part to what the model receives, in a message of `role`; `place` is the part's own field.
    ///
    /// # Errors
    /// The part is not allowed there.
    fn told(self, role: Role, place: String) -> Result<TurnPart, ApiError>;
}

/// A part of a message or of instructions, told apart by `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputPart {
    /// A text, taken as it stands.
    InputText {
        /// Text of the part.
        text: String,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
    },
    /// A picture to be asked about.
    InputImage {
        /// A data URL; other addresses only where the server allows them.
        image_url: String,
        /// How closely to look.
        #[serde(default)]
        detail: Detail,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
    },
    /// A document to be asked about: its pages become pictures.
    InputFile {
        /// The document as a data URL, or its base64 alone.
        file_data: Option<String>,
        /// An address; only where the server allows it.
        file_url: Option<String>,
        /// What the client calls it; not used.
        filename: Option<String>,
        /// How closely to look at each page.
        #[serde(default)]
        detail: Detail,
        /// Pages to look at, as `1-3,7,10-`, all of a PDF if absent; an extension.
        pages: Option<String>,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
    },
    /// An object, or a list of objects, that the model reads as text.
    InputJson {
        /// The object, or the list of objects.
        data: Value,
    },
    /// A text of the assistant.
    OutputText {
        /// Text of the part.
        text: String,
        /// Taken and not used.
        #[serde(default)]
        annotations: Vec<Value>,
        /// Taken and not used.
        #[serde(default)]
        logprobs: Vec<Value>,
        /// Taken and not used.
        #[serde(default)]
        words: Vec<Value>,
        /// Taken and not used.
        #[serde(default)]
        fields: Map<String, Value>,
    },
    /// What the assistant said instead of a text.
    Refusal {
        /// Text of the refusal.
        refusal: String,
    },
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Content<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_two(deserializer, "a text or a list of parts", Self::Text, Self::Parts)
    }
}

/// Converts the parts of a message of `role`, or of a question's instructions, in the field `place`.
///
/// # Errors
/// There are no parts, or one is not allowed there (the first is reported).
pub(super) fn parts<P: Part>(
    role: Role,
    content: Content<P>,
    place: &str,
) -> Result<Vec<TurnPart>, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(vec![TurnPart::Text(text)]),
        Content::Parts(parts) => parts,
    };
    if parts.is_empty() {
        let error = ApiError::invalid_value(place, format!("{place} has no part, at least 1 is needed"));
        return Err(error.hint(hint::PARTS));
    }
    let told = |(number, part): (usize, P)| part.told(role, format!("{place}[{number}]"));
    parts.into_iter().enumerate().map(told).collect()
}

impl Part for InputPart {
    fn told(self, role: Role, place: String) -> Result<TurnPart, ApiError> {
        match self {
            Self::InputText { text, .. } | Self::OutputText { text, .. } => Ok(TurnPart::Text(text)),
            Self::Refusal { refusal } => TurnPart::refusal(role, refusal, place),
            Self::InputJson { data } => json_text(&data, place + ".data"),
            Self::InputFile { file_data: data, file_url: url, detail, pages, .. } => {
                TurnPart::file(role, RequestFile { data, url, detail, pages }, place)
            }
            Self::InputImage { image_url, detail, .. } => {
                TurnPart::image(role, image_url, detail, place + ".image_url")
            }
        }
    }
}

/// Converts an object, or a list of objects, to the text that the model reads.
fn json_text(data: &serde_json::Value, param: String) -> Result<TurnPart, ApiError> {
    let is_json =
        data.is_object() || data.as_array().is_some_and(|items| items.iter().all(|item| item.is_object()));
    if !is_json {
        let message = format!("{param} is neither an object nor a list of objects");
        return Err(ApiError::invalid_value(param, message).hint(hint::JSON));
    }
    Ok(TurnPart::Text(data.to_string()))
}
