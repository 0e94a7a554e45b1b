//! Content of the messages of `/v1/responses` and `/v1/decisions`: a text, or parts in any order.

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
pub enum Content {
    /// Text and nothing else.
    Text(String),
    /// Texts, pictures and JSON, in their order.
    Parts(Vec<ContentPart>),
}

/// A part of a message or of instructions, told apart by `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentPart {
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

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_two(deserializer, "a text or a list of parts", Self::Text, Self::Parts)
    }
}

/// The parts of a message of `role`, or of a question's instructions, which stand in the field `place`.
///
/// # Errors
/// There are none, or the first that cannot stand there.
pub(super) fn parts(role: Role, content: Content, place: &str) -> Result<Vec<TurnPart>, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(vec![TurnPart::Text(text)]),
        Content::Parts(parts) => parts,
    };
    if parts.is_empty() {
        let error = ApiError::invalid_value(place, format!("{place} has no part, at least 1 is needed"));
        return Err(error.hint(hint::PARTS));
    }
    let part = |(number, part)| match part {
        ContentPart::InputText { text, .. } | ContentPart::OutputText { text, .. } => {
            Ok(TurnPart::Text(text))
        }
        ContentPart::Refusal { refusal } => TurnPart::refusal(role, refusal, format!("{place}[{number}]")),
        ContentPart::InputJson { data } => json_text(&data, format!("{place}[{number}].data")),
        ContentPart::InputFile { file_data: data, file_url: url, detail, pages, .. } => {
            TurnPart::file(role, RequestFile { data, url, detail, pages }, format!("{place}[{number}]"))
        }
        ContentPart::InputImage { image_url, detail, .. } => {
            TurnPart::image(role, image_url, detail, format!("{place}[{number}].image_url"))
        }
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// An object, or a list of objects, as the text that the model reads.
fn json_text(data: &serde_json::Value, param: String) -> Result<TurnPart, ApiError> {
    let is_json =
        data.is_object() || data.as_array().is_some_and(|items| items.iter().all(|item| item.is_object()));
    if !is_json {
        let message = format!("{param} is neither an object nor a list of objects");
        return Err(ApiError::invalid_value(param, message).hint(hint::JSON));
    }
    Ok(TurnPart::Text(data.to_string()))
}
