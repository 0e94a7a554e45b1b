//! `phi3v trace`: every stage of one raw prompt, in a safetensors file.

use crate::args::{ContextArgs, ModelArgs, QuantChoice, TraceArgs};
use crate::error::CliError;
use crate::images::{self, PictureOptions};
use crate::progress::Progress;
use crate::runtime::{self, Opened};
use phi3v::image::{ImageMode, ImageParams};
use phi3v::model::Phi3V;
use phi3v::trace::{self, Entry, TraceOptions, Values};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;

/// Records the trace and writes it.
///
/// # Errors
/// The prompt, a picture or the model is refused, or a file cannot be read or written.
pub(super) fn run(args: &TraceArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    images::check_names(&args.images)?;
    let no_context = ContextArgs { context: None };
    let Opened { checkpoint, cpu, plan } =
        runtime::open(&as_stored(args), &no_context, |own| args.num_crops.unwrap_or(own))?;
    plan.map_err(phi3v::Error::from)?;
    let own = &checkpoint.preprocessor;
    let num_crops = args.num_crops.unwrap_or(own.num_crops);
    let params = ImageParams { num_crops, image_mean: own.image_mean, image_std: own.image_std };
    let pictures =
        images::read_pictures(&args.images, &PictureOptions { mode: ImageMode::Reference, params })?;

    let mut progress = Progress::new();
    let mut observe = |step| progress.load(step);
    let options = args.model.options(&checkpoint.weights);
    let model = Phi3V::load(cpu, &checkpoint.config, &checkpoint.weights, options, &mut observe)?;
    progress.clear();
    let inputs: Vec<_> = pictures.into_iter().map(|picture| picture.inputs).collect();
    let options =
        TraceOptions { prompt, max_new_tokens: args.max_new_tokens, hidden_states: args.hidden_states };
    let entries = trace::trace(model, &checkpoint.tokenizer, &inputs, &options, checkpoint.stop_ids())?;
    write(args, &entries)
}

/// A trace is compared with the reference, so nothing is quantised unasked.
fn as_stored(args: &TraceArgs) -> ModelArgs {
    let quant = args.model.quant.or(Some(QuantChoice::None));
    ModelArgs { quant, ..args.model.clone() }
}

fn prompt(args: &TraceArgs) -> Result<String, CliError> {
    match (&args.prompt, &args.prompt_file) {
        (_, Some(path)) => std::fs::read_to_string(path).map_err(|error| CliError::File {
            action: "read",
            path: path.display().to_string(),
            error,
        }),
        (prompt, None) => Ok(prompt.clone().unwrap_or_default()),
    }
}

fn write(args: &TraceArgs, entries: &[Entry]) -> Result<(), CliError> {
    let tensors = entries.iter().map(|entry| (entry.name.as_str(), Stored(entry)));
    let written = safetensors::serialize_to_file(tensors, None, &args.out);
    written.map_err(|error| CliError::File {
        action: "write",
        path: args.out.display().to_string(),
        error: match error {
            safetensors::SafeTensorError::IoError(error) => error,
            other => std::io::Error::other(other),
        },
    })
}

/// An entry as its bytes in the file.
struct Stored<'a>(&'a Entry);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.values {
            Values::F32(_) => Dtype::F32,
            Values::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match &self.0.values {
            Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        match &self.0.values {
            Values::F32(values) => 4 * values.len(),
            Values::I64(values) => 8 * values.len(),
        }
    }
}
