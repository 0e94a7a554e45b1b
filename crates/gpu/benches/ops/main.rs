//! How fast the first card, or the one that `PHI3V_TEST_DEVICE` names, runs the kernels, beside what it can do at most: `cargo bench
//! -p phi3v-gpu`. After `--`: `--tiny` for shapes that a card in software can do, `--json` for a JSON object to a line, `--name` for
//! nothing but the card's name.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on shall fail")]

mod peaks;

use phi3v_gpu::testing::choice;
use phi3v_gpu::{AdapterKind, Gpu, GpuLinear, GpuOptions, UseUnits, adapters};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{
    Backend, Bytes, Epilogue, Format, FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout,
    MatrixSource, Precision, Span,
};
use std::time::{Duration, Instant};

/// Matrices of Phi-3.5-vision, `[n, k]`.
const SHAPES: [(&str, usize, usize); 6] = [
    ("qkv_proj", 9216, 3072),
    ("o_proj", 3072, 3072),
    ("gate_up_proj", 16_384, 3072),
    ("down_proj", 3072, 8192),
    ("lm_head", 32_064, 3072),
    ("fc1", 4096, 1024),
];

/// Bytes that are read in turn before any is read again, so that GB/s are of the memory and not of a cache: those of cards hold up
/// to 128 MB.
const IN_TURN: usize = 256 << 20;
/// The same for shapes that a card in software can do.
const IN_TURN_TINY: usize = 1 << 20;

/// Time to measure each figure for.
const TIME: Duration = Duration::from_millis(200);

/// How figures are told: a line each, as soon as they are there.
pub struct Figures {
    json: bool,
}

impl Figures {
    /// One figure: what was measured, the seconds it took, and the rate that follows.
    pub fn tell(&self, name: &str, seconds: f64, value: f64, unit: &str) {
        if self.json {
            println!(r#"{{"name":{name:?},"seconds":{seconds:e},"value":{value:e},"unit":{unit:?}}}"#);
        } else {
            println!("{name:44} {:9.1} µs {value:9.3} {unit}", 1e6 * seconds);
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let (tiny, figures) = (has("--tiny"), Figures { json: has("--json") });
    if adapters().is_empty() {
        eprintln!("no graphics card was found");
        std::process::exit(1);
    }
    if has("--name") {
        let gpu = Gpu::new(&GpuOptions { choice: choice(), ..GpuOptions::default() }).unwrap();
        return println!("{} ({}, {})", gpu.adapter().name, gpu.adapter().kind, gpu.adapter().driver);
    }
    for use_units in [UseUnits::Never, UseUnits::Always] {
        let gpu = Gpu::new(&GpuOptions { choice: choice(), use_units, ..GpuOptions::default() }).unwrap();
        let name = if use_units == UseUnits::Never { "dot4" } else { "units" };
        if use_units == UseUnits::Never {
            eprintln!("{} ({}, {})", gpu.adapter().name, gpu.adapter().kind, gpu.adapter().driver);
            peaks::tell(&gpu.adapter().name, tiny, &figures);
            recording(&gpu, &figures);
            few(&gpu, tiny, &figures);
            attention(&gpu, tiny, &figures);
            dense(&gpu, tiny, &figures);
        } else if !gpu.uses_matrix_units() {
            match gpu.matrix_units_fault() {
                Some(fault) => eprintln!("matrix units fail the test ({fault})"),
                None => eprintln!("no matrix units that the kernels can use"),
            }
            continue;
        }
        many(&gpu, tiny, name, &figures);
    }
}

/// Seconds that one `run` takes, of as many as fit into [`TIME`] with one wait at their end.
fn seconds(gpu: &Gpu, mut run: impl FnMut()) -> f64 {
    run();
    gpu.finish().unwrap(); // kernels compiled
    let mut times = 1;
    loop {
        let start = Instant::now();
        (0..times).for_each(|_| run());
        gpu.finish().unwrap();
        let took = start.elapsed();
        let enough = took >= TIME || gpu.adapter().kind == AdapterKind::Software;
        if enough || times >= 1 << 14 {
            return took.as_secs_f64() / f64::from(times);
        }
        times *= 2;
    }
}

fn matrix(format: Format, n: usize, k: usize) -> MatrixSource {
    let len = PackedShape::new(format, n, k).unwrap().bytes();
    let bytes = (0..len).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>();
    MatrixSource { bytes: Bytes::from(bytes), format, precision: Precision::Bf16, n, k, bias: None }
}

fn shapes(tiny: bool) -> impl Iterator<Item = (&'static str, usize, usize)> {
    let scale = if tiny { 32 } else { 1 };
    SHAPES.into_iter().map(move |(name, n, k)| (name, (n / scale).max(64), (k / scale).max(128)))
}

/// What it costs to record a dispatch, and to wait for nothing.
fn recording(gpu: &Gpu, figures: &Figures) {
    let (a, mut x) = (gpu.tensor(1, 64).unwrap(), gpu.tensor(1, 64).unwrap());
    let start = Instant::now();
    (0..400).for_each(|_| gpu.add(&a, &mut x));
    let recorded = start.elapsed().as_secs_f64();
    gpu.finish().unwrap();
    figures.tell("400 dispatches recorded", recorded, 1e3 * recorded, "ms");
    let mut values = Vec::new();
    let read = seconds(gpu, || gpu.download(&x, 0..1, &mut values).unwrap());
    figures.tell("a row read back", read, 1e3 * read, "ms");
}

/// How many of `bytes` bytes are read in turn.
fn in_turn(bytes: usize, tiny: bool) -> usize {
    if tiny { IN_TURN_TINY } else { IN_TURN }.div_ceil(bytes)
}

/// A matrix, as often as it is to be on the card.
fn weights(gpu: &Gpu, source: &MatrixSource, copies: usize) -> Vec<GpuLinear> {
    (0..copies).map(|_| gpu.linear_weight(source.clone()).unwrap()).collect()
}

/// Seconds of a product with an [n, k] matrix, of which one copy is read after the other.
fn product(gpu: &Gpu, [n, k]: [usize; 2], weights: &[GpuLinear], rows: usize) -> f64 {
    let (x, mut out) = (gpu.tensor(rows, k).unwrap(), gpu.tensor(rows, n).unwrap());
    let mut weights = weights.iter().cycle();
    seconds(gpu, || gpu.linear(&x, weights.next().unwrap(), Epilogue::Store, &mut out))
}

fn few(gpu: &Gpu, tiny: bool, figures: &Figures) {
    for format in [Format::Q8, Format::Q4] {
        for (name, n, k) in shapes(tiny) {
            let source = matrix(format, n, k);
            let bytes = source.bytes.len() as f64;
            let weights = weights(gpu, &source, in_turn(source.bytes.len(), tiny));
            for rows in [1, 4] {
                let time = product(gpu, [n, k], &weights, rows);
                let name = format!("few {} {name} {rows} rows", lower(format));
                figures.tell(&name, time, bytes / time / 1e9, "GB/s");
            }
        }
    }
}

fn many(gpu: &Gpu, tiny: bool, how: &str, figures: &Figures) {
    for format in [Format::Q8, Format::Q4] {
        for (name, n, k) in shapes(tiny) {
            let weights = weights(gpu, &matrix(format, n, k), 1);
            let time = product(gpu, [n, k], &weights, many_rows(tiny));
            let operations = 2.0 * (many_rows(tiny) * n * k) as f64;
            let name = format!("many {how} {} {name} {} rows", lower(format), many_rows(tiny));
            figures.tell(&name, time, operations / time / 1e12, "TFLOP/s");
        }
    }
}

/// Weights in bf16, by the kernels for goldens: one shape.
fn dense(gpu: &Gpu, tiny: bool, figures: &Figures) {
    let (name, n, k) = shapes(tiny).nth(1).unwrap();
    let bytes = Bytes::from(vec![0x3c; 2 * n * k]);
    let source = MatrixSource { bytes, format: Format::Bf16, precision: Precision::Bf16, n, k, bias: None };
    let weights = weights(gpu, &source, in_turn(2 * n * k, tiny));
    for rows in [1, many_rows(tiny)] {
        let time = product(gpu, [n, k], &weights, rows);
        let name = format!("dense bf16 {name} {rows} rows");
        if rows == 1 {
            figures.tell(&name, time, (2 * n * k) as f64 / time / 1e9, "GB/s");
        } else {
            figures.tell(&name, time, 2.0 * (rows * n * k) as f64 / time / 1e12, "TFLOP/s");
        }
    }
}

fn many_rows(tiny: bool) -> usize {
    if tiny { 64 } else { 2048 }
}

fn lower(format: impl std::fmt::Debug) -> String {
    format!("{format:?}").to_lowercase()
}

/// A decode step's attention at a depth, a prompt's, and the tower's within 13 tiles.
fn attention(gpu: &Gpu, tiny: bool, figures: &Figures) {
    let (count, tokens) = if tiny { (2, 128) } else { (32, 2048) };
    let heads = Heads { query: count, key_value: count, dim: 96 };
    let blocks: Vec<u32> = (0..(tokens / KV_BLOCK_TOKENS) as u32).collect();
    for format in [KvFormat::Bf16, KvFormat::Q8] {
        let of_one = KvLayout { layers: 1, heads, format };
        let bytes = of_one.block_bytes() * blocks.len();
        let layers = in_turn(bytes, tiny);
        let pool = gpu.kv_pool(KvLayout { layers, ..of_one }, blocks.len()).unwrap();
        let mut batch = gpu.batch();
        for rows in [1, tokens] {
            gpu.set_batch(&[Span { rows: 0..rows, past: tokens - rows, blocks: &blocks }], &mut batch)
                .unwrap();
            let qkv = gpu.tensor(rows, 3 * heads.query * heads.dim).unwrap();
            let mut out = gpu.tensor(rows, heads.query * heads.dim).unwrap();
            let mut layers = (0..layers).cycle();
            let time = seconds(gpu, || {
                gpu.attention_causal(&qkv, layers.next().unwrap(), &batch, &pool, &mut out);
            });
            let name = format!("attention {} {rows} rows of {tokens} tokens", lower(format));
            if rows == 1 {
                figures.tell(&name, time, bytes as f64 / time / 1e9, "GB/s");
            } else {
                let operations = 2.0 * (tokens * tokens * heads.query * heads.dim) as f64;
                figures.tell(&name, time, operations / time / 1e12, "TFLOP/s");
            }
        }
    }
    let (tiles, group) = if tiny { (1, 65) } else { (13, 577) };
    let count = if tiny { 1 } else { 16 };
    let heads = Heads { query: count, key_value: count, dim: 64 };
    let part = || gpu.tensor(tiles * group, heads.query * heads.dim).unwrap();
    let (parts, mut out) = ([part(), part(), part()], part());
    let shape = FullAttention { group, heads, precision: Precision::Bf16 };
    let time = seconds(gpu, || gpu.attention_full(parts.each_ref(), shape, &mut out));
    let operations = 4.0 * (tiles * group * group * heads.query * heads.dim) as f64;
    let name = format!("attention within {tiles} tiles of {group} rows");
    figures.tell(&name, time, operations / time / 1e12, "TFLOP/s");
}
