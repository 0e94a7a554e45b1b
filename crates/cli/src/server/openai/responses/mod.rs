//! `POST /v1/responses`: the part of OpenAI's newer API that texts and pictures need. Nothing is stored, so
//! `previous_response_id` is refused; each request contains the whole conversation.

mod stream;
pub mod types;

use super::chat::{stream_options, top_p};
use super::extras::{self, AnswerExtras, Extras, Told};
use super::session::Session;
use super::types::UsageFields;
use super::{content, models, parse};
use crate::server::ask::{Ask, Names, Turn, TurnPart};
use crate::server::engine_thread::Update;
use crate::server::error::ApiError;
use crate::server::guard::Caller;
use crate::server::limits::Times;
use crate::server::state::{App, fresh_id, unix_seconds};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use phi3v::chat_template::Role;
use phi3v::constraint::Grammar;
use phi3v::engine::{CacheSalt, FinishReason, Token};
use phi3v::sampler::SamplingParams;
use std::sync::Arc;
use types::{
    IncompleteDetails, Input, InputMessage, OutputMessage, OutputText, OutputTokensDetails, ResponseObject,
    ResponseUsage, ResponsesRequest, TextFormat,
};

/// The names of fields in this API.
const NAMES: Names = Names { turns: "input", form: "text.format" };

/// Answers a conversation.
///
/// # Errors
/// What is wrong with the request, or why it cannot be answered.
pub async fn responses(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let times = Times::start(&app.limits);
    let model = app.ready()?.clone();
    let (request, budget) = parse::read::<ResponsesRequest>(&app, &headers, body, caller.cache_salt).await?;
    models::check_name(&model, request.model.as_deref())?;
    let streamed = request.stream.unwrap_or(false);
    if stream_options(request.stream_options, streamed)?.include_progress {
        return Err(ApiError::unsupported_field("stream_options.include_progress"));
    }
    let empty = empty_response(&request, model.name.clone());
    let include = request.include.clone().unwrap_or_default();
    let ask = Ask { cache_salt: caller.cache_salt, ..ask(request)? };
    let extras = Extras::included(&include, ask.form.as_ref())?;
    let answer = TextAnswer::new(AnswerExtras::new(&extras, &model.tokenizer));
    ask.check(&app.limits)?;
    let session = Session::start(&app, &model, ask, budget, false, times).await?;
    if streamed {
        return Ok(super::stream::response(session, stream::ResponseStream::new(empty, answer)));
    }
    Ok(Json(whole(session, empty, answer).await?).into_response())
}

fn empty_response(request: &ResponsesRequest, model: String) -> ResponseObject {
    ResponseObject {
        id: fresh_id("resp_"),
        object: "response",
        created_at: unix_seconds(),
        status: "in_progress",
        error: None,
        incomplete_details: None,
        instructions: request.instructions.clone(),
        max_output_tokens: request.max_output_tokens,
        model,
        output: Vec::new(),
        parallel_tool_calls: false,
        previous_response_id: None,
        temperature: request.temperature,
        top_p: request.top_p,
        tool_choice: "none",
        tools: Vec::new(),
        usage: None,
    }
}

fn ask(request: ResponsesRequest) -> Result<Ask, ApiError> {
    let text = |role, text| Turn { role, parts: vec![TurnPart::Text(text)] };
    let mut turns: Vec<Turn> =
        request.instructions.map(|system| text(Role::System, system)).into_iter().collect();
    match request.input {
        Input::Text(question) => turns.push(text(Role::User, question)),
        Input::Messages(messages) => {
            for (index, message) in messages.into_iter().enumerate() {
                turns.push(turn(index, message)?);
            }
        }
    }
    let default = SamplingParams::default();
    let form = match request.text.and_then(|text| text.format) {
        None | Some(TextFormat::Text {}) => None,
        Some(TextFormat::JsonObject {}) => Some(Grammar::JsonObject),
        Some(TextFormat::JsonSchema { schema, .. }) => Some(Grammar::JsonSchema(schema)),
        Some(TextFormat::Choices { choices }) => Some(Grammar::Choices(choices)),
        Some(TextFormat::Regex { pattern }) => Some(Grammar::Regex(pattern)),
    };
    Ok(Ask {
        names: NAMES,
        turns,
        sampling: SamplingParams {
            temperature: request.temperature.unwrap_or(default.temperature),
            top_p: top_p(request.top_p),
            // the probabilities of words and fields are computed from those of the tokens
            logprobs: request.include.filter(|include| !include.is_empty()).map(|_| 0),
            ..default
        },
        choices: 1,
        max_tokens: request.max_output_tokens.map(|tokens| (tokens, "max_output_tokens")),
        stop: Vec::new(),
        form,
        cache_salt: CacheSalt::default(),
    })
}

fn turn(index: usize, message: InputMessage) -> Result<Turn, ApiError> {
    let role = Role::from(message.role);
    Ok(Turn { role, parts: content::parts(role, message.content, &format!("input[{index}].content"))? })
}

/// The text of an answer while it is generated, with its extras.
pub(super) struct TextAnswer {
    extras: AnswerExtras,
    part: OutputText,
}

impl TextAnswer {
    fn new(extras: AnswerExtras) -> Self {
        Self { extras, part: OutputText::new(String::new()) }
    }

    fn token(&mut self, token: &Token) {
        let told = self.extras.token(token);
        self.add(&token.text, told);
    }

    /// Returns the whole text, with the extras that are complete at its end.
    fn finish(&mut self, text: &str) -> OutputText {
        let told = self.extras.finish(text);
        self.add(text, told);
        self.part.clone()
    }

    fn add(&mut self, text: &str, Told { words, fields, .. }: Told) {
        self.part.text.push_str(text);
        extras::add(&mut self.part.words, words);
        self.part.fields = fields;
    }
}

/// Waits for the answer.
async fn whole(
    mut session: Session,
    empty: ResponseObject,
    mut answer: TextAnswer,
) -> Result<ResponseObject, ApiError> {
    loop {
        match session.updates.next().await? {
            Update::Token(_, token) => answer.token(&token),
            Update::Finished(_, finished) => {
                let text = answer.finish(&finished.text);
                let mut usage = UsageFields::default();
                usage.add(0, &finished.usage);
                return complete(empty, fresh_id("msg_"), text, finished.reason, usage);
            }
            Update::Progress(_) => {}
        }
    }
}

/// Returns the response with its answer.
///
/// # Errors
/// The answer was cancelled.
fn complete(
    response: ResponseObject,
    message_id: String,
    text: OutputText,
    reason: FinishReason,
    usage: UsageFields,
) -> Result<ResponseObject, ApiError> {
    let cut = super::session::finish_reason(reason)? == "length";
    let status = if cut { "incomplete" } else { "completed" };
    let content = vec![text];
    Ok(ResponseObject {
        status,
        incomplete_details: cut.then_some(IncompleteDetails { reason: "max_output_tokens" }),
        output: vec![OutputMessage { r#type: "message", id: message_id, status, role: "assistant", content }],
        usage: Some(ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: usage.prompt_tokens_details,
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: usage.total_tokens,
        }),
        ..response
    })
}
