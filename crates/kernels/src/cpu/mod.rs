//! The CPU backend.
//!
//! The modules:
//!
//! * `arch` contains the kernels, one folder per instruction set. `arch::scalar` defines their results.
//! * `table` defines the signatures of the kernels.
//! * `ops` splits each operation into tasks for the thread pool, the same way for every level, and calls the
//!   kernels.
//! * `dispatch` selects the kernels once, from the `level` and the `features` of the processor.
//!
//! `arch` and `ops` do not depend on each other (`tests/module_edges.rs`).
//!
//! Invariants:
//!
//! * For a given level and format, the same inputs give the same bits, whatever the thread count.
//! * An operation of a decode step does not allocate if its shapes have been seen before: tensors and scratch buffers
//!   only grow, the scratch buffers of all threads at once.

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

/// Environment variable that lowers the CPU level: `scalar`; `avx2`, `avx512` or `amx` on x86-64; `neon`, `dotprod`
/// or `i8mm` on AArch64.
pub const LEVEL_VARIABLE: &str = "PHI3V_CPU";

/// Maximum number of threads of a pool; far more than any present machine gains from.
const THREADS_MAX: usize = 1024;

/// Returns the sizes that suit a processor with `threads` threads.
///
/// Tiles: the largest activations of two tiles, 2 x 577 rows x 4,096 values x 4 bytes = 19 MB, still fit an L3 cache
/// of 32 MB, and the weights are read once for both. Every eight threads take one more tile: a tile has only 16 heads
/// and 577 rows, and processors with more threads have larger caches.
///
/// Prefill: each chunk reads the weights once. 3.7 GB (q8) at 50 GB/s take little time compared with 5 s of
/// arithmetic. The widest rows of a chunk, 9,216 values each, take 38 MB; with twice as many rows, every operation
/// reads all of them from memory again.
fn sizes(threads: usize) -> Sizes {
    let tiles_at_once = (threads / 8).clamp(2, TILES_AT_ONCE_MAX);
    Sizes { few_rows_max: STREAMED_ROWS_MAX, tiles_at_once, prefill_chunk: 1024 }
}

/// Maximum number of tiles at once: as many as the model's largest picture has. Their activations take 160 MB at the
/// widest.
const TILES_AT_ONCE_MAX: usize = 17;

/// Why the CPU backend could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// There is no level with this name.
    #[error(transparent)]
    UnknownLevel(#[from] UnknownLevel),
    /// The processor lacks the instructions of the level.
    #[error("this processor has CPU level {found}, not {asked}")]
    LevelMissing {
        /// The level asked for.
        asked: CpuLevel,
        /// The best level of this processor.
        found: CpuLevel,
    },
    /// The number of threads is out of range.
    #[error("{asked} threads were asked for, the limit is 1 to {THREADS_MAX}")]
    Threads {
        /// The number of threads asked for.
        asked: usize,
    },
    /// The system could not start a thread.
    #[error("the system refused a thread: {0}")]
    Spawn(#[from] std::io::Error),
}

impl CpuError {
    /// Returns what the user can do about the error.
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

/// How the CPU backend runs. The defaults suit nearly everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Number of threads. If `None`: one per physical core, not counting the small cores of a mixed processor.
    pub threads: Option<usize>,
    /// Level. If `None`: the best one of this processor. [`LEVEL_VARIABLE`] can lower either.
    pub level: Option<CpuLevel>,
}

/// What a [`Cpu`] uses of this machine's processor. It is known before any thread is started, and also if another
/// device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    level: CpuLevel,
    features: Features,
    threads: usize,
    /// Whether instructions that the processor has give wrong results and are therefore not used.
    distrusted: bool,
}

/// The CPU backend.
pub struct Cpu {
    processor: Processor,
    runner: Runner,
}

/// Returns the level to run: `asked`, or else the best one, lowered to the value of [`LEVEL_VARIABLE`].
fn choose_level(asked: Option<CpuLevel>, clamp: Option<&str>, found: CpuLevel) -> Result<CpuLevel, CpuError> {
    let level = asked.unwrap_or(found);
    if !found.includes(level) {
        return Err(CpuError::LevelMissing { asked: level, found });
    }
    match clamp {
        // an empty variable counts as not set
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
    /// Returns what a backend with these options would use of the processor.
    ///
    /// # Errors
    /// [`CpuError`], except [`CpuError::Spawn`].
    pub fn of(options: &CpuOptions) -> Result<Self, CpuError> {
        Self::tried(options, Features::detect())
    }

    /// Returns what a backend with these options would use of a processor that has `features`, all or a part of those
    /// of this one, without the features that give wrong results. A level without AMX does not execute any AMX
    /// instruction, not even to test it.
    fn tried(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let chosen = Self::with_features(options, features)?;
        if chosen.level != CpuLevel::Amx {
            return Ok(chosen);
        }
        let trusted = dispatch::trusted(features);
        Ok(Self { features: trusted, distrusted: trusted != features, ..chosen })
    }

    /// Returns what a backend with these options would use of a processor that has only `features`.
    fn with_features(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let clamp = std::env::var_os(LEVEL_VARIABLE).map(|name| name.to_string_lossy().into_owned());
        let level = choose_level(options.level, clamp.as_deref(), CpuLevel::best(features))?;
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(CpuError::Threads { asked: threads });
        }
        Ok(Self { level, features, threads, distrusted: false })
    }

    /// Returns the level that runs.
    #[must_use]
    pub fn level(&self) -> CpuLevel {
        self.level
    }

    /// Returns the number of threads that compute, including the calling one.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Returns one sentence about what is wrong with this processor, if anything is.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        const WRONG: &str =
            "products of bf16 by AMX come out wrong on this machine and are left out, at some cost of speed";
        self.distrusted.then_some(WRONG)
    }

    /// Describes the level and the features it uses, for people.
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

    /// Starts the backend as on a processor that has only `features`; features that this processor lacks are ignored.
    /// This way every kernel that can run here can be selected.
    ///
    /// # Errors
    /// [`CpuError`], see its variants.
    pub fn with_features(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        Self::start(Processor::tried(options, features.and(Features::detect()))?)
    }

    /// Starts the backend with `processor`, which describes all or a part of this machine's processor.
    fn start(processor: Processor) -> Result<Self, CpuError> {
        let Processor { level, features, threads, .. } = processor;
        // SAFETY: the processor has the features, and therefore those that the level requires.
        let runner = unsafe { Runner::new(dispatch::kernels(level, features), threads)? };
        Ok(Self { processor, runner })
    }

    /// Like [`with_features`](Self::with_features), for tests: runs on any processor with AVX-512 because plain Rust
    /// replaces the AMX instructions. This is many times slower.
    pub(crate) fn on_plain_tiles(options: &CpuOptions, features: Features) -> Result<Self, CpuError> {
        let processor = Processor::with_features(options, features.and(Features::with_plain_tiles()))?;
        let Processor { level, features, threads, .. } = processor;
        // SAFETY: the processor has the features except those of AMX, which no kernel requires here.
        let runner = unsafe { Runner::new(dispatch::kernels_on_plain_tiles(level, features), threads)? };
        Ok(Self { processor, runner })
    }

    /// Returns what the backend uses of this machine's processor.
    #[must_use]
    pub fn processor(&self) -> Processor {
        self.processor
    }

    /// Returns the level that runs.
    #[must_use]
    pub fn level(&self) -> CpuLevel {
        self.processor.level
    }

    /// Returns the number of threads that compute, including the calling one.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.processor.threads
    }

    /// Measures, for some seconds, the most that this machine can do at this level. Meanwhile it takes at most half
    /// of the `memory` bytes: it reads 1 GiB, or four times the size of the caches if that is more, so that no cache
    /// holds the data.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if there is no memory to read from.
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
