//! The wire types of `POST /v1/decisions`: an input of texts, pictures and JSON, questions about it, and an answer to each.

use crate::server::openai::content::Content;
use crate::server::openai::responses::types::OutputTokensDetails;
use crate::server::openai::text_or_list::of_two;
use crate::server::openai::types::ChatRole;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A request for decisions, with the fields of OpenAI's Decisions API.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DecisionRequest {
    /// What every question is about: a text, or messages and calls.
    pub input: Input,
    /// Name of the model served, or absent.
    pub model: Option<String>,
    /// 1 to 400 questions; the answers come in their order.
    pub questions: Vec<Question>,
}

/// What every question is about: a text by itself, or messages and calls.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Input {
    /// A text of the user.
    Text(String),
    /// Messages and calls, in their order.
    Items(Vec<InputItem>),
}

/// A message, a call of a function or tool, or what came of a call. Its `type` says which of the fields it has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputItem {
    /// What it is; a message, if absent.
    #[serde(default)]
    pub r#type: ItemType,
    /// Of a message: who said it, `user`, `assistant`, `system` or `developer`.
    pub role: Option<ChatRole>,
    /// Of a message: text, or texts, pictures and JSON.
    pub content: Option<Content>,
    /// Of a message of the assistant: taken and not used.
    pub phase: Option<String>,
    /// Of a call and of its output: what joins the two.
    pub call_id: Option<String>,
    /// Of a call: what was called.
    pub name: Option<String>,
    /// Of a function's call: what it was given, which is told to the model as it stands.
    pub arguments: Option<String>,
    /// Of a custom tool's call: what it was given.
    pub input: Option<String>,
    /// Of an output: text, or texts and pictures.
    pub output: Option<Content>,
    /// Of a call: taken and not used.
    pub namespace: Option<String>,
    /// Of a call or an output: taken and not used.
    pub id: Option<String>,
    /// Of a call or an output: taken and not used.
    pub status: Option<String>,
}

/// What an item of the input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemType {
    /// A message of the conversation.
    #[default]
    Message,
    /// A call of a function.
    FunctionCall,
    /// What came of a function's call.
    FunctionCallOutput,
    /// A call of a custom tool.
    CustomToolCall,
    /// What came of a custom tool's call.
    CustomToolCallOutput,
}

/// A question about the input, told apart by `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How likely it is that a statement about the input is true.
    Predicate {
        /// The statement, as text or parts.
        instructions: Content,
        /// What the answer is called.
        name: Option<String>,
    },
    /// Which of the choices it is.
    Choice {
        /// What is asked, as text or parts.
        instructions: Content,
        /// 2 to 255 choices, each another.
        choices: Vec<Choice>,
        /// What the answer is called.
        name: Option<String>,
    },
    /// Where the input lies on a scale.
    Score {
        /// What is rated, as text or parts.
        instructions: Content,
        /// 2 to 255 levels, from the lowest to the highest, each another.
        levels: Vec<Level>,
        /// What the answer is called.
        name: Option<String>,
    },
}

/// One of the possible answers to a question.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// A text, or `true` or `false`.
    pub value: ChoiceValue,
    /// What it stands for, told to the model.
    pub description: Option<String>,
}

/// The value of a choice: a text, or `true` or `false`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "a text, true or false")]
pub enum ChoiceValue {
    /// A text of any length.
    Text(String),
    /// One of `true` and `false`.
    Bool(bool),
}

/// A level of a scale.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What it is called, which is the answer that the model is scored on.
    pub label: String,
    /// What it stands for, told to the model.
    pub description: Option<String>,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_two(deserializer, "a text or a list of messages", Self::Text, Self::Items)
    }
}

/// The answers to the questions of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DecisionObject {
    /// An answer to each question, in their order.
    pub answers: Vec<Answer>,
    /// Name of the model.
    pub model: String,
    /// What the request took.
    pub usage: DecisionUsage,
}

/// The answer to a question, of its `type`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// How likely the statement is.
    Predicate {
        /// The question's name, or null.
        name: Option<String>,
        /// That of "yes" against "no", with a small letter or a capital.
        probability: f64,
    },
    /// The likeliest of a question's choices.
    Choice {
        /// The question's name, or null.
        name: Option<String>,
        /// Value of the likeliest choice.
        choice: ChoiceValue,
        /// Probability of the likeliest choice.
        confidence: f64,
        /// Those of all choices, in the order of the question.
        probabilities: Vec<ChoiceProbability>,
    },
    /// The place on the scale.
    Score {
        /// The question's name, or null.
        name: Option<String>,
        /// The mean of the levels' numbers, weighted by their probabilities.
        score: f64,
        /// The probability of the likeliest level.
        confidence: f64,
        /// Those of all levels, from the lowest to the highest.
        probabilities: Vec<LevelProbability>,
    },
}

/// How probable a choice is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChoiceProbability {
    /// Value of the choice, as it was sent.
    pub value: ChoiceValue,
    /// From 0 to 1; those of a question add up to 1.
    pub probability: f64,
}

/// How probable a level is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LevelProbability {
    /// What the level is called.
    pub label: String,
    /// Its number, from 0 for the lowest.
    pub value: usize,
    /// From 0 to 1; those of a question add up to 1.
    pub probability: f64,
}

/// Token counts of a request for decisions.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct DecisionUsage {
    /// Tokens of the prompts of all questions, the input in each of them.
    pub input_tokens: usize,
    /// What the input tokens were.
    pub input_tokens_details: InputTokensDetails,
    /// Tokens of the choices that were run.
    pub output_tokens: usize,
    /// What the output tokens were.
    pub output_tokens_details: OutputTokensDetails,
    /// Sum of input and output.
    pub total_tokens: usize,
}

/// What the tokens of the prompts were.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct InputTokensDetails {
    /// Known from an earlier question or request.
    pub cached_tokens: usize,
    /// Always 0: what is kept for later costs nothing.
    pub cache_write_tokens: usize,
}
