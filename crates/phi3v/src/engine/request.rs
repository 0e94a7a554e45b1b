//! The engine's input and output.

use super::EngineError;
use crate::constraint::Constraint;
use crate::image::ImageInputs;
use crate::sampler::SamplingParams;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Identifies a request within one engine; ids are in order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Separates the caches of one client from those of others: only requests with the same salt find the keys and values of
/// its prompts and the embeddings of its images. Requests with different salts take turns in the queue, with their images
/// and with the chunks of their prompts. All zeros is the salt of clients without one.
pub type CacheSalt = [u8; 32];

/// One prompt to continue, and how to continue it; [`Conversation`](crate::Conversation) makes prompts from messages.
pub struct Request {
    /// Token ids of the prompt; the rows of image `i` (from 1) hold `-i`. See [`crate::processor`].
    pub input_ids: Vec<i64>,
    /// The images, in the order of their numbers.
    pub images: Vec<Arc<ImageInputs>>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// The answer ends after this many tokens.
    pub max_new_tokens: usize,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// Restricts the answer's form.
    pub constraint: Option<Box<dyn Constraint>>,
    /// The client whose caches it uses.
    pub cache_salt: CacheSalt,
    /// If there are any, nothing is generated. Each is a prompt that begins with `input_ids`, and the engine computes the
    /// probability of each of its answers.
    pub scored: Vec<ScoredPrompt>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input_ids, images, sampling, max_new_tokens, stop, constraint, scored, .. } = self;
        // the salt separates caches, so it must not leak into logs
        f.debug_struct("Request")
            .field("tokens", &input_ids.len())
            .field("images", &images.len())
            .field("sampling", sampling)
            .field("max_new_tokens", max_new_tokens)
            .field("stop", stop)
            .field("is_constrained", &constraint.is_some())
            .field("scored", &scored.len())
            .finish_non_exhaustive()
    }
}

/// The rest of one prompt of a scoring request, and the answers that are scored after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoredPrompt {
    /// The rest of the prompt's ids, after those that all prompts of the request begin with; `-i` at the rows of image
    /// `i`.
    pub input_ids: Vec<i64>,
    /// The answers' ids. To be scored as a whole answer, an answer ends with the token that ends answers.
    pub answers: Vec<Vec<u32>>,
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
        let scored = Vec::new();
        Self { input_ids, images, sampling, max_new_tokens, stop, constraint: None, cache_salt, scored }
    }

    /// A request for the scores of answers to prompts that begin with `input_ids`, which is computed once for all of
    /// them. Each prompt is about those of `images` whose rows it has. The scores come with the request's end, and no
    /// token comes before. The engine refuses the request if it has a constraint, stop strings or logprobs.
    ///
    /// ```
    /// use phi3v::engine::{Request, ScoredPrompt};
    ///
    /// let mut engine = phi3v::load("demo")?.into_engine();
    /// let prompt = |question| ScoredPrompt { input_ids: vec![question], answers: vec![vec![7, 2], vec![7, 8, 2]] };
    /// let request = Request::scoring(vec![1, 15], Vec::new(), vec![prompt(20), prompt(21)]);
    /// let finished = engine.run(request, &mut ())?;
    /// assert_eq!(finished.scores.len(), 2);
    /// assert!(finished.scores.iter().flatten().all(|&score| score < 0.0));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    #[must_use]
    pub fn scoring(input_ids: Vec<i64>, images: Vec<Arc<ImageInputs>>, scored: Vec<ScoredPrompt>) -> Self {
        let longest = scored.iter().flat_map(|prompt| &prompt.answers).map(Vec::len).max().unwrap_or(0);
        Self { scored, ..Self::greedy(input_ids, images, longest) }
    }

    /// Refuses options of a scoring request that apply only to generated answers.
    pub(super) fn check_scores_only(&self) -> Result<(), EngineError> {
        let option = match self {
            Self { scored, .. } if scored.is_empty() => return Ok(()),
            Self { constraint: Some(_), .. } => "a constraint",
            Self { stop, .. } if !stop.is_empty() => "stop strings",
            Self { sampling: SamplingParams { logprobs: Some(_), .. }, .. } => "logprobs",
            _ => return Ok(()),
        };
        Err(EngineError::NothingToGenerate { option })
    }

    /// The length of each prompt and of its longest answer, in tokens.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        let generated =
            self.scored.is_empty().then_some((self.input_ids.len(), self.max_new_tokens)).into_iter();
        let scored = self.scored.iter().map(|prompt| {
            let longest = prompt.answers.iter().map(Vec::len).max().unwrap_or(0);
            (self.input_ids.len() + prompt.input_ids.len(), longest)
        });
        generated.chain(scored)
    }
}

/// One thing that happened to one request during a step.
#[derive(Debug)]
pub struct Output {
    /// The request that the event belongs to.
    pub id: RequestId,
    /// What happened to the request.
    pub event: Event,
}

/// What can happen to a request: tokens, and finally its end or its failure.
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
    /// Bytes of text, of this and earlier tokens, that may be the beginning of a stop string. They come with a later
    /// token, with the end, or not at all.
    pub held: usize,
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

/// The end of an answer: the reason, the remaining text, and what the answer took.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Why the answer ended.
    pub reason: FinishReason,
    /// Text held back until now.
    pub text: String,
    /// Token counts of the request.
    pub usage: Usage,
    /// How the request's time was spent.
    pub timings: Timings,
    /// For a scoring request: for each of its prompts, the natural logarithm of each answer's probability, in order.
    pub scores: Vec<Vec<f64>>,
}

/// Token counts of a request: its prompt, the cached part of it, and its answer. If several prompts are scored, the
/// counts are sums over all of them. The engine has computed `prompt_tokens - cached_tokens`; `completion_tokens` are
/// those of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, images included.
    pub prompt_tokens: usize,
    /// Prompt tokens that stand for images.
    pub image_tokens: usize,
    /// Prompt tokens whose keys and values were taken from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer, without the token that ended it.
    pub completion_tokens: usize,
}

/// How the time of a request was spent, from its submission to its last token. Times of work are those of the device:
/// each ends when the device has done the work, not when the work was submitted to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From submission to admission.
    pub queued: Duration,
    /// In the vision tower and projector, including images that were encoded ahead of the request.
    pub vision: Duration,
    /// In the decoder, for the prompt.
    pub prefill: Duration,
    /// In the decoder, for the answer. The time of steps shared with other requests counts in full.
    pub decode: Duration,
    /// From submission to the first token.
    pub first_token: Option<Duration>,
}

/// What the engine is doing for a request at the moment, and its progress. Within a step, the progress counts what the
/// device has been given, which may be a little more than it has done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// The request that the work is for.
    pub id: RequestId,
    /// The kind of work.
    pub phase: Phase,
    /// Units done, with fractions: tiles or tokens.
    pub done: f64,
    /// Units in all, of the same kind.
    pub total: usize,
}

/// The kinds of work before the first token, each with its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Tiles through the vision tower.
    Vision,
    /// Prompt tokens through the decoder.
    Prefill,
}
