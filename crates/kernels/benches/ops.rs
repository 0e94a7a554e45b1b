//! Speed of the operations: `cargo bench -p phi3v-kernels -- [FILTER]`, `THREADS=n` for the threads.
//!
//! Prints the rates by the wall clock and by the processor's. On a busy machine only the second says what a kernel costs;
//! with several threads it includes their waiting, so kernels are tuned on one.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use phi3v_kernels::cpu::CpuTensor;
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{
    Backend, Bytes, Cpu, CpuOptions, Epilogue, FeedForward, Format, FullAttention, Heads, KV_BLOCK_TOKENS,
    KvFormat, KvLayout, MatrixSource, Norm, Precision, Span,
};
use std::time::Instant;

/// `(rows, k, n)`: the products of prefill and vision, and those of a decode step.
const SHAPES: [(usize, usize, usize); 9] = [
    (1941, 3072, 9216),
    (1941, 8192, 3072),
    (7501, 1024, 4096),
    (7501, 4096, 1024),
    (16, 3072, 16384),
    (4, 3072, 16384),
    (2, 3072, 16384),
    (1, 3072, 16384),
    (1, 8192, 3072),
];

/// Seconds of processor time this process has used.
#[cfg(unix)]
fn process_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds by the wall clock, where the processor's is not told.
#[cfg(not(unix))]
fn process_seconds() -> f64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// Pseudo-random bytes that make sensible scales: bf16 of about 0.01.
fn weight(format: Format, n: usize, k: usize) -> MatrixSource {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes = match PackedShape::new(format, n, k) {
        Some(shape) => {
            let mut bytes: Vec<u8> = (0..shape.bytes() / 8 + 1).flat_map(|_| next().to_le_bytes()).collect();
            bytes.truncate(shape.bytes());
            for block in bytes.chunks_exact_mut(shape.block_bytes()) {
                block[..128].as_chunks_mut::<2>().0.iter_mut().for_each(|s| *s = [0x23, 0x3c]);
            }
            bytes
        }
        None => (0..n * k / 4).flat_map(|_| (next() & 0x3fff_3fff_3fff_3fff).to_le_bytes()).collect(),
    };
    MatrixSource { bytes: Bytes::from(bytes), format, precision: Precision::Bf16, n, k, bias: None }
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let threads = std::env::var("THREADS").ok().and_then(|t| t.parse().ok());
    let cpu = Cpu::new(&CpuOptions { threads, level: None }).unwrap();
    println!("{} threads, {}", cpu.threads(), cpu.processor().features());
    println!("{:.0?}", cpu.limits(4 << 30).unwrap());
    for (format, precision) in [
        (Format::Q8, Precision::Bf16),
        (Format::Q4, Precision::Bf16),
        (Format::Bf16, Precision::Bf16),
        (Format::Bf16, Precision::F32),
    ] {
        for (m, k, n) in SHAPES {
            let name = format!("{format:?} {m}x{k}x{n}");
            let name = if precision == Precision::F32 { format!("f32 {name}") } else { name };
            if name.contains(&filter) {
                product(&cpu, &name, (format, precision), (m, k, n));
            }
        }
    }
    for (what, epilogue, m, (k, hidden)) in [
        ("tower", Epilogue::QuickGelu, 1154, (1024, 4096)),
        ("decoder", Epilogue::SiluMul, 1024, (3072, 8192)),
    ] {
        for format in [Format::Q8, Format::Q4] {
            for fused in [false, true] {
                let name = format!("feed-forward {what} {format:?}{}", if fused { "" } else { " in steps" });
                if name.contains(&filter) {
                    feed_forward(&cpu, &name, (format, epilogue, fused), (m, k, hidden));
                }
            }
        }
    }
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        for (past, rows) in [(0, 1941), (1941, 64), (1941, 1), (16_383, 1), (65_535, 1)] {
            let name = format!("causal {format:?} {past}+{rows}");
            if name.contains(&filter) {
                causal(&cpu, &name, format, (past, rows, 1));
            }
        }
        let name = format!("causal {format:?} 16 x 1941+1");
        if name.contains(&filter) {
            causal(&cpu, &name, format, (1941, 1, 16));
        }
    }
    for precision in [Precision::F32, Precision::Bf16] {
        let name = format!("full {precision:?} 13x577");
        if name.contains(&filter) {
            full(&cpu, &name, precision);
        }
    }
}

/// Runs `op` some times and prints its rates; `operations` and `bytes` are those of one run.
fn report(name: &str, operations: f64, bytes: f64, mut op: impl FnMut()) {
    op();
    let mut times: Vec<(f64, f64)> = (0..7)
        .map(|_| {
            let (wall, cpu_time) = (Instant::now(), process_seconds());
            op();
            (wall.elapsed().as_secs_f64(), process_seconds() - cpu_time)
        })
        .collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let best = times.iter().map(|t| t.0).fold(f64::MAX, f64::min);
    let rates = |s: f64| format!("{:7.1} G/s {:6.1} GB/s", operations / s / 1e9, bytes / s / 1e9);
    let (least, median) = (rates(times[0].1), rates(times[times.len() / 2].1));
    println!("{name:26} wall best {} | processor best {least} median {median}", rates(best));
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn tensor(cpu: &Cpu, rows: usize, cols: usize) -> CpuTensor {
    let mut x = cpu.tensor(rows, cols).unwrap();
    cpu.upload(&values(rows * cols), 0, &mut x);
    x
}

fn product(
    cpu: &Cpu,
    name: &str,
    (format, precision): (Format, Precision),
    (m, k, n): (usize, usize, usize),
) {
    let source = MatrixSource { precision, ..weight(format, n, k) };
    // few rows: as many matrices as no cache holds
    let copies = if m > 64 { 1 } else { (600 << 20) / source.bytes.len() + 1 };
    let weights: Vec<_> = (0..copies)
        .map(|_| {
            // on a cache line, as in a mapped file
            let mut bytes = vec![0; source.bytes.len() + 64];
            let start = bytes.as_ptr().align_offset(64);
            bytes[start..start + source.bytes.len()].copy_from_slice(&source.bytes);
            let bytes = Bytes::from(bytes).slice(start..start + source.bytes.len());
            cpu.linear_weight(MatrixSource { bytes, ..source.clone() }).unwrap()
        })
        .collect();
    let (x, mut out) = (tensor(cpu, m, k), cpu.tensor(m, n).unwrap());
    let (operations, bytes) = (2.0 * (m * k * n * copies) as f64, (source.bytes.len() * copies) as f64);
    report(name, operations, bytes, || {
        weights.iter().for_each(|w| cpu.linear(&x, w, Epilogue::Store, &mut out));
    });
}

/// A feed-forward block, fused or in the steps it stands for.
fn feed_forward(
    cpu: &Cpu,
    name: &str,
    (format, epilogue, fused): (Format, Epilogue, bool),
    (m, k, hidden): (usize, usize, usize),
) {
    let n = if epilogue.is_gated() { 2 * hidden } else { hidden };
    let [first, second] =
        [(n, k), (k, hidden)].map(|(n, k)| cpu.linear_weight(weight(format, n, k)).unwrap());
    let (ones, mut x) = (vec![1.0; k], tensor(cpu, m, k));
    let (mut normed, mut between) = (cpu.tensor(m, k).unwrap(), cpu.tensor(m, hidden).unwrap());
    report(name, 2.0 * (m * k * (n + hidden)) as f64, 0.0, || {
        let norm = Norm::Rms(&ones, 1e-5);
        if fused {
            let block = FeedForward { first: &first, epilogue, hidden, second: &second };
            cpu.feed_forward(&mut x, norm, block, [&mut normed, &mut between]).unwrap();
        } else {
            cpu.norm(&x, norm, &mut normed);
            cpu.linear(&normed, &first, epilogue, &mut between);
            cpu.linear(&between, &second, Epilogue::Add, &mut x);
        }
    });
}

/// One layer of the decoder, 32 heads of 96: so many sequences with so many tokens each in the cache and so many new ones.
fn causal(cpu: &Cpu, name: &str, format: KvFormat, (past, rows, sequences): (usize, usize, usize)) {
    let heads = Heads { query: 32, key_value: 32, dim: 96 };
    let blocks_of_one = (past + rows).div_ceil(KV_BLOCK_TOKENS);
    let blocks: Vec<u32> = (0..(sequences * blocks_of_one) as u32).collect();
    let tables: Vec<&[u32]> = blocks.chunks_exact(blocks_of_one).collect();
    // only the first is read, but blocks as small as one layer's would not lie on large pages, as the model's do
    let one = KvLayout { layers: 1, heads, format };
    let layout = KvLayout { layers: (4usize << 20).div_ceil(one.block_bytes()), ..one };
    let mut pool = cpu.kv_pool(layout, blocks.len()).unwrap();
    cpu.kv_grow(&mut pool, blocks.len()).unwrap();
    let mut batch = cpu.batch();
    for table in &tables {
        for first in (0..past).step_by(2048) {
            let count = 2048.min(past - first);
            cpu.set_batch(&[Span { rows: 0..count, past: first, blocks: table }], &mut batch).unwrap();
            cpu.copy_kv(&tensor(cpu, count, 9216), 0, &batch, &mut pool);
        }
    }
    let (qkv, mut out) = (tensor(cpu, rows * sequences, 9216), cpu.tensor(rows * sequences, 3072).unwrap());
    let spans: Vec<Span<'_>> = (tables.iter().enumerate())
        .map(|(i, blocks)| Span { rows: i * rows..(i + 1) * rows, past, blocks })
        .collect();
    cpu.set_batch(&spans, &mut batch).unwrap();
    let pairs = (rows * past + rows * (rows + 1) / 2) * sequences;
    let repeats = if rows == 1 { (200_000 / (past * sequences)).max(1) } else { 1 };
    let bytes = (one.block_bytes() * blocks.len() * repeats) as f64;
    report(name, (4 * 3072 * pairs * repeats) as f64, bytes, || {
        for _ in 0..repeats {
            cpu.copy_kv(&qkv, 0, &batch, &mut pool);
            cpu.attention_causal(&qkv, 0, &batch, &pool, &mut out);
        }
    });
}

/// One layer of the vision tower: 16 heads of 64.
fn full(cpu: &Cpu, name: &str, precision: Precision) {
    let heads = Heads { query: 16, key_value: 16, dim: 64 };
    let parts = [0; 3].map(|_| tensor(cpu, 13 * 577, 1024));
    let [q, k, v] = &parts;
    let mut out = cpu.tensor(13 * 577, 1024).unwrap();
    let shape = FullAttention { group: 577, heads, precision };
    report(name, 4.0 * 1024.0 * 13.0 * 577.0 * 577.0, 0.0, || cpu.attention_full([q, k, v], shape, &mut out));
}
