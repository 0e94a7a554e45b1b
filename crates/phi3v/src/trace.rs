//! Records every stage of one prompt, so that anyone can compare phi3v with the reference on their own files.
//!
//! The prompt is raw: special tokens and `<|image_i|>` tags are parsed as the reference's processor does. The caller
//! decodes the images in reference mode. [`Trace`] lists what is recorded, with its shapes.

use crate::engine::{Engine, EngineError, EngineOptions, Event, Request};
use crate::image::{ImageInputs, TILE_SIDE, TILE_VALUES};
use crate::model::{Chunk, Phi3V, Segment};
use crate::tokenizer::Tokenizer;
use crate::{Result, processor};
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What to trace: the prompt, the length of the answer, and whether to record each layer.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The raw prompt, with its special tokens and image tags.
    pub prompt: String,
    /// Length of the greedy continuation.
    pub max_new_tokens: usize,
    /// Whether the rows between the decoder's layers are recorded.
    pub hidden_states: bool,
}

/// A named array of a trace. Its values are row-major, as in safetensors files.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The array's name, as listed at [`Trace`].
    pub name: String,
    /// The array's shape, the slowest dimension first.
    pub shape: Vec<usize>,
    /// The array's values, row-major.
    pub values: Values,
}

/// Values of an [`Entry`]: numbers of the model in f32, ids and sizes in i64.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Values of type f32.
    F32(Vec<f32>),
    /// Values of type i64.
    I64(Vec<i64>),
}

/// The entries of a trace; `i` counts images from 1, tiles come global view first, without zero tiles.
///
/// | name | type | shape |
/// |---|---|---|
/// | `pixel_values.{i}` | f32 | [1 + tiles, 3, 336, 336] |
/// | `image_sizes` | i64 | [images, 2]: height, width |
/// | `input_ids` | i64 | `[tokens]`; rows of image `i` hold `-i` |
/// | `vision_features.{i}` | f32 | [1 + tiles, 576, vision hidden] |
/// | `image_embeds.{i}` | f32 | [num_img_tokens, hidden] |
/// | `hidden_states.{l}` | f32 | [tokens, hidden]; 0 is the embeddings, `l` the output of layer `l - 1`, the last one's too: before the final norm |
/// | `final_norm` | f32 | [tokens, hidden]; the last layer's output after the final norm, recorded with the hidden states |
/// | `logits` | f32 | `[vocab]`, after the prompt |
/// | `generated_ids` | i64 | `[n]`; without the stop token that ended them |
pub type Trace = Vec<Entry>;

/// Runs `options.prompt` and records its stages.
///
/// # Errors
/// If the prompt does not match the images, if prompt and answer exceed the model's context, or if the device reports an
/// error.
pub fn trace<B: Backend>(
    model: Phi3V<B>,
    tokenizer: &Arc<Tokenizer>,
    images: &[Arc<ImageInputs>],
    options: &TraceOptions,
    stop_ids: Vec<u32>,
) -> Result<Trace> {
    let rows: Vec<usize> = images.iter().map(|image| image.num_img_tokens()).collect();
    let input_ids = processor::raw_prompt(tokenizer, &options.prompt, &rows)?;
    let (prompt, answer, context) = (input_ids.len(), options.max_new_tokens, model.config().context_max());
    if prompt.saturating_add(answer) > context {
        return Err(EngineError::ContextLength { prompt, answer, context }.into());
    }
    let mut trace = Trace::new();
    for (index, image) in images.iter().enumerate() {
        let shape = [1 + image.grid.tiles(), 3, TILE_SIDE, TILE_SIDE];
        push_f32(&mut trace, format!("pixel_values.{}", index + 1), &shape, image.pixel_values());
    }
    let sizes = images.iter().map(|image| image.grid.image_size());
    let sizes: Vec<i64> = sizes.flat_map(|size| [size.height, size.width]).map(i64::from).collect();
    push_i64(&mut trace, "image_sizes", &[images.len(), 2], sizes);
    push_i64(&mut trace, "input_ids", &[input_ids.len()], input_ids.clone());

    let mut embeddings = Vec::new();
    for (index, image) in images.iter().enumerate() {
        embeddings.push(trace_image(&model, image, index + 1, &mut trace)?);
    }
    trace_decoder(&model, &input_ids, &embeddings, options, &mut trace)?;
    drop(embeddings);
    let generated = generate(model, tokenizer, input_ids, images, options.max_new_tokens, stop_ids)?;
    push_i64(&mut trace, "generated_ids", &[generated.len()], generated);
    Ok(trace)
}

fn push_f32(trace: &mut Trace, name: impl Into<String>, shape: &[usize], values: Vec<f32>) {
    trace.push(Entry { name: name.into(), shape: shape.to_vec(), values: Values::F32(values) });
}

fn push_i64(trace: &mut Trace, name: &str, shape: &[usize], values: Vec<i64>) {
    trace.push(Entry { name: name.to_owned(), shape: shape.to_vec(), values: Values::I64(values) });
}

fn never_stop<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Records the features and the embedding of image `number`; returns the embedding.
fn trace_image<B: Backend>(
    model: &Phi3V<B>,
    image: &ImageInputs,
    number: usize,
    trace: &mut Trace,
) -> Result<B::Tensor> {
    let backend = model.backend();
    let mut job = model.begin_image(image.distinct_tiles())?;
    let (mut values, mut piece, mut hidden) = (Vec::new(), Vec::new(), 0); // values: [distinct, 577, hidden]
    for tiles in image.distinct.chunks(backend.sizes().tiles_at_once * TILE_VALUES) {
        let features = model.vision_tower(&mut job, tiles, &mut never_stop)?;
        let (rows, cols) = backend.shape(&features);
        backend.download(&features, 0..rows, &mut piece)?;
        values.append(&mut piece);
        hidden = cols;
    }
    let per_tile = values.len() / image.distinct_tiles();
    let patches: Vec<f32> = image
        .tile_of
        .iter()
        .flat_map(|&tile| &values[tile * per_tile + hidden..(tile + 1) * per_tile])
        .copied()
        .collect();
    let shape = [image.tile_of.len(), per_tile / hidden - 1, hidden];
    push_f32(trace, format!("vision_features.{number}"), &shape, patches);

    let embedding = model.finish_image(job, &image.grid, &image.tile_of)?;
    let (rows, hidden) = backend.shape(&embedding);
    let mut values = Vec::new();
    backend.download(&embedding, 0..rows, &mut values)?;
    push_f32(trace, format!("image_embeds.{number}"), &[rows, hidden], values);
    Ok(embedding)
}

/// Records one forward pass over the whole prompt.
fn trace_decoder<B: Backend>(
    model: &Phi3V<B>,
    input_ids: &[i64],
    embeddings: &[B::Tensor],
    options: &TraceOptions,
    trace: &mut Trace,
) -> Result<()> {
    let blocks: Vec<u32> = (0..input_ids.len().div_ceil(KV_BLOCK_TOKENS) as u32).collect();
    let mut cache = model.cache(blocks.len())?;
    model.grow_cache(&mut cache, blocks.len())?;
    let tokens: Vec<u32> = input_ids.iter().map(|&id| u32::try_from(id).unwrap_or(0)).collect();
    let segments = Segment::of_prompt(input_ids, &tokens, embeddings);
    let batch = [Chunk {
        segments: &segments,
        past: 0,
        blocks: &blocks,
        factors: model.rope().factors_for(input_ids.len()),
        logits: 1,
    }];
    let mut logits = Vec::new();
    if options.hidden_states {
        let mut states = Vec::new();
        model.forward_recording(&batch, &mut cache, &mut logits, &mut states, &mut never_stop)?;
        let shape = [input_ids.len(), model.config().hidden_size];
        let final_norm = states.pop().unwrap_or_default();
        for (index, values) in states.into_iter().enumerate() {
            push_f32(trace, format!("hidden_states.{index}"), &shape, values);
        }
        push_f32(trace, "final_norm", &shape, final_norm);
    } else {
        model.forward(&batch, &mut cache, &mut logits, &mut never_stop)?;
    }
    push_f32(trace, "logits", &[logits.len()], logits);
    Ok(())
}

/// Returns the greedy continuation, computed by the engine: the same code that answers questions.
fn generate<B: Backend>(
    model: Phi3V<B>,
    tokenizer: &Arc<Tokenizer>,
    input_ids: Vec<i64>,
    images: &[Arc<ImageInputs>],
    max_new_tokens: usize,
    stop_ids: Vec<u32>,
) -> Result<Vec<i64>> {
    if max_new_tokens == 0 {
        return Ok(Vec::new());
    }
    let options =
        EngineOptions { context_tokens: input_ids.len() + max_new_tokens, ..EngineOptions::default() };
    let mut engine = Engine::new(model, Arc::clone(tokenizer), stop_ids, options)?;
    engine.submit(Request::greedy(input_ids, images.to_vec(), max_new_tokens))?;
    let mut ids = Vec::new();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(token) => ids.push(i64::from(token.id)),
                Event::Finished(_) => {}
                Event::Failed(error) => return Err(error),
            }
        }
    }
    Ok(ids)
}
