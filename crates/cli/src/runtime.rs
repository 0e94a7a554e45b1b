//! From a model's name to an engine that answers.

mod room;

pub use room::{Need, memory_request, num_crops_unseen, on_fitting, quant_unseen};

use crate::args::{ContextArgs, DEFAULT_PULL, DeviceArgs, ModelArgs, QuantChoice};
use crate::error::{CliError, ExitCode, Unfit};
use crate::hub::{self, HubError, HubOptions, ModelSource};
use crate::progress::Progress;
use crate::{note, quantized, tell};
use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::device::{Device, DeviceOptions};
use phi3v::engine::{Engine, EngineError, EngineOptions};
use phi3v::image::ImageParams;
use phi3v::memory::{MemoryPlan, MemoryRequest};
use phi3v::model::Phi3V;
use phi3v::tokenizer::Tokenizer;
use phi3v_kernels::{Backend, DeviceMemory, Processor};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How long a device is opened before the user wants to know why: the first time the kernels of a graphics card are compiled and tried.
const SLOW: Duration = Duration::from_secs(1);

/// Most tiles of a picture for the model called by name that has fewest, phi-3.5-vision: what does not fit with these does not fit.
const NUM_CROPS_LEAST: usize = 4;

/// Bytes of weights above which the memory plan is printed without being asked for: 1 GB.
const TOLD_MIN_BYTES: u64 = 1_000_000_000;

/// A checkpoint that is open, and how it is to be run; nothing large has been read yet.
pub struct Opened {
    /// The checkpoint, its weights mapped.
    pub checkpoint: Checkpoint,
    /// What the model is to run on.
    pub device: Device,
    /// What it will take, or why it will not fit.
    pub plan: Result<MemoryPlan, Unfit>,
    /// Whether it is the built-in model, quantized or not.
    pub is_demo: bool,
    /// Set by whoever waits for it, when it is not wanted any more.
    pub given_up: Arc<AtomicBool>,
}

/// One line on what the demo model can do and how to get the real one.
#[must_use]
pub fn demo_notice() -> String {
    let (name, abilities) = (phi3v::demo::NAME, phi3v::demo::ABILITIES);
    format!("{name} model: {abilities}; for your own pictures: --model {DEFAULT_PULL}")
}

/// A model and all that decides about its scores but for the pictures: its name, and the formats of weights, products and keys.
#[derive(Clone, Debug)]
pub struct ScoringModel {
    name: String,
    formats: String,
    params: ImageParams,
}

impl ScoringModel {
    /// It in words, as calibrations name what they were fitted to, with the number of tiles that it cuts pictures into;
    /// `num_crops` tells how many are asked for where the checkpoint's own number is this.
    #[must_use]
    pub fn words(&self, num_crops: impl Fn(usize) -> usize) -> String {
        let Self { name, formats, params } = self;
        let tiles = params.with_num_crops(num_crops(params.num_crops)).num_crops;
        format!("{name} ({formats}, num-crops {tiles})")
    }
}

/// A loaded model in its engine, with its tokenizer and its name: what every command needs that asks.
pub struct Runtime {
    /// The engine with the loaded model.
    pub engine: Engine<Device>,
    /// Text to ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What the model is called.
    pub name: String,
}

/// Finds the model, downloading it where need be, and plans its memory.
///
/// # Errors
/// [`CliError`]: there is no such model, it would have to be downloaded and will not fit, or its files or the device's settings are
/// wrong.
pub fn open(
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: impl Fn(usize) -> usize,
) -> Result<Opened, CliError> {
    open_from(&HubOptions::from_env(), model, context, num_crops)
}

/// The same, from the hub and the cache that `hub` names, until it is given up there.
///
/// # Errors
/// As for [`open`].
pub fn open_from(
    hub: &HubOptions,
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: impl Fn(usize) -> usize,
) -> Result<Opened, CliError> {
    // before the download: a wrong flag or variable should not cost eight gigabytes first
    let device = device(&model.device)?;
    let device = unless_too_large(hub, device, model, context, &num_crops)?;
    let source = hub::resolve(&model.model, hub, &mut *hub::for_stderr())?;
    let given_up = Arc::clone(&hub.given_up);
    let opened = open_quantized(&source, device, model, context, &num_crops, &given_up)?;
    Ok(Opened { is_demo: source == ModelSource::Demo, given_up, ..opened })
}

/// The device that will run the model, where it is not known yet that it will not fit: what would have to be downloaded is planned
/// first, if its shape is known.
fn unless_too_large(
    hub: &HubOptions,
    device: Device,
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: impl Fn(usize) -> usize,
) -> Result<Device, CliError> {
    if !hub::is_known(&model.model) || hub.offline {
        return Ok(device);
    }
    let in_cache = HubOptions { offline: true, ..hub.clone() };
    match hub::resolve(&model.model, &in_cache, &mut *hub::for_stderr()) {
        Err(HubError::NotCached { .. }) => {
            let config = ModelConfig::phi_3_5_vision();
            let need = Need::unseen(&config, model, num_crops(NUM_CROPS_LEAST), context);
            let (device, plan) = need.plan(device, &model.device);
            plan?;
            Ok(device)
        }
        _ => Ok(device),
    }
}

/// Opens the model at `source` in the form that the flags ask for, which is made if need be.
fn open_quantized(
    source: &ModelSource,
    device: Device,
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: &impl Fn(usize) -> usize,
    given_up: &AtomicBool,
) -> Result<Opened, CliError> {
    let opened = plan(open_source(source)?, device, model, context, num_crops);
    let asked = model.quant.and_then(QuantChoice::quant);
    if let (Some(has), Some(asked)) = (opened.checkpoint.weights.quant(), asked)
        && has != asked
    {
        return Err(CliError::Quantized { name: opened.checkpoint.name, quant: has.name() });
    }
    match model.quantized(&opened.checkpoint.weights) {
        // what will not fit is not worth minutes of quantizing
        Some(quant) if opened.plan.is_ok() => {
            let Opened { checkpoint, device, .. } = opened;
            match quantized::open(source, checkpoint, quant, given_up) {
                // nobody asked for it by name, and it can be done without
                Err(error) if model.quant.is_none() && error.exit_code() != ExitCode::Interrupted => {
                    note!("note: the weights are used as they are, because {error}");
                    let as_stored = ModelArgs { quant: Some(QuantChoice::None), ..model.clone() };
                    Ok(plan(open_source(source)?, device, &as_stored, context, num_crops))
                }
                quantized => Ok(plan(quantized?, device, model, context, num_crops)),
            }
        }
        _ => Ok(opened),
    }
}

/// The device, as the flags, `PHI3V_DEVICE` and `PHI3V_CPU` have it.
///
/// # Errors
/// A card that is not there or cannot be used, an unknown level, or a number of threads out of range.
pub fn device(args: &DeviceArgs) -> Result<Device, CliError> {
    let tell_waiting = || {
        if std::io::stderr().is_terminal() {
            note!("trying the graphics card; what comes of it is kept for the next time");
        }
    };
    let opened =
        while_slow(SLOW, tell_waiting, || Device::open_telling(&device_options(args), &mut tell_device));
    let device = opened.map_err(phi3v::Error::from)?;
    if let Some(warning) = device.cpu().and_then(|cpu| cpu.processor().warning()) {
        note!("warning: {warning}");
    }
    Ok(device)
}

/// What `work` gives; `tell` is called beside it where it takes longer than `slow`.
fn while_slow<T>(slow: Duration, tell: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (working, ended) = mpsc::channel::<()>();
    let wait = move || {
        if ended.recv_timeout(slow) == Err(RecvTimeoutError::Timeout) {
            tell();
        }
    };
    std::thread::scope(|scope| {
        // without a thread nothing is told
        let _ = std::thread::Builder::new().spawn_scoped(scope, wait);
        let done = work();
        drop(working);
        done
    })
}

/// What the flags and `PHI3V_CPU` would use of this machine's processor, whichever device runs the model.
///
/// # Errors
/// An unknown level, or a number of threads out of range.
pub fn processor(args: &DeviceArgs) -> Result<Processor, CliError> {
    Ok(device_options(args).processor().map_err(phi3v::Error::from)?)
}

fn tell_device(sentence: &str) {
    note!("note: {sentence}");
}

fn device_options(args: &DeviceArgs) -> DeviceOptions {
    DeviceOptions {
        choice: args.device.clone(),
        threads: args.threads,
        gpu_cache: Some(quantized::cache_folder().join("gpu")),
        ..DeviceOptions::default()
    }
}

/// Opens the model of that name.
///
/// # Errors
/// [`CliError`]: there is no such model, it cannot be downloaded, or its files are wrong.
pub fn checkpoint(name: &str, options: &HubOptions) -> Result<Checkpoint, CliError> {
    open_source(&hub::resolve(name, options, &mut *hub::for_stderr())?)
}

/// Opens the model at `source` as it is stored.
///
/// # Errors
/// Its files are wrong.
pub fn open_source(source: &ModelSource) -> Result<Checkpoint, CliError> {
    let opened = match source {
        ModelSource::Folder(dir) => Checkpoint::open(dir),
        ModelSource::Demo => Checkpoint::from_files(&phi3v::demo::files()),
    };
    Ok(opened.map_err(phi3v::Error::from)?)
}

/// Plans the memory of an open checkpoint, quantized as the flags will have it.
pub fn plan(
    checkpoint: Checkpoint,
    device: Device,
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: impl Fn(usize) -> usize,
) -> Opened {
    let own = checkpoint.preprocessor;
    let num_crops = own.with_num_crops(num_crops(own.num_crops)).num_crops;
    let (device, plan) = Need::of(&checkpoint, model, num_crops, context).plan(device, &model.device);
    Opened { checkpoint, device, plan, is_demo: false, given_up: Arc::default() }
}

/// Plans for a prompt and an answer of known length, as [`on_fitting`] does, and refuses what the model or the memory cannot take.
///
/// # Errors
/// [`CliError::Fixed`]: too many tokens, or too little memory.
pub fn plan_exactly(
    device: Device,
    args: &DeviceArgs,
    checkpoint: &Checkpoint,
    request: MemoryRequest,
    prompt: usize,
    answer: usize,
) -> Result<(Device, MemoryPlan), CliError> {
    let context = checkpoint.config.context_max();
    let tokens = prompt.saturating_add(answer);
    if tokens > context {
        let error = EngineError::ContextLength { prompt, answer, context };
        return Err(CliError::Fixed(error.into()));
    }
    let request = MemoryRequest { context: Some(tokens), prefill_chunk: Some(prompt), ..request };
    let (device, plan) = on_fitting(device, args, &checkpoint.config, &request);
    Ok((device, plan.map_err(|error| CliError::Fixed(error.into()))?))
}

/// Tells what will be taken of the memory: of a large model always, of a small one where it is asked for.
pub fn tell(plan: &MemoryPlan, verbose: bool) {
    if verbose {
        tell!("memory: {plan}");
    } else if plan.weights_bytes > TOLD_MIN_BYTES {
        note!("memory: {plan}");
    }
}

/// What a server takes of the memory beside its model.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Bodies, files and prepared pictures of requests.
    pub input_bytes: u64,
    /// Pictures while they are decoded, at most.
    pub decoder_bytes: u64,
}

impl Beside {
    /// What is left free for it, with `image_bytes` of pictures that are kept, of a memory of which so much is available. Few pictures
    /// cost what one may: on a small machine a quarter is left for them, and answers keep the rest.
    fn bytes(self, available: Option<u64>, image_bytes: u64) -> u64 {
        let decoder_bytes = self.decoder_bytes.min(available.map_or(u64::MAX, |available| available / 4));
        self.input_bytes.saturating_add(decoder_bytes).saturating_add(image_bytes)
    }
}

impl Opened {
    /// Says that it is the demo model that will answer, if it is: a stranger takes it for the real one.
    pub fn tell_demo(&self) {
        if self.is_demo {
            note!("{}", demo_notice());
        }
    }

    /// The model and all that decides about its scores but for the pictures.
    #[must_use]
    pub fn scoring(&self, model: &ModelArgs) -> ScoringModel {
        let Checkpoint { name, weights, preprocessor, .. } = &self.checkpoint;
        let quant = weights.quant().map_or("none", |quant| quant.name());
        let kv = format!("{:?}", model.options(weights).kv_format).to_lowercase();
        let formats = format!("quant {quant}, dtype {}, kv {kv}", model.dtype.name());
        ScoringModel { name: name.clone(), formats, params: *preprocessor }
    }

    /// Tells what will be taken of the memory, as [`tell()`] does; a plan that does not fit is for
    /// [`load`](Self::load) to refuse.
    pub fn tell_memory(&self, verbose: bool) {
        if let Ok(plan) = &self.plan {
            tell(plan, verbose);
        }
    }

    /// Itself, if it fits into memory.
    ///
    /// # Errors
    /// It does not.
    pub fn fitting(self) -> Result<Self, CliError> {
        let plan = self.plan?;
        Ok(Self { plan: Ok(plan), ..self })
    }

    /// Loads the model.
    ///
    /// # Errors
    /// It does not fit into memory, its weights are wrong, or it was given up.
    pub fn load(self, model: &ModelArgs) -> Result<Runtime, CliError> {
        self.load_with(model, |_, options| options)
    }

    /// Loads the model for up to `width` answers at a time that nobody watches token by token. Its KV cache holds all of
    /// them, as far as memory allows.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_for_batch(self, model: &ModelArgs, width: Option<usize>) -> Result<Runtime, CliError> {
        // with more the last bits of an answer would depend on how many there are
        let few_rows_max = self.device.sizes().few_rows_max;
        let width = width.unwrap_or(few_rows_max).min(few_rows_max);
        self.load_with(model, |plan, options| {
            let cache_tokens = plan.cache_tokens_of(width);
            EngineOptions { running_max: Some(width), cache_tokens, ..options }.for_batch()
        })
    }

    /// Returns whether the model has memory of its own, which nothing else of the program uses.
    fn is_in_own_memory(&self) -> bool {
        matches!(self.device.memory(), DeviceMemory::Own { .. })
    }

    /// Returns the bytes that the plan leaves for the bodies and pictures of a server's requests; `None` if the available memory
    /// is unknown.
    #[must_use]
    pub fn input_bytes_left(&self) -> Option<u64> {
        let plan = self.plan.as_ref().ok().filter(|_| !self.is_in_own_memory())?;
        Some(plan.available_bytes?.saturating_sub(plan.total_bytes()))
    }

    /// Loads the model for a program that asks one question or many at a time, and does other things too. Its KV cache holds as
    /// many answers as run together, as far as memory allows, and takes more than for one only while they do. A card, which takes
    /// the memory of the whole cache at once, has room for one context.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_for_program(self, model: &ModelArgs) -> Result<Runtime, CliError> {
        let cache_tokens = self.plan.as_ref().map_or(0, |plan| plan.cache_tokens_on(&self.device));
        self.load_with(model, |_, options| EngineOptions {
            cache_tokens,
            cache_grows_to_keep: false,
            ..options
        })
    }

    /// Loads the model for a server, whose requests take `beside` as well. Its KV cache holds as many
    /// answers as run together, as far as memory allows; the queue is the server's to bound.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_for_server(self, model: &ModelArgs, beside: Beside) -> Result<Runtime, CliError> {
        let running_max = self.device.sizes().few_rows_max;
        let beside = (!self.is_in_own_memory()).then_some(beside);
        self.load_with(model, |plan, options| {
            // images of requests that wait take as much as those that are kept
            let image_bytes = options.image_cache_bytes_max as u64;
            let beside = beside.map_or(image_bytes, |beside| beside.bytes(plan.available_bytes, image_bytes));
            let image_cache_bytes = plan.image_cache_bytes.saturating_add(beside);
            let cache_tokens = MemoryPlan { image_cache_bytes, ..*plan }.cache_tokens_of(running_max);
            EngineOptions { cache_tokens, waiting_max: usize::MAX, ..options }
        })
    }

    fn load_with(
        self,
        model: &ModelArgs,
        adjust: impl FnOnce(&MemoryPlan, EngineOptions) -> EngineOptions,
    ) -> Result<Runtime, CliError> {
        let plan = self.plan?;
        let Checkpoint { config, tokenizer, weights, name, .. } = &self.checkpoint;
        let mut progress = Progress::new();
        let mut observe = |step| {
            progress.load(step);
            if self.given_up.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let options = EngineOptions { context_tokens: plan.context_tokens, ..EngineOptions::default() };
        let options = adjust(&plan, options);
        let loaded =
            Phi3V::load_unless_stopped(self.device, config, weights, model.options(weights), &mut observe)?;
        let engine = Engine::new(loaded, Arc::clone(tokenizer), self.checkpoint.stop_ids(), options)?;
        Ok(Runtime { engine, tokenizer: Arc::clone(tokenizer), name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_are_planned_for_as_far_as_the_memory_goes() {
        let beside = Beside { input_bytes: 1 << 30, decoder_bytes: 1_600_000_000 };
        let of = |available| beside.bytes(available, 5);
        let whole = (1 << 30) + 1_600_000_000 + 5;
        assert_eq!((of(None), of(Some(64 << 30))), (whole, whole));
        assert_eq!(of(Some(4 << 30)), (2 << 30) + 5, "a quarter of 4 GiB, and the inputs");
    }

    #[test]
    fn what_takes_long_is_told_while_it_does() {
        let (told, heard) = mpsc::channel();
        // it ends when it has been told
        let done = while_slow(Duration::ZERO, || told.send(7).unwrap(), || heard.recv().unwrap());
        assert_eq!(done, 7);
        while_slow(Duration::MAX, || panic!("it did not take so long"), || ());
    }
}
