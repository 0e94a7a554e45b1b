//! The state that all requests share.

use super::engine_thread::EngineHandle;
use super::error::ApiError;
use super::limits::{self, DECODERS, DRAWERS, Limits};
use super::metrics::Metrics;
use crate::documents::Drawer;
use crate::sources::{Budget, Inputs, Sources, Turns};
use phi3v::constraint::ConstraintFactory;
use phi3v::engine::CacheSalt;
use phi3v::image::ImageParams;
use phi3v::tokenizer::Tokenizer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Simultaneous requests whose text is converted to ids.
const TEXTS: usize = 2;

/// Simultaneous requests whose form is compiled.
const FORMS: usize = 2;

/// What requests need to know of the model: its name, its tokenizer and how to cut pictures.
#[derive(Clone)]
pub struct ServedModel {
    /// The name by which clients ask for it.
    pub name: String,
    /// Notes on the model for its users, if any.
    pub description: Option<String>,
    /// Converts text to ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Builds, from a schema or a grammar, the constraint that an answer must follow.
    pub constraints: Arc<ConstraintFactory>,
    /// How the model wants its pictures.
    pub image_params: ImageParams,
    /// Maximum number of tokens of prompt and answer together.
    pub context_tokens: usize,
}

#[cfg(test)]
impl ServedModel {
    /// The built-in model.
    pub(super) fn demo() -> Self {
        let checkpoint = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files()).unwrap();
        let phi3v::checkpoint::Checkpoint { name, tokenizer, preprocessor, .. } = checkpoint;
        let constraints =
            ConstraintFactory::new(&tokenizer, phi3v::constraint::GrammarLimits::default()).unwrap();
        let constraints = Arc::new(constraints);
        let (description, image_params, context_tokens) = (None, preprocessor, 4096);
        Self { name, description, tokenizer, constraints, image_params, context_tokens }
    }
}

/// The state that all requests share: limits, the engine, the sources of pictures, metrics, and the model once it is
/// loaded.
pub struct App {
    /// Limits on requests, connections and times.
    pub limits: Limits,
    /// Access to the engine's thread.
    pub engine: EngineHandle,
    /// The metrics for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Where pictures may come from.
    pub sources: Sources,
    /// Draws the documents of requests.
    pub drawer: Drawer,
    /// Start time of the server in seconds since 1970.
    pub started: u64,
    /// Turns at decoding pictures.
    pub decoders: Turns,
    /// Turns at pictures of which some are drawn by another process. Requests that only decode do not wait here.
    pub drawers: Turns,
    /// Turns at text without pictures, which need not wait for the pictures of others.
    pub texts: Turns,
    /// Turns at compiling forms. Requests without a form do not wait here.
    pub forms: Turns,
    model: OnceLock<ServedModel>,
    /// Whether the model's device failed and the model is being loaded again.
    reloading: AtomicBool,
    draining: AtomicBool,
    inputs: Inputs,
}

impl App {
    /// Creates the state of a server whose model is not loaded yet.
    pub fn new(limits: Limits, engine: EngineHandle, sources: Sources, drawer: Drawer) -> Self {
        Self {
            inputs: Inputs::new(limits.input_bytes_max),
            limits,
            engine,
            metrics: Arc::new(Metrics::new()),
            sources,
            drawer,
            started: unix_seconds(),
            decoders: Turns::new(DECODERS),
            drawers: Turns::new(DRAWERS),
            texts: Turns::new(TEXTS),
            forms: Turns::new(FORMS),
            model: OnceLock::new(),
            reloading: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Sets the loaded model; from now on questions are answered.
    pub fn set_model(&self, model: ServedModel) {
        // set by the engine thread; a reloaded model is the same one
        let _ = self.model.set(model);
        self.reloading.store(false, Ordering::Release);
    }

    /// Marks the model as reloading. Requests wait; [`loaded`](Self::loaded) reports it to load balancers.
    pub fn reload(&self) {
        self.reloading.store(true, Ordering::Release);
    }

    /// Stops accepting requests; those that are being answered continue.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Returns the model if requests are accepted.
    ///
    /// # Errors
    /// Why requests are not accepted.
    pub fn ready(&self) -> Result<&ServedModel, ApiError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(limits::draining());
        }
        if !self.engine.is_alive() {
            return Err(ApiError::engine_stopped());
        }
        self.model.get().ok_or_else(limits::loading)
    }

    /// Returns the model if requests are accepted and can begin at once.
    ///
    /// # Errors
    /// Why requests are not accepted, or cannot begin.
    pub fn loaded(&self) -> Result<&ServedModel, ApiError> {
        if self.reloading.load(Ordering::Acquire) { Err(limits::loading()) } else { self.ready() }
    }

    /// Returns a budget for the input of a request of `client`, with nothing charged yet.
    pub fn budget(&self, client: CacheSalt) -> Budget {
        self.inputs.budget_of(client)
    }
}

/// Returns the seconds since the beginning of 1970, for the field `created` of answers.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns a fresh name with a prefix, such as `chatcmpl-` and 16 hexadecimal digits.
pub fn fresh_id(prefix: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    // each state is seeded differently, so the hash of the same prefix differs too
    format!("{prefix}{:016x}", RandomState::new().hash_one(prefix))
}
