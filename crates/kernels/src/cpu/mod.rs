//! The CPU backend.
//!
//! [`level`] finds the instruction set and its table of kernels; the files beside it cut each operation into tasks for
//! the thread pool, the same way for every level; [`scalar`] defines what the operations compute.
//!
//! Invariants: for a given level and format the same inputs give the same bits, whatever the thread count. Nothing is
//! allocated by an operation of a decode step whose shapes have been seen before: tensors and scratch only grow, the
//! scratch of all threads at once.

mod attention;
mod flash;
mod gemm;
mod int8;
mod kv;
mod level;
mod limits;
mod linear;
mod scalar;
mod tensor;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::backend::{feed_forward_in_steps, normed_linear_in_steps};
use crate::threads::{Pool, default_threads};
use crate::{
    Backend, BackendError, Epilogue, FeedForward, FullAttention, Heads, KvLayout, MatrixSource, Norm, Span,
};
use attention::Causal;
use bytemuck::Pod;
pub use kv::CpuKvPool;
use kv::KvRows;
pub use level::CpuLevel;
use level::Kernels;
pub use limits::Limits;
pub use linear::CpuLinear;
use linear::Weight;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tensor::Buffer;
pub use tensor::CpuTensor;

/// Environment variable that clamps the CPU level downwards: `scalar`, `avx2`, `avx512` or `amx`.
pub const LEVEL_VARIABLE: &str = "PHI3V_CPU";

/// Most threads a pool may have; far more than any one machine of today gains from.
const THREADS_MAX: usize = 1024;

/// Why the CPU backend could not start.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// No level has this name.
    #[error("unknown CPU level {name:?}")]
    UnknownLevel {
        /// What was asked for.
        name: String,
    },
    /// The processor lacks the instructions of the level.
    #[error("this processor has CPU level {found}, not {asked}")]
    LevelMissing {
        /// What was asked for.
        asked: CpuLevel,
        /// The best level there is.
        found: CpuLevel,
    },
    /// The number of threads cannot be had.
    #[error("{asked} threads were asked for, the limit is 1 to {THREADS_MAX}")]
    Threads {
        /// What was asked for.
        asked: usize,
    },
    /// The system refused a thread.
    #[error("the system refused a thread: {0}")]
    Spawn(#[from] std::io::Error),
}

impl CpuError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownLevel { .. } => format!("{LEVEL_VARIABLE} may be scalar, avx2, avx512 or amx"),
            Self::LevelMissing { .. } => "leave the level out to use the best one".to_owned(),
            Self::Threads { .. } => "leave --threads out for one thread per physical core".to_owned(),
            Self::Spawn(_) => "ask for fewer threads with --threads".to_owned(),
        })
    }
}

/// How the CPU backend shall run; the defaults are right for nearly everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; one per physical core if `None`.
    pub threads: Option<usize>,
    /// Level; the best of this processor if `None`. [`LEVEL_VARIABLE`] clamps either.
    pub level: Option<CpuLevel>,
}

/// Memory that operations share, kept from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The input of a product, packed or rounded for its kernel.
    pub(crate) packed: Buffer,
    /// What lies between the products of a feed-forward block, packed.
    pub(crate) hidden: Buffer,
}

/// Memory of one thread, kept from call to call.
#[derive(Default)]
pub(crate) struct ThreadScratch {
    /// Panels of keys and values.
    pub(crate) panels: Buffer,
    /// Everything else.
    pub(crate) work: Buffer,
}

/// The CPU backend.
pub struct Cpu {
    level: CpuLevel,
    kernels: &'static Kernels,
    pool: Pool,
    scratch: Mutex<Scratch>,
    /// One per thread of the pool.
    thread_scratch: Vec<Mutex<ThreadScratch>>,
    /// Bytes that `work` has in every thread's scratch at least.
    work_bytes: AtomicUsize,
}

/// The level to run: `asked` or else the best, clamped by the value of [`LEVEL_VARIABLE`].
fn choose_level(asked: Option<CpuLevel>, clamp: Option<&str>, found: CpuLevel) -> Result<CpuLevel, CpuError> {
    let level = asked.unwrap_or(found);
    if level > found {
        return Err(CpuError::LevelMissing { asked: level, found });
    }
    match clamp {
        // an empty variable is one that is not set
        Some(name) if !name.trim().is_empty() => Ok(level.min(name.parse()?)),
        _ => Ok(level),
    }
}

impl Cpu {
    /// Starts the backend.
    ///
    /// # Errors
    /// [`CpuError`], see its variants.
    pub fn new(options: &CpuOptions) -> Result<Self, CpuError> {
        let clamp = std::env::var_os(LEVEL_VARIABLE).map(|name| name.to_string_lossy().into_owned());
        let level = choose_level(options.level, clamp.as_deref(), CpuLevel::detect())?;
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(CpuError::Threads { asked: threads });
        }
        Ok(Self {
            level,
            kernels: Kernels::of(level),
            pool: Pool::new(threads)?,
            scratch: Mutex::default(),
            thread_scratch: (0..threads).map(|_| Mutex::default()).collect(),
            work_bytes: AtomicUsize::new(0),
        })
    }

    /// The same level as on a processor without bf16 dot products, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without_bf16(self) -> Self {
        Self { kernels: Kernels::without_bf16(self.level), ..self }
    }

    /// The level that runs.
    #[must_use]
    pub fn level(&self) -> CpuLevel {
        self.level
    }

    /// Threads that compute, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The level and what it uses of this processor, for people.
    #[must_use]
    pub fn features(&self) -> String {
        match self.level {
            CpuLevel::Scalar => "scalar".to_owned(),
            CpuLevel::Avx2 if level::has_avxvnni() => "avx2 (AVX2, FMA, F16C, AVX-VNNI)".to_owned(),
            CpuLevel::Avx2 => "avx2 (AVX2, FMA, F16C)".to_owned(),
            CpuLevel::Avx512 if level::has_bf16() => "avx512 (F, BW, DQ, VL, VNNI, BF16)".to_owned(),
            CpuLevel::Avx512 => "avx512 (F, BW, DQ, VL, VNNI)".to_owned(),
            CpuLevel::Amx if level::has_bf16() => {
                "amx (AMX-INT8, and AVX-512 F, BW, DQ, VL, VNNI, BF16)".to_owned()
            }
            CpuLevel::Amx => "amx (AMX-INT8, and AVX-512 F, BW, DQ, VL, VNNI)".to_owned(),
        }
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread_scratch(&self, thread: usize) -> MutexGuard<'_, ThreadScratch> {
        self.thread_scratch[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `len` values in every thread's `work`: which threads get a task is chance, and one that gets its
    /// first in a later call must not allocate then.
    fn reserve_work<T: Pod>(&self, len: usize) {
        let bytes = len * size_of::<T>();
        if self.work_bytes.fetch_max(bytes, Ordering::Relaxed) < bytes {
            for thread in 0..self.threads() {
                self.thread_scratch(thread).work.take::<T>(len);
            }
        }
    }
}

impl Cpu {
    /// One row of [`Backend::norm`].
    pub(crate) fn norm_row(&self, norm: Norm<'_, Vec<f32>>, x: &[f32], out: &mut [f32]) {
        match norm {
            Norm::Rms(weight, eps) => {
                assert_eq!(weight.len(), x.len(), "weight of a norm");
                // SAFETY: the table is that of a level this processor has.
                unsafe { (self.kernels.rms_norm)(x, weight, eps, out) };
            }
            Norm::Layer((weight, bias), eps) => {
                assert_eq!((weight.len(), bias.len()), (x.len(), x.len()), "weight and bias of a norm");
                // SAFETY: as above.
                unsafe { (self.kernels.layer_norm)(x, (weight, bias), eps, out) };
            }
        }
    }
}

fn assert_same_shape(a: &CpuTensor, b: &CpuTensor) {
    assert_eq!((a.rows(), a.cols()), (b.rows(), b.cols()), "shapes of two tensors");
}

impl Backend for Cpu {
    type Tensor = CpuTensor;
    type Linear = CpuLinear;
    type Vector = Vec<f32>;
    type KvPool = CpuKvPool;

    fn tensor(&self, rows: usize, cols: usize) -> Result<CpuTensor, BackendError> {
        CpuTensor::new(rows, cols)
    }

    fn reshape(&self, tensor: &mut CpuTensor, rows: usize, cols: usize) -> Result<(), BackendError> {
        tensor.reshape(rows, cols)
    }

    fn shape(&self, tensor: &CpuTensor) -> (usize, usize) {
        (tensor.rows(), tensor.cols())
    }

    fn upload(&self, values: &[f32], first_row: usize, out: &mut CpuTensor) {
        let start = first_row * out.cols();
        out.values_mut()[start..start + values.len()].copy_from_slice(values);
    }

    fn download(
        &self,
        tensor: &CpuTensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        out.clear();
        out.extend_from_slice(&tensor.values()[rows.start * tensor.cols()..rows.end * tensor.cols()]);
        Ok(())
    }

    fn linear_weight(&self, source: MatrixSource) -> Result<CpuLinear, BackendError> {
        CpuLinear::new(source)
    }

    fn vector(&self, values: &[f32]) -> Result<Vec<f32>, BackendError> {
        Ok(values.to_vec())
    }

    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<CpuKvPool, BackendError> {
        Ok(CpuKvPool::new(layout, blocks))
    }

    fn kv_grow(&self, pool: &mut CpuKvPool, blocks: usize) -> Result<(), BackendError> {
        pool.grow(blocks)
    }

    fn embed(&self, table: &CpuLinear, ids: &[u32], out_row: usize, out: &mut CpuTensor) {
        let Weight::Dense(table) = &table.0 else { panic!("an embedding table is dense") };
        assert_eq!(table.k, out.cols(), "columns of an embedding");
        let cols = out.cols();
        let out = &mut out.values_mut()[out_row * cols..(out_row + ids.len()) * cols];
        self.pool.rows(out, cols, |first, chunk| {
            for (row, &id) in chunk.chunks_exact_mut(cols).zip(&ids[first..]) {
                let stored = table.rows(id as usize..id as usize + 1);
                scalar::widen(stored.row(0), stored.format, |i, v| row[i] = v);
            }
        });
    }

    fn gather(&self, src: &CpuTensor, rows: &[u32], out_row: usize, out: &mut CpuTensor) {
        assert_eq!(src.cols(), out.cols(), "columns of a gather");
        let cols = out.cols();
        let out = &mut out.values_mut()[out_row * cols..(out_row + rows.len()) * cols];
        self.pool.rows(out, cols, |first, chunk| {
            for (row, &from) in chunk.chunks_exact_mut(cols).zip(&rows[first..]) {
                row.copy_from_slice(src.row(from as usize));
            }
        });
    }

    fn linear(&self, x: &CpuTensor, weight: &CpuLinear, epilogue: Epilogue, out: &mut CpuTensor) {
        match &weight.0 {
            Weight::Dense(dense) => self.run_linear(x, dense, epilogue, out),
            Weight::Packed(packed) => self.run_packed(x, packed, epilogue, out),
        }
    }

    fn norm(&self, x: &CpuTensor, norm: Norm<'_, Vec<f32>>, out: &mut CpuTensor) {
        assert_same_shape(x, out);
        let cols = x.cols();
        self.pool.rows(out.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                self.norm_row(norm, x.row(first + i), row);
            }
        });
    }

    fn normed_linear(
        &self,
        x: &CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        products: &mut [(&CpuLinear, &mut CpuTensor)],
        normed: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        if products.iter().any(|(weight, _)| weight.packed().is_none()) {
            return normed_linear_in_steps(self, x, norm, products, normed);
        }
        let packed = products.iter_mut().filter_map(|(weight, out)| Some((weight.packed()?, &mut **out)));
        self.run_normed(x, norm, packed);
        Ok(())
    }

    fn feed_forward(
        &self,
        x: &mut CpuTensor,
        norm: Norm<'_, Vec<f32>>,
        block: FeedForward<'_, CpuLinear>,
        between: [&mut CpuTensor; 2],
    ) -> Result<(), BackendError> {
        match (block.first.packed(), block.second.packed()) {
            (Some(first), Some(second)) => self.run_feed_forward(x, norm, (first, block.epilogue, second)),
            _ => return feed_forward_in_steps(self, x, norm, block, between),
        }
        Ok(())
    }

    fn add(&self, addend: &CpuTensor, x: &mut CpuTensor) {
        assert_eq!(addend.cols(), x.cols(), "columns of a sum");
        let cols = x.cols();
        self.pool.rows(x.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                // SAFETY: the table is that of a level this processor has.
                unsafe { (self.kernels.add)(addend.row((first + i) % addend.rows()), row) };
            }
        });
    }

    fn rope(&self, cos_sin: &CpuTensor, heads: Heads, qkv: &mut CpuTensor) {
        let rotated = (heads.query + heads.key_value) * heads.dim;
        let cols = qkv.cols();
        assert_eq!(cols, rotated + heads.key_value * heads.dim, "columns of qkv for {heads:?}");
        assert_eq!(
            (cos_sin.rows(), cos_sin.cols()),
            (qkv.rows(), heads.dim),
            "shape of cos_sin for {heads:?}"
        );
        assert!(heads.dim.is_multiple_of(2), "rotated heads have an even dimension, not {}", heads.dim);
        self.pool.rows(qkv.values_mut(), cols, |first, chunk| {
            for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                // SAFETY: the table is that of a level this processor has.
                unsafe { (self.kernels.rope)(cos_sin.row(first + i), &mut row[..rotated]) };
            }
        });
    }

    fn copy_kv(&self, qkv: &CpuTensor, layer: usize, spans: &[Span<'_>], pool: &mut CpuKvPool) {
        let Heads { query, key_value, dim } = pool.layout().heads;
        assert_eq!(qkv.cols(), (query + 2 * key_value) * dim, "columns of qkv");
        let touched: usize = spans.iter().map(kv::blocks_touched).sum();
        let block = |unit| kv::block_rows(spans, unit).block;
        let distinct = (1..touched).all(|unit| (0..unit).all(|other| block(other) != block(unit)));
        assert!(distinct, "a block stands twice among those that a batch writes");
        let writer = pool.writer();
        self.pool.run(touched * key_value, |task, _| {
            let (unit, head) = (task / key_value, task % key_value);
            let part = kv::block_rows(spans, unit);
            // SAFETY: every task has its own head of its own block, for blocks are distinct as asserted.
            let mut stored = unsafe { writer.head(part.block, layer, head) };
            let first = &qkv.values()[part.rows.start * qkv.cols()..];
            let keys = (query + head) * dim;
            let rows = KvRows {
                keys: &first[keys..],
                values: &first[keys + key_value * dim..],
                stride: qkv.cols(),
                dim,
                count: part.rows.len(),
            };
            // SAFETY: the table is that of a level this processor has.
            unsafe { (self.kernels.store_kv)(&mut stored, part.token, &rows) };
        });
    }

    fn attention_causal(
        &self,
        qkv: &CpuTensor,
        layer: usize,
        spans: &[Span<'_>],
        pool: &CpuKvPool,
        out: &mut CpuTensor,
    ) {
        let Heads { query, key_value, dim } = pool.layout().heads;
        assert_eq!(qkv.cols(), (query + 2 * key_value) * dim, "columns of qkv");
        assert_eq!((out.rows(), out.cols()), (qkv.rows(), query * dim), "output of an attention");
        assert!(
            spans.is_sorted_by(|a, b| a.rows.end <= b.rows.start),
            "spans have rows of their own, in order"
        );
        self.causal(&Causal { qkv, layer, spans, pool }, out);
    }

    fn attention_full(&self, qkv: [&CpuTensor; 3], shape: FullAttention, out: &mut CpuTensor) {
        assert!(
            qkv[0].rows().is_multiple_of(shape.group),
            "{} rows in groups of {}",
            qkv[0].rows(),
            shape.group
        );
        qkv.iter().for_each(|tensor| assert_same_shape(tensor, out));
        assert_eq!(out.cols(), shape.heads.query * shape.heads.dim, "columns of an attention");
        self.full(qkv, shape, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_clamped_downwards_only() {
        use CpuLevel::{Avx2, Avx512, Scalar};
        assert_eq!(choose_level(None, None, Avx512).unwrap(), Avx512);
        assert_eq!(choose_level(None, Some("avx2"), Avx512).unwrap(), Avx2);
        assert_eq!(choose_level(Some(Scalar), Some("avx2"), Avx512).unwrap(), Scalar);
        assert_eq!(choose_level(None, Some("avx512"), Avx2).unwrap(), Avx2);
    }

    #[test]
    fn an_empty_level_is_none_and_its_case_does_not_matter() {
        for clamp in ["", " "] {
            assert_eq!(choose_level(None, Some(clamp), CpuLevel::Avx2).unwrap(), CpuLevel::Avx2);
        }
        assert_eq!(choose_level(None, Some("Scalar"), CpuLevel::Avx2).unwrap(), CpuLevel::Scalar);
    }

    #[test]
    fn impossible_levels_are_named() {
        let unknown = choose_level(None, Some("sse9"), CpuLevel::Avx2).unwrap_err();
        assert_eq!(unknown.to_string(), "unknown CPU level \"sse9\"");
        assert_eq!(unknown.hint().unwrap(), "PHI3V_CPU may be scalar, avx2, avx512 or amx");
        let missing = choose_level(Some(CpuLevel::Avx512), None, CpuLevel::Avx2).unwrap_err();
        assert_eq!(missing.to_string(), "this processor has CPU level avx2, not avx512");
    }

    #[test]
    fn zero_threads_are_refused() {
        let refused = Cpu::new(&CpuOptions { threads: Some(0), level: None }).err().unwrap();
        assert_eq!(refused.to_string(), "0 threads were asked for, the limit is 1 to 1024");
    }
}
