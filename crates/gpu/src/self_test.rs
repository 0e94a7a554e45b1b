//! Detects a card with wrong results before it is used: compares the result of every kernel with the processor's, on
//! small shapes. Kernels that promise the same bits are also compared with each other, on the card. The result is
//! stored for the card, its driver's version, this program's version, and its kernels.

use crate::backend::Gpu;
use crate::found::{Found, path};
use crate::kernel::SIDES;
use crate::trial::Trial;
use crate::{Adapter, GpuError, units};
use half::{bf16, f16};
use phi3v_kernels::quant::{GROUP, PackedShape, encode_panel};
use phi3v_kernels::{
    Backend, BackendError, Bytes, Cpu, CpuOptions, Epilogue, Format, FullAttention, Heads, KvFormat,
    KvLayout, MatrixSource, Norm, Precision, Rotation, Span,
};
use std::path::Path;

/// Largest difference from the processor's result, relative to its largest value. Correct kernels are within 0.4 % (see
/// `phi3v_kernels::testing::tolerances`); wrong ones, which omit a value or use it twice, are far outside.
const TOLERANCE: f32 = 0.02;

/// Columns of the products.
const N: usize = 64;
/// Rows of the products for each kernel for few rows, which compute 1, 2 or 4 per reading of the weights; the last
/// count takes two readings.
const FEW_ROWS: [usize; 3] = [1, 2, 6];
/// Rows of the products for many rows.
const MANY_ROWS: usize = 20;
/// Length along K of packed products: 97 groups. No kernel for few rows, be it of one row, two or four, sums them all
/// in one pass.
const LONG: usize = 97 * GROUP;
/// Length along K after which packed weights repeat: encoding more would dominate the test's time. No pass is a
/// multiple of this number of groups.
const RECURRING: usize = 7 * GROUP;
/// Length along K of packed products that one pass sums.
const SHORT: usize = 3 * GROUP;
/// Rows and columns of products of more than a tile in either direction, and (below) the rows that one dispatch
/// computes: two tiles of the largest kind, which leaves some for a second dispatch.
const TILED: [usize; 2] = [270, 192];
const TILED_AT_ONCE: usize = 256;
/// Lengths along K of these products, packed and dense: chosen so that, weighted by the cost of multiplications, a row
/// of either is the same work.
const TILED_K: [usize; 2] = [GROUP, GROUP / 4];

/// Weights of a product, with the arithmetic if it has kernels of its own, the length along K, and the epilogue.
#[derive(Clone, Copy)]
struct Weights {
    format: Format,
    precision: Precision,
    k: usize,
    epilogue: Epilogue,
}

/// Limits the work sent to the card at a time to the given amount, or resets the limit.
type Hold<'a> = &'a dyn Fn(Option<u64>);

/// All weights that have kernels of their own, the packed ones first; the epilogues take turns.
const WEIGHTS: [Weights; 10] = {
    use Epilogue::{Add, Gelu, QuickGelu};
    const fn weights(format: Format, precision: Precision, k: usize, epilogue: Epilogue) -> Weights {
        Weights { format, precision, k, epilogue }
    }
    [
        weights(Format::Q8, Precision::F32, LONG, QuickGelu),
        weights(Format::Q4, Precision::F32, LONG, QuickGelu),
        weights(Format::Q8, Precision::F32, SHORT, Add),
        weights(Format::Q4, Precision::F32, SHORT, Add),
        weights(Format::Bf16, Precision::Bf16, 300, Gelu),
        weights(Format::Bf16, Precision::F32, 300, Add),
        weights(Format::F16, Precision::Bf16, 300, QuickGelu),
        weights(Format::F16, Precision::F32, 300, Gelu),
        weights(Format::F32, Precision::Bf16, 300, Add),
        weights(Format::F32, Precision::F32, 300, QuickGelu),
    ]
};
/// Number of packed ones among them.
const PACKED: usize = 4;
/// Tokens of an attention, a few more than the kernels sum separately, and (below) those of them whose rows are not
/// requested.
const TOKENS: usize = 270;
const CACHED: usize = 240;
/// Rows of a group that attend to each other: two chunks of keys.
const ATTENDED: usize = 270;
/// Columns of gates and ups together: in separate panels, and in one.
const GATED: [usize; 2] = [2 * N, N];

/// Returns the self-test's result for a card's kernels, from a new test or from the last one.
///
/// # Errors
/// The first wrong result.
pub(crate) fn run(gpu: &Gpu, cache: Option<&Path>) -> Result<Found, GpuError> {
    let name = gpu.adapter().name.clone();
    let units = gpu.device.units.is_some();
    let path = cache.map(|folder| path(folder, gpu.adapter(), units));
    let found = match path.as_deref().and_then(Found::kept).filter(|kept| kept.is_whole(units)) {
        Some(kept) => kept,
        None => {
            let found = try_once(gpu, path.as_deref()).map_err(|error| {
                let (name, reason) = (name.clone(), error.to_string());
                let refused = gpu.device.failure.is_refusal();
                if refused { GpuError::Refused { name, reason } } else { GpuError::Open { name, reason } }
            })?;
            path.iter().for_each(|path| found.keep(path));
            // all kernels are compiled now, and a program may not end normally
            gpu.device.pipelines.keep();
            found
        }
    };
    match found.wrong {
        Some(what) => Err(GpuError::SelfTest { name, what, kept: path.filter(|path| path.exists()) }),
        None => Ok(found),
    }
}

/// Returns why a card's matrix units are known to fail.
pub(crate) fn kept_fault(card: &Adapter, cache: Option<&Path>) -> Option<String> {
    Found::kept(&path(cache?, card, true))?.wrong
}

/// Stores why a card's matrix units fail, for the next start.
pub(crate) fn keep_fault(card: &Adapter, cache: Option<&Path>, fault: &str) {
    if let Some(folder) = cache {
        Found { wrong: Some(fault.to_owned()), ..Found::default() }.keep(&path(folder, card, true));
    }
}

/// Tests the kernels, unless earlier tests returned no result; the result will be stored at `path`.
fn try_once(gpu: &Gpu, path: Option<&Path>) -> Result<Found, BackendError> {
    let Some(trial) = path.and_then(Trial::begin) else { return try_kernels(gpu) };
    let found = if trial.is_last() {
        let wrong = Some("its driver crashed or hung twice when the kernels were tried".to_owned());
        Ok(Found { wrong, ..Found::default() })
    } else {
        try_kernels(gpu)
    };
    let failed = matches!(found, Err(BackendError::Device { .. })) && !gpu.device.failure.is_refusal();
    if !failed {
        trial.end();
    }
    found
}

/// Compares every kernel with the processor, and those that promise the same bits with each other. Measures matrix
/// units that compute correctly.
fn try_kernels(gpu: &Gpu) -> Result<Found, BackendError> {
    let failed = |reason: String| BackendError::Device { reason };
    let cpu = Cpu::new(&CpuOptions { threads: Some(1), level: None }).map_err(|e| failed(e.to_string()))?;
    gpu.device.use_units(false);
    let by_dot4 = results(gpu, &hold_of(gpu))?;
    let mut wrong = first_wrong(&by_dot4, &results(&cpu, &|_| ())?);
    let has_units = gpu.device.units.is_some();
    if has_units && wrong.is_none() {
        gpu.device.use_units(true);
        wrong = first_wrong_by_units(gpu, &by_dot4)?;
    }
    let times = (has_units && wrong.is_none()).then(|| units::times(gpu)).transpose()?;
    Ok(Found { wrong, bits_differ: first_that_differs(&by_dot4), times })
}

fn hold_of(gpu: &Gpu) -> impl Fn(Option<u64>) {
    |work_max| gpu.device.pace.hold(work_max)
}

/// Returns the first operation for which matrix units have other bits than integer products, with tiles of either size.
fn first_wrong_by_units(gpu: &Gpu, by_dot4: &[Outcome]) -> Result<Option<String>, BackendError> {
    let by_tiles = |side| {
        gpu.device.use_side(Some(side));
        let results = many_rows(gpu, &hold_of(gpu));
        gpu.device.use_side(None);
        Ok(first_other(by_dot4, &results?))
    };
    let [small, large] = SIDES.map(by_tiles);
    Ok(small?.or(large?))
}

/// Returns the first operation whose result is not the processor's.
fn first_wrong(found: &[Outcome], right: &[Outcome]) -> Option<String> {
    let mut pairs = found.iter().zip(right);
    pairs.find(|(found, right)| !are_close(&found.values, &right.values)).map(|(found, _)| found.name())
}

fn are_close(found: &[f32], right: &[f32]) -> bool {
    let largest = right.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    // a NaN is close to nothing
    found.len() == right.len() && found.iter().zip(right).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

/// Returns the first operation for which matrix units have other bits than integer products.
fn first_other(by_dot4: &[Outcome], by_units: &[Outcome]) -> Option<String> {
    let other = by_units.iter().find(|units| {
        let same = |dot4: &&Outcome| (dot4.what == units.what) && (dot4.how == units.how);
        !by_dot4.iter().find(same).is_some_and(|dot4| has_bits(&dot4.values, &units.values))
    });
    other.map(|units| format!("{}, bit for bit", units.name()))
}

/// Returns the first operation whose rows have different bits with different numbers of rows, although they promise the
/// same.
fn first_that_differs(outcomes: &[Outcome]) -> Option<String> {
    let exact = || outcomes.iter().filter(|outcome| outcome.is_exact);
    let pairs =
        exact().flat_map(|one| exact().filter(|other| other.what == one.what).map(move |other| (one, other)));
    let mut different = pairs.filter(|(one, other)| {
        let rows = one.values.len().min(other.values.len());
        !has_bits(&one.values[..rows], &other.values[..rows])
    });
    different.next().map(|(one, other)| format!("{} and {}", one.name(), other.how))
}

fn has_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The result of an operation.
struct Outcome {
    what: String,
    /// How it was computed: with how many rows, or split in which way. Two ways of the same operation begin with the
    /// same rows.
    how: String,
    /// Whether those rows have the same bits in every kernel.
    is_exact: bool,
    values: Vec<f32>,
}

impl Outcome {
    fn name(&self) -> String {
        [&*self.what, &*self.how].join(" ").trim_end().to_owned()
    }
}

fn of_rows(rows: usize) -> String {
    format!("of {rows} row{}", if rows == 1 { "" } else { "s" })
}

fn results<B: Backend>(backend: &B, hold: Hold<'_>) -> Result<Vec<Outcome>, BackendError> {
    let mut results = Vec::new();
    for rows in FEW_ROWS {
        results.extend(products(backend, &WEIGHTS, rows)?);
    }
    results.push(gated(backend, 1, GATED[0])?);
    results.push(gated(backend, FEW_ROWS[2], GATED[1])?);
    results.push(normed(backend, FEW_ROWS[2])?);
    results.extend(products(backend, &WEIGHTS[PACKED..], MANY_ROWS)?);
    results.extend(tiled(backend, &WEIGHTS[PACKED..], hold)?);
    results.extend(many_rows(backend, hold)?);
    let once =
        |what: &str, values| Outcome { what: what.to_owned(), how: String::new(), is_exact: true, values };
    results.push(once("a norm", norm(backend)?));
    results.push(once("a rotation, a choice of rows or a sum", on_rows(backend)?));
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        results.extend(causal(backend, format)?);
        results.push(rotated(backend, format)?);
    }
    results.push(once("attention within a tile", full(backend)?));
    Ok(results)
}

/// Runs the operations that use matrix units if a card has them.
fn many_rows<B: Backend>(backend: &B, hold: Hold<'_>) -> Result<Vec<Outcome>, BackendError> {
    let mut results = products(backend, &WEIGHTS[..PACKED], MANY_ROWS)?;
    results.extend(tiled(backend, &WEIGHTS[..PACKED], hold)?);
    for format in [Format::Q8, Format::Q4] {
        results.push(large_sums(backend, format)?);
    }
    results.push(gated(backend, MANY_ROWS, GATED[0])?);
    results.push(normed(backend, MANY_ROWS)?);
    Ok(results)
}

/// Returns numbers between -1 and 1, without a pattern that a kernel could have.
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

/// Returns a matrix of these values, given row by row.
fn matrix(format: Format, n: usize, k: usize, rows: &[f32]) -> MatrixSource {
    let bytes = match PackedShape::new(format, n, k) {
        Some(shape) => {
            let mut bytes = vec![0; shape.bytes()];
            for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
                let range = shape.panel_rows(panel);
                encode_panel(shape, panel, &rows[range.start * k..range.end * k], bytes);
            }
            bytes
        }
        None if format == Format::F32 => bytemuck::cast_slice(rows).to_vec(),
        None if format == Format::F16 => rows.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        None => rows.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    let (bytes, bias) = (Bytes::from(bytes), Some(numbers(n, 2)));
    MatrixSource { bytes, format, precision: Precision::F32, n, k, bias }
}

/// Returns a matrix of [`N`] rows for a product; its packed weights repeat.
fn recurring(format: Format, k: usize) -> MatrixSource {
    let encoded = if format.is_packed() { k.min(RECURRING) } else { k };
    let source = matrix(format, N, encoded, &numbers(N * encoded, 1));
    // a panel, group after group
    let bytes =
        source.bytes.iter().copied().cycle().take(source.bytes.len() / encoded * k).collect::<Vec<_>>();
    MatrixSource { bytes: Bytes::from(bytes), k, ..source }
}

/// Returns the name of a product with these weights.
fn product_with(weights: &Weights) -> String {
    let Weights { format, precision, epilogue, .. } = weights;
    let arithmetic = if format.is_packed() { String::new() } else { format!(" in {precision:?}") };
    let added = if *epilogue == Epilogue::Add { ", added," } else { "" };
    format!("a {format:?} product{arithmetic}{added}")
}

/// Computes products of `rows` rows with each of these weights.
fn products<B: Backend>(backend: &B, weights: &[Weights], rows: usize) -> Result<Vec<Outcome>, BackendError> {
    let outcome = |weights: &Weights| {
        let &Weights { format, precision, k, epilogue } = weights;
        let source = MatrixSource { precision, ..recurring(format, k) };
        let mut x = numbers(rows * k, 3);
        for row in x.chunks_exact_mut(k) {
            // outliers: two in one group, and one in another
            (row[5], row[7], row[k - 3]) = (60.0, -55.0, 50.0);
        }
        let values = product(backend, source, &x, epilogue)?;
        Ok(Outcome { what: product_with(weights), how: of_rows(rows), is_exact: format.is_packed(), values })
    };
    weights.iter().map(outcome).collect()
}

/// Computes products of several tiles in either direction, split into more than one dispatch.
fn tiled<B: Backend>(backend: &B, weights: &[Weights], hold: Hold<'_>) -> Result<Vec<Outcome>, BackendError> {
    let [rows, n] = TILED;
    let outcome = |weights: &Weights| {
        let &Weights { format, precision, epilogue, .. } = weights;
        let k = TILED_K[usize::from(!format.is_packed())];
        let source = MatrixSource { precision, ..matrix(format, n, k, &numbers(n * k, 21)) };
        let values = product(backend, source, &numbers(rows * k, 22), epilogue)?;
        let what = format!("{} in tiles", product_with(weights));
        Ok(Outcome { what, how: of_rows(rows), is_exact: true, values })
    };
    hold(Some((TILED_AT_ONCE * n * TILED_K[0]) as u64));
    let outcomes = weights.iter().map(outcome).collect();
    hold(None);
    outcomes
}

/// Computes a product whose sums are as large as those of a group can be, and odd: a matrix unit that adds with fewer
/// bits rounds them.
fn large_sums<B: Backend>(backend: &B, format: Format) -> Result<Outcome, BackendError> {
    const K: usize = 256;
    let large = |count, seed| numbers(count, seed).into_iter().map(|v| -0.875 - v / 8.0).collect::<Vec<_>>();
    let source = matrix(format, N, K, &large(N * K, 17));
    let values = product(backend, source, &large(MANY_ROWS * K, 18), Epilogue::Store)?;
    let what = format!("a {format:?} product of large sums");
    Ok(Outcome { what, how: of_rows(MANY_ROWS), is_exact: true, values })
}

fn product<B: Backend>(
    backend: &B,
    source: MatrixSource,
    x: &[f32],
    epilogue: Epilogue,
) -> Result<Vec<f32>, BackendError> {
    let (n, k) = (source.n, source.k);
    let weight = backend.linear_weight(source)?;
    let x = tensor(backend, x, k)?;
    // earlier contents, for an epilogue that adds
    let mut out = tensor(backend, &numbers(backend.shape(&x).0 * n, 23), n)?;
    backend.linear(&x, &weight, epilogue, &mut out);
    values(backend, &out)
}

/// Computes a norm that is fused with the product for few rows, and is not for many.
fn normed<B: Backend>(backend: &B, rows: usize) -> Result<Outcome, BackendError> {
    const K: usize = 256;
    let weight = backend.vector(&numbers(K, 4))?;
    let x = tensor(backend, &numbers(rows * K, 5), K)?;
    let matrix = backend.linear_weight(matrix(Format::Q8, N, K, &numbers(N * K, 1)))?;
    let (mut out, mut between) = (backend.tensor(rows, N)?, backend.tensor(0, 1)?);
    backend.normed_linear(&x, Norm::Rms(&weight, 1e-5), &mut [(&matrix, &mut out)], &mut between)?;
    let (what, values) = ("a norm before a product".to_owned(), values(backend, &out)?);
    Ok(Outcome { what, how: of_rows(rows), is_exact: true, values })
}

/// Computes gates and ups, `n` together, and their product.
fn gated<B: Backend>(backend: &B, rows: usize, n: usize) -> Result<Outcome, BackendError> {
    const K: usize = 128;
    let weight = backend.linear_weight(matrix(Format::Q8, n, K, &numbers(n * K, 1)))?;
    let x = tensor(backend, &numbers(rows * K, 10), K)?;
    let mut out = backend.tensor(rows, n / 2)?;
    backend.linear(&x, &weight, Epilogue::SiluMul, &mut out);
    let what = format!("a product of {} gates", n / 2);
    Ok(Outcome { what, how: of_rows(rows), is_exact: true, values: values(backend, &out)? })
}

fn norm<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    const COLS: usize = 300;
    let (weight, bias) = (backend.vector(&numbers(COLS, 11))?, backend.vector(&numbers(COLS, 12))?);
    let x = tensor(backend, &numbers(2 * COLS, 13), COLS)?;
    let mut out = backend.tensor(2, COLS)?;
    backend.norm(&x, Norm::Layer((&weight, &bias), 1e-5), &mut out);
    values(backend, &out)
}

/// Gathers three of four rows, rotates them, and adds one row to each.
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

/// Computes attention of a prompt's last rows at once, and of the same rows in parts of few rows.
fn causal<B: Backend>(backend: &B, format: KvFormat) -> Result<[Outcome; 2], BackendError> {
    let heads = Heads { query: 2, key_value: 2, dim: 96 };
    let cols = 3 * heads.query * heads.dim;
    let blocks = [1, 3, 0, 4, 2];
    let mut pool = backend.kv_pool(KvLayout { layers: 1, heads, format }, blocks.len())?;
    backend.kv_grow(&mut pool, blocks.len())?;
    let mut batch = backend.batch();
    let rows = numbers(TOKENS * cols, 6);
    backend.set_batch(&[Span { rows: 0..TOKENS, past: 0, blocks: &blocks }], &mut batch)?;
    backend.copy_kv(&tensor(backend, &rows, cols)?, 0, &batch, &mut pool);
    let mut ends = |ends: &[usize]| {
        let (mut all, mut past) = (Vec::new(), CACHED);
        for &end in ends {
            let qkv = tensor(backend, &rows[past * cols..end * cols], cols)?;
            backend.set_batch(&[Span { rows: 0..end - past, past, blocks: &blocks }], &mut batch)?;
            let mut out = backend.tensor(end - past, heads.query * heads.dim)?;
            backend.attention_causal(&qkv, 0, &batch, &pool, &mut out);
            all.extend(values(backend, &out)?);
            past = end;
        }
        Ok(all)
    };
    let outcome = |how: &str, values| {
        let what = format!("attention over {format:?} keys");
        Outcome { what, how: how.to_owned(), is_exact: true, values }
    };
    Ok([outcome("at once", ends(&[TOKENS])?), outcome("in parts", ends(&[255, 256, TOKENS])?)])
}

/// Computes a short prompt's attention, rotating rows while their keys and values are stored.
fn rotated<B: Backend>(backend: &B, format: KvFormat) -> Result<Outcome, BackendError> {
    let heads = Heads { query: 4, key_value: 2, dim: 96 };
    let (cols, rows) = ((heads.query + 2 * heads.key_value) * heads.dim, MANY_ROWS);
    let mut pool = backend.kv_pool(KvLayout { layers: 1, heads, format }, 2)?;
    backend.kv_grow(&mut pool, 2)?;
    let mut batch = backend.batch();
    backend.set_batch(&[Span { rows: 0..rows, past: 0, blocks: &[1] }], &mut batch)?;
    let mut qkv = tensor(backend, &numbers(rows * cols, 19), cols)?;
    let cos_sin = &tensor(backend, &numbers(rows * heads.dim, 20), heads.dim)?;
    backend.rope_and_copy_kv(Rotation { cos_sin, heads }, &mut qkv, 0, &batch, &mut pool);
    let mut out = backend.tensor(rows, heads.query * heads.dim)?;
    backend.attention_causal(&qkv, 0, &batch, &pool, &mut out);
    let values = [values(backend, &qkv)?, values(backend, &out)?].concat();
    let what = format!("a rotation of {format:?} keys");
    Ok(Outcome { what, how: String::new(), is_exact: true, values })
}

fn full<B: Backend>(backend: &B) -> Result<Vec<f32>, BackendError> {
    let heads = Heads { query: 2, key_value: 2, dim: 64 };
    let cols = heads.query * heads.dim;
    let rows = 2 * ATTENDED;
    let part = |seed| tensor(backend, &numbers(rows * cols, seed), cols);
    let parts = [part(7)?, part(8)?, part(9)?];
    let mut out = backend.tensor(rows, cols)?;
    let shape = FullAttention { group: ATTENDED, heads, precision: Precision::Bf16 };
    backend.attention_full(parts.each_ref(), shape, &mut out);
    values(backend, &out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernel, all};
    use crate::testing::card_with;
    use crate::{GpuOptions, UseUnits};
    use phi3v_kernels::testing::skip;
    use std::collections::HashSet;
    use std::time::Instant;

    #[test]
    fn the_processor_agrees_with_itself_and_a_wrong_value_is_seen() {
        let cpu = Cpu::new(&CpuOptions { threads: Some(1), level: None }).unwrap();
        let right = results(&cpu, &|_| ()).unwrap();
        assert_eq!(right.len(), 69);
        assert_eq!(first_wrong(&right, &right), None);
        for Outcome { what, how, values: right, .. } in &right {
            assert!(are_close(right, right), "{what} {how}");
            // a workgroup that did nothing
            let mut found = right.clone();
            let from = right.len() / 2;
            found[from..from + 16].fill(0.0);
            assert!(!are_close(&found, right), "{what} {how}");
            found.clone_from(right);
            found[3] = f32::NAN;
            assert!(!are_close(&found, right), "{what} {how}");
        }
    }

    /// Returns what `look` finds in `outcomes` while the value at index `at` of the operation `name` is off by one bit.
    fn off_by_a_bit(
        outcomes: &mut [Outcome],
        name: &str,
        at: usize,
        look: impl Fn(&[Outcome]) -> Option<String>,
    ) -> Option<String> {
        let outcome = outcomes.iter_mut().find(|outcome| outcome.name() == name).unwrap();
        let right = outcome.values[at];
        outcome.values[at] = f32::from_bits(right.to_bits() ^ 1);
        let found = look(outcomes);
        let outcome = outcomes.iter_mut().find(|outcome| outcome.name() == name).unwrap();
        outcome.values[at] = right;
        found
    }

    #[test]
    fn a_bit_that_differs_between_kernels_is_seen() {
        let Some(gpu) = card_with(&GpuOptions { use_units: UseUnits::Never, ..GpuOptions::default() }) else {
            return;
        };
        let mut right = results(&gpu, &hold_of(&gpu)).unwrap();
        assert_eq!(first_that_differs(&right), None);
        let differs = |all: &mut [Outcome], name, at| off_by_a_bit(all, name, at, first_that_differs);
        for (name, at, told) in [
            ("a Q8 product of 1 row", 63, "a Q8 product of 1 row and of 2 rows"),
            ("a Q4 product of 20 rows", 2 * 64 + 5, "a Q4 product of 6 rows and of 20 rows"),
            ("a norm before a product of 20 rows", 7, "a norm before a product of 6 rows and of 20 rows"),
            ("a product of 64 gates of 20 rows", 7, "a product of 64 gates of 1 row and of 20 rows"),
            ("attention over Q8 keys in parts", 29 * 192, "attention over Q8 keys at once and in parts"),
        ] {
            assert_eq!(differs(&mut right, name, at), Some(told.to_owned()));
        }
        // other rows promise nothing, and neither do dense kernels, which sum in orders of their own
        assert_eq!(differs(&mut right, "a Q8 product of 20 rows", 6 * 64), None);
        assert_eq!(differs(&mut right, "a Bf16 product in F32, added, of 20 rows", 0), None);
        // as with matrix units that round their sums
        let mut units = many_rows(&gpu, &hold_of(&gpu)).unwrap();
        assert_eq!(first_other(&right, &units), None);
        for outcome in [
            "a Q4 product of large sums of 20 rows",
            "a Q8 product of 20 rows",
            "a Q8 product, added, in tiles of 270 rows",
        ] {
            let found = off_by_a_bit(&mut units, outcome, 1000, |units| first_other(&right, units));
            assert_eq!(found, Some(format!("{outcome}, bit for bit")));
        }
    }

    #[test]
    fn every_kernel_is_tried() {
        // as on Metal, whose submissions end with a kernel of their own
        let options = GpuOptions { count_submissions: true, ..GpuOptions::default() };
        for use_units in [UseUnits::IfFaster, UseUnits::Never] {
            let Some(gpu) = card_with(&GpuOptions { use_units, ..options.clone() }) else { return };
            let [compiled, done] = [(); 2].map(|()| {
                let start = Instant::now();
                let Found { wrong, bits_differ, times } = try_kernels(&gpu).unwrap();
                assert_eq!((wrong, bits_differ, times.is_some()), (None, None, gpu.device.units.is_some()));
                start.elapsed()
            });
            eprintln!("self-test of {}: {compiled:.2?}, once compiled {done:.2?}", gpu.adapter().name);
            let units = gpu.device.units;
            let tried: HashSet<Kernel> = gpu.device.pipelines.compiled().into_iter().collect();
            assert_eq!(all(units.as_slice()).into_iter().collect::<HashSet<_>>(), tried);
            if units.is_none() {
                return; // the same card again
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
        let found = run(&gpu, Some(&cache)).unwrap();
        assert_eq!(Found::kept(&file), Some(found.clone()));
        let dispatches = gpu.counts().dispatches;
        assert_eq!(run(&gpu, Some(&cache)).unwrap(), found);
        assert_eq!(gpu.counts().dispatches, dispatches, "it is looked up");
        // as a full disk leaves it
        std::fs::write(&file, "").unwrap();
        run(&gpu, Some(&cache)).unwrap();
        assert!(gpu.counts().dispatches > dispatches);
        assert!(Found::kept(&file).is_some_and(|found| found.is_whole(gpu.uses_matrix_units())));
        Found { wrong: Some("a norm".to_owned()), ..Found::default() }.keep(&file);
        let refused = run(&gpu, Some(&cache)).unwrap_err();
        assert_eq!(refused.to_string(), format!("{} computes wrongly (a norm)", gpu.adapter().name));
        let hint = refused.hint().unwrap();
        assert!(hint.contains(&format!("delete {} to have", file.display())), "{hint}");
        // an impossible folder is not an error
        run(&gpu, Some(&file.join("below a file"))).unwrap();
    }

    #[test]
    fn a_card_on_which_no_trial_came_back_is_not_tried_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let Some(gpu) = card_with(&GpuOptions::default()) else { return };
        let file = path(folder.path(), gpu.adapter(), gpu.uses_matrix_units());
        // as if the driver, or the user, ended the program
        drop(Trial::begin(&file).unwrap());
        assert_eq!(run(&gpu, Some(folder.path())).map(|found| found.wrong), Ok(None));
        std::fs::remove_file(&file).unwrap();
        // a result erases earlier failures; then as if the driver hangs
        let hung = card_with(&GpuOptions::default()).unwrap();
        hung.device.failure.set("it did not answer".to_owned());
        for _ in 0..2 {
            assert!(matches!(run(&hung, Some(folder.path())), Err(GpuError::Open { .. })));
        }
        let dispatches = gpu.counts().dispatches;
        let error = run(&gpu, Some(folder.path())).unwrap_err();
        assert!(matches!(&error, GpuError::SelfTest { what, .. } if what.contains("twice")), "{error}");
        assert_eq!(gpu.counts().dispatches, dispatches);
        // the file that the hint names, and no other, exists
        assert!(error.hint().unwrap().contains(&format!("delete {}", file.display())));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        run(&gpu, Some(folder.path())).unwrap();
    }

    #[test]
    fn compiled_kernels_are_kept_as_soon_as_they_were_tried() {
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { cache: Some(folder.path().to_owned()), ..GpuOptions::default() };
        let Some(gpu) = card_with(&options) else { return };
        if !gpu.device.raw.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return skip(
                "the card's driver gives no compiled kernels",
                "run it on Vulkan, as Mesa's in software",
            );
        }
        let kept = || {
            let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
            let kernels = files.filter(|file| file.extension().is_none_or(|end| end != "self-test"));
            kernels.map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
        };
        assert!(kept().is_empty());
        run(&gpu, Some(folder.path())).unwrap();
        let [file] = &kept()[..] else { panic!("{} files", kept().len()) };
        // no kernel has been compiled since
        drop(gpu);
        assert!(kept()[0].len() == file.len());
    }
}
