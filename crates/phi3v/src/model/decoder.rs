//! The decoder: Phi-3-mini's layers (`Phi3VForCausalLM`), applied to a batch of chunks of sequences.
//!
//! Per layer: `x += o_proj(attention(rope(qkv_proj(input_layernorm(x)))))`, then
//! `x += down_proj(silu(gate) * up)` of `gate_up_proj(post_attention_layernorm(x))`. No biases.

use super::linear::{Loader, linear_into};
use super::rope::{Rope, RopeFactors};
use super::{Cache, Progress, SEQUENCES_ON_STACK, check};
use crate::Result;
use crate::config::ModelConfig;
use crate::weights::names;
use phi3v_kernels::{Backend, Epilogue, FeedForward, Heads, KvFormat, KvLayout, Norm, Rotation, Span};
use smallvec::SmallVec;
use std::ops::{ControlFlow, Range};

/// The source of the input rows of consecutive tokens: the embedding table or an image.
#[derive(Debug)]
pub enum Segment<'a, T> {
    /// Rows of the embedding table.
    Tokens(&'a [u32]),
    /// Rows of an image's embedding, `[num_img_tokens, hidden_size]`.
    Image(&'a T, Range<usize>),
}

impl<T> Segment<'_, T> {
    fn len(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Image(_, rows) => rows.len(),
        }
    }
}

impl<'a, T> Segment<'a, T> {
    /// Returns the segments of a whole prompt. `input_ids` holds `-i` at the rows of image `i`, counted from 1, whose
    /// embedding is `embeddings[i - 1]`. `tokens` are the same ids, with arbitrary values in place of images.
    pub(crate) fn of_prompt(input_ids: &[i64], tokens: &'a [u32], embeddings: &'a [T]) -> Vec<Self> {
        let mut segments = Vec::new();
        let mut start = 0;
        for run in input_ids.chunk_by(|a, b| a == b || (*a >= 0 && *b >= 0)) {
            segments.push(match run[0] {
                id if id < 0 => Self::Image(&embeddings[!id as usize], 0..run.len()),
                _ => Self::Tokens(&tokens[start..start + run.len()]),
            });
            start += run.len();
        }
        segments
    }
}

/// Consecutive tokens of one sequence within a batch: the next part of its prompt, or its newest tokens.
#[derive(Debug)]
pub struct Chunk<'a, T> {
    /// The input rows, in order.
    pub segments: &'a [Segment<'a, T>],
    /// Number of the sequence's tokens that are already in the KV cache.
    pub past: usize,
    /// The sequence's block table; covers the chunk.
    pub blocks: &'a [u32],
    /// The factors that rotate the whole sequence.
    pub factors: RopeFactors,
    /// The number of the chunk's last tokens after which logits are needed.
    pub logits: usize,
}

impl<T> Chunk<'_, T> {
    fn len(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }
}

struct DecoderLayer<B: Backend> {
    input_layernorm: B::Vector,
    qkv_proj: B::Linear, // [(heads + 2 key_value_heads) * head_dim, hidden_size]
    o_proj: B::Linear,
    post_attention_layernorm: B::Vector,
    gate_up_proj: B::Linear, // [2 * intermediate_size, hidden_size]
    down_proj: B::Linear,
}

impl<B: Backend> DecoderLayer<B> {
    fn load(loader: &Loader<'_, B>, index: usize) -> Result<Self> {
        let names = names::decoder_layer(index);
        Ok(Self {
            input_layernorm: loader.rms_norm(&names.input_layernorm)?,
            qkv_proj: loader.linear(&names.qkv_proj)?,
            o_proj: loader.linear(&names.o_proj)?,
            post_attention_layernorm: loader.rms_norm(&names.post_attention_layernorm)?,
            gate_up_proj: loader.linear(&names.gate_up_proj)?,
            down_proj: loader.linear(&names.down_proj)?,
        })
    }
}

/// Rows that go through a layer together, and the sequences they belong to.
struct Rows<B: Backend> {
    x: B::Tensor,   // [rows, hidden_size]
    qkv: B::Tensor, // [rows, (heads + 2 key_value_heads) * head_dim]
    batch: B::Batch,
}

impl<B: Backend> Rows<B> {
    fn new(backend: &B) -> Result<Self> {
        Ok(Self { x: backend.tensor(0, 1)?, qkv: backend.tensor(0, 1)?, batch: backend.batch() })
    }
}

/// Buffers reused from step to step, so that a decode step allocates none; `rows` is the batch's token count.
pub(super) struct Workspace<B: Backend> {
    all: Rows<B>,
    last: Rows<B>,        // rows that continue past the last layer's keys and values
    normed: B::Tensor,    // [rows, hidden_size]
    attention: B::Tensor, // [rows, heads * head_dim]
    act: B::Tensor,       // [rows, intermediate_size]
    cos_sin: B::Tensor,   // [rows, head_dim]
    logits: B::Tensor,    // [rows whose logits are needed, vocab_size]
    angles: Vec<f32>,
    image_rows: Vec<u32>, // of one segment
}

/// Returns the maximum bytes of the buffers of a step of `rows` tokens, besides its logits and the few rows they are
/// computed from.
#[must_use]
pub fn step_bytes(config: &ModelConfig, rows: usize) -> u64 {
    let ModelConfig { hidden_size, intermediate_size, .. } = *config;
    // x, its norm and attention; qkv; act; the rotations twice, on the host and on the device
    let per_row = 3 * hidden_size + config.qkv_size() + intermediate_size + 2 * config.head_dim();
    (rows as u64).saturating_mul((per_row * size_of::<f32>()) as u64)
}

impl<B: Backend> Workspace<B> {
    pub(super) fn new(backend: &B) -> Result<Self> {
        let empty = || backend.tensor(0, 1);
        Ok(Self {
            all: Rows::new(backend)?,
            last: Rows::new(backend)?,
            normed: empty()?,
            attention: empty()?,
            act: empty()?,
            cos_sin: empty()?,
            logits: empty()?,
            angles: Vec::new(),
            image_rows: Vec::new(),
        })
    }
}

/// One item per sequence; a decode step of up to [`SEQUENCES_ON_STACK`] sequences does not allocate.
type PerSequence<T> = SmallVec<[T; SEQUENCES_ON_STACK]>;

/// A batch with the rows of its chunks laid out one after the other.
struct Layout<'a> {
    spans: PerSequence<Span<'a>>,
    /// Rows whose logits are needed, and the sequences they belong to.
    last_rows: PerSequence<u32>,
    last_spans: PerSequence<Span<'a>>,
}

impl<'a> Layout<'a> {
    fn new<T>(batch: &[Chunk<'a, T>]) -> Self {
        let mut layout =
            Self { spans: SmallVec::new(), last_rows: SmallVec::new(), last_spans: SmallVec::new() };
        let mut row = 0;
        for chunk in batch {
            let len = chunk.len();
            layout.spans.push(Span { rows: row..row + len, past: chunk.past, blocks: chunk.blocks });
            row += len;
            let (wanted, index) = (chunk.logits.min(len), layout.last_rows.len());
            if wanted > 0 {
                layout.last_rows.extend((row - wanted..row).map(|row| row as u32));
                let past = chunk.past + len - wanted;
                layout.last_spans.push(Span { rows: index..index + wanted, past, blocks: chunk.blocks });
            }
        }
        layout
    }
}

fn heads(config: &ModelConfig) -> Heads {
    let (query, key_value) = (config.num_attention_heads, config.num_key_value_heads);
    Heads { query, key_value, dim: config.head_dim() }
}

/// Returns the layout of the KV cache of a model with the shape `config` in `format`.
#[must_use]
pub fn kv_layout(config: &ModelConfig, format: KvFormat) -> KvLayout {
    KvLayout { layers: config.num_hidden_layers, heads: heads(config), format }
}

/// The `[rows, hidden_size]` values before, between and after the layers.
pub(super) type HiddenStates = Vec<Vec<f32>>;

/// The results that a pass over the layers leaves for the caller.
pub(super) struct Outputs<'a> {
    /// Logits after the requested tokens, in order, `[n, vocab_size]`.
    pub(super) logits: &'a mut Vec<f32>,
    /// The values between the layers, if requested: all rows then go through all layers.
    pub(super) hidden: Option<&'a mut HiddenStates>,
}

impl Outputs<'_> {
    /// Records the rows `x`, if requested.
    fn record<B: Backend>(&mut self, backend: &B, x: &B::Tensor) -> Result<()> {
        if let Some(states) = &mut self.hidden {
            let mut values = Vec::new();
            backend.download(x, 0..backend.shape(x).0, &mut values)?;
            states.push(values);
        }
        Ok(())
    }
}

/// The decoder's weights.
pub(super) struct Decoder<B: Backend> {
    config: ModelConfig,
    heads: Heads,
    embed_tokens: B::Table,
    layers: Vec<DecoderLayer<B>>,
    norm: B::Vector,
    lm_head: B::Linear,
    pub(super) rope: Rope,
}

impl<B: Backend> Decoder<B> {
    pub(super) fn load(
        loader: &Loader<'_, B>,
        config: &ModelConfig,
        loaded: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        let layer = |index| {
            check(loaded(index))?;
            DecoderLayer::load(loader, index)
        };
        Ok(Self {
            config: config.clone(),
            heads: heads(config),
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            embed_tokens: loader.embedding(names::EMBED_TOKENS)?,
            norm: loader.rms_norm(names::NORM)?,
            lm_head: loader.linear(names::LM_HEAD)?,
            rope: Rope::new(config),
        })
    }

    /// Runs a batch and stores the requested results in `outputs`.
    pub(super) fn forward(
        &self,
        backend: &B,
        batch: &[Chunk<'_, B::Tensor>],
        Cache { pool, workspace: ws }: &mut Cache<B>,
        mut outputs: Outputs<'_>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        outputs.logits.clear();
        let layout = Layout::new(batch);
        self.embed(backend, batch, ws)?;
        // in a decode step every row is a last one, and stays where it is
        let picks = outputs.hidden.is_none() && layout.last_rows.len() < backend.shape(&ws.all.x).0;
        backend.set_batch(&layout.spans, &mut ws.all.batch)?;
        if picks {
            backend.set_batch(&layout.last_spans, &mut ws.last.batch)?;
        }
        outputs.record(backend, &ws.all.x)?;
        let last = self.layers.len() - 1;
        for index in 0..=last {
            check(observe(Progress::DecoderLayer { done: index, layers: last + 1 }))?;
            self.keys_and_values(backend, index, pool, ws)?;
            let pick = picks && index == last;
            if pick {
                if layout.last_rows.is_empty() {
                    return Ok(());
                }
                pick_rows(backend, &layout.last_rows, ws)?;
            }
            self.attend_and_feed(backend, index, pick, pool, ws)?;
            outputs.record(backend, &ws.all.x)?;
        }
        self.logits(backend, &layout.last_rows, picks, ws, outputs)
    }

    /// Writes input rows to `x` and rotations to `cos_sin`.
    fn embed(&self, backend: &B, batch: &[Chunk<'_, B::Tensor>], ws: &mut Workspace<B>) -> Result<()> {
        let rows = batch.iter().map(Chunk::len).sum();
        let x = &mut ws.all.x;
        backend.reshape(x, rows, self.config.hidden_size)?;
        backend.reshape(&mut ws.cos_sin, rows, self.heads.dim)?;
        ws.angles.clear();
        let mut row = 0;
        for chunk in batch {
            for position in chunk.past..chunk.past + chunk.len() {
                self.rope.push_row(position, chunk.factors, &mut ws.angles);
            }
            for segment in chunk.segments {
                match segment {
                    Segment::Tokens(ids) => backend.embed(&self.embed_tokens, ids, row, x),
                    Segment::Image(embeds, range) => {
                        ws.image_rows.clear();
                        ws.image_rows.extend(range.start as u32..range.end as u32);
                        backend.gather(embeds, &ws.image_rows, row, x);
                    }
                }
                row += segment.len();
            }
        }
        backend.upload(&ws.angles, 0, &mut ws.cos_sin);
        Ok(())
    }

    /// Computes `qkv` of all rows in layer `index`, rotates it, and stores keys and values.
    fn keys_and_values(
        &self,
        backend: &B,
        index: usize,
        pool: &mut B::KvPool,
        ws: &mut Workspace<B>,
    ) -> Result<()> {
        let layer = &self.layers[index];
        let Rows { x, qkv, batch } = &mut ws.all;
        let qkv_width = (self.heads.query + 2 * self.heads.key_value) * self.heads.dim;
        let norm = Norm::Rms(&layer.input_layernorm, self.config.rms_norm_eps);
        backend.reshape(qkv, backend.shape(x).0, qkv_width)?;
        backend.normed_linear(x, norm, &mut [(&layer.qkv_proj, &mut *qkv)], &mut ws.normed)?;
        let rotation = Rotation { cos_sin: &ws.cos_sin, heads: self.heads };
        backend.rope_and_copy_kv(rotation, qkv, index, batch, pool);
        Ok(())
    }

    /// Computes attention and feed-forward of layer `index` for the rows of the batch, or for those picked from it.
    fn attend_and_feed(
        &self,
        backend: &B,
        index: usize,
        picked: bool,
        pool: &B::KvPool,
        ws: &mut Workspace<B>,
    ) -> Result<()> {
        let layer = &self.layers[index];
        let Workspace { all, last, attention, normed, act, .. } = ws;
        let Rows { x, qkv, batch } = if picked { last } else { all };
        backend.reshape(attention, backend.shape(x).0, self.heads.query * self.heads.dim)?;
        backend.attention_causal(qkv, index, batch, pool, attention);
        backend.linear(attention, &layer.o_proj, Epilogue::Add, x);

        let norm = Norm::Rms(&layer.post_attention_layernorm, self.config.rms_norm_eps);
        let block = FeedForward {
            first: &layer.gate_up_proj,
            epilogue: Epilogue::SiluMul,
            hidden: self.config.intermediate_size,
            second: &layer.down_proj,
        };
        Ok(backend.feed_forward(x, norm, block, [normed, act])?)
    }

    /// Computes the final norm and `lm_head` for `last_rows`, the rows of the batch whose logits are needed. They may already
    /// have been picked.
    fn logits(
        &self,
        backend: &B,
        last_rows: &[u32],
        picked: bool,
        ws: &mut Workspace<B>,
        mut outputs: Outputs<'_>,
    ) -> Result<()> {
        let Workspace { all, last, normed, logits, .. } = ws;
        let hidden = self.config.hidden_size;
        let x = if picked { &last.x } else { &all.x };
        backend.reshape(normed, backend.shape(x).0, hidden)?;
        backend.norm(x, Norm::Rms(&self.norm, self.config.rms_norm_eps), normed);
        let mut wanted = &*normed;
        if outputs.hidden.is_some() {
            outputs.record(backend, normed)?;
            backend.reshape(&mut last.x, last_rows.len(), hidden)?;
            backend.gather(normed, last_rows, 0, &mut last.x);
            wanted = &last.x;
        }
        linear_into(backend, wanted, &self.lm_head, self.config.vocab_size, Epilogue::Store, logits)?;
        Ok(backend.download(logits, 0..last_rows.len(), outputs.logits)?)
    }
}

/// Picks `rows` of the batch: past the last layer's keys and values, no other rows are needed.
fn pick_rows<B: Backend>(
    backend: &B,
    rows: &[u32],
    Workspace { all, last, .. }: &mut Workspace<B>,
) -> Result<()> {
    for (from, to) in [(&all.x, &mut last.x), (&all.qkv, &mut last.qkv)] {
        backend.reshape(to, rows.len(), backend.shape(from).1)?;
        backend.gather(from, rows, 0, to);
    }
    Ok(())
}
