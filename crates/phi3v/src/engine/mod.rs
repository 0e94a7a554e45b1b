//! Many sequences share one model: a step is schedule, forward, postprocess.
//!
//! Requests join and leave between steps. A step does at most one piece of each kind of work:
//! - tiles of one image;
//! - a chunk of one prompt, plus short prompts that fit with it;
//! - one token for every decoding sequence, plus the tokens that its form forces after it.
//!
//! While other sequences decode, the pieces are small, so that a long prompt does not stall their answers; otherwise they
//! are large. Clients, told apart by their salts, take turns with images and chunks of prompts.
//!
//! **Crossing `original_max_position_embeddings`** (4,096 tokens): one set of rotary factors applies to a whole sequence.
//! When a decoding sequence outgrows the short set, it returns to the head of the queue, and everything, images included,
//! is computed again with the long set (`Scheduler::restart_crossing`). (Phi-3-vision's own code mixes the sets, and
//! Phi-3.5-vision's loses the images; see MODEL.md.)
//!
//! The engine knows ids, pixel values and logits. It knows no files, image formats, JSON or connections.

mod advance;
mod ahead;
mod block_manager;
mod image_cache;
mod parts;
mod pictures;
mod request;
mod scheduler;
mod scoring;
mod sequence;
mod step;
mod stopwatch;

pub use request::{
    CacheSalt, Event, FinishReason, Finished, Output, Phase, Request, RequestId, ScoredPrompt, StepProgress,
    Timings, Token, Usage,
};

use crate::Result;
use crate::error::count;
use crate::image::ImageInputs;
use crate::model::{Cache, Phi3V};
use crate::tokenizer::Tokenizer;
use parts::Parts;
use phi3v_kernels::Backend;
use pictures::Images;
use scheduler::Scheduler;
use scoring::Scoring;
use sequence::Sequence;
use std::fmt;
use std::sync::Arc;

/// Why the engine refuses a request or cannot continue it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// The prompt has no ids.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The request allows no tokens.
    #[error("max_new_tokens is 0 and must be at least 1")]
    NoNewTokens,
    /// Prompt and answer exceed the context.
    #[error(
        "the prompt of {} and an answer of up to {answer} exceed the context of {}",
        count(*.prompt, "token"),
        count(*.context, "token")
    )]
    ContextLength {
        /// Tokens of the prompt, images included.
        prompt: usize,
        /// `max_new_tokens` of the request.
        answer: usize,
        /// Tokens that fit into the context.
        context: usize,
    },
    /// Too many requests are waiting.
    #[error("{} waiting already, the limit", count(*.waiting, "request"))]
    QueueFull {
        /// Requests that are waiting.
        waiting: usize,
    },
    /// The model has no token with this id.
    #[error("token id {id} is beyond the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id in the prompt or in an answer to score.
        id: i64,
        /// The number of ids that the model has.
        vocab_size: usize,
    },
    /// The prompt has rows of an image that was not given.
    #[error("the prompt refers to picture {number}, but {images} were given")]
    UnknownImage {
        /// The image's number in the prompt, from 1.
        number: usize,
        /// The number of images that the request has.
        images: usize,
    },
    /// The request has an image that the prompt does not mention.
    #[error("picture {number} is not mentioned in the prompt")]
    UnusedImage {
        /// The image's number, from 1.
        number: usize,
    },
    /// An image has a wrong number of rows in the prompt, or occurs twice.
    #[error(
        "picture {number} has {} in one place of the prompt, it takes {expected} in exactly one",
        count(*.rows, "row")
    )]
    ImageRows {
        /// The image's number, from 1.
        number: usize,
        /// Rows at that place.
        rows: usize,
        /// Rows that the image's size requires.
        expected: usize,
    },
    /// A prompt to score has no answers, or an answer without tokens.
    #[error("a prompt has no answers to score, or one of no tokens")]
    NothingToScore,
    /// A scoring request has an option that applies only to generated answers.
    #[error("a request that scores generates nothing, and has {option}")]
    NothingToGenerate {
        /// The option, in words for people.
        option: &'static str,
    },
    /// A bug: two sequences may have written to the same block, so the answer cannot be trusted.
    #[error("the table of the cache's blocks was damaged, and the answer may be wrong from here on")]
    DamagedCache,
}

impl EngineError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ContextLength { .. } => {
                "shorten the text, use fewer pictures or fewer tiles, ask for a shorter answer, or choose a larger context"
            }
            Self::QueueFull { .. } => "try again later",
            Self::DamagedCache => "ask again, and report it",
            Self::NoNewTokens => "ask for at least one token",
            Self::NothingToGenerate { .. } => "leave it out",
            Self::EmptyPrompt
            | Self::UnknownToken { .. }
            | Self::UnknownImage { .. }
            | Self::UnusedImage { .. }
            | Self::ImageRows { .. }
            | Self::NothingToScore => return None,
        };
        Some(hint.to_owned())
    }
}

/// Limits of an engine: its context and KV cache, its queue, its caches and its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens that the prompt and answer of a sequence may have together, limited by the model's own context. All
    /// sequences share the KV cache, which holds at least this many tokens, rounded up to whole blocks.
    pub context_tokens: usize,
    /// Sequences that run at the same time; `None` means the device's
    /// [`few_rows_max`](phi3v_kernels::Sizes::few_rows_max). Above that, a decode step with dense weights takes the
    /// kernels for many rows, and the last bits of an answer depend on how many sequences there are.
    pub running_max: Option<usize>,
    /// Tokens that the KV cache holds if more than `context_tokens`, for many long sequences.
    pub cache_tokens: usize,
    /// Whether the KV cache may allocate memory for more than `context_tokens` to keep the blocks of sequences that have
    /// ended. Otherwise it does so only for sequences that run together.
    pub cache_grows_to_keep: bool,
    /// Requests that may wait in the queue.
    pub waiting_max: usize,
    /// Bytes of image embeddings kept for later questions; the same limit applies separately to images encoded ahead of
    /// their requests.
    pub image_cache_bytes_max: usize,
    /// Whether sequences with the same beginning share full blocks.
    pub prefix_cache: bool,
    /// Prompt tokens per step while no sequence decodes; `None` means the device's
    /// [`prefill_chunk`](phi3v_kernels::Sizes::prefill_chunk).
    pub prefill_chunk_alone: Option<usize>,
    /// Prompt tokens per step while others decode. This bounds the gap between their tokens.
    pub prefill_chunk_shared: usize,
    /// Tiles per step while others decode, for the same reason.
    pub tiles_shared: usize,
    /// Whether decoding waits until every admitted prompt is computed. As many sequences as may run then share each
    /// decode step, but tokens do not arrive steadily.
    pub prompts_first: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            context_tokens: 8192,
            running_max: None,
            cache_tokens: 0,
            cache_grows_to_keep: true,
            waiting_max: 64,
            // about ten images at num_crops 16: 1,921 rows x 3,072 values x 4 bytes = 23.6 MB each
            image_cache_bytes_max: 256 << 20,
            prefix_cache: true,
            prefill_chunk_alone: None,
            prefill_chunk_shared: 128,
            tiles_shared: 1,
            prompts_first: false,
        }
    }
}

impl EngineOptions {
    /// The same limits for work that nobody watches token by token: prompts and images go before decoding, in pieces as
    /// large as suit the device.
    #[must_use]
    pub fn for_batch(self) -> Self {
        let (prefill_chunk_shared, tiles_shared) = (usize::MAX, usize::MAX);
        Self { prefill_chunk_shared, tiles_shared, prompts_first: true, ..self }
    }
}

/// A model that serves many requests: callers submit them, and each step advances all of them.
///
/// ```
/// use phi3v::checkpoint::Checkpoint;
/// use phi3v::device::{Device, DeviceOptions};
/// use phi3v::engine::{Engine, EngineOptions, Request};
/// use phi3v::model::{ModelOptions, Phi3V};
/// use std::sync::Arc;
///
/// let Checkpoint { config, weights, tokenizer, .. } = &Checkpoint::from_files(&phi3v::demo::files())?;
/// let device = Device::open(&DeviceOptions::default())?;
/// let model = Phi3V::load(device, config, weights, ModelOptions::of(weights), &mut |_| ())?;
/// let stop_ids = tokenizer.stop_ids().into();
/// let mut engine = Engine::new(model, Arc::clone(tokenizer), stop_ids, EngineOptions::default())?;
///
/// let ids = tokenizer.encode_raw("The capital of France is").into_iter().map(i64::from).collect();
/// let finished = engine.run(Request::greedy(ids, Vec::new(), 5), &mut ())?;
/// assert!(finished.usage.completion_tokens <= 5);
/// # Ok::<(), phi3v::Error>(())
/// ```
pub struct Engine<B: Backend> {
    model: Phi3V<B>,
    tokenizer: Arc<Tokenizer>,
    options: EngineOptions,
    cache: Cache<B>,
    scheduler: Scheduler,
    images: Images<B>,
    parts: Parts,
    /// Events of other requests that occurred during [`Engine::run`]; the next step reports them.
    unreported: Vec<Output>,
    /// Logits of the last forward pass, `[n, vocab_size]`; kept so that a step need not allocate.
    logits: Vec<f32>,
    stop_ids: Vec<u32>,
    next_id: u64,
}

impl<B: Backend> fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.options)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Engine<B> {
    /// Creates an engine whose answers end at any of `stop_ids`.
    ///
    /// # Errors
    /// An error of the device.
    pub fn new(
        model: Phi3V<B>,
        tokenizer: Arc<Tokenizer>,
        stop_ids: Vec<u32>,
        options: EngineOptions,
    ) -> Result<Self> {
        let context_tokens = options.context_tokens.min(model.config().context_max());
        let options = EngineOptions { context_tokens, ..options };
        let scheduler = Scheduler::new(options, model.backend().sizes());
        Ok(Self {
            cache: model.cache(scheduler.load().blocks_total)?,
            scheduler,
            images: Images::new(options.image_cache_bytes_max),
            parts: Parts::default(),
            unreported: Vec::new(),
            logits: Vec::new(),
            next_id: 0,
            model,
            tokenizer,
            stop_ids,
            options,
        })
    }

    /// The model that the engine runs, with its configuration and its device.
    pub fn model(&self) -> &Phi3V<B> {
        &self.model
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Error::Engine`](crate::Error::Engine) if the request is invalid, or if too many requests wait, which
    /// [`has_room`](Self::has_room) tells beforehand.
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId> {
        self.check(&request)?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let (rope, sizes) = (self.model.rope(), self.model.backend().sizes());
        let factors = rope.factors_for(request.input_ids.len());
        let scoring =
            Scoring::of(&mut request, |tokens| rope.factors_for(tokens), scheduler::prompt_rows_min(sizes));
        self.scheduler.enqueue(Sequence::new(id, request, &self.tokenizer, factors)?.scoring(scoring));
        Ok(id)
    }

    /// Starts to encode an image before its request arrives, so that the caller can read and cut the next image
    /// meanwhile. Steps send its tiles through the vision tower when no request needs the tower. A request with the same
    /// image and `cache_salt` takes over the work done, and its observer receives that progress. The engine drops the
    /// image once nobody else holds `inputs`. It starts no further image if the images ahead would take more than
    /// [`EngineOptions::image_cache_bytes_max`]. Earlier progress with the image bears the id of the next request.
    ///
    /// ```
    /// use phi3v::engine::CacheSalt;
    ///
    /// let session = phi3v::load("demo")?;
    /// let preparer = session.preparer();
    /// let mut engine = session.into_engine();
    /// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    /// let (sender, coming) = std::sync::mpsc::channel();
    /// let reader = preparer.clone();
    /// std::thread::spawn(move || {
    ///     for name in ["cover.png", "text.png"] {
    ///         let _ = sender.send(reader.image(format!("{dir}/{name}")));
    ///     }
    /// });
    /// let mut images = Vec::new();
    /// for image in coming {
    ///     let image = image?;
    ///     engine.encode_ahead(&image, &CacheSalt::default());
    ///     engine.step(&mut ()); // some of its tiles, while the next is read
    ///     images.push(image);
    /// }
    /// let finished = engine.run(preparer.ask(images, "What do they have in common?")?, &mut ())?;
    /// assert!(finished.usage.image_tokens > 0);
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    pub fn encode_ahead(&mut self, inputs: &Arc<ImageInputs>, cache_salt: &CacheSalt) {
        let row_bytes = self.model.config().hidden_size * size_of::<f32>();
        self.images.queue_ahead(inputs, cache_salt, row_bytes);
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        sequence::check_ids(request, self.model.config().vocab_size)?;
        if request.max_new_tokens == 0 {
            return Err(EngineError::NoNewTokens);
        }
        request.check_scores_only()?;
        let context = self.context_tokens();
        for (prompt, answer) in request.lengths() {
            if prompt.saturating_add(answer) > context {
                return Err(EngineError::ContextLength { prompt, answer, context });
            }
        }
        if !self.has_room() {
            return Err(EngineError::QueueFull { waiting: self.load().waiting });
        }
        Ok(())
    }

    /// Whether another request may wait. If not, [`submit`](Self::submit) refuses and drops it.
    pub fn has_room(&self) -> bool {
        self.load().waiting < self.options.waiting_max
    }

    /// Tokens that fit the context: the configured number, limited by the model's longest context.
    pub fn context_tokens(&self) -> usize {
        self.options.context_tokens
    }

    /// Ends a request at the next step, which reports it as [`FinishReason::Cancelled`]. Unknown ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    /// Requests that may wait; [`submit`](Self::submit) refuses any beyond.
    pub(crate) fn waiting_max(&self) -> usize {
        self.options.waiting_max
    }

    /// How many more requests may run, provided that there are blocks for them.
    pub(crate) fn places_free(&self) -> usize {
        self.scheduler.places_free()
    }

    /// Whether a request waits for admission, for the first time or again. `false` for unknown ids.
    pub(crate) fn is_waiting(&self, id: RequestId) -> bool {
        self.scheduler.is_waiting(id)
    }

    /// Ends requests at once, without a step and without reporting them.
    pub(crate) fn discard(&mut self, ids: &[RequestId]) {
        ids.iter().for_each(|id| self.scheduler.cancel(*id));
        let outputs = self.end_cancelled();
        self.unreported.extend(outputs);
        self.unreported.retain(|output| !ids.contains(&output.id));
    }

    /// Runs a step and returns the events of requests that are `wanted`; the next step reports the others.
    pub(crate) fn step_for(&mut self, wanted: impl Fn(RequestId) -> bool) -> Vec<Output> {
        let outputs = self.step(&mut ()).into_iter();
        let (told, others) = outputs.partition(|output| wanted(output.id));
        self.unreported = others;
        told
    }

    /// Whether nothing waits, runs, remains to be encoded ahead or remains to be reported by a step.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.unreported.is_empty() && !self.images.has_work_ahead()
    }

    /// The engine's current load: requests that wait and run, and blocks in use.
    pub fn load(&self) -> Load {
        self.scheduler.load()
    }

    /// Damages the cache's block table, to test how the engine handles it.
    #[doc(hidden)]
    pub fn damage_blocks(&mut self) {
        self.scheduler.damage_blocks();
    }

    /// Runs one request to its end and advances the others meanwhile; the next [`step`](Self::step) reports their events.
    /// `observer` receives the request's tokens.
    ///
    /// # Errors
    /// The error that the request is refused with or fails with.
    pub fn run(&mut self, request: Request, observer: &mut dyn Observer) -> Result<Finished> {
        let id = self.submit(request)?;
        loop {
            let mut result = None;
            for output in self.work(observer) {
                match output.event {
                    _ if output.id != id => self.unreported.push(output),
                    Event::Token(token) => observer.token(&token),
                    Event::Finished(finished) => result = Some(Ok(finished)),
                    Event::Failed(error) => result = Some(Err(error)),
                }
            }
            if let Some(result) = result {
                return result;
            }
        }
    }
}

/// Occupancy of an engine between two steps: its queue, its running sequences and its KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for admission.
    pub waiting: usize,
    /// Sequences that run in each step.
    pub running: usize,
    /// Blocks of the KV cache that they use.
    pub blocks_in_use: usize,
    /// Blocks of the KV cache in all, of 64 tokens each.
    pub blocks_total: usize,
}

/// Watches the work within a step, between layers. By default, every method does nothing.
///
/// ```
/// use phi3v::engine::{Observer, StepProgress};
/// use std::ops::ControlFlow;
///
/// struct Progress;
///
/// impl Observer for Progress {
///     fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
///         eprintln!("{:?}: {:.1} of {}", progress.phase, progress.done, progress.total);
///         ControlFlow::Continue(())
///     }
/// }
/// ```
pub trait Observer {
    /// Called between layers with the progress so far; [`ControlFlow::Break`](std::ops::ControlFlow::Break) cancels the
    /// request that the work is for.
    fn progress(&mut self, progress: StepProgress) -> std::ops::ControlFlow<()> {
        let _ = progress;
        std::ops::ControlFlow::Continue(())
    }

    /// Called when the engine has found its cache's block table damaged, which is a bug, and has repaired it; `found`
    /// describes the damage. Requests whose answers may be affected have failed with [`EngineError::DamagedCache`].
    fn damage(&mut self, found: &str) {
        let _ = found;
    }

    /// Called when an image could not be encoded ahead of its request, which will start it anew; see
    /// [`Engine::encode_ahead`].
    fn ahead_failed(&mut self, error: &crate::Error) {
        let _ = error;
    }

    /// Called with each token of the request given to [`Engine::run`].
    fn token(&mut self, token: &Token) {
        let _ = token;
    }
}

/// An observer that ignores everything.
impl Observer for () {}
