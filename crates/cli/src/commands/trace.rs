//! `phi3v trace`: records every stage of one raw prompt in a safetensors file.

use crate::args::{ContextArgs, ModelArgs, QuantChoice, TraceArgs};
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::error::CliError;
use crate::output::{check_inputs, check_out, source_of};
use crate::progress::Progress;
use crate::runtime::{self, Opened};
use crate::sources::{self, ImageOptions};
use phi3v::checkpoint::Checkpoint;
use phi3v::config::VisionConfig;
use phi3v::files::{NewFile, WriteError};
use phi3v::image::{ImageInputs, ImageMode, TILE_VALUES};
use phi3v::memory::MemoryRequest;
use phi3v::model::Phi3V;
use phi3v::processor;
use phi3v::trace::{self, Entry, TraceOptions, Values};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::path::Path;
use std::sync::Arc;

/// Records the trace and writes it.
///
/// # Errors
/// The prompt, a picture or the model cannot be used, or a file cannot be read or written.
pub(super) fn run(args: &TraceArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    sources::check_names(&args.images, &[])?;
    check_inputs(&args.out, args.images.iter().map(Path::new).chain(args.prompt_file.as_deref()))?;
    check_out(&args.out, args.overwrite.existing(), &source_of(&args.model.model))?;
    // prompt and answer are planned once they are known; until then only a model too large without them is refused
    let no_context = ContextArgs { context: Some(1) };
    let model = as_stored(args);
    let opened = runtime::open(&model, &no_context, |own| args.num_crops.unwrap_or(own));
    // the hint of that would name a context of one token
    let Opened { checkpoint, device, .. } = opened.map_err(|error| match error {
        CliError::Unfit(unfit) => CliError::Fixed(unfit.error.into()),
        error => error,
    })?;
    let own = &checkpoint.preprocessor;
    let params = own.with_num_crops(args.num_crops.unwrap_or(own.num_crops));
    let options = ImageOptions::of_files(ImageMode::Reference, params, args.limits.limits());
    let pictures = sources::read_images(&args.images, &options)?;
    let inputs: Vec<_> = pictures.into_iter().map(|picture| picture.inputs).collect();
    let PromptMemory { request, prompt_tokens } = memory_request(args, &checkpoint, &inputs, &prompt)?;
    let (device, plan) = runtime::plan_exactly(
        device,
        &model.device,
        &checkpoint,
        request,
        prompt_tokens,
        args.max_new_tokens,
    )?;
    runtime::tell(&plan, args.verbose);

    let mut progress = Progress::new();
    let mut observe = |step| progress.load(step);
    let options = model.options(&checkpoint.weights);
    let loaded = Phi3V::load(device, &checkpoint.config, &checkpoint.weights, options, &mut observe)?;
    progress.clear();
    let options =
        TraceOptions { prompt, max_new_tokens: args.max_new_tokens, hidden_states: args.hidden_states };
    let entries = trace::trace(loaded, &checkpoint.tokenizer, &inputs, &options, checkpoint.stop_ids())?;
    write(args, &entries)
}

/// The memory of a trace besides the weights, and the tokens of its prompt.
struct PromptMemory {
    request: MemoryRequest,
    prompt_tokens: usize,
}

fn memory_request(
    args: &TraceArgs,
    checkpoint: &Checkpoint,
    inputs: &[Arc<ImageInputs>],
    prompt: &str,
) -> Result<PromptMemory, CliError> {
    let rows: Vec<usize> = inputs.iter().map(|image| image.num_img_tokens()).collect();
    let ids = processor::raw_prompt(&checkpoint.tokenizer, prompt, &rows).map_err(phi3v::Error::from)?;
    let config = &checkpoint.config;
    let row_bytes = (ids.len() * config.hidden_size * size_of::<f32>()) as u64;
    let rows = 1 + if args.hidden_states { config.num_hidden_layers as u64 + 2 } else { 0 };
    let kept_bytes = inputs.iter().map(|image| recorded_bytes(image, &config.img_processor)).sum::<u64>();
    let num_crops = args.num_crops.unwrap_or(checkpoint.preprocessor.num_crops);
    let request = MemoryRequest {
        // the pictures' rows in use; recorded rows are kept, along with the values between the layers
        image_cache_bytes: row_bytes,
        kept_bytes: kept_bytes.saturating_add(row_bytes.saturating_mul(rows)),
        ..runtime::memory_request(checkpoint, &as_stored(args), num_crops)
    };
    Ok(PromptMemory { request, prompt_tokens: ids.len() })
}

/// Bytes recorded of a picture before it becomes rows of the prompt: the pixels of all tiles, and their features.
fn recorded_bytes(image: &ImageInputs, config: &VisionConfig) -> u64 {
    let tile = TILE_VALUES + config.num_patches() * config.hidden_size;
    (image.tile_of.len() * tile * size_of::<f32>()) as u64
}

/// The model as stored: a trace is compared with the reference, so nothing is quantized by default.
fn as_stored(args: &TraceArgs) -> ModelArgs {
    let quant = args.model.quant.or(Some(QuantChoice::None));
    ModelArgs { quant, ..args.model.clone() }
}

fn prompt(args: &TraceArgs) -> Result<String, CliError> {
    match (&args.prompt, &args.prompt_file) {
        (_, Some(path)) => {
            bounded::read_text(path, TEXT_BYTES_MAX).map_err(|error| CliError::unreadable(path, error))
        }
        (prompt, None) => Ok(prompt.clone().unwrap_or_default()),
    }
}

fn write(args: &TraceArgs, entries: &[Entry]) -> Result<(), CliError> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    // in the order of the format's own tools: larger numbers first, then by name
    entries.sort_by(|a, b| dtype(b).cmp(&dtype(a)).then_with(|| a.name.cmp(&b.name)));
    let (mut tensors, mut end) = (Vec::with_capacity(entries.len()), 0);
    for entry in &entries {
        let start = end;
        end += entry.shape.iter().product::<usize>() * dtype(entry).bitsize() / 8;
        let info = TensorInfo { dtype: dtype(entry), shape: entry.shape.clone(), data_offsets: (start, end) };
        tensors.push((entry.name.clone(), info));
    }
    let failed = |error| CliError::File {
        action: "write",
        path: args.out.display().to_string(),
        error: std::io::Error::other(error),
    };
    let metadata = Metadata::new(None, tensors).map_err(failed)?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| failed(error.into()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = (8 + header.len() + end) as u64;
    write_parts(args, &header, &entries).map_err(|error| CliError::written(error, bytes))
}

fn write_parts(args: &TraceArgs, header: &[u8], entries: &[&Entry]) -> Result<(), WriteError> {
    let mut file = NewFile::create(&args.out, args.overwrite.existing())?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(header)?;
    for entry in entries {
        match &entry.values {
            Values::F32(values) => {
                values.iter().try_for_each(|value| file.write(&value.to_le_bytes()))?;
            }
            Values::I64(values) => {
                values.iter().try_for_each(|value| file.write(&value.to_le_bytes()))?;
            }
        }
    }
    file.finish()
}

fn dtype(entry: &Entry) -> Dtype {
    match entry.values {
        Values::F32(_) => Dtype::F32,
        Values::I64(_) => Dtype::I64,
    }
}
