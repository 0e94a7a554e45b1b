//! A card whose results are wrong is found before it is used: the result of every kernel against the processor's, on small shapes.
//! What was found is kept for the card, its driver's version and this program's.

use crate::backend::Gpu;
use crate::{Adapter, GpuError};
use half::{bf16, f16};
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::{
    Backend, BackendError, Bytes, Cpu, CpuOptions, Epilogue, Format, FullAttention, Heads, KvFormat,
    KvLayout, MatrixSource, Norm, Precision, Span,
};
use std::path::{Path, PathBuf};

/// Largest difference from the processor's result, relative to its largest value. Right kernels are within 0.4 % (see
/// `phi3v_kernels::testing::tolerances`); wrong ones, with a value left out or taken twice, are far from it.
const TOLERANCE: f32 = 0.02;

/// Columns of the products.
const N: usize = 64;
/// Rows of the products: for each kernel of few rows, which make 1, 2 or 4 from one reading of the weights, and for many.
const ROWS: [usize; 4] = [1, 2, 3, 20];
/// Formats of the products' weights, with the arithmetic that has kernels of its own and values along K.
const WEIGHTS: [(Format, Precision, usize); 8] = [
    (Format::Q8, Precision::F32, 256),
    (Format::Q4, Precision::F32, 256),
    (Format::Bf16, Precision::Bf16, 96),
    (Format::Bf16, Precision::F32, 96),
    (Format::F16, Precision::Bf16, 96),
    (Format::F16, Precision::F32, 96),
    (Format::F32, Precision::Bf16, 96),
    (Format::F32, Precision::F32, 96),
];
/// Columns of gates and ups together: in panels of their own, and in one.
const GATED: [usize; 2] = [2 * N, N];

/// The word in the file of a card whose kernels are right; otherwise the first that is wrong stands there.
const RIGHT: &str = "right";

/// Tries the kernels, or looks up what they did when they were last tried.
pub(crate) fn run(gpu: &Gpu, cache: Option<&Path>) -> Result<(), GpuError> {
    let name = gpu.adapter().name.clone();
    let path = cache.map(|folder| path(folder, gpu.adapter(), gpu.uses_matrix_units()));
    let wrong = match path.as_deref().and_then(kept) {
        Some(kept) => Some(kept).filter(|kept| kept != RIGHT),
        None => {
            let open_error = |e: BackendError| GpuError::Open { name: name.clone(), reason: e.to_string() };
            let wrong = first_wrong(gpu).map_err(open_error)?;
            if let Some(path) = path {
                // without the file the next start tries again
                let _ = crate::kept::write(&path, wrong.as_deref().unwrap_or(RIGHT).as_bytes());
            }
            wrong
        }
    };
    wrong.map_or(Ok(()), |what| Err(GpuError::SelfTest { name, what }))
}

/// Why a card's matrix units are known to fail.
pub(crate) fn kept_fault(card: &Adapter, cache: Option<&Path>) -> Option<String> {
    kept(&path(cache?, card, true)).filter(|kept| kept != RIGHT)
}

/// Keeps why a card's matrix units fail, for the next start.
pub(crate) fn keep_fault(card: &Adapter, cache: Option<&Path>, fault: &str) {
    if let Some(folder) = cache {
        // without the file the next start tries again
        let _ = crate::kept::write(&path(folder, card, true), fault.as_bytes());
    }
}

/// What stands in a file of [`path`], if it is there and undamaged.
fn kept(path: &Path) -> Option<String> {
    String::from_utf8(crate::kept::read(path)?).ok()
}

/// A file for the card, with matrix units or without, its driver and this program.
fn path(folder: &Path, card: &Adapter, units: bool) -> PathBuf {
    let units = if units { "units" } else { "dot4" };
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
        for (format, precision, k) in WEIGHTS {
            let arithmetic = if format.is_packed() { String::new() } else { format!(" in {precision:?}") };
            let name = format!("a {format:?} product of {rows} rows{arithmetic}");
            results.push((name, product(backend, MatrixSource { precision, ..matrix(format, N, k) }, rows)?));
        }
    }
    for (rows, n) in [(1, GATED[0]), (20, GATED[0]), (3, GATED[1])] {
        results.push((format!("{rows} rows of {} gates", n / 2), gated(backend, rows, n)?));
    }
    results.push(("a norm before a product".to_owned(), normed(backend)?));
    results.push(("a norm".to_owned(), norm(backend)?));
    results.push(("a rotation, a choice of rows or a sum".to_owned(), on_rows(backend)?));
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
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

fn matrix(format: Format, n: usize, k: usize) -> MatrixSource {
    let rows = numbers(n * k, 1);
    let bytes = match PackedShape::new(format, n, k) {
        Some(shape) => {
            let mut bytes = vec![0; shape.bytes()];
            for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
                let range = shape.panel_rows(panel);
                encode_panel(shape, panel, &rows[range.start * k..range.end * k], bytes);
            }
            bytes
        }
        None if format == Format::F32 => bytemuck::cast_slice(&rows).to_vec(),
        None if format == Format::F16 => rows.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        None => rows.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    let (bytes, bias) = (Bytes::from(bytes), Some(numbers(n, 2)));
    MatrixSource { bytes, format, precision: Precision::F32, n, k, bias }
}

fn product<B: Backend>(backend: &B, source: MatrixSource, rows: usize) -> Result<Vec<f32>, BackendError> {
    let k = source.k;
    let weight = backend.linear_weight(source)?;
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
    let matrix = backend.linear_weight(matrix(Format::Q8, N, K))?;
    let (mut out, mut between) = (backend.tensor(3, N)?, backend.tensor(0, 1)?);
    backend.normed_linear(&x, Norm::Rms(&weight, 1e-5), &mut [(&matrix, &mut out)], &mut between)?;
    values(backend, &out)
}

/// Gates and ups, `n` together, and their product.
fn gated<B: Backend>(backend: &B, rows: usize, n: usize) -> Result<Vec<f32>, BackendError> {
    const K: usize = 128;
    let weight = backend.linear_weight(matrix(Format::Q8, n, K))?;
    let x = tensor(backend, &numbers(rows * K, 10), K)?;
    let mut out = backend.tensor(rows, n / 2)?;
    backend.linear(&x, &weight, Epilogue::SiluMul, &mut out);
    values(backend, &out)
}

fn norm<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    const COLS: usize = 300;
    let (weight, bias) = (backend.vector(&numbers(COLS, 11))?, backend.vector(&numbers(COLS, 12))?);
    let x = tensor(backend, &numbers(2 * COLS, 13), COLS)?;
    let mut out = backend.tensor(2, COLS)?;
    backend.norm(&x, Norm::Layer((&weight, &bias), 1e-5), &mut out);
    values(backend, &out)
}

/// Three rows chosen of four, rotated, and one row added to each.
fn on_rows<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    let heads = Heads { query: 2, key_value: 1, dim: 32 };
    let cols = 4 * heads.dim;
    let x = tensor(backend, &numbers(4 * cols, 14), cols)?;
    let mut out = backend.tensor(3, cols)?;
    backend.gather(&x, &[3, 0, 2], 0, &mut out);
    let angles = tensor(backend, &numbers(3 * heads.dim, 15), heads.dim)?;
    backend.rope(&angles, heads, &mut out);
    let addend = tensor(backend, &numbers(cols, 16), cols)?;
    backend.add(&addend, &mut out);
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
    use crate::kernel::{Kernel, all};
    use crate::testing::card_with;
    use crate::{GpuOptions, MatrixUnits};
    use std::collections::HashSet;
    use std::time::Instant;

    #[test]
    fn the_processor_agrees_with_itself_and_a_wrong_value_is_seen() {
        let cpu = Cpu::new(&CpuOptions { threads: Some(1), level: None }).unwrap();
        let right = results(&cpu).unwrap();
        assert_eq!(right.len(), 42);
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

    /// Why a kernel is not tried on a card with such matrix units, or with none.
    fn left_out(kernel: Kernel, units: Option<MatrixUnits>) -> Option<&'static str> {
        match kernel {
            Kernel::Many { .. } if units.is_some() => {
                Some("matrix units make these products; the card that runs without them is tried anew")
            }
            _ => None,
        }
    }

    #[test]
    fn every_kernel_is_tried() {
        // as on Metal, whose submissions end with a kernel of their own
        let options = GpuOptions { count_submissions: true, ..GpuOptions::default() };
        for no_matrix_units in [false, true] {
            let Some(gpu) = card_with(&GpuOptions { no_matrix_units, ..options.clone() }) else { return };
            let [compiled, done] = [(); 2].map(|()| {
                let start = Instant::now();
                assert_eq!(first_wrong(&gpu).unwrap(), None);
                start.elapsed()
            });
            eprintln!("self-test of {}: {compiled:.2?}, once compiled {done:.2?}", gpu.adapter().name);
            let units = gpu.device.units;
            let sizes: Vec<_> = units.iter().map(|units| (units.tile, units.lanes)).collect();
            let there = all(&sizes).into_iter().filter(|kernel| left_out(*kernel, units).is_none());
            let tried: HashSet<Kernel> = gpu.device.pipelines.compiled().into_iter().collect();
            assert_eq!(there.collect::<HashSet<_>>(), tried);
            if units.is_none() {
                return; // the same card once more
            }
        }
    }

    #[test]
    fn what_was_found_is_kept_and_what_was_damaged_is_found_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("gpu");
        let options = GpuOptions { cache: Some(cache.clone()), ..GpuOptions::default() };
        let Some(gpu) = card_with(&options) else { return };
        let file = path(&cache, gpu.adapter(), gpu.uses_matrix_units());
        run(&gpu, Some(&cache)).unwrap();
        assert_eq!(crate::kept::read(&file).unwrap(), RIGHT.as_bytes());
        let dispatches = gpu.counts().dispatches;
        run(&gpu, Some(&cache)).unwrap();
        assert_eq!(gpu.counts().dispatches, dispatches, "it is looked up");
        // as a full disk leaves it
        std::fs::write(&file, "").unwrap();
        run(&gpu, Some(&cache)).unwrap();
        assert!(gpu.counts().dispatches > dispatches);
        assert_eq!(crate::kept::read(&file).unwrap(), RIGHT.as_bytes());
        crate::kept::write(&file, b"a norm").unwrap();
        let refused = run(&gpu, Some(&cache)).unwrap_err().to_string();
        assert_eq!(refused, format!("{} computes wrongly (a norm)", gpu.adapter().name));
        // a folder that cannot be is no hindrance
        run(&gpu, Some(&file.join("below a file"))).unwrap();
    }
}
