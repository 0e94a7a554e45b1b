//! Measures the model on this machine: times and rates, each compared with the machine's limit.
//!
//! No files are needed: the weights are random, with the real model's shapes. A *share* compares with limits measured in the
//! same run ([`Limits`]). For compute-bound work, it is the time that the operations would take at the peak (products at the
//! peak of the weights' format, attention at that of bf16), divided by the time taken. For decoding, it uses the time to
//! read the weights, keys and values at the read bandwidth, or the products' time at the peak if that is longer.
//! Operations are those of the full computation: rows that a fast path skips count as done.
//!
//! A figure that takes less than a few seconds is the median of three readings; for decoding, of several steps.

mod figure;
mod work;

use figure::Readings;
pub use figure::{Figure, LeftOut, Name, Reason, Told};
use phi3v::config::ModelConfig;
use phi3v::device::{Device, DeviceTensor};
use phi3v::image::{ImageInputs, ImageParams, NUM_CROPS_HIGH, RgbImage, Size, process};
use phi3v::memory::Capacity;
use phi3v::model::{Cache, Chunk, ModelOptions, Phi3V, Segment};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS, KvFormat, KvLayout, Limits};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};
use work::Work;

/// The picture used by first_token and vision.
const PICTURE: Size = Size { width: 1024, height: 768 };
/// `num_crops` of the picture: the checkpoints' recommendations for one picture and for several.
const NUM_CROPS: [usize; 2] = [NUM_CROPS_HIGH, 4];
/// Prompt lengths; 1,941 is the standard picture with a short question.
const PREFILL: [usize; 3] = [512, STANDARD_PROMPT, 2500];
const STANDARD_PROMPT: usize = 1941;
/// Tokens of the standard prompt after its picture, plus the remainder that does not fill a block of the prefix cache.
const NEXT_QUESTION: usize = 32;
/// Decoding steps per figure.
const DECODE_STEPS: usize = 12;
/// Answers that decode together for one figure: as many as `phi3v batch` and the server run at once.
const TOGETHER: usize = 16;
/// Tokens before these answers if no depth is requested.
const TOGETHER_DEPTH: usize = 512;
/// Readings of a figure that takes less than [`REPEATED_BELOW`].
const READINGS: usize = 3;
/// Seconds from which one reading is sufficient.
const REPEATED_BELOW: f64 = 4.0;
/// Tokens of a warm-up pass, which starts threads and touches pages.
const WARM_UP_TOKENS: usize = 64;

/// What to measure: with which KV cache, and everything or a quick subset.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Storage of keys and values.
    pub kv_format: KvFormat,
    /// Measures only the shortest prompt and the single tile, to try things out.
    pub quick: bool,
    /// Additional depths for decoding one answer and several together; their keys and values are made up.
    pub depths: Vec<usize>,
    /// The time taken to open the weights, if it counts as loading.
    pub opened: Duration,
}

impl Plan {
    /// Tokens of the longest sequence.
    #[must_use]
    pub fn tokens_max(&self) -> usize {
        self.depths.iter().fold(PREFILL[2], |most, depth| most.max(*depth)) + DECODE_STEPS
    }

    /// Depths at which answers decode together: the default unless quick, and the requested ones.
    fn together(&self) -> impl Iterator<Item = usize> {
        let usual = (!self.quick && !self.depths.contains(&TOGETHER_DEPTH)).then_some(TOGETHER_DEPTH);
        usual.into_iter().chain(self.depths.iter().copied())
    }
}

/// A device, and its limits if they can be measured; without them, figures have no shares.
pub struct MeasuredDevice {
    /// What the model runs on.
    pub device: Device,
    /// Measured just before, because a machine's speed drifts.
    pub limits: Option<Limits>,
}

/// The model to measure: its shapes, its weights and their quantization.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The shapes of its layers.
    pub config: &'a ModelConfig,
    /// The weights, from a file or random.
    pub weights: &'a Weights,
    /// The quantization of the weights.
    pub quant: Option<Quant>,
}

/// Why measuring ended early.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Invalid weights, or an error of the device.
    #[error(transparent)]
    Model(#[from] phi3v::Error),
    /// A result could not be reported.
    #[error(transparent)]
    Report(#[from] std::io::Error),
}

type Result<T> = std::result::Result<T, BenchError>;

/// Receives each result as soon as it is known.
pub type Report<'a> = &'a mut dyn FnMut(Told) -> std::io::Result<()>;

/// The model being measured and its input so far.
struct Bench<'a> {
    model: Phi3V<Device>,
    cache: Cache<Device>,
    blocks: Vec<u32>,
    ids: Vec<u32>,
    logits: Vec<f32>,
    limits: Option<Limits>,
    work: Work,
    report: Report<'a>,
}

/// Measures a model on a device and calls `report` with every figure as soon as it is known.
///
/// # Errors
/// [`BenchError`]; measuring stops when a report fails.
pub fn run(
    MeasuredDevice { device, limits }: MeasuredDevice,
    subject: Subject<'_>,
    plan: &Plan,
    report: Report<'_>,
) -> Result<()> {
    let options = ModelOptions { kv_format: plan.kv_format, ..ModelOptions::BF16 };
    let Subject { config, weights, quant } = subject;
    reset_peak_rss();
    let start = Instant::now();
    let model = Phi3V::load(device, config, weights, options, &mut |_| {})?;
    let tokens_max = plan.tokens_max();
    let (blocks, room) = (tokens_max.div_ceil(KV_BLOCK_TOKENS), Room::of(&model));
    let together = plan.together().filter(|depth| room.lack(blocks_together(*depth)).is_none());
    let cache = model.cache(together.map(blocks_together).fold(blocks, usize::max))?;
    model.backend().finish().map_err(phi3v::Error::from)?;
    let load = plan.opened + start.elapsed();
    report(Told::Figure(Figure::single(Name::Load, load.as_secs_f64())))?;
    let work = Work::new(config, weights, quant, model.kv_layout());
    let ids = (0..tokens_max as u32).map(|i| i % config.vocab_size as u32).collect();
    let blocks = (0..blocks as u32).collect();
    let mut bench = Bench { model, cache, blocks, ids, logits: Vec::new(), limits, work, report };
    bench.model.grow_cache(&mut bench.cache, (PREFILL[2] + DECODE_STEPS).div_ceil(KV_BLOCK_TOKENS))?;
    bench.forward(0..WARM_UP_TOKENS, None)?;
    bench.run_all(plan)?;
    (bench.report)(match peak_rss() {
        Some(bytes) => Told::Figure(Figure::single(Name::PeakRss, bytes as f64 / 1e9)),
        None => Told::LeftOut(LeftOut { name: Name::PeakRss, size: 0, reason: Reason::NotTold }),
    })?;
    bench.run_at_depths(plan, room)
}

/// Blocks of all sequences that decode together, each with `depth` tokens of its own.
fn blocks_together(depth: usize) -> usize {
    TOGETHER * (depth + DECODE_STEPS).div_ceil(KV_BLOCK_TOKENS)
}

/// The memory for keys and values.
#[derive(Clone, Copy)]
struct Room {
    layout: KvLayout,
    /// Available before any of it was used, minus a reserve for the model's other buffers.
    available_bytes: Option<u64>,
    /// Most bytes of one layer.
    layer_bytes_max: u64,
}

impl Room {
    fn of(model: &Phi3V<Device>) -> Self {
        let Capacity { available_bytes, buffer_bytes_max, .. } = Capacity::of(model.backend());
        // a quarter is reserved for everything else
        let available_bytes = available_bytes.map(|bytes| bytes / 4 * 3);
        Self { layout: model.kv_layout(), available_bytes, layer_bytes_max: buffer_bytes_max }
    }

    /// Why the given number of blocks does not fit; `None` if it does.
    fn lack(&self, blocks: usize) -> Option<Reason> {
        let needed_bytes = (blocks * self.layout.block_bytes()) as u64;
        let limit = self.layer_bytes_max.saturating_mul(self.layout.layers as u64);
        let limit_bytes = self.available_bytes.map(|bytes| bytes.min(limit));
        let fits = limit_bytes.is_some_and(|limit| needed_bytes <= limit);
        (!fits).then_some(Reason::Memory { needed_bytes, limit_bytes })
    }
}

impl Bench<'_> {
    fn run_all(&mut self, plan: &Plan) -> Result<()> {
        self.vision(1, &one_tile())?;
        if plan.quick {
            self.decode(0)?;
            self.decode_together(0)?;
            self.prefill(PREFILL[0])?;
            return self.decode(PREFILL[0]);
        }
        for num_crops in NUM_CROPS {
            let inputs = picture(num_crops)?;
            self.vision(inputs.distinct_tiles(), &inputs)?;
        }
        self.decode(0)?;
        self.decode_together(0)?;
        self.prefill(PREFILL[0])?;
        self.decode(PREFILL[0])?;
        self.prefill(PREFILL[1])?;
        self.decode(PREFILL[1])?;
        self.prefill(PREFILL[2])?;
        self.first_token()
    }

    /// Decodes after made-up tokens.
    fn run_at_depths(&mut self, plan: &Plan, room: Room) -> Result<()> {
        let lack = |depth: usize| room.lack(blocks_together(depth));
        let fitting = plan.together().filter(|depth| lack(*depth).is_none());
        let single = plan.depths.iter().map(|depth| (depth + DECODE_STEPS).div_ceil(KV_BLOCK_TOKENS));
        let blocks = single.chain(fitting.map(blocks_together)).max().unwrap_or(0);
        if blocks > 0 {
            self.model.fill_cache(&mut self.cache, blocks)?;
        }
        for depth in plan.together() {
            if plan.depths.contains(&depth) {
                self.decode(depth)?;
            }
            match lack(depth) {
                None => self.decode_together(depth)?,
                Some(reason) => {
                    (self.report)(Told::LeftOut(LeftOut { name: Name::Decode16, size: depth, reason }))?;
                }
            }
        }
        Ok(())
    }

    /// Reports the figure for `readings`; `at_limits` computes the seconds that the work takes at the limits.
    fn tell(
        &mut self,
        name: Name,
        size: usize,
        readings: &Readings,
        value: impl Fn(f64) -> f64,
        at_limits: impl FnOnce(&Work, &Limits) -> f64,
    ) -> Result<()> {
        let at_limit = self.limits.as_ref().map(|limits| at_limits(&self.work, limits));
        Ok((self.report)(Told::Figure(readings.figure(name, size, value, at_limit)))?)
    }

    /// Takes readings of `one`, which returns seconds; only one reading if it takes long.
    fn read(&mut self, mut one: impl FnMut(&mut Self) -> Result<f64>) -> Result<Readings> {
        let mut seconds = vec![one(self)?];
        while seconds[0] < REPEATED_BELOW && seconds.len() < READINGS {
            seconds.push(one(self)?);
        }
        Ok(Readings::new(seconds))
    }

    /// Seconds from `start` until the device has completed all its work.
    fn seconds_since(&self, start: Instant) -> Result<f64> {
        self.model.backend().finish().map_err(phi3v::Error::from)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Runs the tokens `range` of the sequence in chunks, as the engine does, and returns the seconds taken. The sequence
    /// begins with the rows of `image`.
    fn forward(&mut self, range: Range<usize>, image: Option<&DeviceTensor>) -> Result<f64> {
        let factors = self.model.rope().factors_for(range.end);
        let image_rows = image.map_or(0, |image| self.model.backend().shape(image).0);
        let chunk = self.model.backend().sizes().prefill_chunk;
        let start = Instant::now();
        for past in range.clone().step_by(chunk) {
            let end = range.end.min(past + chunk);
            let (ids, mut segments) = (past.max(image_rows).min(end)..end, Vec::new());
            if let Some(image) = image.filter(|_| past < ids.start) {
                segments.push(Segment::Image(image, past..ids.start));
            }
            segments.push(Segment::Tokens(&self.ids[ids]));
            let logits = usize::from(end == range.end);
            let batch = [Chunk { segments: &segments, past, blocks: &self.blocks, factors, logits }];
            let never_stop = &mut |_| ControlFlow::Continue(());
            self.model.forward(&batch, &mut self.cache, &mut self.logits, never_stop)?;
        }
        self.seconds_since(start)
    }

    fn prefill(&mut self, tokens: usize) -> Result<()> {
        let readings = self.read(|bench| bench.forward(0..tokens, None))?;
        let rate = |seconds| tokens as f64 / seconds;
        let at_limits = |work: &Work, limits: &Limits| work.prefill_seconds(0..tokens, limits);
        self.tell(Name::Prefill, tokens, &readings, rate, at_limits)
    }

    /// Decodes several steps after `depth` tokens that are already in the cache.
    fn decode(&mut self, depth: usize) -> Result<()> {
        let steps = (depth..depth + DECODE_STEPS).map(|past| self.forward(past..past + 1, None));
        let readings = Readings::new(steps.collect::<Result<_>>()?);
        let at_limits = |work: &Work, limits: &Limits| work.decode_seconds(1, depth_mean(depth), limits);
        self.tell(Name::Decode, depth, &readings, |seconds| 1.0 / seconds, at_limits)
    }

    /// Decodes several steps of [`TOGETHER`] answers, each after `depth` tokens of its own that are already in the cache.
    fn decode_together(&mut self, depth: usize) -> Result<()> {
        let blocks: Vec<u32> = (0..blocks_together(depth) as u32).collect();
        let tables: Vec<&[u32]> = blocks.chunks_exact(blocks.len() / TOGETHER).collect();
        let step = |past: usize| {
            let factors = self.model.rope().factors_for(past + 1);
            let segments: Vec<_> = self.ids[..TOGETHER].chunks(1).map(|id| [Segment::Tokens(id)]).collect();
            let rows = segments.iter().zip(&tables);
            let batch: Vec<_> =
                rows.map(|(segments, blocks)| Chunk { segments, past, blocks, factors, logits: 1 }).collect();
            let start = Instant::now();
            let never_stop = &mut |_| ControlFlow::Continue(());
            self.model.forward(&batch, &mut self.cache, &mut self.logits, never_stop)?;
            self.seconds_since(start)
        };
        let readings = Readings::new((depth..depth + DECODE_STEPS).map(step).collect::<Result<_>>()?);
        let rate = |seconds| TOGETHER as f64 / seconds;
        let at_limits =
            |work: &Work, limits: &Limits| work.decode_seconds(TOGETHER, depth_mean(depth), limits);
        self.tell(Name::Decode16, depth, &readings, rate, at_limits)
    }

    fn vision(&mut self, tiles: usize, inputs: &ImageInputs) -> Result<()> {
        let readings = self.read(|bench| {
            let start = Instant::now();
            bench.model.embed_image(inputs)?;
            bench.seconds_since(start)
        })?;
        let tokens = inputs.num_img_tokens();
        let at_limits = |work: &Work, limits: &Limits| work.vision_seconds(tiles, tokens, limits);
        self.tell(Name::Vision, tiles, &readings, |seconds| 1e3 * seconds, at_limits)
    }

    /// Measures the standard picture from its pixels to the first token, then another question about it.
    fn first_token(&mut self) -> Result<()> {
        let pixels = pixels(PICTURE);
        let (mut tiles, mut tokens) = (0, 0);
        let readings = self.read(|bench| {
            let start = Instant::now();
            let inputs = process(&pixels, &params(NUM_CROPS[0])).map_err(phi3v::Error::from)?;
            let image = bench.model.embed_image(&inputs)?;
            bench.forward(0..STANDARD_PROMPT, Some(&image))?;
            (tiles, tokens) = (inputs.distinct_tiles(), inputs.num_img_tokens());
            bench.seconds_since(start)
        })?;
        let at_limits = |work: &Work, limits: &Limits| {
            work.vision_seconds(tiles, tokens, limits) + work.prefill_seconds(0..STANDARD_PROMPT, limits)
        };
        self.tell(Name::FirstToken, STANDARD_PROMPT, &readings, |seconds| seconds, at_limits)?;
        let again = STANDARD_PROMPT - NEXT_QUESTION..STANDARD_PROMPT;
        let readings = self.read(|bench| bench.forward(again.clone(), None))?;
        let at_limits = |work: &Work, limits: &Limits| work.prefill_seconds(again.clone(), limits);
        self.tell(Name::NextQuestion, NEXT_QUESTION, &readings, |seconds| seconds, at_limits)
    }
}

/// Tokens before an average step.
fn depth_mean(depth: usize) -> usize {
    depth + DECODE_STEPS / 2
}

fn params(num_crops: usize) -> ImageParams {
    ImageParams { num_crops, ..ImageParams::default() }
}

/// A picture with no two equal tiles.
fn pixels(size: Size) -> RgbImage {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut state = 1u32;
    let pixels = (0..3 * width * height)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    RgbImage { width, height, pixels }
}

fn picture(num_crops: usize) -> Result<ImageInputs> {
    Ok(process(&pixels(PICTURE), &params(num_crops)).map_err(phi3v::Error::from)?)
}

/// A square of one tile, whose global view equals it and is computed only once.
fn one_tile() -> ImageInputs {
    let side = phi3v::image::TILE_SIDE as u32;
    let inputs = process(&pixels(Size { width: side, height: side }), &params(1));
    inputs.expect("a square of one tile is a picture")
}

/// Resets the peak resident memory, if the system allows it: an earlier model may have been larger.
fn reset_peak_rss() {
    // other systems and some containers refuse this; the figure then covers the whole run
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// Peak resident memory of this process in bytes, if the system reports it.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
