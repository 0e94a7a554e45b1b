//! The wire types of `POST /v1/responses`: texts and pictures in, one text out.

use crate::fields::{FieldMap, short_or_null};
use crate::server::openai::content::Content;
use crate::server::openai::text_or_list::of_two;
use crate::server::openai::types::{Include, StreamOptions, WordFields};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A request for a response, with the fields of OpenAI's Responses API that are supported.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ResponsesRequest {
    /// A text of the user, or the conversation so far.
    pub input: Input,
    /// Name of the model served, or absent.
    pub model: Option<String>,
    /// Instructions for the whole conversation.
    pub instructions: Option<String>,
    /// Tokens the answer may have.
    pub max_output_tokens: Option<usize>,
    /// 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Choose among the likeliest tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Send the answer as server-sent events while it is made.
    pub stream: Option<bool>,
    /// What a stream carries besides the answer; its counts of tokens it has in any case.
    pub stream_options: Option<StreamOptions>,
    /// The form that the answer must have: free text, any JSON object, or a schema.
    pub text: Option<TextOptions>,
    /// What the answer carries besides; an extension.
    pub include: Option<Vec<Include>>,
}

/// What is asked: a text by itself, or the messages of a conversation.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Input {
    /// A text of the user.
    Text(String),
    /// The conversation so far; the user speaks last.
    Messages(Vec<InputMessage>),
}

/// A message of the conversation: who wrote it, and its texts and pictures in order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputMessage {
    /// `message`, or absent.
    pub r#type: Option<MessageType>,
    /// Who said it: `user`, `assistant`, `system` or `developer`.
    pub role: crate::server::openai::types::ChatRole,
    /// Text, or texts, pictures and JSON.
    pub content: Content,
    /// A field of earlier answers, taken and not used.
    pub id: Option<String>,
    /// A field of earlier answers, taken and not used.
    pub status: Option<String>,
    /// A field of OpenAI's answers, taken and not used.
    pub phase: Option<String>,
}

/// The one type of item that is known.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// A message of the conversation.
    Message,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_two(deserializer, "a text or a list of messages", Self::Text, Self::Messages)
    }
}

/// The form that the answer must have: free text, any JSON object, or a schema.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// Form that the answer is held to.
    pub format: Option<TextFormat>,
    /// How long answers are; only as they are.
    pub verbosity: Option<Verbosity>,
}

/// How long answers are, which cannot be chosen here.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    /// As they are without it.
    Medium,
}

/// The form that the answer must have: free text, any JSON object, or a schema.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TextFormat {
    /// Text of any form.
    Text {},
    /// A JSON object of any fields.
    JsonObject {},
    /// JSON that validates against a schema.
    JsonSchema {
        /// A name for the client's own use.
        name: Option<String>,
        /// A description for the client's own use.
        description: Option<String>,
        /// The JSON schema to follow, or the name of a preset, such as `@receipt`; an extension.
        schema: Value,
        /// Accepted for compatibility: the schema is always followed strictly.
        strict: Option<bool>,
    },
    /// One of several texts; an extension.
    Choices {
        /// The texts, none of them empty and no two the same.
        choices: Vec<String>,
    },
    /// Text that a regular expression matches as a whole; an extension.
    Regex {
        /// The regular expression to match.
        pattern: String,
    },
}

/// A response of `/v1/responses`, in progress or complete, with what was asked for.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ResponseObject {
    /// Name of this response, new for each.
    pub id: String,
    /// Always `response`, as OpenAI has it.
    pub object: &'static str,
    /// When it was asked for, in seconds since 1970.
    pub created_at: u64,
    /// `in_progress`, `completed` or `incomplete`.
    pub status: &'static str,
    /// Always null: failures are answered with an error.
    pub error: Option<Value>,
    /// Why the answer is cut.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As in the request.
    pub instructions: Option<String>,
    /// As in the request.
    pub max_output_tokens: Option<usize>,
    /// Name of the model.
    pub model: String,
    /// The answer: one message, or none yet.
    pub output: Vec<OutputMessage>,
    /// Always false: there are no tools.
    pub parallel_tool_calls: bool,
    /// Always null: nothing is stored.
    pub previous_response_id: Option<String>,
    /// As in the request.
    #[serde(serialize_with = "short_or_null")]
    #[schemars(with = "Option<f32>")]
    pub temperature: Option<f32>,
    /// As in the request.
    #[serde(serialize_with = "short_or_null")]
    #[schemars(with = "Option<f32>")]
    pub top_p: Option<f32>,
    /// Always `none`: there are no tools.
    pub tool_choice: &'static str,
    /// Always empty: there are no tools.
    pub tools: Vec<Value>,
    /// Tokens of prompt and answer, when it is complete.
    pub usage: Option<ResponseUsage>,
}

/// Why an answer is cut, which is always its limit of tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IncompleteDetails {
    /// Always `max_output_tokens`: the answer was cut there.
    pub reason: &'static str,
}

/// The message of the model in a response; its text is one part.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OutputMessage {
    /// `message`
    pub r#type: &'static str,
    /// Name of the message, new for each.
    pub id: String,
    /// `in_progress`, `completed` or `incomplete`.
    pub status: &'static str,
    /// Always `assistant`: the model wrote it.
    pub role: &'static str,
    /// The text, as a single part.
    pub content: Vec<OutputText>,
}

/// A text of the answer, with the empty lists that OpenAI's clients expect beside it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OutputText {
    /// `output_text`
    pub r#type: &'static str,
    /// Text of the answer.
    pub text: String,
    /// Always empty: nothing is cited.
    pub annotations: Vec<Value>,
    /// Always empty: they cannot be asked for here.
    pub logprobs: Vec<Value>,
    /// Its words with their probabilities, where asked for; an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordFields>>,
    /// The values of its form by JSON Pointers, with their probabilities, where asked for; an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldMap>,
}

impl OutputText {
    /// Creates a part with this text.
    pub fn new(text: String) -> Self {
        let (annotations, logprobs) = (Vec::new(), Vec::new());
        Self { r#type: "output_text", text, annotations, logprobs, words: None, fields: None }
    }
}

/// Token counts of a response, under the names that this API has for them.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct ResponseUsage {
    /// Tokens of the prompt, pictures included.
    pub input_tokens: usize,
    /// What the tokens of the prompt were.
    pub input_tokens_details: crate::server::openai::types::PromptTokensDetails,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// What the tokens of the answer were.
    pub output_tokens_details: OutputTokensDetails,
    /// Sum of prompt and answer.
    pub total_tokens: usize,
}

/// What the answer's tokens were, in the shape that OpenAI's clients expect.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct OutputTokensDetails {
    /// Always 0: the model does not think unseen.
    pub reasoning_tokens: usize,
}
