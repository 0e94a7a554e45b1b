//! Measures the model on this machine: seconds and rates, each beside what the machine could do at most.
//!
//! No files are needed: the weights are random, of the real model's shapes. A *share* compares with limits measured
//! in the same run ([`Limits`]). For work bound by arithmetic it is the time that the operations would take at the
//! peak (products at that of the weights' format, attention at that of bf16) over the time taken; for decoding, the
//! time that reading the weights, keys and values would take at the read bandwidth, or the products at the peak where
//! that is more. Operations are those of the whole mathematics: rows that a fast path leaves out count as done.

mod work;

use phi3v::config::ModelConfig;
use phi3v::device::{Device, DeviceTensor};
use phi3v::image::{ImageInputs, ImageParams, NUM_CROPS_HIGH, RgbImage, Size, process};
use phi3v::model::{Cache, Chunk, ModelOptions, Phi3V, Segment};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v::{Error, Result};
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS, KvFormat, Limits};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};
use work::Work;

/// The picture that first_token and vision use.
const PICTURE: Size = Size { width: 1024, height: 768 };
/// `num_crops` of the picture, as the checkpoints recommend for one picture and for several.
const NUM_CROPS: [usize; 2] = [NUM_CROPS_HIGH, 4];
/// Prompt lengths; 1,941 is the standard picture with a short question.
const PREFILL: [usize; 3] = [512, STANDARD_PROMPT, 2500];
const STANDARD_PROMPT: usize = 1941;
/// Tokens of the standard prompt after its picture, with what the prefix cache's whole blocks leave over.
const NEXT_QUESTION: usize = 32;
/// Tokens decoded for one figure.
const DECODE_STEPS: usize = 12;
/// Answers that decode together for one figure: as many as `phi3v batch` and the server let run at once.
const TOGETHER: usize = 16;
/// Passes of one warm-up: threads started, pages touched.
const WARM_UP_TOKENS: usize = 64;

/// What a figure measures, and with it the unit of its value and the meaning of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Tokens of a prompt per second; the size is its length.
    Prefill,
    /// Tokens of an answer per second; the size is what came before.
    Decode,
    /// Tokens per second of 16 answers that decode together, of all of them; the size is what came before each.
    Decode16,
    /// Milliseconds of the vision tower and projector; the size counts tiles.
    Vision,
    /// Seconds from the decoded picture to the first token; the size is the prompt's length.
    FirstToken,
    /// Seconds to the first token of another question on the same picture; the size counts its tokens.
    NextQuestion,
    /// Seconds from the weights' file, or from weights in memory, to a model that can run.
    Load,
    /// Greatest memory of the process while it measured, in GB.
    PeakRss,
}

impl Name {
    /// The name that reports have for it, which does not change between versions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Decode16 => "decode_16",
            Self::Vision => "vision",
            Self::FirstToken => "first_token",
            Self::NextQuestion => "next_question",
            Self::Load => "load",
            Self::PeakRss => "peak_rss",
        }
    }

    /// The unit of its values as reports write it: tokens per second, time or memory.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Prefill | Self::Decode | Self::Decode16 => "tok/s",
            Self::Vision => "ms",
            Self::FirstToken | Self::NextQuestion | Self::Load => "s",
            Self::PeakRss => "GB",
        }
    }
}

/// One measured figure: what it measures, at which size, its value, and how near the limit it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What the figure measures, and with it its unit.
    pub name: Name,
    /// Tokens, depth or tiles.
    pub size: usize,
    /// The value, in the unit that [`Name::unit`] names.
    pub value: f64,
    /// Part of the measured limit, where there is one.
    pub share: Option<f64>,
}

/// What is measured: with which KV cache, all of it or the shortest part.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Storage of keys and values.
    pub kv_format: KvFormat,
    /// Leaves out all but the shortest prompt and the single tile: for trying things out.
    pub quick: bool,
    /// Tokens after which it also decodes; their keys and values are made up.
    pub depths: Vec<usize>,
    /// What opening the weights took before, if it is to count as loading.
    pub opened: Duration,
}

impl Plan {
    /// Tokens of the longest sequence.
    #[must_use]
    pub fn tokens_max(&self) -> usize {
        self.depths.iter().fold(PREFILL[2], |most, depth| most.max(*depth)) + DECODE_STEPS
    }
}

/// A device, and what it can do at most where that can be measured; without, figures have no shares.
pub struct MeasuredDevice {
    /// What the model runs on.
    pub device: Device,
    /// Measured a moment ago, for a machine's speed drifts.
    pub limits: Option<Limits>,
}

/// The model whose speed is measured: its shapes, its weights and how far they are quantized.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The shapes of its layers.
    pub config: &'a ModelConfig,
    /// The weights, from a file or random.
    pub weights: &'a Weights,
    /// How far they are quantized.
    pub quant: Option<Quant>,
}

/// The model being measured and what it has been fed.
struct Bench<'a> {
    model: Phi3V<Device>,
    cache: Cache<Device>,
    blocks: Vec<u32>,
    ids: Vec<u32>,
    logits: Vec<f32>,
    limits: Option<Limits>,
    work: Work,
    report: &'a mut Report<'a>,
}

/// Takes each figure as soon as it is there, and says whether others are wanted.
pub type Report<'a> = dyn FnMut(Figure) -> ControlFlow<()> + 'a;

/// Measures a model on a device and calls `report` with every figure as soon as it is there.
///
/// # Errors
/// What is wrong with the weights, the device's refusal, or [`Error::Stopped`] where `report` wants no more.
pub fn run(
    MeasuredDevice { device, limits }: MeasuredDevice,
    subject: Subject<'_>,
    plan: &Plan,
    report: &mut Report<'_>,
) -> Result<()> {
    let options = ModelOptions { kv_format: plan.kv_format, ..ModelOptions::BF16 };
    let Subject { config, weights, quant } = subject;
    reset_peak_rss();
    let start = Instant::now();
    let model = Phi3V::load(device, config, weights, options, &mut |_| {})?;
    let tokens_max = plan.tokens_max();
    let blocks = tokens_max.div_ceil(KV_BLOCK_TOKENS);
    let cache = model.cache(blocks)?;
    model.backend().finish()?;
    let load = plan.opened + start.elapsed();
    told(report, Figure { name: Name::Load, size: 0, value: load.as_secs_f64(), share: None })?;
    let work = Work::new(config, weights, quant, model.kv_layout());
    let ids = (0..tokens_max as u32).map(|i| i % config.vocab_size as u32).collect();
    let blocks = (0..blocks as u32).collect();
    let mut bench = Bench { model, cache, blocks, ids, logits: Vec::new(), limits, work, report };
    bench.model.grow_cache(&mut bench.cache, (PREFILL[2] + DECODE_STEPS).div_ceil(KV_BLOCK_TOKENS))?;
    bench.forward(0..WARM_UP_TOKENS, None)?;
    bench.run_all(plan)?;
    if !plan.depths.is_empty() {
        bench.model.fill_cache(&mut bench.cache, bench.blocks.len())?;
    }
    plan.depths.iter().try_for_each(|depth| bench.decode(*depth))?;
    if let Some(bytes) = peak_rss() {
        bench.tell(Name::PeakRss, 0, bytes as f64 / 1e9, None)?;
    }
    Ok(())
}

fn told(report: &mut Report<'_>, figure: Figure) -> Result<()> {
    if report(figure).is_break() { Err(Error::Stopped) } else { Ok(()) }
}

impl Bench<'_> {
    fn run_all(&mut self, plan: &Plan) -> Result<()> {
        if plan.quick {
            self.vision(1, &one_tile())?;
            self.decode(0)?;
            self.decode_together(0)?;
            self.prefill(PREFILL[0])?;
            return self.decode(PREFILL[0]);
        }
        self.vision(1, &one_tile())?;
        for num_crops in NUM_CROPS {
            let inputs = picture(num_crops)?;
            self.vision(inputs.distinct_tiles(), &inputs)?;
        }
        self.decode(0)?;
        self.decode_together(0)?;
        self.prefill(PREFILL[0])?;
        self.decode(PREFILL[0])?;
        self.decode_together(PREFILL[0])?;
        self.prefill(PREFILL[1])?;
        self.decode(PREFILL[1])?;
        self.prefill(PREFILL[2])?;
        self.first_token()
    }

    fn tell(&mut self, name: Name, size: usize, value: f64, share: Option<f64>) -> Result<()> {
        told(self.report, Figure { name, size, value, share })
    }

    /// Seconds until the device has done all that it was given.
    fn seconds_since(&self, start: Instant) -> Result<f64> {
        self.model.backend().finish()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The part of the limits that was reached: the seconds that the work takes at them over those that it took.
    fn share(&self, seconds: f64, at_limits: impl FnOnce(&Work, &Limits) -> f64) -> Option<f64> {
        Some(at_limits(&self.work, self.limits.as_ref()?) / seconds)
    }

    /// Runs the tokens `range` of the sequence in chunks, as the engine does, and returns the seconds it took. The
    /// sequence begins with the rows of `image`.
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
        let seconds = self.forward(0..tokens, None)?;
        let share = self.share(seconds, |work, limits| work.prefill_seconds(0..tokens, limits));
        self.tell(Name::Prefill, tokens, tokens as f64 / seconds, share)
    }

    /// Decodes after `depth` tokens, which are in the cache: the median of some steps.
    fn decode(&mut self, depth: usize) -> Result<()> {
        let median = median_of_steps(depth, |past| self.forward(past..past + 1, None))?;
        let share = self.share(median, |work, limits| work.decode_seconds(1, depth_mean(depth), limits));
        self.tell(Name::Decode, depth, 1.0 / median, share)
    }

    /// Decodes [`TOGETHER`] answers that go on after the same `depth` tokens, whole blocks of which are in the cache.
    fn decode_together(&mut self, depth: usize) -> Result<()> {
        let (shared, others) = self.blocks.split_at(depth / KV_BLOCK_TOKENS);
        let blocks: Vec<Vec<u32>> = others[..TOGETHER].iter().map(|&own| [shared, &[own]].concat()).collect();
        let median = median_of_steps(depth, |past| {
            let factors = self.model.rope().factors_for(past + 1);
            let segments: Vec<_> = self.ids[..TOGETHER].chunks(1).map(|id| [Segment::Tokens(id)]).collect();
            let rows = segments.iter().zip(&blocks);
            let batch: Vec<_> =
                rows.map(|(segments, blocks)| Chunk { segments, past, blocks, factors, logits: 1 }).collect();
            let start = Instant::now();
            let never_stop = &mut |_| ControlFlow::Continue(());
            self.model.forward(&batch, &mut self.cache, &mut self.logits, never_stop)?;
            self.seconds_since(start)
        })?;
        let share =
            self.share(median, |work, limits| work.decode_seconds(TOGETHER, depth_mean(depth), limits));
        self.tell(Name::Decode16, depth, TOGETHER as f64 / median, share)
    }

    fn vision(&mut self, tiles: usize, inputs: &ImageInputs) -> Result<()> {
        let start = Instant::now();
        self.model.embed_image(inputs)?;
        let seconds = self.seconds_since(start)?;
        let tokens = inputs.num_img_tokens();
        let share = self.share(seconds, |work, limits| work.vision_seconds(tiles, tokens, limits));
        self.tell(Name::Vision, tiles, seconds * 1e3, share)
    }

    /// The standard picture from its pixels to the first token, then another question on it.
    fn first_token(&mut self) -> Result<()> {
        let pixels = pixels(PICTURE);
        let start = Instant::now();
        let inputs = process(&pixels, &params(NUM_CROPS[0]))?;
        let image = self.model.embed_image(&inputs)?;
        self.forward(0..STANDARD_PROMPT, Some(&image))?;
        let seconds = self.seconds_since(start)?;
        let (tiles, tokens) = (inputs.distinct_tiles(), inputs.num_img_tokens());
        let share = self.share(seconds, |work, limits| {
            work.vision_seconds(tiles, tokens, limits) + work.prefill_seconds(0..STANDARD_PROMPT, limits)
        });
        self.tell(Name::FirstToken, STANDARD_PROMPT, seconds, share)?;
        let again = STANDARD_PROMPT - NEXT_QUESTION..STANDARD_PROMPT;
        let seconds = self.forward(again.clone(), None)?;
        let share = self.share(seconds, |work, limits| work.prefill_seconds(again, limits));
        self.tell(Name::NextQuestion, NEXT_QUESTION, seconds, share)
    }
}

/// The median time of the steps that decode after `depth` tokens; each is told how many came before.
fn median_of_steps(depth: usize, step: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    let mut seconds = (depth..depth + DECODE_STEPS).map(step).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[DECODE_STEPS / 2])
}

/// Tokens before an average step.
fn depth_mean(depth: usize) -> usize {
    depth + DECODE_STEPS / 2
}

fn params(num_crops: usize) -> ImageParams {
    ImageParams { num_crops, ..ImageParams::default() }
}

/// A picture without two equal tiles.
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
    Ok(process(&pixels(PICTURE), &params(num_crops))?)
}

/// A square of one tile, whose global view is the same picture: computed once.
fn one_tile() -> ImageInputs {
    let side = phi3v::image::TILE_SIDE as u32;
    let inputs = process(&pixels(Size { width: side, height: side }), &params(1));
    inputs.expect("a square of one tile is a picture")
}

/// Forgets the greatest resident memory so far, where the system lets us: an earlier model may have been larger.
fn reset_peak_rss() {
    // refused by other systems and by some containers; the figure is then that of the whole run
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// Greatest resident memory of this process, in bytes, where the system tells.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v::checkpoint::Checkpoint;
    use phi3v::device::DeviceOptions;

    #[test]
    fn it_ends_where_nobody_wants_more() {
        let checkpoint = Checkpoint::from_files(&phi3v::demo::files()).unwrap();
        let options = DeviceOptions { threads: Some(1), ..DeviceOptions::default() };
        let device = MeasuredDevice { device: Device::processor(&options).unwrap(), limits: None };
        let Checkpoint { config, weights, .. } = &checkpoint;
        let subject = Subject { config, weights, quant: weights.quant() };
        let plan =
            Plan { kv_format: KvFormat::Bf16, quick: true, depths: Vec::new(), opened: Duration::ZERO };
        let mut told = 0;
        let ended = run(device, subject, &plan, &mut |_| {
            told += 1;
            ControlFlow::Break(())
        });
        assert!(matches!(ended, Err(Error::Stopped)) && told == 1, "{told} figures");
    }
}
