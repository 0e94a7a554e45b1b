//! Speed of the products, per format: `cargo bench -p phi3v-kernels -- [FILTER]`, `THREADS=n` for the threads.
//!
//! Prints the time of the wall clock and the processor's. On a busy machine only the second says what a kernel costs;
//! with several threads it includes their waiting, so kernels are tuned on one.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Backend, Bytes, Cpu, CpuLevel, CpuOptions, Epilogue, Format, MatrixSource, Precision};
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
fn process_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
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
    let level = CpuLevel::detect();
    let cpu = Cpu::new(&CpuOptions { threads, level: Some(level) }).unwrap();
    println!("{} threads, {}", cpu.threads(), cpu.features());
    println!("{:.0?}", cpu.limits().unwrap());
    for format in [Format::Q8, Format::Q4, Format::Bf16] {
        for (m, k, n) in SHAPES {
            let name = format!("{format:?} {m}x{k}x{n}");
            if name.contains(&filter) {
                measure(&cpu, &name, format, (m, k, n));
            }
        }
    }
}

fn measure(cpu: &Cpu, name: &str, format: Format, (m, k, n): (usize, usize, usize)) {
    let source = weight(format, n, k);
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
    let mut x = cpu.tensor(m, k).unwrap();
    let values: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
    cpu.upload(&values, 0, &mut x);
    let mut out = cpu.tensor(m, n).unwrap();
    let mut times: Vec<(f64, f64)> = (0..5)
        .map(|_| {
            let (wall, cpu_time) = (Instant::now(), process_seconds());
            weights.iter().for_each(|w| cpu.linear(&x, w, Epilogue::Store, &mut out));
            (wall.elapsed().as_secs_f64(), process_seconds() - cpu_time)
        })
        .collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let median = times[times.len() / 2];
    let best = times.iter().map(|t| t.0).fold(f64::MAX, f64::min);
    let (operations, bytes) = (2.0 * (m * k * n * copies) as f64, (source.bytes.len() * copies) as f64);
    let rates = |s: f64| format!("{:7.1} G/s {:6.1} GB/s", operations / s / 1e9, bytes / s / 1e9);
    println!("{name:22} wall best {} | processor {}", rates(best), rates(median.1));
}
