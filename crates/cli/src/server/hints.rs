//! What to do about errors, in terms of requests: their fields, and the flags that the server's operator can set.

use super::ServeError;
use super::keys::KeyFileError;
use crate::sources::{BudgetError, FetchFault, SourceError, Unallowed};
use phi3v::Error;
use phi3v::constraint::ConstraintError;
use phi3v::engine::EngineError;
use phi3v::image::ImageError;
use phi3v::sampler::SamplerError;
use phi3v_kernels::BackendError;
use std::borrow::Cow;
use std::fmt;

/// What to do about an error: what the client can do, and what the server's operator can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// What the client can do, in words that may be followed by "or".
    pub asker: Cow<'static, str>,
    /// Continues `asker` if a server answers, including the separator: what the server reports or has logged.
    pub of_server: Option<&'static str>,
    /// What the server could be started with instead: a flag, which continues "or start the server with".
    pub start_with: Option<&'static str>,
}

impl Hint {
    /// A hint for both the client and the operator.
    const fn or_start_with(asker: &'static str, flag: &'static str) -> Self {
        Self { asker: Cow::Borrowed(asker), of_server: None, start_with: Some(flag) }
    }

    /// A hint that continues if a server answers.
    const fn with_server(asker: &'static str, of_server: &'static str) -> Self {
        Self { asker: Cow::Borrowed(asker), of_server: Some(of_server), start_with: None }
    }
}

impl From<&'static str> for Hint {
    fn from(asker: &'static str) -> Self {
        Self { asker: asker.into(), ..Self::default() }
    }
}

impl From<String> for Hint {
    fn from(asker: String) -> Self {
        Self { asker: asker.into(), ..Self::default() }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.asker, self.of_server.unwrap_or_default())?;
        self.start_with.map_or(Ok(()), |flag| write!(f, ", or start the server with {flag}"))
    }
}

/// Hints for an overloaded server, or one that is not ready yet.
pub(super) mod load {
    use super::Hint;

    pub(in crate::server) const LATER: &str = "try again later";
    pub(in crate::server) const WHEN_READY: &str = "try again in a few seconds; /ready says when";
    pub(in crate::server) const AFTER_RESTART: &str = "try again when it has been restarted";
    pub(in crate::server) const LESS_TIME: Hint =
        Hint::or_start_with("ask for fewer tokens", "a larger --request-seconds");
}

/// Hints for faults of the server.
pub(super) mod fault {
    use super::Hint;

    const WITH_LOG: &str = " with the server's log";
    pub(in crate::server) const LOG: Hint = Hint::with_server("report it", WITH_LOG);
    pub(in crate::server) const ONCE_MORE: Hint =
        Hint::with_server("ask again; if it comes again, report it", WITH_LOG);
    pub(in crate::server) const DEVICE: Hint = Hint::with_server(
        "try again in some seconds, when the model is loaded anew; if it comes again, report it",
        WITH_LOG,
    );
    pub(in crate::server) const RESTART: &str = "restart the server and report what its log says";
}

/// Hints for bodies and heads that are too large or too slow.
pub(super) mod size {
    use super::Hint;

    pub(in crate::server) const SMALLER_BODY: Hint =
        Hint::or_start_with("send fewer or smaller pictures", "a larger --body-mib");
    pub(in crate::server) const FASTER_BODY: &str =
        "send fewer or smaller pictures, or use a faster connection";
    pub(in crate::server) const PLAIN_BODY: &str = "send the body as it is, or with content-length";
    pub(in crate::server) const HEAD: &str =
        "correct the request line and the headers; content-length is one number of digits";
    pub(in crate::server) const ADDRESS: &str = "send what is long in the body";
    pub(in crate::server) const HEADERS: &str =
        "send fewer or shorter headers; 100 headers and 32 KiB are the limit";
}

/// Hints for bodies that are not valid requests.
pub(super) mod body {
    use super::Hint;

    pub(in crate::server) const WHOLE: &str = "send as many bytes as the header content-length says";
    pub(in crate::server) const TYPE: &str = "send the header content-type: application/json";
    pub(in crate::server) const ONE_TYPE: &str = "send one header content-type: application/json";
    pub(in crate::server) const ENCODING: &str =
        "send the body as it is, without the header content-encoding";
    pub(in crate::server) const UTF_8: &str = "write the JSON as UTF-8";
    pub(in crate::server) const VALUES: &str = "send fewer messages or a smaller schema";
    pub(in crate::server) const JSON: &str = "correct the JSON at that place";
    pub(in crate::server) const OBJECT: &str = "put the fields into braces";
    pub(in crate::server) const ONE_OF_KEYS: &str = "leave one of the two out";
    pub(in crate::server) const NEEDED_FIELDS: Hint =
        Hint::with_server("add what is missing", "; /openapi.json tells which fields are needed");
    pub(in crate::server) const KNOWN_FIELDS: Hint =
        Hint::with_server("leave it out", "; /openapi.json lists the fields that are");

    /// Returns the hint for an invalid value of the field `name`.
    pub(in crate::server) fn value(name: &str) -> Hint {
        let of_server = Some("; /openapi.json tells what it may be");
        Hint { asker: format!("correct {name}").into(), of_server, start_with: None }
    }
}

/// Hints for access control.
pub(super) mod access {
    use super::Hint;

    pub(in crate::server) const HOST: Hint = Hint::or_start_with("use the address", "--allow-host NAME");
    pub(in crate::server) const ONE_HOST: &str = "send one Host header";
    pub(in crate::server) const ORIGIN: &str = "start the server with --cors-origin ORIGIN";
    pub(in crate::server) const KEY: &str =
        "send the header authorization: Bearer KEY with a key of --api-key-file";
    pub(in crate::server) const ONE_KEY: &str = "send one header authorization";
    pub(in crate::server) const ROUTES: &str = "/openapi.json lists what there is";
    pub(in crate::server) const HTTP_1: &str = "let the client begin with HTTP/1.1";
}

/// Hints for the fields of a question.
pub(super) mod question {
    use super::Hint;

    pub(in crate::server) const PICTURE_OF_USER: &str = "put pictures into the user's messages";
    pub(in crate::server) const REFUSAL_OF_ASSISTANT: &str =
        "give the part the type of a text, or put it into the assistant's message";
    pub(in crate::server) const CHOICES: &str = "ask for fewer answers, or ask several times";
    pub(in crate::server) const NO_MESSAGE: &str = "add the user's message";
    pub(in crate::server) const MESSAGES: &str = "leave the oldest messages out";
    pub(in crate::server) const CALL_OF_OUTPUT: &str = "put the call with that call_id before its output";
    pub(in crate::server) const LAST_MESSAGE: &str = "add the user's next message";
    pub(in crate::server) const PICTURES: Hint =
        Hint::or_start_with("send fewer pictures", "a larger --images");
    pub(in crate::server) const PAGES: Hint =
        Hint::or_start_with("choose pages of the document, as \"pages\": \"1-3\"", "a larger --images");
    pub(in crate::server) const FILE_DATA: &str =
        "give it as file_data, a data URL; files are not kept here, so that there is no file_id";
    pub(in crate::server) const TEXT: &str = "shorten the text";
    pub(in crate::server) const QUESTIONS: &str = "ask some now and the others in another request";
    pub(in crate::server) const INSTRUCTIONS: &str = "say what is to be decided";
    pub(in crate::server) const PARTS: &str = "give a text, or parts";
    pub(in crate::server) const JSON: &str = "send an object, or other things as text";
    pub(in crate::server) const ONE_MAX_TOKENS: &str = "leave max_tokens out";
    pub(in crate::server) const LOGPROBS: &str = "set logprobs to true, or leave top_logprobs out";
    pub(in crate::server) const STREAM: &str = "set stream to true, or leave stream_options out";
    pub(in crate::server) const FORM: &str = "ask for a form of the answer, or leave fields out of include";
    pub(in crate::server) const NO_STREAM: &str = "leave stream and stream_options out";
    pub(in crate::server) const MODELS: &str = "/v1/models lists the model served";

    /// Returns the hint for a request for a model other than `name`.
    pub(in crate::server) fn model(name: &str) -> String {
        format!("this server has {name}; the field may also be left out")
    }

    /// Returns the hint for a sampler option that is out of its range.
    pub(in crate::server) fn option(name: &str) -> String {
        format!("correct {name}, or leave it out to use its default")
    }

    /// Returns the hint for a number of tokens in the field `name`.
    pub(in crate::server) fn max_tokens(name: &str) -> Hint {
        let asker = format!("correct {name} or leave it out").into();
        Hint { asker, of_server: None, start_with: Some("a larger --max-tokens") }
    }
}

impl<E: std::error::Error> ServeError<E> {
    /// Returns what the operator can do about the error: one sentence that names flags.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse => {
                "end the other program, or choose another port with --port"
            }
            Self::Listen { .. } => "choose another address with --host or --port",
            Self::EngineStopped => "report what the log says",
            Self::Start(_) | Self::Load(_) => return None,
        };
        Some(hint.to_owned())
    }
}

impl KeyFileError {
    /// Returns what the operator can do about the error, in one sentence. `None` for a file that the system refuses.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read(_) => None,
            Self::Empty | Self::Short { .. } | Self::Odd { .. } => Some(
                "write one key a line, as made by openssl rand -hex 24; a line that begins with # is a comment",
            ),
        }
    }
}

/// Returns what a client can do about an error of the library.
pub(super) fn library(error: &Error) -> Option<Hint> {
    let hint = match error.root() {
        Error::Engine(EngineError::ContextLength { .. }) => {
            let asker = "shorten the text, send fewer pictures or ask for detail low, lower max_tokens";
            return Some(Hint::or_start_with(asker, "a larger --context"));
        }
        Error::Engine(EngineError::NoNewTokens) => "ask for at least 1 token with max_tokens",
        Error::Engine(EngineError::QueueFull { .. }) => load::LATER,
        Error::Backend(BackendError::Device { .. }) => return Some(fault::DEVICE),
        Error::Backend(_) => {
            let asker = "try again later, send fewer pictures";
            return Some(Hint::or_start_with(asker, "a smaller --context"));
        }
        Error::Constraint(ConstraintError::NotAllowed { .. } | ConstraintError::NotValid { .. }) => {
            return Some(fault::ONCE_MORE);
        }
        Error::Sampler(SamplerError::BadLogit { .. }) => {
            "check the checkpoint's files and the copies quantized from them, or try --dtype f32 if they are right"
        }
        Error::Constraint(_) | Error::Processor(_) | Error::Sampler(_) | Error::Decide(_) => {
            return error.hint().map(Hint::from);
        }
        Error::Image(error) => return image(error),
        _ => return Some(fault::ONCE_MORE),
    };
    Some(hint.into())
}

/// Returns what a client can do about an invalid picture.
pub(super) fn image(error: &ImageError) -> Option<Hint> {
    let hint = match error {
        ImageError::Bytes { bytes: 1.., .. }
        | ImageError::Pixels { .. }
        | ImageError::Side { .. }
        | ImageError::OutOfMemory { .. } => "scale the picture down",
        ImageError::Frames { format: "TIFF", .. } => "choose among its first pages",
        ImageError::Frames { .. } => "send its first frame, or the picture saved as PNG",
        ImageError::TooNarrow { .. } => "crop the picture, or ask for detail high",
        ImageError::NumCrops { .. } | ImageError::Normalisation { .. } => return Some(fault::LOG),
        other => return other.hint().map(Hint::from),
    };
    Some(hint.into())
}

/// Returns what a client can do about a picture that could not be obtained.
pub(super) fn source(error: &SourceError) -> Hint {
    const DATA_URL: &str = "send the picture as a data URL";
    let hint = match error {
        SourceError::DataUrl(_) => "write it as data:image/png;base64,iVBORw0K...",
        SourceError::NotAllowed(Unallowed::Http | Unallowed::Host) => {
            return Hint::or_start_with(DATA_URL, "--allow-image-host");
        }
        SourceError::NotAllowed(Unallowed::Files) => {
            return Hint::or_start_with(DATA_URL, "--allow-image-dir");
        }
        SourceError::NotAllowed(Unallowed::Scheme | Unallowed::UserName | Unallowed::PrivateHost) => DATA_URL,
        SourceError::NoFile => "give the path of a file below the folder of --allow-image-dir",
        SourceError::TooLarge { .. } => "scale the picture down or compress it more",
        SourceError::Fetch(FetchFault::Time { .. }) => "try again later, or send the picture as a data URL",
        SourceError::Fetch(_) => "open the address in a browser, or send the picture as a data URL",
        SourceError::Budget(error) => budget(error),
    };
    hint.into()
}

/// Returns what a client can do about an input that does not fit into memory.
pub(super) fn budget(error: &BudgetError) -> &'static str {
    match error {
        BudgetError::TooLarge { .. } => "send fewer or smaller pictures, or set their detail to low",
        BudgetError::Full => load::LATER,
    }
}

/// Returns `message` without the words that name places: network addresses, files, memory addresses. The grammar
/// engine's reasons may contain such words.
pub(super) fn without_places(message: &str) -> String {
    let is_place = |word: &str| {
        // a pointer into a schema begins with #, and stays
        let word = word.trim_matches(|letter: char| !letter.is_alphanumeric() && !"/~#".contains(letter));
        let hexadecimal = word.strip_prefix("0x").is_some_and(|digits| digits.len() >= 6);
        let file = word.starts_with('/') || word.starts_with("~/") || word.contains(".rs:");
        hexadecimal || file || word.contains("://") || word.contains(":\\")
    };
    let words = message.split_whitespace().map(|word| if is_place(word) { "(left out)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn hints_name_fields_and_no_flags_of_the_command_line() {
        let context = EngineError::ContextLength { prompt: 1, answer: 2, context: 2 };
        let errors = [
            context.into(),
            EngineError::NoNewTokens.into(),
            EngineError::QueueFull { waiting: 1 }.into(),
            Error::Shared(Arc::new(EngineError::NoNewTokens.into())),
        ];
        for error in errors {
            let hint = library(&error).unwrap().to_string();
            for flag in ["--detail", "--max-new-tokens", "--num-crops", "--dtype"] {
                assert!(!hint.contains(flag), "{hint}");
            }
        }
    }

    #[test]
    fn reasons_are_told_without_places() {
        for (message, told) in [
            ("cannot follow \"http://10.0.0.1/x.json\": no", "cannot follow (left out) no"),
            ("failed at /home/me/llguidance/src/lib.rs:12", "failed at (left out)"),
            ("object at 0x7f001234abcd", "object at (left out)"),
            ("the pattern #/properties/a is wrong: (0x1)", "the pattern #/properties/a is wrong: (0x1)"),
        ] {
            assert_eq!(without_places(message), told);
        }
    }
}
