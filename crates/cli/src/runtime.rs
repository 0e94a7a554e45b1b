//! From a model's name to an engine that answers.

use crate::args::{ContextArgs, ModelArgs};
use crate::error::{CliError, ExitCode};
use crate::hub::{self, HubOptions, ModelSource};
use crate::progress::Progress;
use crate::quantised;
use phi3v::checkpoint::Checkpoint;
use phi3v::engine::{Engine, EngineOptions};
use phi3v::memory::{self, MemoryPlan, MemoryRequest};
use phi3v::model::Phi3V;
use phi3v::tokenizer::Tokenizer;
use phi3v_kernels::{Cpu, CpuOptions};
use std::sync::Arc;

/// A checkpoint that is open, and how it is to be run; nothing large has been read yet.
pub struct Opened {
    /// The checkpoint, its weights mapped.
    pub checkpoint: Checkpoint,
    /// The processor.
    pub cpu: Cpu,
    /// What it will take, or why it will not fit.
    pub plan: Result<MemoryPlan, memory::MemoryError>,
}

/// An engine and what is needed to speak to it.
pub struct Runtime {
    /// The engine.
    pub engine: Engine<Cpu>,
    /// Text to ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What the model is called.
    pub name: String,
}

/// Finds the model, downloading it where need be, and plans its memory.
///
/// # Errors
/// [`CliError`]: there is no such model, or its files or the processor's settings are wrong.
pub fn open(
    model: &ModelArgs,
    context: &ContextArgs,
    num_crops: impl Fn(usize) -> usize,
) -> Result<Opened, CliError> {
    // before the download: a wrong flag or variable should not cost eight gigabytes first
    let cpu = cpu(model)?;
    let source = hub::resolve(&model.model, &HubOptions::from_env(), &mut *hub::for_stderr())?;
    let mut checkpoint = open_source(&source)?;
    if let Some(quant) = model.quantised(&checkpoint.weights) {
        checkpoint = match quantised::open(&source, checkpoint, quant) {
            // nobody asked for it by name, and it can be done without
            Err(error) if model.quant.is_none() && error.exit_code() != ExitCode::Interrupted => {
                eprintln!("note: the weights are used as they are, because {error}");
                open_source(&source)?
            }
            opened => opened?,
        };
    }
    Ok(plan(checkpoint, cpu, model, (context, num_crops)))
}

/// The processor, as the flags and `PHI3V_CPU` have it.
///
/// # Errors
/// An unknown level, or threads that cannot be had.
pub fn cpu(model: &ModelArgs) -> Result<Cpu, CliError> {
    Ok(Cpu::new(&CpuOptions { threads: model.threads, level: None })?)
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

/// Plans the memory of an open checkpoint.
pub fn plan(
    checkpoint: Checkpoint,
    cpu: Cpu,
    model: &ModelArgs,
    (context, num_crops): (&ContextArgs, impl Fn(usize) -> usize),
) -> Opened {
    let request = MemoryRequest {
        weights_bytes: checkpoint.weights.bytes_total(),
        kv_format: model.options(&checkpoint.weights).kv_format,
        num_crops: num_crops(checkpoint.preprocessor.num_crops),
        prefill_chunk: EngineOptions::default().prefill_chunk_alone,
        context: context.context,
    };
    let plan = MemoryPlan::new(&checkpoint.config, &request, memory::available_bytes());
    Opened { checkpoint, cpu, plan }
}

impl Opened {
    /// Loads the model.
    ///
    /// # Errors
    /// It does not fit into memory, or its weights are wrong.
    pub fn load(self, model: &ModelArgs) -> Result<Runtime, CliError> {
        let plan = self.plan.map_err(phi3v::Error::from)?;
        let Checkpoint { config, tokenizer, weights, name, .. } = &self.checkpoint;
        let mut progress = Progress::new();
        let mut observe = |step| progress.load(step);
        let loaded = Phi3V::load(self.cpu, config, weights, model.options(weights), &mut observe)?;
        let options = EngineOptions { context_tokens: plan.context_tokens, ..EngineOptions::default() };
        let engine = Engine::new(loaded, Arc::clone(tokenizer), self.checkpoint.stop_ids(), options)?;
        Ok(Runtime { engine, tokenizer: Arc::clone(tokenizer), name: name.clone() })
    }
}
