//! A row of the results, in the format of OpenAI's batches: `{id, custom_id, response: {status_code, request_id, body},
//! error}`. A row does not depend on when it was made or which requests ran beside it: the same job gives the same rows.

use crate::server::error::{ApiError, Hint};
use crate::server::openai::offline::{Extras, Stamp, completion};
use crate::sources::Budget;
use phi3v::batch::Answer;
use phi3v::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// What the rows of a job have in common.
#[derive(Clone, Debug)]
pub struct RowMaker {
    /// The digest that names the job.
    pub job: String,
    /// When the job was first started, in seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// Decodes the tokens listed with log probabilities.
    pub tokenizer: Arc<Tokenizer>,
    /// The user's name for the limit of an answer's tokens.
    pub limit: &'static str,
}

/// A row to be written.
pub struct RowKey {
    /// Name of the input.
    pub custom_id: String,
    /// Number of answers.
    pub choices: usize,
    /// What the answers carry besides their text.
    pub extras: Extras,
    /// What may make the answers wrong: parts of the picture that the model could not see.
    pub warning: Option<String>,
    /// Memory held by the row's requests.
    pub(super) _budget: Option<Budget>,
}

/// A line of results, in the format of OpenAI's batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The row's id, the same in every run.
    pub id: String,
    /// Name of the input.
    pub custom_id: String,
    /// What a server would have answered.
    pub response: RowResponse,
    /// Why there is no answer.
    pub error: Option<RowError>,
    /// What may make the answer wrong, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What a server would have answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowResponse {
    /// 200, or the status of the error.
    pub status_code: u16,
    /// The request's id, the same in every run.
    pub request_id: String,
    /// A chat completion, or an error.
    pub body: Value,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowError {
    /// Stable name of the error.
    pub code: String,
    /// What failed, in one sentence.
    pub message: String,
}

impl RowMaker {
    /// The row for `key` with its `answers` and the requested extras.
    #[must_use]
    pub fn answered(&self, key: &RowKey, answers: &[Answer]) -> Row {
        let RowKey { custom_id, extras, .. } = key;
        let stamp =
            Stamp { id: self.name("chatcmpl-", custom_id), created: self.created, model: self.model.clone() };
        match completion(stamp, answers, extras, &self.tokenizer) {
            Ok(completion) => {
                Row { warning: key.warning.clone(), ..self.row(custom_id, 200, body(&completion)) }
            }
            Err(error) => self.failed(custom_id, &error),
        }
    }

    /// The row for an input that could not be answered.
    #[must_use]
    pub fn failed(&self, custom_id: &str, error: &ApiError) -> Row {
        let error = in_a_batch(error.clone(), self.limit);
        let told = RowError { code: error.code.name().to_owned(), message: error.message.clone() };
        Row { error: Some(told), ..self.row(custom_id, error.status().as_u16(), body(&error.body())) }
    }

    fn row(&self, custom_id: &str, status_code: u16, body: Value) -> Row {
        let response = RowResponse { status_code, request_id: self.name("req_", custom_id), body };
        Row {
            id: self.name("batch_req_", custom_id),
            custom_id: custom_id.to_owned(),
            response,
            error: None,
            warning: None,
        }
    }

    /// An id that is the same in every run of the job.
    fn name(&self, prefix: &str, custom_id: &str) -> String {
        let hash = salt(&self.job, custom_id);
        let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{prefix}{digits}")
    }
}

/// A digest unique to one input of one job.
#[must_use]
pub fn salt(job: &str, custom_id: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(job.as_bytes()).update(&[0]).update(custom_id.as_bytes());
    hasher.finalize().into()
}

fn body(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("wire types have no maps with keys that are not strings")
}

impl Row {
    /// Whether the row has an error.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.error.is_some()
    }

    /// What can be done about the error, if known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.response.body.pointer("/error/hint")?.as_str().filter(|_| self.is_failed())
    }

    /// The text of the first answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        self.response.body.pointer("/choices/0/message/content")?.as_str().filter(|_| !self.is_failed())
    }

    /// Why the first answer ended, if there is one.
    #[must_use]
    pub fn finish_reason(&self) -> Option<&str> {
        self.response.body.pointer("/choices/0/finish_reason")?.as_str()
    }
}

/// A server error without the advice meant for clients or operators of a server; `limit` is the batch's name for the token
/// limit.
fn in_a_batch(mut error: ApiError, limit: &str) -> ApiError {
    if let Some(Hint { asker, of_server, start_with }) = error.hint.as_deref_mut() {
        *of_server = None;
        *asker = asker.replace("max_tokens", limit).into();
        let or = match start_with.take() {
            Some("--allow-image-host") => "allow its host with --allow-url",
            Some("--allow-image-dir") => "allow its folder with --allow-image-dir",
            Some("a larger --context") => "give a larger --context",
            Some("a smaller --context") => "give a smaller --context",
            _ => return error,
        };
        *asker = format!("{asker}, or {or}").into();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::Code;
    use crate::sources::{SourceError, Unallowed};
    use phi3v::constraint::ConstraintError;
    use phi3v::engine::EngineError;
    use phi3v_kernels::BackendError;

    #[test]
    fn a_row_advises_what_the_user_of_a_batch_can_do() {
        let context = EngineError::ContextLength { prompt: 1, answer: 2, context: 2 };
        let bug = ConstraintError::NotValid { reason: "a bug".to_owned() };
        let larger = Hint { asker: "do this".into(), of_server: None, start_with: Some("a larger --images") };
        let cases = [
            (
                ApiError::source(&SourceError::NotAllowed(Unallowed::Http)),
                "send the picture as a data URL, or allow its host with --allow-url",
            ),
            (
                ApiError::source(&SourceError::NotAllowed(Unallowed::Files)),
                "send the picture as a data URL, or allow its folder with --allow-image-dir",
            ),
            (
                ApiError::library(&context.into()),
                "shorten the text, send fewer pictures or ask for detail low, lower max_tokens, or give a larger --context",
            ),
            (
                ApiError::library(&BackendError::OutOfMemory { bytes: 7 }.into()),
                "try again later, send fewer pictures, or give a smaller --context",
            ),
            (ApiError::new(Code::TextTooLong, "y").hint(larger), "do this"),
            (ApiError::invalid_value("seed", "x"), "correct seed"),
            (ApiError::unsupported_field("x"), "leave it out"),
            (ApiError::internal("x"), "report it"),
            (ApiError::library(&bug.into()), "ask again; if it comes again, report it"),
        ];
        for (error, hint) in cases {
            let told = |limit| in_a_batch(error.clone(), limit).hint.unwrap().to_string();
            assert_eq!(told("max_tokens"), hint);
            assert_eq!(told("--max-new-tokens"), hint.replace("max_tokens", "--max-new-tokens"));
        }
    }
}
