//! `phi3v trace`: every stage of one raw prompt, in a safetensors file.

use crate::args::{ContextArgs, ModelArgs, QuantChoice, TraceArgs};
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::error::CliError;
use crate::images::{self, PictureOptions};
use crate::paths::folder_of;
use crate::progress::Progress;
use crate::runtime::{self, Opened};
use phi3v::checkpoint::Checkpoint;
use phi3v::image::{ImageInputs, ImageMode};
use phi3v::memory::MemoryRequest;
use phi3v::model::Phi3V;
use phi3v::processor;
use phi3v::trace::{self, Entry, TraceOptions, Values};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Records the trace and writes it.
///
/// # Errors
/// The prompt, a picture or the model is refused, or a file cannot be read or written.
pub(super) fn run(args: &TraceArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    images::check_names(&args.images, &[])?;
    check_out(&args.out)?;
    // prompt and answer are known, so the context that would be chosen for a conversation does not matter
    let no_context = ContextArgs { context: None };
    let model = as_stored(args);
    let Opened { checkpoint, cpu, .. } =
        runtime::open(&model, &no_context, |own| args.num_crops.unwrap_or(own))?;
    let own = &checkpoint.preprocessor;
    let options = PictureOptions::of_files(ImageMode::Reference, args.num_crops, &args.limits, own);
    let pictures = images::read_pictures(&args.images, &options)?;
    let inputs: Vec<_> = pictures.into_iter().map(|picture| picture.inputs).collect();
    let (request, tokens) = memory_request(args, &checkpoint, &inputs, &prompt)?;
    runtime::tell(&runtime::plan_exactly(&checkpoint, request, tokens)?, args.verbose);

    let mut progress = Progress::new();
    let mut observe = |step| progress.load(step);
    let options = model.options(&checkpoint.weights);
    let loaded = Phi3V::load(cpu, &checkpoint.config, &checkpoint.weights, options, &mut observe)?;
    progress.clear();
    let options =
        TraceOptions { prompt, max_new_tokens: args.max_new_tokens, hidden_states: args.hidden_states };
    let entries = trace::trace(loaded, &checkpoint.tokenizer, &inputs, &options, checkpoint.stop_ids())?;
    write(args, &entries)
}

/// What the trace takes, and the tokens of its prompt and of the answer.
fn memory_request(
    args: &TraceArgs,
    checkpoint: &Checkpoint,
    inputs: &[Arc<ImageInputs>],
    prompt: &str,
) -> Result<(MemoryRequest, (usize, usize)), CliError> {
    let rows: Vec<usize> = inputs.iter().map(|image| image.num_img_tokens()).collect();
    let ids = processor::raw_prompt(&checkpoint.tokenizer, prompt, &rows).map_err(phi3v::Error::from)?;
    let config = &checkpoint.config;
    // rows of the prompt's length: of the pictures twice, in use and recorded, and what lies between the layers
    let recorded = if args.hidden_states { config.num_hidden_layers + 2 } else { 0 };
    let recorded = (2 + recorded) * ids.len() * config.hidden_size * size_of::<f32>();
    let num_crops = args.num_crops.unwrap_or(checkpoint.preprocessor.num_crops);
    let request = runtime::memory_request(checkpoint, &as_stored(args), num_crops);
    let request = MemoryRequest { image_cache_bytes: recorded as u64, ..request };
    Ok((request, (ids.len(), args.max_new_tokens)))
}

/// Refuses a file that cannot be written before minutes are spent on what is to stand in it.
fn check_out(out: &Path) -> Result<(), CliError> {
    let folder = folder_of(out);
    let refused = match std::fs::metadata(folder) {
        Err(error) => error,
        Ok(metadata) if !metadata.is_dir() => ErrorKind::NotADirectory.into(),
        Ok(_) if out.is_dir() => ErrorKind::IsADirectory.into(),
        Ok(_) if out.exists() && !out.is_file() => std::io::Error::other("it is not a file"),
        Ok(_) => return Ok(()),
    };
    Err(CliError::File { action: "write", path: out.display().to_string(), error: refused })
}

/// A trace is compared with the reference, so nothing is quantised unasked.
fn as_stored(args: &TraceArgs) -> ModelArgs {
    let quant = args.model.quant.or(Some(QuantChoice::None));
    ModelArgs { quant, ..args.model.clone() }
}

fn prompt(args: &TraceArgs) -> Result<String, CliError> {
    match (&args.prompt, &args.prompt_file) {
        (_, Some(path)) => bounded::read_text(path, TEXT_BYTES_MAX).map_err(|error| CliError::File {
            action: "read",
            path: path.display().to_string(),
            error,
        }),
        (prompt, None) => Ok(prompt.clone().unwrap_or_default()),
    }
}

fn write(args: &TraceArgs, entries: &[Entry]) -> Result<(), CliError> {
    let tensors = entries.iter().map(|entry| (entry.name.as_str(), Stored(entry)));
    let failed = |error| CliError::File { action: "write", path: args.out.display().to_string(), error };
    // the library puts another file in the place of this one, which only its owner could read
    let permissions = File::create(&args.out).and_then(|file| file.metadata()).map_err(failed)?.permissions();
    let out = args.out.canonicalize().map_err(failed)?;
    let written = safetensors::serialize_to_file(tensors, None, &out).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => error,
        other => std::io::Error::other(other),
    });
    written.and_then(|()| std::fs::set_permissions(&out, permissions)).map_err(failed)
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
