//! A streamed chat completion: one event for each token, `[DONE]` at the end.
//!
//! If the request asks for it (`stream_options.include_progress`), events named `progress` report how far pictures and
//! prompt have been processed, and one named `timings` reports where the time went. Clients that know only OpenAI's
//! events never see them.

use super::extras::{AnswerExtras, Told};
use super::session::finish_reason;
use super::stream::{Queue, Render};
use super::types::{ChatChunk, ChunkChoice, Delta, Logprobs, StreamOptions, UsageFields};
use crate::server::error::ApiError;
use phi3v::engine::{Finished, Phase, StepProgress, Timings, Token};
use serde::Serialize;

/// Renders the events of a chat completion.
pub(super) struct ChatStream {
    /// Id of the answer.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Name of the model.
    pub(super) model: String,
    /// What each answer carries in addition to its text.
    pub(super) extras: Vec<AnswerExtras>,
    /// The options of the stream.
    pub(super) options: StreamOptions,
    /// Token counts so far.
    pub(super) usage: UsageFields,
}

#[derive(Serialize)]
struct ProgressFields {
    phase: &'static str,
    done: f64,
    total: usize,
}

#[derive(Serialize)]
struct TimingFields {
    queued_seconds: f64,
    vision_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    first_token_seconds: Option<f64>,
}

impl ChatStream {
    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        let object = "chat.completion.chunk";
        let (id, model) = (self.id.clone(), self.model.clone());
        // OpenAI's chunks hold a null until the last one if usage is requested
        let usage = self.options.include_usage.then_some(None);
        ChatChunk { id, object, created: self.created, model, choices, usage }
    }

    fn push(&self, choice: ChunkChoice, queue: &mut Queue) {
        queue.push("", &self.chunk(vec![choice]));
    }
}

impl Render for ChatStream {
    fn begin(&mut self, queue: &mut Queue) {
        for index in 0..self.extras.len() {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            self.push(ChunkChoice { index, delta, ..ChunkChoice::default() }, queue);
        }
    }

    fn progress(&mut self, progress: StepProgress, queue: &mut Queue) {
        queue.push("progress", &ProgressFields::from(progress));
    }

    fn token(&mut self, index: usize, token: &Token, queue: &mut Queue) {
        let Told { logprobs, words, .. } = self.extras[index].token(token);
        let (logprobs, words) = (logprobs.filter(any), words.unwrap_or_default());
        // bytes of an unfinished character, or text held back as the possible beginning of a stop text
        if token.text.is_empty() && logprobs.is_none() {
            return;
        }
        let delta = Delta { role: None, content: Some(token.text.clone()) };
        self.push(ChunkChoice { index, delta, logprobs, words, ..ChunkChoice::default() }, queue);
    }

    fn finished(
        &mut self,
        index: usize,
        last: bool,
        finished: Finished,
        queue: &mut Queue,
    ) -> Result<(), ApiError> {
        let finish_reason = Some(finish_reason(finished.reason)?);
        self.usage.add(index, &finished.usage);
        let Told { logprobs, words, fields } = self.extras[index].finish(&finished.text);
        let (logprobs, words) = (logprobs.filter(any), words.unwrap_or_default());
        if !finished.text.is_empty() || logprobs.is_some() || !words.is_empty() {
            let delta = Delta { role: None, content: Some(finished.text) };
            self.push(ChunkChoice { index, delta, logprobs, words, ..ChunkChoice::default() }, queue);
        }
        self.push(ChunkChoice { index, fields, finish_reason, ..ChunkChoice::default() }, queue);
        if self.options.include_progress {
            queue.push("timings", &TimingFields::from(finished.timings));
        }
        if last && self.options.include_usage {
            queue.push("", &ChatChunk { usage: Some(Some(self.usage)), ..self.chunk(Vec::new()) });
        }
        if last {
            queue.push_text("[DONE]");
        }
        Ok(())
    }

    fn failed(&mut self, error: &ApiError, queue: &mut Queue) {
        queue.push("", &error.body());
    }
}

fn any(logprobs: &Logprobs) -> bool {
    !logprobs.content.is_empty()
}

impl From<StepProgress> for ProgressFields {
    fn from(progress: StepProgress) -> Self {
        let phase = match progress.phase {
            Phase::Vision => "vision",
            Phase::Prefill => "prefill",
        };
        Self { phase, done: progress.done, total: progress.total }
    }
}

impl From<Timings> for TimingFields {
    fn from(timings: Timings) -> Self {
        Self {
            queued_seconds: timings.queued.as_secs_f64(),
            vision_seconds: timings.vision.as_secs_f64(),
            prefill_seconds: timings.prefill.as_secs_f64(),
            decode_seconds: timings.decode.as_secs_f64(),
            first_token_seconds: timings.first_token.map(|first| first.as_secs_f64()),
        }
    }
}
