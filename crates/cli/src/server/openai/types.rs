//! The wire types of `POST /v1/chat/completions`, in the order of OpenAI's reference.
//!
//! Unknown fields are refused by name, nested ones too; [`super::fields`] says which top-level ones are ignored.

use super::content::Content;
use super::text_or_list::{self, TextOrList};
use super::text_or_object;
use crate::fields::{FieldMap, short};
use crate::server::ask::{Detail, RequestFile};
use phi3v::chat_template::Role;
use phi3v::words::Word;
use schemars::JsonSchema;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request for the next message of a conversation. Without sampling fields the answer is greedy.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// The conversation so far; the user speaks last.
    pub messages: Vec<ChatMessage>,
    /// Name of the model served, or absent.
    pub model: Option<String>,
    /// Send the answer as server-sent events while it is made.
    pub stream: Option<bool>,
    /// What a stream carries besides the answer: token counts at its end, and progress as an extension.
    pub stream_options: Option<StreamOptions>,
    /// Answers to make, 1 if absent.
    pub n: Option<usize>,
    /// Tokens an answer may have.
    pub max_completion_tokens: Option<usize>,
    /// The older name of `max_completion_tokens`.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "Option<OneOrMany>")]
    pub stop: Vec<String>,
    /// Return the log probability of each token.
    pub logprobs: Option<bool>,
    /// What an answer carries besides; an extension.
    pub include: Option<Vec<Include>>,
    /// Return so many likeliest tokens for each place, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<usize>,
    /// The form that the answer must have: free text, JSON, a regular expression or a grammar.
    pub response_format: Option<ResponseFormat>,
    /// 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Choose among the likeliest tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Choose among so many likeliest tokens; 0 and -1 are off; an extension.
    pub top_k: Option<i64>,
    /// Choose among tokens at least this fraction as likely as the likeliest; an extension.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens already seen; an extension.
    pub repetition_penalty: Option<f32>,
    /// Lowers the logits of tokens already in the answer.
    pub presence_penalty: Option<f32>,
    /// Lowers the logits of tokens by how often they are in the answer.
    pub frequency_penalty: Option<f32>,
    /// The same seed gives the same answer.
    pub seed: Option<i64>,
}

/// What an answer can carry besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// Its words, with their probabilities.
    Words,
    /// The values of its form, with their probabilities.
    Fields,
}

/// A word of an answer, and how sure the model was of it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WordFields {
    /// The word with the signs that stand at it.
    pub text: String,
    /// The least probability of its tokens.
    #[serde(serialize_with = "short")]
    #[schemars(with = "f32")]
    pub p: f32,
    /// The mean probability of its tokens.
    #[serde(serialize_with = "short")]
    #[schemars(with = "f32")]
    pub mean: f32,
}

impl From<Word> for WordFields {
    fn from(Word { text, p, mean, .. }: Word) -> Self {
        Self { text, p, mean }
    }
}

/// What a stream carries besides the answer: token counts at its end, and progress as an extension.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    #[serde(default)]
    pub include_usage: bool,
    /// Events named `progress` while the pictures and the prompt are read; an extension.
    #[serde(default)]
    pub include_progress: bool,
    /// Accepted for compatibility: streams are not padded.
    #[serde(default)]
    pub include_obfuscation: bool,
}

/// What one side said. An answer's `message` can be sent back as it came.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// Who wrote the message.
    pub role: ChatRole,
    /// Text, or texts and pictures.
    pub content: Option<Content<ContentPart>>,
    /// What was said where there is no `content`.
    pub refusal: Option<String>,
    /// Taken and not used.
    pub name: Option<String>,
    /// Taken and not used.
    #[serde(default)]
    pub annotations: Vec<Value>,
    /// Taken and not used.
    pub audio: Option<Value>,
    /// What the official clients made of the text; not used.
    pub parsed: Option<Value>,
    /// What other models thought before their answer; taken and not used.
    pub reasoning: Option<Value>,
    /// Another name of it; taken and not used.
    pub reasoning_content: Option<Value>,
    /// Must be empty: there are no tools.
    #[serde(default)]
    pub tool_calls: Vec<Value>,
}

/// Who wrote a message of the conversation; a system's or a developer's is an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Instructions for the whole conversation.
    System,
    /// A newer name for `system`.
    Developer,
    /// The person who asks.
    User,
    /// The model that answers.
    Assistant,
}

impl From<ChatRole> for Role {
    fn from(role: ChatRole) -> Self {
        match role {
            ChatRole::System | ChatRole::Developer => Self::System,
            ChatRole::User => Self::User,
            ChatRole::Assistant => Self::Assistant,
        }
    }
}

/// A document, whose pages become pictures; a picture is taken too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileFields {
    /// The document as a data URL, or its base64 alone.
    pub file_data: Option<String>,
    /// What the client calls it; not used.
    pub filename: Option<String>,
    /// Pages to look at, as `1-3,7,10-`, all of a PDF if absent; an extension.
    pub pages: Option<String>,
}

impl From<FileFields> for RequestFile {
    fn from(FileFields { file_data, filename: _, pages }: FileFields) -> Self {
        Self { data: file_data, url: None, detail: Detail::Auto, pages }
    }
}

/// A part of a message's content: a text or a picture, told apart by `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentPart {
    /// A text, taken as it stands.
    Text {
        /// Text of the part.
        text: String,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
        /// Taken and not used.
        cache_control: Option<Value>,
    },
    /// What the assistant said instead of a text.
    Refusal {
        /// Text of the refusal.
        refusal: String,
    },
    /// A document to be asked about: its pages become pictures.
    File {
        /// The document and the pages of it.
        file: FileFields,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
        /// Taken and not used.
        cache_control: Option<Value>,
    },
    /// A picture to be asked about.
    ImageUrl {
        /// Where the picture is.
        image_url: ImageUrl,
        /// Taken and not used.
        prompt_cache_breakpoint: Option<Value>,
        /// Taken and not used.
        cache_control: Option<Value>,
    },
}

/// Where a picture is: an address by itself, or one with how closely to look.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum ImageUrl {
    /// A data URL; other addresses only where the server allows them.
    Url(String),
    /// An address, and into how many tiles the picture is cut.
    Fields(ImageFields),
}

/// Where a picture is, and into how many tiles it is cut.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFields {
    /// A data URL; other addresses only where the server allows them.
    pub url: String,
    /// How closely to look.
    #[serde(default)]
    pub detail: Detail,
}

impl From<ImageUrl> for ImageFields {
    fn from(image: ImageUrl) -> Self {
        match image {
            ImageUrl::Url(url) => Self { url, detail: Detail::default() },
            ImageUrl::Fields(fields) => fields,
        }
    }
}

/// The form that the answer must have: free text, JSON, a regular expression or a grammar.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Text of any form.
    Text {},
    /// A JSON object of any fields.
    JsonObject {},
    /// JSON that validates against a schema.
    JsonSchema {
        /// The schema with its name.
        json_schema: NamedSchema,
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
    /// Text of a Lark grammar; an extension.
    Grammar {
        /// The grammar, in Lark's notation.
        grammar: String,
    },
}

/// A JSON schema with its name, as OpenAI's clients send it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// A name for the client's own use.
    pub name: Option<String>,
    /// A description for the client's own use.
    pub description: Option<String>,
    /// The JSON schema to follow, or the name of a preset, such as `@receipt`; an extension.
    pub schema: Value,
    /// Accepted for compatibility: the schema is always followed strictly.
    pub strict: Option<bool>,
}

/// Schema of a field that takes one text or several.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match text_or_list::deserialize(deserializer, "a text or a list of texts")? {
        TextOrList::Text(text) => Ok(vec![text]),
        TextOrList::List(texts) => Ok(texts),
        TextOrList::Null => Ok(Vec::new()),
    }
}

impl<'de> Deserialize<'de> for ImageUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_object::deserialize(deserializer, "an address or an object with url", Self::Url, Self::Fields)
    }
}

/// A complete answer of `/v1/chat/completions`, with one choice or more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatCompletion {
    /// Name of this answer, new for each.
    pub id: String,
    /// Always `chat.completion`, as OpenAI has it.
    pub object: &'static str,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// The answers, by their index.
    pub choices: Vec<Choice>,
    /// Tokens of prompt and answers.
    pub usage: UsageFields,
}

/// One of the answers to a request, with the reason for which it ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Choice {
    /// Its number, from 0.
    pub index: usize,
    /// What the model said: its text, in the role of the assistant.
    pub message: AnswerMessage,
    /// Log probabilities, where asked for.
    pub logprobs: Option<Logprobs>,
    /// Words with their probabilities, where asked for; an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordFields>>,
    /// The values of its form by JSON Pointers, with their probabilities, where asked for; an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldMap>,
    /// Why it ended: `stop` or `length`.
    pub finish_reason: &'static str,
}

/// What the model said: its text, in the role of the assistant.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AnswerMessage {
    /// Always `assistant`: the model wrote it.
    pub role: &'static str,
    /// Text of the answer.
    pub content: String,
    /// Always null: this model has no separate refusals.
    pub refusal: Option<String>,
}

/// A piece of a streamed answer: one server-sent event of `/v1/chat/completions`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChunk {
    /// Names this answer, the same in all its chunks.
    pub id: String,
    /// Always `chat.completion.chunk`, as OpenAI has it.
    pub object: &'static str,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// One choice, or none in the chunk with the usage.
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, where asked for; null in those before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageFields>>,
}

/// What a chunk adds to one of the answers, and why it ended if it has.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ChunkChoice {
    /// Number of the choice.
    pub index: usize,
    /// What has come since the last event.
    pub delta: Delta,
    /// Log probabilities of the new tokens, where asked for.
    pub logprobs: Option<Logprobs>,
    /// Words that have ended, with their probabilities, where asked for; an extension.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<WordFields>,
    /// The values of its form, in the choice's last chunk, where asked for; an extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldMap>,
    /// Set in the choice's last chunk.
    pub finish_reason: Option<&'static str>,
}

/// What has come of an answer since the event before; empty fields are left out.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Delta {
    /// `assistant`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text that goes on from the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Log probabilities of the tokens of an answer or of one of its pieces.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Logprobs {
    /// One for each token of the text, which is what their bytes are when joined.
    pub content: Vec<TokenLogprob>,
}

/// A token of the answer with its log probability, and the likeliest ones in its place.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenLogprob {
    /// The token that was chosen.
    #[serde(flatten)]
    pub token: ScoredToken,
    /// The tokens that were likeliest in its place.
    pub top_logprobs: Vec<ScoredToken>,
}

/// A token as text and bytes, with the natural logarithm of its probability.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScoredToken {
    /// Its text; incomplete characters are shown as U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    #[serde(serialize_with = "short")]
    #[schemars(with = "f32")]
    pub logprob: f32,
    /// Its bytes in the answer's text; none of a special token, which is no part of it.
    pub bytes: Vec<u8>,
}

/// Token counts of a request: its prompt, counted once, and all of its answers.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct UsageFields {
    /// Tokens of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// Sum of prompt and answers.
    pub total_tokens: usize,
    /// What the prompt's tokens were: how many were cached, and how many stand for pictures.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What the prompt's tokens were: how many were cached, and how many stand for pictures.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Prompt tokens that an earlier request had computed; absent from the rows of a batch, which say the same in every run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<usize>,
    /// Prompt tokens that stand for pictures.
    pub image_tokens: usize,
}

/// The list of models that the server has, which is always a single one.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`, as OpenAI has it.
    pub object: &'static str,
    /// The one model that is served.
    pub data: Vec<ModelEntry>,
}

/// A model of the list of `/v1/models`, in OpenAI's shape with some fields more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelEntry {
    /// The name to ask for it by.
    pub id: String,
    /// Always `model`, as OpenAI has it.
    pub object: &'static str,
    /// Seconds since 1970 of the server's start.
    pub created: u64,
    /// Always `phi3v`, whoever made the model.
    pub owned_by: &'static str,
    /// Tokens of prompt and answer that fit.
    pub max_model_len: usize,
    /// Tokens that an answer may have.
    pub max_tokens: usize,
    /// Pictures that a request may have.
    pub max_images: usize,
    /// What a user should know of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
