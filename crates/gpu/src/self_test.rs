//! A card whose results are wrong is found before it is used: each kernel's result against the processor's, on small shapes.
//! What was found is kept for the card, its driver's version and this program's.

use crate::GpuError;
use crate::backend::Gpu;
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::{
    Backend, BackendError, Bytes, Cpu, CpuOptions, Epilogue, Format, FullAttention, Heads, KvFormat,
    KvLayout, MatrixSource, Norm, Precision, Span,
};
use std::path::{Path, PathBuf};

/// Largest difference from the processor's result, relative to its largest value. Right kernels are within 0.4 % (see
/// `phi3v_kernels::testing::tolerances`); wrong ones, with a value left out or taken twice, are far from it.
const TOLERANCE: f32 = 0.02;

/// Columns of the products, and rows for few and for many.
const N: usize = 64;
const ROWS: [usize; 3] = [1, 3, 20];

/// The word in the file of a card whose kernels are right; otherwise the first that is wrong stands there.
const RIGHT: &str = "right";

/// Tries the kernels, or looks up what they did when they were last tried.
pub(crate) fn run(gpu: &Gpu, cache: Option<&Path>) -> Result<(), GpuError> {
    let name = gpu.adapter().name.clone();
    let path = cache.map(|folder| path(folder, gpu));
    let wrong = match path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
        Some(kept) => Some(kept).filter(|kept| kept != RIGHT),
        None => {
            let open_error = |e: BackendError| GpuError::Open { name: name.clone(), reason: e.to_string() };
            let wrong = first_wrong(gpu).map_err(open_error)?;
            if let Some(path) = path {
                // without the file the next start tries again
                let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                let _ = folder.and_then(|()| std::fs::write(path, wrong.as_deref().unwrap_or(RIGHT)));
            }
            wrong
        }
    };
    wrong.map_or(Ok(()), |what| Err(GpuError::SelfTest { name, what }))
}

/// A file for the card, its driver and this program.
fn path(folder: &Path, gpu: &Gpu) -> PathBuf {
    let card = gpu.adapter();
    let units = if gpu.uses_matrix_units() { "units" } else { "dot4" };
    let version = env!("CARGO_PKG_VERSION");
    let words = [&card.name, &card.driver, &card.api, version, units].join(" ");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    folder.join(words.chars().map(plain).collect::<String>() + ".self-test")
}

/// The first operation whose result is not the processor's.
fn first_wrong(gpu: &Gpu) -> Result<Option<String>, BackendError> {
    let failed = |reason: String| BackendError::Device { reason };
    let cpu = Cpu::new(&CpuOptions { threads: Some(1), level: None }).map_err(|e| failed(e.to_string()))?;
    let (found, expected) = (results(gpu)?, results(&cpu)?);
    let pairs = found.into_iter().zip(expected);
    Ok(pairs.into_iter().find(|((_, found), (_, right))| !are_close(found, right)).map(|((name, _), _)| name))
}

fn are_close(found: &[f32], right: &[f32]) -> bool {
    let largest = right.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    // a NaN is close to nothing
    found.len() == right.len() && found.iter().zip(right).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

/// What an operation is called, and its result.
type Named = (String, Vec<f32>);

fn results<B: Backend>(backend: &B) -> Result<Vec<Named>, BackendError> {
    let mut results = Vec::new();
    for rows in ROWS {
        for (format, k) in [(Format::Q8, 256), (Format::Q4, 256), (Format::Bf16, 96)] {
            results
                .push((format!("a {format:?} product of {rows} rows"), product(backend, format, rows, k)?));
        }
    }
    results.push(("a norm".to_owned(), normed(backend)?));
    for format in [KvFormat::Bf16, KvFormat::Q8] {
        results.push((format!("attention over {format:?} keys"), causal(backend, format)?));
    }
    results.push(("attention within a tile".to_owned(), full(backend)?));
    Ok(results)
}

/// Numbers between -1 and 1 without a pattern that a kernel could have.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); // Numerical Recipes
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn tensor<B: Backend>(backend: &B, values: &[f32], cols: usize) -> Result<B::Tensor, BackendError> {
    let mut tensor = backend.tensor(values.len() / cols, cols)?;
    backend.upload(values, 0, &mut tensor);
    Ok(tensor)
}

fn values<B: Backend>(backend: &B, tensor: &B::Tensor) -> Result<Vec<f32>, BackendError> {
    let mut values = Vec::new();
    backend.download(tensor, 0..backend.shape(tensor).0, &mut values)?;
    Ok(values)
}

fn matrix(format: Format, k: usize) -> MatrixSource {
    let rows = numbers(N * k, 1);
    let bytes = match PackedShape::new(format, N, k) {
        Some(shape) => {
            let mut bytes = vec![0; shape.bytes()];
            encode_panel(shape, 0, &rows, &mut bytes);
            bytes
        }
        None => rows.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    let (bytes, bias) = (Bytes::from(bytes), Some(numbers(N, 2)));
    MatrixSource { bytes, format, precision: Precision::Bf16, n: N, k, bias }
}

fn product<B: Backend>(backend: &B, format: Format, rows: usize, k: usize) -> Result<Vec<f32>, BackendError> {
    let weight = backend.linear_weight(matrix(format, k))?;
    let mut x = numbers(rows * k, 3);
    x[5] = 60.0; // an outlier
    let x = tensor(backend, &x, k)?;
    let mut out = backend.tensor(rows, N)?;
    backend.linear(&x, &weight, Epilogue::QuickGelu, &mut out);
    values(backend, &out)
}

fn normed<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    const K: usize = 256;
    let weight = backend.vector(&numbers(K, 4))?;
    let x = tensor(backend, &numbers(3 * K, 5), K)?;
    let matrix = backend.linear_weight(matrix(Format::Q8, K))?;
    let (mut out, mut between) = (backend.tensor(3, N)?, backend.tensor(0, 1)?);
    backend.normed_linear(&x, Norm::Rms(&weight, 1e-5), &mut [(&matrix, &mut out)], &mut between)?;
    values(backend, &out)
}

/// A prompt of 70 tokens, then one more.
fn causal<B: Backend>(backend: &B, format: KvFormat) -> Result<Vec<f32>, BackendError> {
    const PROMPT: usize = 70;
    let heads = Heads { query: 2, key_value: 2, dim: 96 };
    let cols = 3 * heads.query * heads.dim;
    let mut pool = backend.kv_pool(KvLayout { layers: 1, heads, format }, 2)?;
    backend.kv_grow(&mut pool, 2)?;
    let (mut batch, mut all) = (backend.batch(), Vec::new());
    let rows = numbers((PROMPT + 1) * cols, 6);
    for (past, count) in [(0, PROMPT), (PROMPT, 1)] {
        let qkv = tensor(backend, &rows[past * cols..(past + count) * cols], cols)?;
        backend.set_batch(&[Span { rows: 0..count, past, blocks: &[1, 0] }], &mut batch)?;
        backend.copy_kv(&qkv, 0, &batch, &mut pool);
        let mut out = backend.tensor(count, heads.query * heads.dim)?;
        backend.attention_causal(&qkv, 0, &batch, &pool, &mut out);
        all.extend(values(backend, &out)?);
    }
    Ok(all)
}

fn full<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    let heads = Heads { query: 2, key_value: 2, dim: 64 };
    let cols = heads.query * heads.dim;
    let part = |seed| tensor(backend, &numbers(70 * cols, seed), cols);
    let parts = [part(7)?, part(8)?, part(9)?];
    let mut out = backend.tensor(70, cols)?;
    let shape = FullAttention { group: 35, heads, precision: Precision::Bf16 };
    backend.attention_full(parts.each_ref(), shape, &mut out);
    values(backend, &out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_agrees_with_itself_and_a_wrong_value_is_seen() {
        let cpu = Cpu::new(&CpuOptions { threads: Some(1), level: None }).unwrap();
        let right = results(&cpu).unwrap();
        assert_eq!(right.len(), 13);
        for (name, right) in &right {
            assert!(are_close(right, right), "{name}");
            // a workgroup that did nothing
            let mut found = right.clone();
            let from = right.len() / 2;
            found[from..from + 16].fill(0.0);
            assert!(!are_close(&found, right), "{name}");
            found.clone_from(right);
            found[3] = f32::NAN;
            assert!(!are_close(&found, right), "{name}");
        }
    }
}
