//! What all requests share.

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

/// Requests whose text becomes ids at one time.
const TEXTS: usize = 2;

/// Requests whose form is compiled at one time.
const FORMS: usize = 2;

/// What requests need to know of the model: its name, its tokenizer and how pictures are cut.
#[derive(Clone)]
pub struct ServedModel {
    /// The name by which clients ask for it.
    pub name: String,
    /// What users should know of it, if there is something.
    pub description: Option<String>,
    /// Text to ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What makes, from a schema or a grammar, the constraint that holds an answer to it.
    pub constraints: Arc<ConstraintFactory>,
    /// How it wants its pictures.
    pub image_params: ImageParams,
    /// Tokens of prompt and answer that fit.
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

/// What all requests share: bounds, the engine, the sources of pictures, counters, and the model once it is there.
pub struct App {
    /// Bounds of requests, connections and times.
    pub limits: Limits,
    /// The way to the engine's thread.
    pub engine: EngineHandle,
    /// What is counted for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Where pictures may come from.
    pub sources: Sources,
    /// What draws the documents of requests.
    pub drawer: Drawer,
    /// Seconds since 1970 of the start.
    pub started: u64,
    /// Turns at decoding pictures.
    pub decoders: Turns,
    /// Turns at pictures of which some are drawn by another process: nobody waits there who decodes others.
    pub drawers: Turns,
    /// Turns at text without pictures: nobody waits there for the pictures of others.
    pub texts: Turns,
    /// Turns at compiling forms: nobody without one waits there.
    pub forms: Turns,
    model: OnceLock<ServedModel>,
    /// Whether the model's device failed, and the model is being loaded anew.
    reloading: AtomicBool,
    draining: AtomicBool,
    inputs: Inputs,
}

impl App {
    /// The state of a server whose model is still to come.
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

    /// Says that the model is there; from now on questions are answered.
    pub fn set_model(&self, model: ServedModel) {
        // by the engine thread; a model that is loaded anew is the same one
        let _ = self.model.set(model);
        self.reloading.store(false, Ordering::Release);
    }

    /// Says that the model is being loaded anew. Requests wait for it; [`loaded`](Self::loaded) says so to who looks for
    /// another server.
    pub fn reload(&self) {
        self.reloading.store(true, Ordering::Release);
    }

    /// From now on no request is accepted; those that are being answered go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The model, when requests are accepted.
    ///
    /// # Errors
    /// Why they are not.
    pub fn ready(&self) -> Result<&ServedModel, ApiError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(limits::draining());
        }
        if !self.engine.is_alive() {
            return Err(ApiError::engine_stopped());
        }
        self.model.get().ok_or_else(limits::loading)
    }

    /// The model, when requests are accepted and can begin at once.
    ///
    /// # Errors
    /// Why they are not, or cannot.
    pub fn loaded(&self) -> Result<&ServedModel, ApiError> {
        if self.reloading.load(Ordering::Acquire) { Err(limits::loading()) } else { self.ready() }
    }

    /// A budget for the input of a request of `client`, of which nothing is charged yet.
    pub fn budget(&self, client: CacheSalt) -> Budget {
        self.inputs.budget_of(client)
    }
}

/// Seconds since the beginning of 1970, for the field `created` of answers.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A fresh name with a prefix, as `chatcmpl-` and 16 hexadecimal digits.
pub fn fresh_id(prefix: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    // each state is seeded differently, so the hash of nothing differs too
    format!("{prefix}{:016x}", RandomState::new().hash_one(prefix))
}
