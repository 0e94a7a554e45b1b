//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code", "hint"}}`.
//!
//! `code` is stable and `message` is the library's own sentence. Messages of decoders, the file system and the network
//! are not repeated: they could reveal details of the machine, or of what lies behind an address.

pub use super::codes::Code;
use super::hints;
pub use super::hints::Hint;
use crate::documents::DocumentError;
use crate::sources::{BudgetError, SourceError};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use phi3v::image::ImageError;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// Tells the official clients whether to retry.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// When other requests may have released memory.
const BUDGET_RETRY: Duration = Duration::from_secs(5);

/// Why a request was refused or ended, with the details that HTTP and OpenAI's clients need.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The kind of error, which also determines the HTTP status.
    pub code: Code,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<Box<Hint>>,
    /// The invalid field.
    pub param: Option<String>,
    /// When a retry makes sense.
    pub retry_after: Option<Duration>,
}

/// The JSON body of an error, an object around its fields as OpenAI has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// The fields of the error.
    pub error: ErrorFields,
}

/// The fields of an error in OpenAI's shape, with a hint as an extension.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorFields {
    /// What is wrong, one sentence.
    pub message: String,
    /// OpenAI's class of the error.
    pub r#type: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// Stable name of the error.
    pub code: &'static str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// Creates an error without a hint, a field or a retry time.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, param: None, retry_after: None }
    }

    /// Returns the HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Creates an error with status 400 and code `invalid_value`, for a field whose value cannot be used.
    pub fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        let hint = hints::body::value(&param);
        Self::new(Code::InvalidValue, message).param(param).hint(hint)
    }

    /// Creates the error for a field that this server does not support and that would change the answer.
    pub fn unsupported_field(name: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self::new(Code::UnsupportedField, format!("the field {name} is not supported"))
            .param(name)
            .hint(hints::body::KNOWN_FIELDS)
    }

    /// Creates an error with status 400 for a body that is not valid JSON, with the position.
    pub fn not_json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let message = format!("the body is not valid JSON: see line {line}, column {column}");
        Self::new(Code::InvalidJson, message).hint(hints::body::JSON)
    }

    /// Creates an error with status 500 for something that should not happen. `message` must be safe to show to
    /// strangers.
    pub fn internal(message: &str) -> Self {
        Self::new(Code::InternalError, message).hint(hints::fault::LOG)
    }

    /// Creates an error with status 500 for a server whose engine thread has ended: it answers no more questions.
    pub fn engine_stopped() -> Self {
        Self::new(Code::EngineStopped, "the engine has stopped").hint(hints::fault::RESTART)
    }

    /// Adds a hint: what the client can do about the error, in one sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(Box::new(hint.into()));
        self
    }

    /// Adds the invalid field, as a path such as `messages[0].content`.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds the header `Retry-After`: when a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Creates the error for a picture that cannot be decoded or is over a limit; `param` is its field.
    pub fn image(error: &ImageError, param: &str) -> Self {
        let code = match error {
            ImageError::Bytes { bytes, .. } if *bytes > 0 => Code::ImageTooLarge,
            ImageError::Pixels { .. }
            | ImageError::Side { .. }
            | ImageError::Frames { .. }
            | ImageError::OutOfMemory { .. } => Code::ImageTooLarge,
            ImageError::UnsupportedFormat { .. } | ImageError::UnsupportedKind { .. } => {
                Code::ImageFormatUnsupported
            }
            _ => Code::ImageInvalid,
        };
        let message = match error {
            ImageError::NotAnImage { .. } => "this is not a picture".to_owned(),
            ImageError::Damaged { format, .. } => format!("the {format} picture is damaged"),
            other => other.to_string(),
        };
        Self { hint: hints::image(error).map(Box::new), ..Self::new(code, message).param(param) }
    }

    /// Creates the error for a document that cannot be drawn, or for a picture in its place; `param` is its field.
    pub fn document(error: &DocumentError, param: &str) -> Self {
        let (code, hint) = match error {
            DocumentError::Image(error) => return Self::image(error, param),
            DocumentError::ManyPages { .. } => (Code::TooManyImages, Some(hints::question::PAGES)),
            DocumentError::Start(_) | DocumentError::Replaced { .. } => {
                return Self::internal("documents, HEIC and AVIF cannot be read");
            }
            DocumentError::PictureTime { .. } | DocumentError::PictureMemory { .. } => {
                (Code::ImageInvalid, error.hint().map(Hint::from))
            }
            other => (Code::DocumentUnusable, other.hint().map(Hint::from)),
        };
        let hint = hint.map(Box::new);
        Self { hint, ..Self::new(code, error.to_string()).param(param) }
    }

    /// Creates the error for a picture whose bytes could not be read or fetched, with what the client can do about it.
    pub fn source(error: &SourceError) -> Self {
        let code = match error {
            SourceError::DataUrl(_) => Code::ImageUrlInvalid,
            SourceError::NotAllowed(_) | SourceError::NoFile => Code::ImageSourceNotAllowed,
            SourceError::TooLarge { .. } => Code::ImageTooLarge,
            SourceError::Fetch(_) => Code::ImageFetchFailed,
            SourceError::Budget(error) => return Self::budget(error),
        };
        Self::new(code, error.to_string()).hint(hints::source(error))
    }

    /// Creates the error for a body or pictures that do not fit into the memory set aside for inputs.
    pub fn budget(error: &BudgetError) -> Self {
        let refused = |code| Self::new(code, error.to_string()).hint(hints::budget(error));
        match error {
            BudgetError::TooLarge { .. } => refused(Code::InputTooLarge),
            BudgetError::Full => refused(Code::QueueFull).retry_after(BUDGET_RETRY),
        }
    }

    /// Creates the error for a failure or refusal of the library, with only what a stranger may know.
    pub fn library(error: &phi3v::Error) -> Self {
        let error = error.root();
        use phi3v::constraint::ConstraintError;
        use phi3v::engine::EngineError;
        use phi3v::sampler::SamplerError;
        use phi3v_kernels::BackendError;
        let internal = || {
            let message = "the answer could not be computed".to_owned();
            (Code::InternalError, message)
        };
        let (code, message) = match error {
            phi3v::Error::Engine(EngineError::ContextLength { .. }) => {
                (Code::ContextLengthExceeded, error.to_string())
            }
            phi3v::Error::Constraint(ConstraintError::NotAllowed { .. }) => internal(),
            phi3v::Error::Constraint(ConstraintError::NotValid { .. }) => {
                (Code::InternalError, error.to_string())
            }
            phi3v::Error::Constraint(_) => {
                (Code::ResponseFormatUnusable, hints::without_places(&error.to_string()))
            }
            phi3v::Error::Sampler(SamplerError::BadLogit { .. })
            | phi3v::Error::Engine(EngineError::DamagedCache) => internal(),
            phi3v::Error::Sampler(SamplerError::OutOfRange { name, .. }) => {
                return Self::invalid_value(*name, error.to_string()).hint(hints::question::option(name));
            }
            phi3v::Error::Engine(_)
            | phi3v::Error::Processor(_)
            | phi3v::Error::Sampler(_)
            | phi3v::Error::Decide(_) => (Code::InvalidValue, error.to_string()),
            phi3v::Error::Backend(BackendError::Device { .. }) => (Code::DeviceFailed, error.to_string()),
            phi3v::Error::Backend(_) => (Code::OutOfMemory, error.to_string()),
            _ => internal(),
        };
        Self { hint: hints::library(error).map(Box::new), ..Self::new(code, message) }
    }

    /// Returns whether the official clients may retry by themselves, as they do after every status from 500 on.
    fn may_be_retried(&self) -> bool {
        match self.code {
            // nothing answers any more, or a retry takes just as long
            Code::EngineStopped | Code::DeadlineExceeded => false,
            // without the hint to retry, a retry would fail the same way
            Code::InternalError => self.hint.as_deref() == Some(&hints::fault::ONCE_MORE),
            _ => true,
        }
    }

    /// Returns OpenAI's class of the error.
    fn class(&self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::NOT_FOUND => "not_found_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Returns the JSON body of the error, in OpenAI's shape.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorFields {
                message: self.message.clone(),
                r#type: self.class(),
                param: self.param.clone(),
                code: self.code.name(),
                hint: self.hint.as_ref().map(ToString::to_string),
            },
        }
    }

    /// Returns the body as JSON, as it is sent to the client and in streams.
    pub fn json(&self) -> String {
        serde_json::to_string(&self.body()).expect("an error body holds only texts")
    }
}

impl From<phi3v::Error> for ApiError {
    fn from(error: phi3v::Error) -> Self {
        Self::library(&error)
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        Self::source(&error)
    }
}

impl From<BudgetError> for ApiError {
    fn from(error: BudgetError) -> Self {
        Self::budget(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status(), [(header::CONTENT_TYPE, "application/json")], self.json()).into_response();
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if !self.may_be_retried() {
            response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        // the request's log line names the error; see `super::log`
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{DataUrlFault, FetchFault, Unallowed};

    #[test]
    fn an_error_that_requests_share_counts_as_itself() {
        use phi3v::engine::EngineError;
        use phi3v::sampler::SamplerError;
        let errors: [fn() -> phi3v::Error; 3] = [
            || phi3v_kernels::BackendError::OutOfMemory { bytes: 7 }.into(),
            || EngineError::DamagedCache.into(),
            || SamplerError::BadLogit { token: 1, value: f32::NAN }.into(),
        ];
        for error in errors {
            let shared = phi3v::Error::Shared(std::sync::Arc::new(error()));
            assert_eq!(ApiError::library(&shared), ApiError::library(&error()));
        }
    }

    #[test]
    fn an_answer_that_does_not_validate_is_no_fault_of_the_request() {
        let reason = "1 is not of type string (at /a)".to_owned();
        let told = ApiError::library(&phi3v::constraint::ConstraintError::NotValid { reason }.into());
        assert_eq!(told.code, Code::InternalError);
        assert!(told.message.ends_with("does not satisfy its JSON schema: 1 is not of type string (at /a)"));
        assert!(told.hint.is_some_and(|hint| hint.to_string().starts_with("ask again")));
    }

    #[test]
    fn an_array_that_has_run_out_of_items_is_a_fault_of_the_schema() {
        let told = ApiError::library(&phi3v::constraint::ConstraintError::NoOtherItem.into());
        assert_eq!(told.code, Code::ResponseFormatUnusable);
        assert!(told.hint.is_some_and(|hint| hint.to_string().contains("maxItems")));
    }

    /// Returns the value of the header that tells the official clients whether to retry.
    fn should_retry(error: ApiError) -> Option<String> {
        let response = error.into_response();
        response.headers().get(&X_SHOULD_RETRY).map(|told| told.to_str().unwrap().to_owned())
    }

    #[test]
    fn clients_are_told_not_to_ask_again_where_the_same_would_come_of_it() {
        for code in Code::ALL {
            let is_final = ["internal_error", "engine_stopped", "deadline_exceeded"].contains(&code.name());
            let told = should_retry(ApiError::new(*code, ""));
            assert_eq!(told.as_deref(), is_final.then_some("false"), "{}", code.name());
        }
    }

    #[test]
    fn clients_ask_again_where_people_are_told_to() {
        use phi3v::constraint::ConstraintError;
        use phi3v::engine::EngineError;
        use phi3v::sampler::SamplerError;
        let reason = String::new();
        for (error, again) in [
            (ApiError::library(&ConstraintError::NotValid { reason }.into()), true),
            (ApiError::library(&EngineError::DamagedCache.into()), true),
            (ApiError::library(&SamplerError::BadLogit { token: 1, value: f32::NAN }.into()), false),
            (ApiError::internal("the request could not be prepared"), false),
        ] {
            assert_eq!(error.code, Code::InternalError, "{error:?}");
            let hint = error.hint.as_ref().unwrap().to_string();
            assert_eq!(hint.starts_with("ask again"), again, "{hint}");
            assert_eq!(should_retry(error).as_deref(), (!again).then_some("false"), "{hint}");
        }
    }

    #[test]
    fn a_picture_that_there_is_no_memory_for_is_too_large() {
        let told = ApiError::image(&ImageError::OutOfMemory { bytes: 7 }, "messages");
        assert_eq!(told.code, Code::ImageTooLarge);
        assert_eq!(told.hint.unwrap().to_string(), "scale the picture down");
    }

    /// A source error, and what a client receives: code, message, hint.
    type Told = (SourceError, Code, &'static str, &'static str);

    fn told() -> [Told; 9] {
        use SourceError::{Budget, DataUrl, Fetch, NoFile, NotAllowed, TooLarge};
        let seconds = Duration::from_secs(15);
        [
            (
                DataUrl(DataUrlFault::NoComma),
                Code::ImageUrlInvalid,
                "the data URL has no comma",
                "write it as data:image/png;base64,iVBORw0K...",
            ),
            (
                NotAllowed(Unallowed::Http),
                Code::ImageSourceNotAllowed,
                "pictures from http addresses are not allowed",
                "send the picture as a data URL, or start the server with --allow-image-host",
            ),
            (
                NotAllowed(Unallowed::PrivateHost),
                Code::ImageSourceNotAllowed,
                "pictures from hosts outside the public internet are not allowed",
                "send the picture as a data URL",
            ),
            (
                NoFile,
                Code::ImageSourceNotAllowed,
                "there is no picture that may be read at this address",
                "give the path of a file below the folder of --allow-image-dir",
            ),
            (
                TooLarge { limit: 4 },
                Code::ImageTooLarge,
                "the picture has more than 4 bytes, the limit",
                "scale the picture down or compress it more",
            ),
            (
                Fetch(FetchFault::Redirects { limit: 3 }),
                Code::ImageFetchFailed,
                "the picture's server redirected more than 3 times, the limit",
                "open the address in a browser, or send the picture as a data URL",
            ),
            (
                Fetch(FetchFault::Time { limit: seconds }),
                Code::ImageFetchFailed,
                "the picture was not fetched within 15 s, the limit",
                "try again later, or send the picture as a data URL",
            ),
            (
                Budget(BudgetError::TooLarge { bytes: 9, limit: 8 }),
                Code::InputTooLarge,
                "the body and the pictures of the request take 9 bytes or more, the limit is 8",
                "send fewer or smaller pictures, or set their detail to low",
            ),
            (
                Budget(BudgetError::Full),
                Code::QueueFull,
                "the bodies and pictures of other requests fill the memory set aside for them",
                "try again later",
            ),
        ]
    }

    #[test]
    fn a_source_that_gave_nothing_is_told_in_the_clients_terms() {
        for (error, code, message, hint) in told() {
            let told = ApiError::from(error);
            assert_eq!(told.code, code);
            let told_hint = told.hint.map(|hint| hint.to_string());
            assert_eq!((told.message.as_str(), told_hint.as_deref()), (message, Some(hint)));
            let again = (code == Code::QueueFull).then_some(Duration::from_secs(5));
            assert_eq!(told.retry_after, again, "{code:?}");
        }
    }
}
