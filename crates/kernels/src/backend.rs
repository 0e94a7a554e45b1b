//! The seam between the model text and a device: some twenty operations on `[rows, cols]` tensors.
//!
//! One model text serves every device. A tensor need not live in host memory, and operations may only be
//! enqueued: they return nothing, and what goes wrong on the device is reported by [`Backend::download`] and
//! [`Backend::finish`], the two places where host and device meet. Shapes that do not fit are errors of the model
//! text and panic.
//! ([`crate::testing::Deferred`] runs nothing before one of them; the tests of the model and the engine run on it too.)
//!
//! Activations are always f32. How a weight is stored and which arithmetic multiplies it is a property of the
//! weight ([`Format`], [`Precision`]), not of the model.

use crate::{Bytes, Format};
use std::ops::Range;

/// Why a device could not do what was asked: no memory, a fault of its own, or a matrix that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The device has no room for another buffer.
    #[error("the device has no room for another {bytes} bytes")]
    OutOfMemory {
        /// Size of the refused buffer.
        bytes: usize,
    },
    /// The device is lost or does not do what it must; nothing that is on it can be used again.
    #[error("the device failed: {reason}")]
    Device {
        /// What its driver says.
        reason: String,
    },
    /// A weight's bytes do not have the length its shape and format ask for.
    #[error("a [{n}, {k}] {format:?} matrix takes {expected} bytes, not {found}")]
    MatrixSize {
        /// Output features: rows of the matrix.
        n: usize,
        /// Input features: values in each row.
        k: usize,
        /// How the values are stored.
        format: Format,
        /// Length that shape and format ask for.
        expected: usize,
        /// Length of the bytes given.
        found: usize,
    },
    /// A weight's shape is not one the format can hold.
    #[error("a [{n}, {k}] matrix cannot be stored as {format:?}")]
    MatrixShape {
        /// Output features: rows of the matrix.
        n: usize,
        /// Input features: values in each row.
        k: usize,
        /// How the values are stored.
        format: Format,
    },
}

/// The arithmetic of a product. Sums are always accumulated in f32 (or exactly, in i32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Stored values are widened to f32 and multiplied in f32. Exact for every dense format.
    F32,
    /// Both factors are rounded to bf16 (nearest even) first.
    Bf16,
}

/// A weight matrix on its way to a device: `y = x Wᵀ + bias`, W being `[n, k]`.
#[derive(Clone, Debug)]
pub struct MatrixSource {
    /// The values in `format`; kept, not copied, by a CPU backend.
    pub bytes: Bytes,
    /// Storage format of `bytes`.
    pub format: Format,
    /// Arithmetic for dense formats; ignored by `Q8` and `Q4`, whose arithmetic is integer.
    pub precision: Precision,
    /// Output features: rows of the matrix.
    pub n: usize,
    /// Input features: values in each row.
    pub k: usize,
    /// `[n]`, added to every output row.
    pub bias: Option<Vec<f32>>,
}

/// What happens to a product before it is written; each stands for the unfused operations named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `out = y`: the product as it is.
    Store,
    /// `out = out + y`: the residual connection.
    Add,
    /// `out = gelu(y)`, the exact (erf) form of the projector.
    Gelu,
    /// `out = y * sigmoid(1.702 y)`: CLIP's activation.
    QuickGelu,
    /// `out[:, j] = silu(y[:, j]) * y[:, n/2 + j]`: `gate_up_proj` holds gate rows, then up rows; `out` is
    /// `[rows, n/2]`.
    SiluMul,
}

impl Epilogue {
    /// Whether a product's columns are gates and as many ups, of which each pair makes one column of `out`.
    #[must_use]
    pub fn is_gated(self) -> bool {
        self == Self::SiluMul
    }

    /// Columns of `out` for a product of `n` columns: half of them where each pair makes one.
    #[must_use]
    pub fn out_cols(self, n: usize) -> usize {
        if self.is_gated() { n / 2 } else { n }
    }
}

/// A norm of each row, with its weight, its bias where it has one, and its epsilon.
#[derive(Debug)]
pub enum Norm<'a, V> {
    /// `x / sqrt(mean(x²) + eps) * weight` (Zhang & Sennrich 2019).
    Rms(&'a V, f32),
    /// `(x - mean) / sqrt(var + eps) * weight + bias` (Ba et al. 2016).
    Layer((&'a V, &'a V), f32),
}

impl<V> Clone for Norm<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Norm<'_, V> {}

/// The two products of a feed-forward block and what happens between them, for [`Backend::feed_forward`].
#[derive(Debug)]
pub struct FeedForward<'a, L> {
    /// `[hidden, cols]`, or `[2 hidden, cols]` for [`Epilogue::SiluMul`].
    pub first: &'a L,
    /// What happens to the first product; not [`Epilogue::Add`].
    pub epilogue: Epilogue,
    /// Columns between the products.
    pub hidden: usize,
    /// The second product's weight, `[cols, hidden]`.
    pub second: &'a L,
}

/// How an attention is divided into heads: how many of queries, of keys and values, and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of query heads.
    pub query: usize,
    /// Key/value heads; divides `query`.
    pub key_value: usize,
    /// Values of one head.
    pub dim: usize,
}

/// How cached keys and values are stored, which decides the arithmetic of attention over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// f32, with f32 attention.
    F32,
    /// bf16, with bf16 dot products and f32 softmax.
    Bf16,
    /// 8-bit integers with one scale per token and head.
    Q8,
}

impl KvFormat {
    /// Whether each token and head has a scale of its own, by which its integers are multiplied.
    #[must_use]
    pub fn has_scales(self) -> bool {
        match self {
            Self::F32 | Self::Bf16 => false,
            Self::Q8 => true,
        }
    }
}

/// Everything a pool of keys and values needs to know of the model that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Number of decoder layers.
    pub layers: usize,
    /// Head counts and size.
    pub heads: Heads,
    /// How keys and values are stored.
    pub format: KvFormat,
}

/// Tokens per block of the KV cache: 64 keys are one panel of the attention kernels (4 registers of 16 lanes).
pub const KV_BLOCK_TOKENS: usize = 64;

impl KvLayout {
    /// Bytes of one block: keys and values of [`KV_BLOCK_TOKENS`] tokens in all layers.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        let per_head = match self.format {
            KvFormat::F32 => 4 * self.heads.dim,
            KvFormat::Bf16 => 2 * self.heads.dim,
            // one f32 scale beside the bytes
            KvFormat::Q8 => self.heads.dim + 4,
        };
        2 * self.layers * self.heads.key_value * KV_BLOCK_TOKENS * per_head
    }
}

/// The rows of one sequence within a batch, and where its keys and values live.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Rows of the batch's tensors that belong to the sequence, oldest first.
    pub rows: Range<usize>,
    /// Tokens of the sequence before the first of `rows`; position of the first row.
    pub past: usize,
    /// Block table: token `t` lives in block `blocks[t / KV_BLOCK_TOKENS]`. Covers `past + rows.len()` tokens.
    pub blocks: &'a [u32],
}

/// How much work suits a device at a time; who cuts work asks for it, so that no caller knows devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows up to which a product is computed by the kernels for decoding; more rows take those for prefill, whose sums
    /// may run in another order.
    pub few_rows_max: usize,
    /// Tiles that go through the vision tower together when nobody is decoding.
    pub tiles_at_once: usize,
    /// Prompt tokens that go through the decoder together when nobody is decoding.
    pub prefill_chunk: usize,
}

/// Where a device's weights, cache and buffers live, which decides how much memory there is for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMemory {
    /// In the host's memory; the operating system knows how much is free.
    Host,
    /// In the host's memory, of which the device's driver lets it have a part.
    Shared {
        /// Bytes of that part that are free at this moment.
        available_bytes: u64,
    },
    /// In memory of its own.
    Own {
        /// Bytes that are free at this moment.
        available_bytes: u64,
    },
}

impl DeviceMemory {
    /// Bytes that weights, cache and buffers can take, where the host has `host` bytes free; `None` where nobody tells.
    #[must_use]
    pub fn available_bytes(self, host: Option<u64>) -> Option<u64> {
        match self {
            Self::Host => host,
            Self::Shared { available_bytes } => Some(host.unwrap_or(u64::MAX).min(available_bytes)),
            Self::Own { available_bytes } => Some(available_bytes),
        }
    }
}

/// By what [`Backend::rope_and_copy_kv`] rotates, as [`Backend::rope`] has it.
#[derive(Debug)]
pub struct Rotation<'a, T> {
    /// `[rows, dim]`: cosines, then sines.
    pub cos_sin: &'a T,
    /// Heads of the rows that are rotated.
    pub heads: Heads,
}

/// Most values of an attention head that a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadDims {
    /// Values of a head in [`Backend::attention_causal`] and the cache.
    pub causal: usize,
    /// Values of a head in [`Backend::attention_full`].
    pub full: usize,
}

/// A device that can run the model. See the module's introduction for the rules.
pub trait Backend: Send + Sync {
    /// f32 activations, `[rows, cols]`, row-major.
    type Tensor: Send + Sync;
    /// A weight matrix with its optional bias.
    type Linear: Send + Sync;
    /// A table of rows that are looked up by number, `[vocab, hidden]`. It need not be where the other weights are: a
    /// device with little memory may keep it on the host and send the rows that are asked for.
    type Table: Send + Sync;
    /// Whose rows a batch has and where their keys and values live, as the device wants to read it.
    type Batch: Send + Sync;
    /// A norm's weight or bias, `[n]`.
    type Vector: Send + Sync;
    /// Blocks of keys and values, addressed by number.
    type KvPool: Send + Sync;

    /// How much work suits the device at a time.
    fn sizes(&self) -> Sizes;

    /// Where weights, cache and buffers live.
    fn memory(&self) -> DeviceMemory;

    /// Most bytes of one buffer, which a tensor is and the cache of a layer.
    fn buffer_bytes_max(&self) -> u64 {
        u64::MAX
    }

    /// Most values of a head; with larger ones the cache and the attention may panic.
    fn head_dims_max(&self) -> HeadDims {
        HeadDims { causal: usize::MAX, full: usize::MAX }
    }

    /// A tensor of `rows` rows of zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor, BackendError>;

    /// Gives a tensor a new shape. Does not allocate where an earlier shape was as large; then the values that both shapes
    /// have are kept, row-major: 4 rows of 1024 become one of 4096. All others are unspecified.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn reshape(&self, tensor: &mut Self::Tensor, rows: usize, cols: usize) -> Result<(), BackendError>;

    /// `(rows, cols)`.
    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize);

    /// Writes `values`, `[rows, cols]` with the tensor's `cols`, to its rows from `first_row` on.
    fn upload(&self, values: &[f32], first_row: usize, out: &mut Self::Tensor);

    /// Waits for the device and reads the rows `rows` into `out`, `[rows.len(), cols]`.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last call.
    fn download(
        &self,
        tensor: &Self::Tensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError>;

    /// Waits until the device has done all that it was given. Who measures how long work takes calls it before looking at
    /// the clock.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last call, as by [`download`](Self::download).
    fn finish(&self) -> Result<(), BackendError>;

    /// Prepares a weight matrix.
    ///
    /// # Errors
    /// [`BackendError::MatrixSize`], [`BackendError::MatrixShape`] or [`BackendError::OutOfMemory`].
    fn linear_weight(&self, source: MatrixSource) -> Result<Self::Linear, BackendError>;

    /// Prepares a table whose rows are looked up; dense formats only.
    ///
    /// # Errors
    /// [`BackendError::MatrixSize`], [`BackendError::MatrixShape`] or [`BackendError::OutOfMemory`].
    fn embedding(&self, source: MatrixSource) -> Result<Self::Table, BackendError>;

    /// Prepares a vector.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn vector(&self, values: &[f32]) -> Result<Self::Vector, BackendError>;

    /// Room for `blocks` blocks; memory is taken as they are first used.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<Self::KvPool, BackendError>;

    /// Takes the memory of blocks `0..blocks` where that has not been done.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn kv_grow(&self, pool: &mut Self::KvPool, blocks: usize) -> Result<(), BackendError>;

    /// A batch of no rows, to be set by [`Self::set_batch`].
    fn batch(&self) -> Self::Batch;

    /// Makes `batch` that of `spans`, once a step for all layers. Spans have rows of their own, in order. Does not
    /// allocate where an earlier batch was as large.
    ///
    /// # Panics
    /// If the rows of two spans would be stored in one block.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn set_batch(&self, spans: &[Span<'_>], batch: &mut Self::Batch) -> Result<(), BackendError>;

    /// `out[out_row + i] = table[ids[i]]` widened to f32.
    fn embed(&self, table: &Self::Table, ids: &[u32], out_row: usize, out: &mut Self::Tensor);

    /// `out[out_row + i] = src[rows[i]]`. Both have the same number of columns.
    fn gather(&self, src: &Self::Tensor, rows: &[u32], out_row: usize, out: &mut Self::Tensor);

    /// `out = epilogue(x Wᵀ + bias)`, x `[rows, k]`, W `[n, k]`, out `[rows, n]` (or `n/2`, see
    /// [`Epilogue::SiluMul`]).
    fn linear(&self, x: &Self::Tensor, weight: &Self::Linear, epilogue: Epilogue, out: &mut Self::Tensor);

    /// `out = norm(x)`, row by row.
    fn norm(&self, x: &Self::Tensor, norm: Norm<'_, Self::Vector>, out: &mut Self::Tensor);

    /// `out = norm(x) Wᵀ + bias` for each W. `normed` is room for what lies between, which a backend that fuses
    /// the steps leaves alone.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn normed_linear(
        &self,
        x: &Self::Tensor,
        norm: Norm<'_, Self::Vector>,
        products: &mut [(&Self::Linear, &mut Self::Tensor)],
        normed: &mut Self::Tensor,
    ) -> Result<(), BackendError> {
        normed_linear_in_steps(self, x, norm, products, normed)
    }

    /// `x = x + second(epilogue(first(norm(x))))`: a feed-forward block with its residual. `between` is room for the
    /// normed rows and for those between the products, which a backend that fuses the steps leaves alone.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn feed_forward(
        &self,
        x: &mut Self::Tensor,
        norm: Norm<'_, Self::Vector>,
        block: FeedForward<'_, Self::Linear>,
        between: [&mut Self::Tensor; 2],
    ) -> Result<(), BackendError> {
        feed_forward_in_steps(self, x, norm, block, between)
    }

    /// `x[i] += addend[i % addend.rows]`: residuals and position embeddings.
    fn add(&self, addend: &Self::Tensor, x: &mut Self::Tensor);

    /// Rotates the query and key heads of `qkv`, `[rows, (query + 2 key_value) dim]`, in place: pair
    /// `(j, j + dim/2)` of row `i` by `cos_sin[i]`, `[rows, dim]`, being `dim/2` cosines, then `dim/2` sines.
    fn rope(&self, cos_sin: &Self::Tensor, heads: Heads, qkv: &mut Self::Tensor);

    /// Stores the key and value columns of `qkv` for the batch's rows in `layer` of the pool.
    fn copy_kv(&self, qkv: &Self::Tensor, layer: usize, batch: &Self::Batch, pool: &mut Self::KvPool);

    /// [`rope`](Self::rope), then [`copy_kv`](Self::copy_kv), where the batch has all rows of `qkv`. A device may do both at a time.
    fn rope_and_copy_kv(
        &self,
        rotation: Rotation<'_, Self::Tensor>,
        qkv: &mut Self::Tensor,
        layer: usize,
        batch: &Self::Batch,
        pool: &mut Self::KvPool,
    ) {
        self.rope(rotation.cos_sin, rotation.heads, qkv);
        self.copy_kv(qkv, layer, batch, pool);
    }

    /// Causal attention of the batch's rows, each over its sequence's cached keys and values, its own included. Queries
    /// are columns `0..query * dim` of `qkv`; `out` is `[rows, query * dim]`; scores are divided by `sqrt(dim)`.
    fn attention_causal(
        &self,
        qkv: &Self::Tensor,
        layer: usize,
        batch: &Self::Batch,
        pool: &Self::KvPool,
        out: &mut Self::Tensor,
    );

    /// Attention of every row over all rows of its own group of `group` rows (an image tile), without a mask.
    /// q, k and v are `[groups * group, heads.query * dim]`; scores are divided by `sqrt(dim)`.
    fn attention_full(&self, qkv: [&Self::Tensor; 3], shape: FullAttention, out: &mut Self::Tensor);
}

/// Shape and arithmetic of [`Backend::attention_full`], the attention of the vision tower, which has no mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullAttention {
    /// Rows that attend to each other: 577 for a tile of 24 x 24 patches and its class token.
    pub group: usize,
    /// Head counts and size.
    pub heads: Heads,
    /// Arithmetic of the dot products; softmax is f32.
    pub precision: Precision,
}

/// What [`Backend::normed_linear`] stands for.
pub(crate) fn normed_linear_in_steps<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    norm: Norm<'_, B::Vector>,
    products: &mut [(&B::Linear, &mut B::Tensor)],
    normed: &mut B::Tensor,
) -> Result<(), BackendError> {
    let (rows, cols) = backend.shape(x);
    backend.reshape(normed, rows, cols)?;
    backend.norm(x, norm, normed);
    for (weight, out) in products {
        backend.linear(normed, weight, Epilogue::Store, out);
    }
    Ok(())
}

/// What [`Backend::feed_forward`] stands for.
pub(crate) fn feed_forward_in_steps<B: Backend + ?Sized>(
    backend: &B,
    x: &mut B::Tensor,
    norm: Norm<'_, B::Vector>,
    block: FeedForward<'_, B::Linear>,
    [normed, hidden]: [&mut B::Tensor; 2],
) -> Result<(), BackendError> {
    let (rows, cols) = backend.shape(x);
    backend.reshape(normed, rows, cols)?;
    backend.norm(x, norm, normed);
    backend.reshape(hidden, rows, block.hidden)?;
    backend.linear(normed, block.first, block.epilogue, hidden);
    backend.linear(hidden, block.second, Epilogue::Add, x);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_the_hosts_memory_has_the_smaller_of_two() {
        let shared = DeviceMemory::Shared { available_bytes: 8 };
        assert_eq!([Some(9), Some(7), None].map(|host| shared.available_bytes(host)), [8, 7, 8].map(Some));
        let own = DeviceMemory::Own { available_bytes: 8 };
        assert_eq!([Some(9), Some(7), None].map(|host| own.available_bytes(host)), [8; 3].map(Some));
        assert_eq!([Some(9), None].map(|host| DeviceMemory::Host.available_bytes(host)), [Some(9), None]);
    }
}
