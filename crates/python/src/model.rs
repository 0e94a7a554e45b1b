//! A loaded model.

use crate::engine_thread::EngineHandle;
use crate::errors::{self, Class};
use crate::forms::Forms;
use crate::hub::Hub;
use crate::processor::Processor;
use crate::work;
use clap::ValueEnum;
use phi3v::decide::Calibration;
use phi3v::device::DeviceChoice;
use phi3v::error::count;
use phi3v::presets::PRESETS;
use phi3v::tokenizer::Tokenizer;
use phi3v_cli::args::{ContextArgs, DeviceArgs, Dtype, Kv, ModelArgs, QuantChoice};
use phi3v_cli::bounded;
use phi3v_cli::error::CliError;
use phi3v_cli::hub::HubOptions;
use phi3v_cli::interrupt::Interrupt;
use phi3v_cli::runtime::{self, Runtime, ScoringModel};
use phi3v_kernels::Cpu;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// A loaded model, whose engine runs on a thread of its own.
#[pyclass(frozen, module = "phi3v._phi3v")]
pub(crate) struct Model {
    #[pyo3(get)]
    processor: Py<Processor>,
    /// Where the model runs, in words.
    #[pyo3(get)]
    device: String,
    pub(crate) shared: Arc<Shared>,
    scoring: ScoringModel,
}

/// What the model and its askers share; the engine thread ends when all of them are gone.
pub(crate) struct Shared {
    pub(crate) engine: EngineHandle,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) context_tokens: usize,
    pub(crate) forms: Forms,
    /// The process that has the engine's thread; one that was forked from it has none.
    process: u32,
}

impl Shared {
    /// Whether this is the process that has the engine's thread.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// # Errors
    /// The model was loaded by another process, whose threads this one lacks.
    pub(crate) fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_of_this_process() {
            return Ok(());
        }
        let (message, hint) =
            ("the model was loaded by the process that this one was forked from", "load it in this one");
        Err(errors::raise(py, Class::Other, message, Some(hint)))
    }
}

/// The presets of schemas: name, question and schema of each, the schema as JSON.
#[pyfunction]
pub(crate) fn presets() -> Vec<(&'static str, &'static str, &'static str)> {
    PRESETS.iter().map(|preset| (preset.name, preset.question(), preset.schema_text())).collect()
}

/// How a model is loaded, by the names of the command line.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Loading {
    model: String,
    #[pyo3(default)]
    quant: Option<String>,
    #[pyo3(default)]
    dtype: Option<String>,
    #[pyo3(default)]
    kv: Option<String>,
    #[pyo3(default)]
    device: Option<String>,
    #[pyo3(default)]
    threads: Option<usize>,
    #[pyo3(default)]
    context: Option<usize>,
    /// Where it is downloaded from.
    #[pyo3(default)]
    hub: Hub,
}

impl Loading {
    fn args(&self, py: Python<'_>) -> PyResult<(ModelArgs, ContextArgs)> {
        let device = self.device.as_deref().map(str::parse::<DeviceChoice>).transpose();
        let device = device.map_err(|error| errors::exception(py, &phi3v::Error::from(error).into()))?;
        let model = ModelArgs {
            model: self.model.clone(),
            dtype: choice(py, "dtype", self.dtype.as_deref())?.unwrap_or(Dtype::Bf16),
            quant: choice::<QuantChoice>(py, "quant", self.quant.as_deref())?,
            kv: choice::<Kv>(py, "kv", self.kv.as_deref())?,
            device: DeviceArgs { device: device.unwrap_or_default(), threads: self.threads },
        };
        Ok((model, ContextArgs { context: self.context }))
    }
}

/// One of the values that a flag takes.
fn choice<T: ValueEnum>(py: Python<'_>, name: &str, value: Option<&str>) -> PyResult<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    let known = T::value_variants().iter().filter_map(T::to_possible_value);
    T::from_str(value, false).map(Some).map_err(|_| {
        let known: Vec<String> = known.map(|known| known.get_name().to_owned()).collect();
        let message = format!("{name} is {value}, it must be one of {}", known.join(", "));
        errors::raise(py, Class::Option, &message, None)
    })
}

/// Loads a model, downloading and quantizing it where need be.
#[pyfunction]
pub(crate) fn load(py: Python<'_>, loading: Loading) -> PyResult<Model> {
    let (model, context) = work::held(py, || loading.args(py))??;
    let hub = work::held(py, || loading.hub.options())?;
    Interrupt::leave_to_host();
    let given_up = Arc::clone(&hub.given_up);
    let start = move || started(&hub, &model, &context);
    let loaded = work::beside(py, &given_up, start)?;
    let Started { shared, processor, device, scoring } = loaded;
    Ok(Model { processor: Py::new(py, processor)?, device, shared: Arc::new(shared), scoring })
}

/// A model on its engine thread.
struct Started {
    shared: Shared,
    processor: Processor,
    device: String,
    scoring: ScoringModel,
}

fn started(hub: &HubOptions, model: &ModelArgs, context: &ContextArgs) -> Result<Started, CliError> {
    let opened = runtime::open_from(hub, model, context, |own| own)?;
    opened.tell_memory(false);
    let params = opened.checkpoint.preprocessor;
    let card = opened.device.card().map_or_else(String::new, |card| card.name);
    let device = opened.device.cpu().map_or(card, words);
    let scoring = opened.scoring(model);
    let Runtime { engine, tokenizer, name } = opened.load_for_program(model)?;
    let context_tokens = engine.context_tokens();
    let engine =
        EngineHandle::start(engine).map_err(|error| work::no_thread("the engine's thread", error))?;
    let processor = Processor { name, tokenizer: Arc::clone(&tokenizer), params };
    let process = std::process::id();
    let shared = Shared { engine, tokenizer, context_tokens, forms: Forms::default(), process };
    Ok(Started { shared, processor, device, scoring })
}

/// The processor in words.
fn words(cpu: &Cpu) -> String {
    format!("the processor ({}, {})", count(cpu.threads(), "thread"), cpu.level())
}

#[pymethods]
impl Model {
    /// Tokens that a prompt, pictures included, and its answer may have together.
    #[getter]
    fn context_tokens(&self) -> usize {
        self.shared.context_tokens
    }

    /// The temperatures of questions, each a text with its choices, as the file `calibration` has them for this model and
    /// pictures of at most `num_crops` tiles; of the model's own number where none is given.
    fn temperatures(
        &self,
        py: Python<'_>,
        calibration: PathBuf,
        questions: Vec<(String, Vec<String>)>,
        num_crops: Option<usize>,
    ) -> PyResult<Vec<f64>> {
        work::outside(py, || {
            let json = bounded::read(&calibration, Calibration::BYTES_MAX)
                .map_err(|error| CliError::unreadable(&calibration, error))?;
            let read = Calibration::from_json(&json).map_err(phi3v::Error::from)?;
            let model = self.scoring.words(|own| num_crops.unwrap_or(own));
            let questions =
                questions.iter().map(|(question, choices)| (question.as_str(), choices.as_slice()));
            Ok(read.temperatures(&model, questions).map_err(phi3v::Error::from)?)
        })
    }
}
