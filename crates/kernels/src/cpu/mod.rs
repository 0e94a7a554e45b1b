//! The CPU backend.
//!
//! [`arch`] has the kernels, in a folder for each instruction set, [`arch::scalar`] being their definition; [`table`] is
//! what they look like; [`ops`] cuts each operation into tasks for the thread pool, the same way for every level, and
//! calls them; [`dispatch`] chooses, once, from the [`level`] and the [`features`] of the processor. `arch` and `ops` do
//! not know each other (`tests/module_edges.rs`).
//!
//! Invariants: for a given level and format the same inputs give the same bits, whatever the thread count. Nothing is
//! allocated by an operation of a decode step whose shapes have been seen before: tensors and scratch only grow, the
//! scratch of all threads at once.

mod arch;
mod dispatch;
mod features;
mod level;
mod ops;
mod prefetch;
mod table;
#[cfg(test)]
mod tests;

use crate::backend::{feed_forward_in_steps, normed_linear_in_steps};
use crate::cores::{cache_bytes, default_threads};
use crate::{
    Backend, BackendError, DeviceMemory, Epilogue, FeedForward, FullAttention, Heads, KvLayout, MatrixSource,
    Norm, Sizes, Span,
};
pub use features::{Feature, Features};
pub use level::{CpuLevel, UnknownLevel};
use ops::{Causal, ReadRoom, Runner, STREAMED_ROWS_MAX};
pub use ops::{CpuBatch, CpuKvPool, CpuLinear, CpuTable, CpuTensor, Limits, Rate};
use std::ops::Range;

/// Environment variable that clamps the CPU level downwards: `scalar`; `avx2`, `avx512` or `amx` on x86-64; `neon`,
/// `dotprod` or `i8mm` on AArch64.
pub const LEVEL_VARIABLE: &str = "PHI3V_CPU";

/// Most threads a pool may have; far more than any one machine of today gains from.
const THREADS_MAX: usize = 1024;

/// What suits a processor of so many threads. Tiles: the largest activations, 2 x 577 rows x 4,096 values x 4 bytes = 19 MB,
/// still fit an L3 of 32 MB, and the weights are read once for two tiles; more threads have more to do with one more for
/// each eight, since a tile has but 16 heads and 577 rows, and larger caches. Prefill: reading the weights once for each
/// chunk, 3.7 GB (q8) at 50 GB/s, takes little beside its 5 s of arithmetic, while its largest rows, of 9,216 values, come
/// to 38 MB; with twice as many all of them come from memory again for every operation.
fn sizes(threads: usize) -> Sizes {
    let tiles_at_once = (threads / 8).clamp(2, TILES_AT_ONCE_MAX);
    Sizes { few_rows_max: STREAMED_ROWS_MAX, tiles_at_once, prefill_chunk: 1024 }
}

/// As many tiles as the model's largest picture has, which come to 160 MB at their widest.
const TILES_AT_ONCE_MAX: usize = 17;

/// Why the CPU backend could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// No level has this name.
    #[error(transparent)]
    UnknownLevel(#[from] UnknownLevel),
    /// The processor lacks the instructions of the level.
    #[error("this processor has CPU level {found}, not {asked}")]
    LevelMissing {
        /// What was asked for.
        asked: CpuLevel,
        /// The best level there is.
        found: CpuLevel,
    },
    /// The number of threads is out of range.
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
            Self::UnknownLevel(_) => format!(
                "{LEVEL_VARIABLE} may be scalar, avx2, avx512 or amx, and neon, dotprod or i8mm on ARM"
            ),
            Self::LevelMissing { .. } => "leave the level out to use the best one".to_owned(),
            Self::Threads { .. } => "leave the number of threads out for one per physical core".to_owned(),
            Self::Spawn(_) => "ask for fewer threads".to_owned(),
        })
    }
}

/// How the CPU backend runs; the defaults are right for nearly everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; one per physical core if `None`, the little cores of a mixed processor not counted.
    pub threads: Option<usize>,
    /// Level; the best of this processor if `None`. [`LEVEL_VARIABLE`] clamps either.
    pub level: Option<CpuLevel>,
}

/// What a [`Cpu`] uses of this machine's processor; known before a thread is started, and where another device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    level: CpuLevel,
    features: Features,
    threads: usize,
    /// Whether instructions that are there do not do what they should, and are left out.
    distrusted: bool,
}

/// The CPU backend.
pub struct Cpu {
    processor: Processor,
    runner: Runner,
}

/// The level to run: `asked` or else the best, clamped by the value of [`LEVEL_VARIABLE`].
fn choose_level(asked: Option<CpuLevel>, clamp: Option<&str>, found: CpuLevel) -> Result<CpuLevel, CpuError> {
    let level = asked.unwrap_or(found);
    if !found.includes(level) {
        return Err(CpuError::LevelMissing { asked: level, found });
    }
    match clamp {
        // an empty variable is one that is not set
        Some(name) if !name.trim().is_empty() => {
            let clamp: CpuLevel = name.parse()?;
            if clamp.includes(level) {
                Ok(level)
            } else if level.includes(clamp) {
                Ok(clamp)
            } else {
                Err(CpuError::LevelMissing { asked: clamp, found })
            }
        }
        _ => Ok(level),
    }
}

impl Processor {
    /// What the backend of these options would use of the processor.
    ///
    /// # Errors
    /// [`CpuError`], but for threads that the system refuses.
    pub fn of(options: &CpuOptions) -> Result<Self, CpuError> {
        Self::tried(options, Features::detect())
    }

    /// What they would use of a processor that has `features`, which is all or a part of what this one has, without what is
    /// found to be wrong. A level without tiles runs no instruction of theirs, not even to try it.
    fn tried(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let chosen = Self::with_features(options, features)?;
        if chosen.level != CpuLevel::Amx {
            return Ok(chosen);
        }
        let trusted = dispatch::trusted(features);
        Ok(Self { features: trusted, distrusted: trusted != features, ..chosen })
    }

    /// The same on a processor that has `features` alone.
    fn with_features(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let clamp = std::env::var_os(LEVEL_VARIABLE).map(|name| name.to_string_lossy().into_owned());
        let level = choose_level(options.level, clamp.as_deref(), CpuLevel::best(features))?;
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(CpuError::Threads { asked: threads });
        }
        Ok(Self { level, features, threads, distrusted: false })
    }

    /// The level that runs.
    #[must_use]
    pub fn level(&self) -> CpuLevel {
        self.level
    }

    /// Threads that compute, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What is wrong with this processor, in a sentence, if something is.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        const WRONG: &str =
            "products of bf16 by AMX come out wrong on this machine and are left out, at some cost of speed";
        self.distrusted.then_some(WRONG)
    }

    /// The level and what it uses of this processor, for people.
    #[must_use]
    pub fn features(&self) -> String {
        let tiles = match (self.features.contains(Feature::AmxBf16), self.distrusted) {
            (true, _) => ", AMX-BF16",
            (false, true) => ", AMX-BF16 left out as it is wrong",
            (false, false) => "",
        };
        let on_tiles = self.level == CpuLevel::Amx && self.features.contains(Feature::AmxBf16);
        let bf16 = if on_tiles || self.features.contains(Feature::Avx512Bf16) {
            ", BF16"
        } else {
            "; products of bf16 by those of f32"
        };
        let vnni = if self.features.contains(Feature::AvxVnni) { ", AVX-VNNI" } else { "" };
        match self.level {
            CpuLevel::Scalar => "scalar".to_owned(),
            CpuLevel::Avx2 => format!("avx2 (AVX2, FMA, F16C{vnni})"),
            CpuLevel::Avx512 => format!("avx512 (F, BW, DQ, VL, VNNI{bf16})"),
            CpuLevel::Amx => format!("amx (AMX-INT8{tiles}, and AVX-512 F, BW, DQ, VL, VNNI{bf16})"),
            CpuLevel::Neon => "neon (NEON)".to_owned(),
            CpuLevel::Dotprod => "dotprod (NEON, DotProd)".to_owned(),
            CpuLevel::I8mm => "i8mm (NEON, DotProd, I8MM, BF16)".to_owned(),
        }
    }
}

impl Cpu {
    /// Starts the backend.
    ///
    /// # Errors
    /// [`CpuError`], see its variants.
    pub fn new(options: &CpuOptions) -> Result<Self, CpuError> {
        Self::start(Processor::of(options)?)
    }

    /// Starts the backend as on a processor that has `features` alone; those that this one lacks are left out. Every
    /// kernel that can run here can so be reached.
    ///
    /// # Errors
    /// [`CpuError`], see its variants.
    pub fn with_features(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        Self::start(Processor::tried(options, features.and(Features::detect()))?)
    }

    /// Starts the backend on this machine's processor, of which `processor` is all or a part.
    fn start(processor: Processor) -> Result<Self, CpuError> {
        let Processor { level, features, threads, .. } = processor;
        // SAFETY: the processor has the features, and with them those that the level requires.
        let runner = unsafe { Runner::new(dispatch::kernels(level, features), threads)? };
        Ok(Self { processor, runner })
    }

    /// As [`with_features`](Self::with_features), for tests: on any processor with AVX-512, the instructions of tiles being
    /// plain Rust, many times slower.
    pub(crate) fn on_plain_tiles(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let processor = Processor::with_features(options, features.and(Features::with_plain_tiles()))?;
        let Processor { level, features, threads, .. } = processor;
        // SAFETY: the processor has the features but for those of tiles, which no kernel asks for here.
        let runner = unsafe { Runner::new(dispatch::kernels_on_plain_tiles(level, features), threads)? };
        Ok(Self { processor, runner })
    }

    /// What it uses of this machine's processor.
    #[must_use]
    pub fn processor(&self) -> Processor {
        self.processor
    }

    /// The level that runs.
    #[must_use]
    pub fn level(&self) -> CpuLevel {
        self.processor.level
    }

    /// Threads that compute, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.processor.threads
    }

    /// Measures for some seconds what this machine can do at most at this level. Half of the `memory` bytes, or less, are
    /// taken meanwhile: memory is read that no cache holds, 1 GiB or four times as much as the caches.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where there is no memory to read from.
    pub fn limits(&self, memory: u64) -> Result<Limits, BackendError> {
        self.runner.limits(ReadRoom { caches: cache_bytes(), memory })
    }
}

impl Backend for Cpu {
    type Tensor = CpuTensor;
    type Linear = CpuLinear;
    type Table = CpuTable;
    type Batch = CpuBatch;
    type Vector = Vec<f32>;
    type KvPool = CpuKvPool;

    fn sizes(&self) -> Sizes {
        sizes(self.threads())
    }

    fn memory(&self) -> DeviceMemory {
        DeviceMemory::Host
    }

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

    fn finish(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn linear_weight(&self, source: MatrixSource) -> Result<CpuLinear, BackendError> {
        CpuLinear::new(source)
    }

    fn embedding(&self, source: MatrixSource) -> Result<CpuTable, BackendError> {
        CpuTable::new(source)
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

    fn batch(&self) -> CpuBatch {
        CpuBatch::default()
    }

    fn set_batch(&self, spans: &[Span<'_>], batch: &mut CpuBatch) -> Result<(), BackendError> {
        batch.set(spans);
        Ok(())
    }

    fn embed(&self, table: &CpuTable, ids: &[u32], out_row: usize, out: &mut CpuTensor) {
        self.runner.embed(table, ids, out_row, out);
    }

    fn gather(&self, src: &CpuTensor, rows: &[u32], out_row: usize, out: &mut CpuTensor) {
        self.runner.gather(src, rows, out_row, out);
    }

    fn linear(&self, x: &CpuTensor, weight: &CpuLinear, epilogue: Epilogue, out: &mut CpuTensor) {
        self.runner.linear(x, weight, epilogue, out);
    }

    fn norm(&self, x: &CpuTensor, norm: Norm<'_, Vec<f32>>, out: &mut CpuTensor) {
        self.runner.norm(x, norm, out);
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
        self.runner.run_normed(x, norm, packed);
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
            (Some(first), Some(second)) => {
                self.runner.run_feed_forward(x, norm, first, block.epilogue, second)
            }
            _ => return feed_forward_in_steps(self, x, norm, block, between),
        }
        Ok(())
    }

    fn add(&self, addend: &CpuTensor, x: &mut CpuTensor) {
        self.runner.add(addend, x);
    }

    fn rope(&self, cos_sin: &CpuTensor, heads: Heads, qkv: &mut CpuTensor) {
        self.runner.rope(cos_sin, heads, qkv);
    }

    fn copy_kv(&self, qkv: &CpuTensor, layer: usize, batch: &CpuBatch, pool: &mut CpuKvPool) {
        self.runner.copy_kv(qkv, layer, batch, pool);
    }

    fn attention_causal(
        &self,
        qkv: &CpuTensor,
        layer: usize,
        batch: &CpuBatch,
        pool: &CpuKvPool,
        out: &mut CpuTensor,
    ) {
        self.runner.causal(&Causal { qkv, layer, batch, pool }, out);
    }

    fn attention_full(&self, qkv: [&CpuTensor; 3], shape: FullAttention, out: &mut CpuTensor) {
        self.runner.full(qkv, shape, out);
    }
}
