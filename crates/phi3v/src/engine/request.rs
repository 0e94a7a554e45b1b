//! What goes into the engine and what comes out of it.

use crate::constraint::Constraint;
use crate::image::ImageInputs;
use crate::sampler::SamplingParams;
use std::sync::Arc;
use std::time::Duration;

/// Names a request within one engine, in the order in which they were submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Keeps the caches of one client apart from those of others: keys and values of prompts and embeddings of images
/// are found again only by requests with the same salt. All zeros is the salt of who has none.
pub type CacheSalt = [u8; 32];

/// One prompt to be continued, and how; [`Conversation`](crate::Conversation) makes them from messages.
pub struct Request {
    /// Token ids of the prompt; the rows of image `i` (from 1) hold `-i`. See [`crate::processor`].
    pub input_ids: Vec<i64>,
    /// The images, in the order of their numbers.
    pub images: Vec<Arc<ImageInputs>>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// The answer ends after so many tokens.
    pub max_new_tokens: usize,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// Restricts the answer's form.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Whose caches it uses.
    pub cache_salt: CacheSalt,
}

impl Request {
    /// A greedy request for at most `max_new_tokens` tokens, without stop strings or a constraint.
    ///
    /// ```
    /// let request = phi3v::engine::Request::greedy(vec![1, 15043], Vec::new(), 20);
    /// assert_eq!((request.max_new_tokens, request.sampling.temperature), (20, 0.0));
    /// ```
    #[must_use]
    pub fn greedy(input_ids: Vec<i64>, images: Vec<Arc<ImageInputs>>, max_new_tokens: usize) -> Self {
        let (sampling, stop, cache_salt) = (SamplingParams::default(), Vec::new(), CacheSalt::default());
        Self { input_ids, images, sampling, max_new_tokens, stop, constraint: None, cache_salt }
    }
}

/// One thing that happened to one request during a step of the engine.
#[derive(Debug)]
pub struct Output {
    /// The request that it is about.
    pub id: RequestId,
    /// What happened to the request.
    pub event: Event,
}

/// What can happen to a request: tokens, and at last its end or its failure.
#[derive(Debug)]
pub enum Event {
    /// A token was chosen.
    Token(Token),
    /// The answer is complete; nothing follows.
    Finished(Finished),
    /// The request failed; nothing follows. Other requests are not affected.
    Failed(crate::Error),
}

/// A token that was chosen for an answer, with the text that has become certain.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token's id in the vocabulary.
    pub id: u32,
    /// Text that has become certain with it; may be empty, and may hold text of earlier tokens.
    pub text: String,
    /// Natural logarithm of its probability before penalties, temperature and filters; `None` unless logprobs were
    /// asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens with their logprobs, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why an answer ended: by itself, at its limit, or because it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, a stop string was met, or the constraint is complete.
    Stop,
    /// The answer reached `max_new_tokens`.
    Length,
    /// The request was cancelled by the caller.
    Cancelled,
}

impl FinishReason {
    /// The reason as OpenAI's API names it: `stop`, `length`, and `cancelled`, which that API lacks.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The end of an answer: why, the text held back so far, and what it took.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Why the answer ended.
    pub reason: FinishReason,
    /// Text held back until now.
    pub text: String,
    /// Token counts of the request.
    pub usage: Usage,
    /// Where the request's time went.
    pub timings: Timings,
}

/// Token counts of a request: its prompt, what of it was cached, and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, images included.
    pub prompt_tokens: usize,
    /// Those that stand for images.
    pub image_tokens: usize,
    /// Those whose keys and values were taken from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer, the one that ended it not counted.
    pub completion_tokens: usize,
}

/// Where the time of a request went, from its submission to its last token. Times of work are those of the device: each
/// ends when the device has done the work, not when it has been told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From submission to admission.
    pub queued: Duration,
    /// In the vision tower and projector.
    pub vision: Duration,
    /// In the decoder, for the prompt.
    pub prefill: Duration,
    /// In the decoder, for the answer; time of steps shared with others counts in full.
    pub decode: Duration,
    /// From submission to the first token.
    pub first_token: Option<Duration>,
}

/// What the engine is doing for a request right now, and how far it is. Within a step it counts what the device has been
/// given, which may be a little more than it has done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// The request that is worked for.
    pub id: RequestId,
    /// Which kind of work.
    pub phase: Phase,
    /// Units done, in parts: tiles or tokens.
    pub done: f64,
    /// Units in all, of the same kind.
    pub total: usize,
}

/// The kinds of work before the first token, each with a unit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Tiles through the vision tower.
    Vision,
    /// Prompt tokens through the decoder.
    Prefill,
}
