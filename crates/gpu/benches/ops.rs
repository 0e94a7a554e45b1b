//! How fast the first card, or the one that `PHI3V_TEST_DEVICE` names, runs the kernels: `cargo bench -p phi3v-gpu`, or with
//! `-- --tiny` on shapes that a card in software can do.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on shall fail")]

use phi3v_gpu::testing::choice;
use phi3v_gpu::{Gpu, GpuOptions, adapters};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{
    Backend, Bytes, Epilogue, Format, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, MatrixSource, Precision,
    Span,
};
use std::time::{Duration, Instant};

/// Matrices of Phi-3.5-vision, `[n, k]`.
const SHAPES: [(&str, usize, usize); 6] = [
    ("qkv_proj", 9216, 3072),
    ("o_proj", 3072, 3072),
    ("gate_up_proj", 16_384, 3072),
    ("down_proj", 3072, 8192),
    ("lm_head", 32_064, 3072),
    ("fc1 of the tower", 4096, 1024),
];

/// Time to measure each figure for.
const TIME: Duration = Duration::from_millis(300);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let tiny = arguments.iter().any(|argument| argument == "--tiny");
    if adapters().is_empty() {
        println!("no graphics card was found");
        return;
    }
    for no_matrix_units in [true, false] {
        let gpu =
            Gpu::new(&GpuOptions { choice: choice(), no_matrix_units, ..GpuOptions::default() }).unwrap();
        if no_matrix_units {
            println!("{} ({}, {})", gpu.adapter().name, gpu.adapter().kind, gpu.adapter().driver);
            recording(&gpu);
            few(&gpu, tiny);
            attention(&gpu, tiny);
        } else if !gpu.uses_matrix_units() {
            println!("no matrix units that the kernels can use");
            continue;
        }
        many(&gpu, tiny, if no_matrix_units { "dot4" } else { "matrix units" });
    }
}

/// Seconds that one `run` takes, of as many as fit into [`TIME`] with one wait at their end.
fn seconds(gpu: &Gpu, mut run: impl FnMut()) -> f64 {
    let mut times = 1;
    loop {
        let start = Instant::now();
        (0..times).for_each(|_| run());
        gpu.finish().unwrap();
        let took = start.elapsed();
        if took >= TIME || times >= 1 << 14 {
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
    let scale = if tiny { 16 } else { 1 };
    SHAPES.into_iter().map(move |(name, n, k)| (name, (n / scale).max(64), (k / scale).max(128)))
}

/// What it costs to record a dispatch, and to wait for nothing.
fn recording(gpu: &Gpu) {
    let (a, mut x) = (gpu.tensor(1, 64).unwrap(), gpu.tensor(1, 64).unwrap());
    let start = Instant::now();
    (0..400).for_each(|_| gpu.add(&a, &mut x));
    let recorded = start.elapsed();
    gpu.finish().unwrap();
    let wait = seconds(gpu, || ());
    println!(
        "400 dispatches are recorded in {:.2} ms; a wait for nothing takes {:.3} ms",
        1e3 * recorded.as_secs_f64(),
        1e3 * wait
    );
}

fn few(gpu: &Gpu, tiny: bool) {
    for format in [Format::Q8, Format::Q4] {
        for (name, n, k) in shapes(tiny) {
            let source = matrix(format, n, k);
            let bytes = source.bytes.len();
            let weight = gpu.linear_weight(source).unwrap();
            for rows in [1, 4] {
                let (x, mut out) = (gpu.tensor(rows, k).unwrap(), gpu.tensor(rows, n).unwrap());
                let time = seconds(gpu, || gpu.linear(&x, &weight, Epilogue::Store, &mut out));
                println!(
                    "few  {format:?} {name:16} {rows} rows {:9.1} µs {:8.1} GB/s",
                    1e6 * time,
                    bytes as f64 / time / 1e9
                );
            }
        }
    }
}

fn many(gpu: &Gpu, tiny: bool, how: &str) {
    let rows = if tiny { 64 } else { 2048 };
    for format in [Format::Q8, Format::Q4] {
        for (name, n, k) in shapes(tiny) {
            let weight = gpu.linear_weight(matrix(format, n, k)).unwrap();
            let (x, mut out) = (gpu.tensor(rows, k).unwrap(), gpu.tensor(rows, n).unwrap());
            let time = seconds(gpu, || gpu.linear(&x, &weight, Epilogue::Store, &mut out));
            let operations = 2.0 * (rows * n * k) as f64;
            println!(
                "many {format:?} {name:16} {rows} rows {:9.1} µs {:8.3} TFLOP/s by {how}",
                1e6 * time,
                operations / time / 1e12
            );
        }
    }
}

/// A decode step's attention at a depth, and a prompt's.
fn attention(gpu: &Gpu, tiny: bool) {
    let heads = Heads { query: 32, key_value: 32, dim: 96 };
    let tokens = if tiny { 256 } else { 2048 };
    let blocks: Vec<u32> = (0..(tokens / KV_BLOCK_TOKENS) as u32).collect();
    for format in [KvFormat::Bf16, KvFormat::Q8] {
        let layout = KvLayout { layers: 1, heads, format };
        let pool = gpu.kv_pool(layout, blocks.len()).unwrap();
        let bytes = layout.block_bytes() * blocks.len();
        let mut batch = gpu.batch();
        for rows in [1, tokens] {
            gpu.set_batch(&[Span { rows: 0..rows, past: tokens - rows, blocks: &blocks }], &mut batch)
                .unwrap();
            let qkv = gpu.tensor(rows, 3 * heads.query * heads.dim).unwrap();
            let mut out = gpu.tensor(rows, heads.query * heads.dim).unwrap();
            let time = seconds(gpu, || gpu.attention_causal(&qkv, 0, &batch, &pool, &mut out));
            println!(
                "attention {format:?} {rows:4} rows of {tokens} tokens {:9.1} µs {:8.1} GB/s",
                1e6 * time,
                bytes as f64 / time / 1e9
            );
        }
    }
}
