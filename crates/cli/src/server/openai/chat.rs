//! `POST /v1/chat/completions`.

use super::chat_stream::ChatStream;
use super::content::{Content, Part, parts};
use super::extras::{self, AnswerExtras, Extras, Told};
use super::session::{Session, finish_reason};
use super::types::{
    AnswerMessage, ChatCompletion, ChatMessage, ChatRequest, Choice, ContentPart, ImageFields, Logprobs,
    ResponseFormat, StreamOptions, UsageFields,
};
use super::{models, parse, stream};
use crate::server::ask::{Ask, Names, Turn, TurnPart};
use crate::server::engine_thread::Update;
use crate::server::error::ApiError;
use crate::server::guard::Caller;
use crate::server::hints;
use crate::server::limits::Times;
use crate::server::state::{App, fresh_id, unix_seconds};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use phi3v::chat_template::Role;
use phi3v::constraint::Grammar;
use phi3v::engine::{CacheSalt, Finished, Token};
use phi3v::sampler::SamplingParams;
use phi3v::tokenizer::Tokenizer;
use std::sync::Arc;

/// The names of fields in this API.
const NAMES: Names = Names { turns: "messages", form: "response_format" };

/// Maximum for `top_logprobs`.
const TOP_LOGPROBS_MAX: usize = SamplingParams::LOGPROBS_MAX;

/// Answers a conversation.
///
/// # Errors
/// What is wrong with the request, or why it cannot be answered.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let times = Times::start(&app.limits);
    let model = app.ready()?.clone();
    let (request, budget) = parse::read::<ChatRequest>(&app, &headers, body, caller.cache_salt).await?;
    models::check_name(&model, request.model.as_deref())?;
    let streamed = request.stream.unwrap_or(false);
    let options = stream_options(request.stream_options, streamed)?;
    let Asked { ask, extras } = asked(request)?;
    let ask = Ask { cache_salt: caller.cache_salt, ..ask };
    ask.check(&app.limits)?;
    let choices = ask.choices;
    let progress = streamed && options.include_progress;
    let session = Session::start(&app, &model, ask, budget, progress, times).await?;
    if streamed {
        let (id, created, usage) = (fresh_id("chatcmpl-"), unix_seconds(), UsageFields::default());
        let extras = AnswerExtras::several(choices, &extras, &model.tokenizer);
        let render = ChatStream { id, created, model: model.name, extras, options, usage };
        return Ok(stream::response(session, render));
    }
    let answers = Answers::new(choices, &extras, &model.tokenizer);
    let answers = whole(session, answers).await?;
    let stamp = Stamp { id: fresh_id("chatcmpl-"), created: unix_seconds(), model: model.name };
    Ok(Json(answers.completion(stamp)).into_response())
}

/// Returns the options of a stream, with defaults if none were given.
///
/// # Errors
/// Options were given, but the answer is not streamed.
pub(super) fn stream_options(
    options: Option<StreamOptions>,
    streamed: bool,
) -> Result<StreamOptions, ApiError> {
    if options.is_some() && !streamed {
        let message = "stream_options needs stream to be true";
        let error = ApiError::invalid_value("stream_options", message);
        return Err(error.hint(hints::question::STREAM));
    }
    Ok(options.unwrap_or_default())
}

/// Returns the sampler's `top_p`. OpenAI's may be 0, which leaves the likeliest token; so does the smallest value that
/// the sampler accepts.
pub(super) fn top_p(asked: Option<f32>) -> f32 {
    match asked {
        Some(0.0) => f32::MIN_POSITIVE,
        asked => asked.unwrap_or(SamplingParams::default().top_p),
    }
}

/// A request in the server's own types, and what its answers must carry.
pub(super) struct Asked {
    /// The question, without a cache salt.
    pub(super) ask: Ask,
    /// What answers carry in addition to their text.
    pub(super) extras: Extras,
}

/// Converts a request.
///
/// # Errors
/// The first invalid field.
pub(super) fn asked(request: ChatRequest) -> Result<Asked, ApiError> {
    let (logprobs, include) = (request.logprobs.unwrap_or(false), request.include.clone());
    let ask = ask(request)?;
    let extras = Extras::included(&include.unwrap_or_default(), ask.form.as_ref())?;
    Ok(Asked { ask, extras: Extras { logprobs, ..extras } })
}

/// Converts the request to the server's own types, without a cache salt.
///
/// # Errors
/// The first invalid field.
pub fn ask(request: ChatRequest) -> Result<Ask, ApiError> {
    let sampling = sampling(&request)?;
    let max_tokens = match (request.max_completion_tokens, request.max_tokens) {
        (Some(_), Some(_)) => {
            let message = "max_tokens and max_completion_tokens cannot both be given";
            return Err(ApiError::invalid_value("max_tokens", message).hint(hints::question::ONE_MAX_TOKENS));
        }
        (Some(tokens), None) => Some((tokens, "max_completion_tokens")),
        (None, tokens) => tokens.map(|tokens| (tokens, "max_tokens")),
    };
    let turns = request.messages.into_iter().enumerate().map(|(index, message)| turn(index, message));
    Ok(Ask {
        names: NAMES,
        turns: turns.collect::<Result<_, _>>()?,
        sampling,
        choices: request.n.unwrap_or(1),
        max_tokens,
        stop: request.stop,
        form: request.response_format.and_then(form),
        cache_salt: CacheSalt::default(),
    })
}

/// Converts the form of the answer to the library's type.
fn form(format: ResponseFormat) -> Option<Grammar> {
    match format {
        ResponseFormat::Text {} => None,
        ResponseFormat::JsonObject {} => Some(Grammar::JsonObject),
        ResponseFormat::JsonSchema { json_schema } => Some(Grammar::JsonSchema(json_schema.schema)),
        ResponseFormat::Choices { choices } => Some(Grammar::Choices(choices)),
        ResponseFormat::Regex { pattern } => Some(Grammar::Regex(pattern)),
        ResponseFormat::Grammar { grammar } => Some(Grammar::Lark(grammar)),
    }
}

fn sampling(request: &ChatRequest) -> Result<SamplingParams, ApiError> {
    let logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (false, Some(1..)) => {
            let error = ApiError::invalid_value("top_logprobs", "top_logprobs needs logprobs to be true");
            return Err(error.hint(hints::question::LOGPROBS));
        }
        (_, Some(top)) if top > TOP_LOGPROBS_MAX => {
            let message = format!("top_logprobs is {top}, it must be 0 to {TOP_LOGPROBS_MAX}");
            return Err(ApiError::invalid_value("top_logprobs", message));
        }
        (true, top) => Some(top.unwrap_or(0)),
        // the probabilities of words and fields are computed from those of the tokens
        (false, _) => request.include.as_ref().filter(|include| !include.is_empty()).map(|_| 0),
    };
    let default = SamplingParams::default();
    let top_k = match request.top_k {
        None => default.top_k,
        // vLLM's clients turn it off this way
        Some(-1) => 0,
        Some(k) => usize::try_from(k)
            .map_err(|_| ApiError::invalid_value("top_k", format!("top_k is {k}, it must be -1 or more")))?,
    };
    Ok(SamplingParams {
        temperature: request.temperature.unwrap_or(default.temperature),
        top_k,
        top_p: top_p(request.top_p),
        min_p: request.min_p.unwrap_or(default.min_p),
        repetition_penalty: request.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: request.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: request.frequency_penalty.unwrap_or(default.frequency_penalty),
        seed: request.seed.map(|seed| seed as u64),
        logprobs,
    })
}

fn turn(index: usize, message: ChatMessage) -> Result<Turn, ApiError> {
    let role = Role::from(message.role);
    if !message.tool_calls.is_empty() {
        return Err(ApiError::unsupported_field(&format!("messages[{index}].tool_calls")));
    }
    let place = format!("messages[{index}].content");
    let Some(content) = message.content.or(message.refusal.map(Content::Text)) else {
        let error = ApiError::invalid_value(place, "the message has no content");
        return Err(error.hint(hints::question::PARTS));
    };
    Ok(Turn { role, parts: parts(role, content, &place)? })
}

impl Part for ContentPart {
    fn told(self, role: Role, place: String) -> Result<TurnPart, ApiError> {
        match self {
            Self::Text { text, .. } => Ok(TurnPart::Text(text)),
            Self::Refusal { refusal } => TurnPart::refusal(role, refusal, place),
            Self::File { file, .. } => TurnPart::file(role, file.into(), place + ".file"),
            Self::ImageUrl { image_url, .. } => {
                let ImageFields { url, detail } = image_url.into();
                TurnPart::image(role, url, detail, place + ".image_url")
            }
        }
    }
}

/// Waits for all answers.
async fn whole(mut session: Session, mut answers: Answers) -> Result<Answers, ApiError> {
    while session.remaining > 0 {
        match session.updates.next().await? {
            Update::Token(index, token) => answers.token(index, &token),
            Update::Finished(index, finished) => {
                answers.finish(index, &finished)?;
                session.remaining -= 1;
            }
            Update::Progress(_) => {}
        }
    }
    Ok(answers)
}

/// The name and date of a completion.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The answer's own id, such as `chatcmpl-...`.
    pub id: String,
    /// When the answer was created, in seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
}

/// The answers to one request while they are being generated.
pub(super) struct Answers {
    /// The text so far, in the order of the choices.
    choices: Vec<Choice>,
    /// Token counts of the finished answers.
    pub(super) usage: UsageFields,
    extras: Vec<AnswerExtras>,
}

impl Answers {
    /// Starts `choices` answers, with their `extras`.
    pub(super) fn new(choices: usize, extras: &Extras, tokenizer: &Arc<Tokenizer>) -> Self {
        let empty = |index| Choice {
            index,
            message: AnswerMessage { role: "assistant", content: String::new(), refusal: None },
            logprobs: extras.logprobs.then(Logprobs::default),
            words: extras.words.then(Vec::new),
            fields: None,
            finish_reason: "stop",
        };
        Self {
            choices: (0..choices).map(empty).collect(),
            usage: UsageFields::default(),
            extras: AnswerExtras::several(choices, extras, tokenizer),
        }
    }

    /// Returns all answers in the shape of the API.
    pub(super) fn completion(self, Stamp { id, created, model }: Stamp) -> ChatCompletion {
        let Self { choices, usage, .. } = self;
        ChatCompletion { id, object: "chat.completion", created, model, choices, usage }
    }

    /// Adds a token to answer `index`.
    pub(super) fn token(&mut self, index: usize, token: &Token) {
        let choice = &mut self.choices[index];
        choice.message.content.push_str(&token.text);
        choice.tell(self.extras[index].token(token));
    }

    /// Ends answer `index`.
    ///
    /// # Errors
    /// The answer was cancelled, which only the engine itself can have done.
    pub(super) fn finish(&mut self, index: usize, finished: &Finished) -> Result<(), ApiError> {
        let choice = &mut self.choices[index];
        choice.message.content.push_str(&finished.text);
        choice.tell(self.extras[index].finish(&finished.text));
        choice.finish_reason = finish_reason(finished.reason)?;
        self.usage.add(index, &finished.usage);
        Ok(())
    }
}

impl Choice {
    fn tell(&mut self, Told { logprobs, words, fields }: Told) {
        if let (Some(all), Some(more)) = (&mut self.logprobs, logprobs) {
            all.content.extend(more.content);
        }
        extras::add(&mut self.words, words);
        self.fields = fields;
    }
}
