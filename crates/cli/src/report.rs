//! Reports about an answer: for machines with `--json`, for people with `--stats`.

mod decide;

pub use decide::{DecideReport, DecisionReport, calibration_table, decision_table, decisions};

use crate::args::{AnswerForm, AskArgs};
use crate::fields::FieldMap;
use crate::runtime::Runtime;
use crate::sources::{ImageReport, NamedImage};
use phi3v::batch::Answer;
use phi3v::engine::{Finished, Timings, Token, Usage};
use phi3v::error::count;
use phi3v::fields::fields;
use phi3v::tokenizer::Tokenizer;
use phi3v::words::{Word, words};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The JSON printed with `--json`: indented, with fields in the order of the type.
#[must_use]
pub fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).expect("a report has no maps with keys that are not strings")
}

/// The object that `phi3v ask --json` prints: the answer, its pictures, and its cost.
#[derive(Debug, Serialize)]
pub struct AskReport {
    answer: String,
    /// `stop`, `length` or `cancelled`.
    finish_reason: &'static str,
    model: String,
    dtype: &'static str,
    images: Vec<ImageReport>,
    usage: UsageReport,
    timings: TimingsReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenReport>>,
    words: Vec<WordReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<FieldMap>,
}

/// A word, with the lowest probability of its tokens and their mean.
#[derive(Debug, Serialize)]
struct WordReport {
    text: String,
    p: f32,
    mean: f32,
}

#[derive(Debug, Serialize)]
struct UsageReport {
    prompt_tokens: usize,
    image_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
}

#[derive(Debug, Serialize)]
struct TimingsReport {
    vision_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    first_token_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct TokenReport {
    id: u32,
    token: String,
    logprob: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<TokenReport>,
}

impl AskReport {
    /// The report of an answer, with its pictures, its model, and its form.
    #[must_use]
    pub fn new(
        args: &AskArgs,
        pictures: &[NamedImage],
        runtime: &Runtime,
        answer: &Answer,
        form: Option<&AnswerForm>,
    ) -> Self {
        let told =
            |form: &AnswerForm| FieldMap::from(fields(&form.grammar, &answer.tokens, &answer.finished.text));
        let tokens =
            || answer.tokens.iter().map(|token| TokenReport::new(token, &runtime.tokenizer)).collect();
        Self {
            answer: answer.text.clone(),
            finish_reason: answer.finished.reason.name(),
            model: runtime.name.clone(),
            dtype: args.model.dtype.name(),
            images: pictures.iter().map(NamedImage::report).collect(),
            usage: answer.finished.usage.into(),
            timings: answer.finished.timings.into(),
            logprobs: args.logprobs.map(|_| tokens()),
            words: words(&answer.tokens, &answer.finished.text).into_iter().map(WordReport::from).collect(),
            fields: form.map(told),
        }
    }
}

impl From<Word> for WordReport {
    fn from(Word { text, p, mean, .. }: Word) -> Self {
        Self { text, p, mean }
    }
}

impl From<Usage> for UsageReport {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, image_tokens, cached_tokens, completion_tokens } = usage;
        Self { prompt_tokens, image_tokens, cached_tokens, completion_tokens }
    }
}

impl From<Timings> for TimingsReport {
    fn from(timings: Timings) -> Self {
        let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 1e2;
        Self {
            vision_ms: ms(timings.vision),
            prefill_ms: ms(timings.prefill),
            decode_ms: ms(timings.decode),
            first_token_ms: timings.first_token.map(ms),
        }
    }
}

impl TokenReport {
    fn new(token: &Token, tokenizer: &Tokenizer) -> Self {
        let one =
            |id, logprob, top| Self { id, token: tokenizer.token(id).unwrap_or_default(), logprob, top };
        let top = token.top.iter().map(|&(id, logprob)| one(id, logprob, Vec::new())).collect();
        one(token.id, token.logprob.unwrap_or(f32::NEG_INFINITY), top)
    }
}

/// The cost of an answer, in a few lines for people: tokens, seconds and tokens per second.
#[derive(Debug)]
pub struct Stats<'a>(pub &'a Finished);

impl fmt::Display for Stats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finished { usage, timings, .. } = self.0;
        let computed = usage.prompt_tokens - usage.cached_tokens;
        if usage.image_tokens > 0 {
            writeln!(f, "vision       {:.2} s", timings.vision.as_secs_f64())?;
        }
        writeln!(
            f,
            "prompt       {}, {} of pictures, {} known from before; {}",
            count(usage.prompt_tokens, "token"),
            usage.image_tokens,
            usage.cached_tokens,
            speed(computed, timings.prefill)
        )?;
        if let Some(first) = timings.first_token {
            writeln!(f, "first token  after {:.2} s", first.as_secs_f64())?;
        }
        // the first token of an answer comes with the prompt
        let decoded = usage.completion_tokens.saturating_sub(1);
        let answer = count(usage.completion_tokens, "token");
        write!(f, "answer       {answer}; {}", speed(decoded, timings.decode))
    }
}

fn speed(tokens: usize, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if tokens == 0 || seconds == 0.0 {
        return format!("{seconds:.2} s");
    }
    format!("{seconds:.2} s, {:.1} tokens/s", tokens as f64 / seconds)
}
