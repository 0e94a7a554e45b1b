//! Chat completions without a connection. Bodies from a file are read, checked and answered as those of `POST
//! /v1/chat/completions`, under the same limits and with the same errors.

pub use super::chat::Stamp;
use super::chat::{self, Answers, Asked};
pub use super::extras::Extras;
use super::parse;
use super::types::{ChatCompletion, ChatRequest};
use crate::documents::Drawer;
use crate::server::engine_thread::EngineHandle;
use crate::server::error::ApiError;
use crate::server::hints;
use crate::server::limits::{Limits, Times};
use crate::server::prepare;
pub use crate::server::prepare::Requests;
use crate::server::state::{App, ServedModel};
use crate::sources::Sources;
use phi3v::batch::Answer;
use phi3v::chat_template::Role;
use phi3v::engine::CacheSalt;
use phi3v::sampler::SamplingParams;
use phi3v::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Converts bodies to requests, on any thread of the caller.
pub struct Offline {
    app: Arc<App>,
    model: ServedModel,
    runtime: Handle,
}

/// What a body requests.
pub struct Offered {
    /// The requests, with the resources they hold.
    pub requests: Requests,
    /// What the answers must carry in addition to their text.
    pub extras: Extras,
}

impl Offline {
    /// Creates a converter for a model and the addresses from which pictures may come. `runtime` runs the asynchronous
    /// work.
    #[must_use]
    pub fn new(model: ServedModel, sources: Sources, limits: Limits, runtime: Handle) -> Self {
        // no client waits on a connection, and the caller limits how much is prepared at the same time
        let (input_bytes_max, request_time_max) = (usize::MAX, Duration::from_secs(1 << 30));
        let limits = Limits { input_bytes_max, request_time_max, ..limits };
        // the caller runs the engine
        let (engine, _jobs) = EngineHandle::new(1);
        Self { app: Arc::new(App::new(limits, engine, sources, Drawer::default())), model, runtime }
    }

    /// Reads a body, and fetches, decodes and cuts its pictures. Blocks. The body may name any model; this one is used.
    /// `salt` keeps what is computed for the request apart from that for others. It is used if sharing could
    /// change the last bits of an answer: if an answer is part of the prompt.
    ///
    /// # Errors
    /// What is wrong with the body, in the server's words.
    pub fn prepare(&self, body: &[u8], salt: [u8; 32]) -> Result<Offered, ApiError> {
        let request: ChatRequest = parse::parse(body)?;
        if request.stream == Some(true) || request.stream_options.is_some() {
            let error = ApiError::invalid_value("stream", "the answers of a batch are not streamed");
            return Err(error.hint(hints::question::NO_STREAM));
        }
        let Asked { mut ask, extras } = chat::asked(request)?;
        ask.check(&self.app.limits)?;
        if ask.turns.iter().any(|turn| turn.role == Role::Assistant) {
            ask.cache_salt = salt;
        }
        settle_seed(&mut ask.sampling, &salt);
        let (app, times) = (&self.app, Times::start(&self.app.limits));
        let prepared = prepare::requests(app, &self.model, ask, app.budget(CacheSalt::default()), times);
        Ok(Offered { requests: self.runtime.block_on(prepared)?, extras })
    }
}

/// Gives sampling without a seed one that is derived from the job. With a new seed in every run, the answers of a job
/// would not be reproducible.
pub fn settle_seed(sampling: &mut SamplingParams, salt: &[u8; 32]) {
    if sampling.temperature > 0.0 && sampling.seed.is_none() {
        sampling.seed = salt.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    }
}

/// Returns the answers to one body in the shape of the API, with their `extras`.
///
/// # Errors
/// An answer was cancelled.
pub fn completion(
    stamp: Stamp,
    answers: &[Answer],
    extras: &Extras,
    tokenizer: &Arc<Tokenizer>,
) -> Result<ChatCompletion, ApiError> {
    let mut whole = Answers::new(answers.len(), extras, tokenizer);
    for (index, answer) in answers.iter().enumerate() {
        answer.tokens.iter().for_each(|token| whole.token(index, token));
        whole.finish(index, &answer.finished)?;
    }
    // which of two questions about a picture runs first is not determined by the job
    whole.usage.prompt_tokens_details.cached_tokens = None;
    Ok(whole.completion(stamp))
}
