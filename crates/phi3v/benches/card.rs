//! The whole model on a graphics card: `cargo bench -p phi3v --bench card`, on the first card or the one that `PHI3V_TEST_DEVICE`
//! names. Weights are random, of Phi-3.5-vision's shapes; a picture of 13 tiles and 1,941 tokens. After `--`: `--small` for a model
//! that a card in software can do, `--json` for a JSON object to a line.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on shall fail")]

use phi3v::config::{ModelConfig, VisionConfig};
use phi3v::image::{ImageInputs, ImageParams, NUM_CROPS_HIGH, RgbImage, Size, process};
use phi3v::model::{Cache, Chunk, ModelOptions, Phi3V, Segment};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_gpu::testing::{choice, use_units};
use phi3v_gpu::{Gpu, GpuError, GpuOptions, GpuTensor, KernelTime};
use phi3v_kernels::{Backend, KV_BLOCK_TOKENS, KvFormat};
use serde_json::json;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

/// The picture: 12 tiles and the whole at 16 crops at most.
const PICTURE: Size = Size { width: 1024, height: 768 };
/// Tokens of the picture with a short question.
const PROMPT: usize = 1941;
/// Tokens decoded for a figure.
const STEPS: usize = 64;

fn small() -> ModelConfig {
    ModelConfig {
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        vocab_size: 640,
        img_processor: VisionConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 128,
            ..ModelConfig::phi_3_5_vision().img_processor
        },
        ..ModelConfig::phi_3_5_vision()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let plan = Plan { small: has("--small"), json: has("--json") };
    for (quant, format) in [(Quant::Q8, "q8"), (Quant::Q4, "q4")] {
        measure(&plan, quant, format);
    }
    times_by_kernel(&plan);
}

struct Plan {
    small: bool,
    json: bool,
}

impl Plan {
    fn config(&self) -> ModelConfig {
        if self.small { small() } else { ModelConfig::phi_3_5_vision() }
    }

    fn steps(&self) -> usize {
        if self.small { 4 } else { STEPS }
    }

    fn num_crops(&self) -> usize {
        if self.small { 1 } else { NUM_CROPS_HIGH }
    }

    fn tell(&self, name: &str, seconds: f64, value: f64, unit: &str) {
        if self.json {
            println!("{}", json!({ "name": name, "seconds": seconds, "value": value, "unit": unit }));
        } else {
            println!("{name:60} {:10.3} ms {value:9.2} {unit}", 1e3 * seconds);
        }
    }
}

/// A loaded model, and what it is fed.
struct Bench {
    model: Phi3V<Gpu>,
    cache: Cache<Gpu>,
    blocks: Vec<u32>,
    image: ImageInputs,
    prompt: usize,
    logits: Vec<f32>,
}

impl Bench {
    fn load(plan: &Plan, gpu: Gpu, weights: &Weights) -> Self {
        let options = ModelOptions { kv_format: KvFormat::Q8, ..ModelOptions::BF16 };
        let model = Phi3V::load(gpu, &plan.config(), weights, options, &mut |_| {}).unwrap();
        let params = ImageParams { num_crops: plan.num_crops(), ..ImageParams::default() };
        let image = process(&picture(), &params).unwrap();
        let prompt = if plan.small { image.num_img_tokens() + 20 } else { PROMPT };
        let blocks = (prompt + 2 * STEPS).div_ceil(KV_BLOCK_TOKENS);
        let mut cache = model.cache(blocks).unwrap();
        model.grow_cache(&mut cache, blocks).unwrap();
        let blocks = (0..blocks as u32).collect();
        let mut bench = Self { model, cache, blocks, image, prompt, logits: Vec::new() };
        // kernels compiled, buffers made
        bench.first_token();
        bench.decode(0, 2);
        bench
    }

    /// Runs the tokens `range`, which begin with the rows of `image`.
    fn forward(&mut self, range: Range<usize>, image: Option<&GpuTensor>) {
        let rows = image.map_or(0, |image| self.model.backend().shape(image).0);
        let vocab_size = self.model.config().vocab_size as u32;
        let ids: Vec<u32> = (0..range.end as u32).map(|i| i % vocab_size).collect();
        let factors = self.model.rope().factors_for(range.end);
        for past in range.clone().step_by(self.model.backend().sizes().prefill_chunk) {
            let end = range.end.min(past + self.model.backend().sizes().prefill_chunk);
            let text = past.max(rows).min(end)..end;
            let mut segments = Vec::new();
            if let Some(image) = image.filter(|_| past < text.start) {
                segments.push(Segment::Image(image, past..text.start));
            }
            segments.push(Segment::Tokens(&ids[text]));
            let logits = usize::from(end == range.end);
            let batch = [Chunk { segments: &segments, past, blocks: &self.blocks, factors, logits }];
            let go_on = &mut |_| ControlFlow::Continue(());
            self.model.forward(&batch, &mut self.cache, &mut self.logits, go_on).unwrap();
        }
        self.model.backend().finish().unwrap();
    }

    /// Seconds of the picture through the tower, and from there to the first token.
    fn first_token(&mut self) -> [f64; 2] {
        let start = Instant::now();
        let image = self.model.embed_image(&self.image).unwrap();
        self.model.backend().finish().unwrap();
        let vision = start.elapsed().as_secs_f64();
        let start = Instant::now();
        self.forward(0..self.prompt, Some(&image));
        [vision, start.elapsed().as_secs_f64()]
    }

    /// Seconds of a step, the mean of `steps` after `depth` tokens.
    fn decode(&mut self, depth: usize, steps: usize) -> f64 {
        let start = Instant::now();
        (depth..depth + steps).for_each(|past| self.forward(past..past + 1, None));
        start.elapsed().as_secs_f64() / steps as f64
    }
}

fn picture() -> RgbImage {
    let Size { width, height } = PICTURE;
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); // Numerical Recipes
        state.to_be_bytes()[0]
    };
    let (width, height) = (width as usize, height as usize);
    RgbImage { pixels: (0..3 * width * height).map(next).collect(), width, height }
}

fn measure(plan: &Plan, quant: Quant, format: &str) {
    let weights = Weights::random(&plan.config(), Some(quant));
    let start = Instant::now();
    let gpu = Gpu::new(&GpuOptions { choice: choice(), ..GpuOptions::default() }).unwrap();
    let mut bench = Bench::load(plan, gpu, &weights);
    let seconds = start.elapsed().as_secs_f64();
    plan.tell(&format!("model {format}: opened, loaded, warm"), seconds, seconds, "s");
    let [vision, prefill] = bench.first_token();
    let (tiles, prompt) = (bench.image.distinct_tiles(), bench.prompt);
    plan.tell(&format!("model {format}: vision tower, {tiles} tiles"), vision, 1e3 * vision, "ms");
    let rate = prompt as f64 / prefill;
    plan.tell(&format!("model {format}: prefill of {prompt} tokens"), prefill, rate, "tok/s");
    let both = vision + prefill;
    plan.tell(&format!("model {format}: first token"), both, both, "s");
    each_way(plan, &mut bench, format);
    for depth in [0, prompt] {
        let before = bench.model.backend().counts();
        let step = bench.decode(depth, plan.steps());
        let after = bench.model.backend().counts();
        let bytes = (after.bytes_read - before.bytes_read) as f64 / plan.steps() as f64;
        plan.tell(&format!("model {format}: decode at depth {depth}"), step, 1.0 / step, "tok/s");
        let name = format!("model {format}: decode at depth {depth}, read");
        plan.tell(&name, step, bytes / step / 1e9, "GB/s");
    }
}

/// The first token by each kernel for many rows, whichever is used.
fn each_way(plan: &Plan, bench: &mut Bench, format: &str) {
    let used = bench.model.backend().uses_matrix_units();
    let has_units = bench.model.backend().many_rows_times().is_some();
    for (units, name) in [(false, "dot4"), (true, "units")] {
        if units && !has_units {
            break;
        }
        use_units(bench.model.backend(), units);
        bench.first_token(); // kernels compiled
        let seconds = bench.first_token().iter().sum();
        plan.tell(&format!("model {format}: first token by {name}"), seconds, seconds, "s");
    }
    use_units(bench.model.backend(), used);
}

/// What each kernel takes of a first token and of a step, and what is left beside them.
fn times_by_kernel(plan: &Plan) {
    let weights = Weights::random(&plan.config(), Some(Quant::Q8));
    let options = GpuOptions { choice: choice(), timestamps: true, ..GpuOptions::default() };
    let gpu = match Gpu::new(&options) {
        Err(error @ GpuError::Unsuitable { .. }) => return eprintln!("no times by kernel: {error}"),
        gpu => gpu.unwrap(),
    };
    let mut bench = Bench::load(plan, gpu, &weights);
    let mut take = |what: &str, times: usize, run: &mut dyn FnMut(&mut Bench)| {
        let _ = bench.model.backend().take_kernel_times(); // of what came before
        run(&mut bench);
        tell_times(plan, what, times, &bench.model.backend().take_kernel_times());
    };
    take("first token", 1, &mut |bench| {
        bench.first_token();
    });
    take("step", 2, &mut |bench| {
        bench.decode(bench.prompt, 2);
    });
}

/// Each kernel's time in one of `times` runs, with the rates that it reached.
fn tell_times(plan: &Plan, what: &str, times: usize, kernels: &[KernelTime]) {
    let per_run = |value: f64| value / times as f64;
    let all: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    plan.tell(&format!("times q8 {what}: all kernels"), per_run(all), 1e3 * per_run(all), "ms");
    for kernel in kernels {
        let seconds = per_run(kernel.seconds);
        let name = format!("times q8 {what}: {} calls {}", kernel.calls / times as u64, kernel.kernel);
        plan.tell(&name, seconds, 1e3 * seconds, "ms");
        if kernel.seconds > 0.0 && kernel.bytes_read > 0 {
            let name = format!("times q8 {what}: {}", kernel.kernel);
            // few rows are bound by reading, many by arithmetic
            if kernel.kernel.contains("Few") {
                plan.tell(&name, seconds, kernel.bytes_read as f64 / kernel.seconds / 1e9, "GB/s");
            } else {
                let rate = 2.0 * kernel.multiplications as f64 / kernel.seconds / 1e12;
                plan.tell(&name, seconds, rate, "TFLOP/s");
            }
        }
    }
}
