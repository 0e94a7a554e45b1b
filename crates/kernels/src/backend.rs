//! The interface between the model code and a device: some twenty operations on `[rows, cols]` tensors.
//!
//! The same model code serves every device. A tensor need not be in host memory, and operations may only be enqueued:
//! they return nothing. Errors on the device are reported by [`Backend::download`] and [`Backend::finish`], the only
//! two places where the host waits for the device. Shapes that do not fit are bugs of the model code and panic.
//! ([`crate::testing::Deferred`] runs nothing before one of these two calls; the tests of the model and of the engine
//! also run on it.)
//!
//! Activations are always f32. How a weight is stored and which arithmetic multiplies it are properties of the weight
//! ([`Format`], [`Precision`]), not of the model.

use crate::{Bytes, Format};
use std::ops::Range;

/// Why a device could not do what was asked: no memory, a fault of its own, or an impossible matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The device has no room for another buffer.
    #[error("the device has no room for another {bytes} bytes")]
    OutOfMemory {
        /// Size of the refused buffer.
        bytes: usize,
    },
    /// The device is lost or malfunctions; nothing on it can be used again.
    #[error("the device failed: {reason}")]
    Device {
        /// The driver's message.
        reason: String,
    },
    /// The bytes of a weight do not have the length that its shape and format require.
    #[error("a [{n}, {k}] {format:?} matrix takes {expected} bytes, not {found}")]
    MatrixSize {
        /// Output features: rows of the matrix.
        n: usize,
        /// Input features: values in each row.
        k: usize,
        /// How the values are stored.
        format: Format,
        /// Length that the shape and format require.
        expected: usize,
        /// Length of the bytes given.
        found: usize,
    },
    /// The format cannot store a matrix of this shape.
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

/// The arithmetic of a product. Sums always accumulate in f32 (or exactly, in i32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Stored values are widened to f32 and multiplied in f32. Exact for every dense format.
    F32,
    /// Both factors are first rounded to bf16 (nearest even).
    Bf16,
}

/// A weight matrix to be prepared for a device: `y = x Wᵀ + bias`, W being `[n, k]`.
#[derive(Clone, Debug)]
pub struct MatrixSource {
    /// The values in `format`. A CPU backend keeps them without copying.
    pub bytes: Bytes,
    /// Storage format of `bytes`.
    pub format: Format,
    /// Arithmetic of dense formats. `Q8` and `Q4` ignore it: their arithmetic is integer.
    pub precision: Precision,
    /// Output features: rows of the matrix.
    pub n: usize,
    /// Input features: values in each row.
    pub k: usize,
    /// `[n]`, added to every output row.
    pub bias: Option<Vec<f32>>,
}

/// What happens to a product `y` before it is written. Each variant equals the separate operations in its
/// description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `out = y`: the product unchanged.
    Store,
    /// `out = out + y`: the residual connection.
    Add,
    /// `out = gelu(y)`, the exact (erf) form of the projector.
    Gelu,
    /// `out = y * sigmoid(1.702 y)`: CLIP's activation.
    QuickGelu,
    /// `out[:, j] = silu(y[:, j]) * y[:, n/2 + j]`: `gate_up_proj` has the gate rows first, then the up rows. `out`
    /// is `[rows, n/2]`.
    SiluMul,
}

impl Epilogue {
    /// Returns whether the columns of a product are gates followed by as many ups; each pair makes one column of
    /// `out`.
    #[must_use]
    pub fn is_gated(self) -> bool {
        self == Self::SiluMul
    }

    /// Returns the number of columns of `out` for a product of `n` columns: `n / 2` if each pair makes one, otherwise
    /// `n`.
    #[must_use]
    pub fn out_cols(self, n: usize) -> usize {
        if self.is_gated() { n / 2 } else { n }
    }
}

/// A norm of each row, with its weight, its bias if it has one, and its epsilon.
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

/// How attention is divided into heads: the number of query heads, the number of key/value heads, and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of query heads.
    pub query: usize,
    /// Number of key/value heads; divides `query`.
    pub key_value: usize,
    /// Values per head.
    pub dim: usize,
}

/// How cached keys and values are stored. This decides the arithmetic of attention over them.
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
    /// Returns whether each token and head has its own scale, which multiplies its integers.
    #[must_use]
    pub fn has_scales(self) -> bool {
        match self {
            Self::F32 | Self::Bf16 => false,
            Self::Q8 => true,
        }
    }
}

/// Everything a pool of keys and values needs to know about the model that uses it.
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
    /// Returns the bytes of one block: keys and values of [`KV_BLOCK_TOKENS`] tokens in all layers.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        let per_head = match self.format {
            KvFormat::F32 => 4 * self.heads.dim,
            KvFormat::Bf16 => 2 * self.heads.dim,
            // one f32 scale in addition to the bytes
            KvFormat::Q8 => self.heads.dim + 4,
        };
        2 * self.layers * self.heads.key_value * KV_BLOCK_TOKENS * per_head
    }
}

/// The rows of one sequence within a batch, and where its keys and values are stored.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Rows of the batch's tensors that belong to the sequence, oldest first.
    pub rows: Range<usize>,
    /// Number of tokens of the sequence before the first of `rows`, which is also the position of the first row.
    pub past: usize,
    /// Block table: token `t` is in block `blocks[t / KV_BLOCK_TOKENS]`. Covers `past + rows.len()` tokens.
    pub blocks: &'a [u32],
}

/// How much work suits a device at a time. Code that splits work uses these sizes, so that no caller needs to know
/// devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Maximum number of rows that the decoding kernels compute. A product of more rows uses the prefill kernels,
    /// which may add in another order.
    pub few_rows_max: usize,
    /// Number of tiles that go through the vision tower together while no sequence is decoding.
    pub tiles_at_once: usize,
    /// Number of prompt tokens that go through the decoder together while no sequence is decoding.
    pub prefill_chunk: usize,
}

/// Where the weights, cache and buffers of a device are stored. This decides how much memory is available for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMemory {
    /// In host memory; the operating system knows how much is free.
    Host,
    /// In host memory, of which the driver lets the device use a part.
    Shared {
        /// Bytes of that part that are free now.
        available_bytes: u64,
    },
    /// In the device's own memory.
    Own {
        /// Bytes that are free now.
        available_bytes: u64,
    },
}

impl DeviceMemory {
    /// Returns the bytes available for weights, cache and buffers if the host has `host` bytes free; `None` if
    /// unknown.
    #[must_use]
    pub fn available_bytes(self, host: Option<u64>) -> Option<u64> {
        match self {
            Self::Host => host,
            Self::Shared { available_bytes } => Some(host.unwrap_or(u64::MAX).min(available_bytes)),
            Self::Own { available_bytes } => Some(available_bytes),
        }
    }
}

/// The rotation that [`Backend::rope_and_copy_kv`] applies, as in [`Backend::rope`].
#[derive(Debug)]
pub struct Rotation<'a, T> {
    /// `[rows, dim]`: cosines, then sines.
    pub cos_sin: &'a T,
    /// Heads of the rotated rows.
    pub heads: Heads,
}

/// The largest attention heads that a device supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadDims {
    /// Maximum number of values per head in [`Backend::attention_causal`] and the cache.
    pub causal: usize,
    /// Maximum number of values per head in [`Backend::attention_full`].
    pub full: usize,
}

/// A device that can run the model. See the introduction of this module for the rules.
pub trait Backend: Send + Sync {
    /// f32 activations, `[rows, cols]`, row-major.
    type Tensor: Send + Sync;
    /// A weight matrix with its optional bias.
    type Linear: Send + Sync;
    /// A table of rows that are looked up by number, `[vocab, hidden]`. It need not be stored with the other weights:
    /// a device with little memory may keep it on the host and transfer only the rows looked up.
    type Table: Send + Sync;
    /// Which rows of a batch belong to which sequence and where their keys and values are stored, in the form the
    /// device reads.
    type Batch: Send + Sync;
    /// A norm's weight or bias, `[n]`.
    type Vector: Send + Sync;
    /// Blocks of keys and values, addressed by number.
    type KvPool: Send + Sync;

    /// Returns how much work suits the device at a time.
    fn sizes(&self) -> Sizes;

    /// Returns where weights, cache and buffers are stored.
    fn memory(&self) -> DeviceMemory;

    /// Returns the maximum size of one buffer in bytes. A tensor is one buffer, and so is the cache of a layer.
    fn buffer_bytes_max(&self) -> u64 {
        u64::MAX
    }

    /// Returns the maximum number of values per head. With larger heads the cache and the attention may panic.
    fn head_dims_max(&self) -> HeadDims {
        HeadDims { causal: usize::MAX, full: usize::MAX }
    }

    /// Returns a tensor of `rows` rows of zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor, BackendError>;

    /// Gives a tensor a new shape. Does not allocate if an earlier shape was as large; then the values that both
    /// shapes have are kept, row-major: 4 rows of 1024 become one of 4096. All other values are unspecified.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn reshape(&self, tensor: &mut Self::Tensor, rows: usize, cols: usize) -> Result<(), BackendError>;

    /// Returns `(rows, cols)`.
    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize);

    /// Writes `values`, `[rows, cols]` with the tensor's `cols`, to the rows of `out` from `first_row` on.
    fn upload(&self, values: &[f32], first_row: usize, out: &mut Self::Tensor);

    /// Waits for the device and reads the rows `rows` into `out`, `[rows.len(), cols]`.
    ///
    /// # Errors
    /// Any error on the device since the last call.
    fn download(
        &self,
        tensor: &Self::Tensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError>;

    /// Waits until the device has done all enqueued work. Code that measures time calls it before reading the clock.
    ///
    /// # Errors
    /// Any error on the device since the last call, as for [`download`](Self::download).
    fn finish(&self) -> Result<(), BackendError>;

    /// Prepares a weight matrix.
    ///
    /// # Errors
    /// [`BackendError::MatrixSize`], [`BackendError::MatrixShape`] or [`BackendError::OutOfMemory`].
    fn linear_weight(&self, source: MatrixSource) -> Result<Self::Linear, BackendError>;

    /// Prepares a table whose rows are looked up. Dense formats only.
    ///
    /// # Errors
    /// [`BackendError::MatrixSize`], [`BackendError::MatrixShape`] or [`BackendError::OutOfMemory`].
    fn embedding(&self, source: MatrixSource) -> Result<Self::Table, BackendError>;

    /// Prepares a vector.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn vector(&self, values: &[f32]) -> Result<Self::Vector, BackendError>;

    /// Returns a pool with room for `blocks` blocks. The device allocates the memory at once, or as blocks are first used.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<Self::KvPool, BackendError>;

    /// Allocates the memory of blocks `0..blocks` unless that has been done.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn kv_grow(&self, pool: &mut Self::KvPool, blocks: usize) -> Result<(), BackendError>;

    /// Returns an empty batch, to be filled by [`Self::set_batch`].
    fn batch(&self) -> Self::Batch;

    /// Sets `batch` to the rows of `spans`, once per step for all layers. The spans have distinct rows, in order.
    /// Does not allocate if an earlier batch was as large.
    ///
    /// # Panics
    /// If rows of two spans would be stored in the same block.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn set_batch(&self, spans: &[Span<'_>], batch: &mut Self::Batch) -> Result<(), BackendError>;

    /// `out[out_row + i] = table[ids[i]]`, widened to f32.
    fn embed(&self, table: &Self::Table, ids: &[u32], out_row: usize, out: &mut Self::Tensor);

    /// `out[out_row + i] = src[rows[i]]`. Both have the same number of columns.
    fn gather(&self, src: &Self::Tensor, rows: &[u32], out_row: usize, out: &mut Self::Tensor);

    /// `out = epilogue(x Wᵀ + bias)`, x `[rows, k]`, W `[n, k]`, out `[rows, n]` (or `n/2`, see
    /// [`Epilogue::SiluMul`]).
    fn linear(&self, x: &Self::Tensor, weight: &Self::Linear, epilogue: Epilogue, out: &mut Self::Tensor);

    /// `out = norm(x)`, row by row.
    fn norm(&self, x: &Self::Tensor, norm: Norm<'_, Self::Vector>, out: &mut Self::Tensor);

    /// `out = norm(x) Wᵀ + bias` for each W. `normed` is scratch space for `norm(x)`; a backend that fuses the steps
    /// does not use it.
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

    /// `x = x + second(epilogue(first(norm(x))))`: a feed-forward block with its residual connection. `between` is
    /// scratch space for the normed rows and for the rows between the products; a backend that fuses the steps does
    /// not use it.
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

    /// `x[i] += addend[i % addend.rows]`: used for residuals and position embeddings.
    fn add(&self, addend: &Self::Tensor, x: &mut Self::Tensor);

    /// Rotates the query and key heads of `qkv`, `[rows, (query + 2 key_value) dim]`, in place. The pair `(j, j +
    /// dim/2)` of row `i` is rotated by `cos_sin[i]`. `cos_sin` is `[rows, dim]`: `dim/2` cosines, then `dim/2`
    /// sines.
    fn rope(&self, cos_sin: &Self::Tensor, heads: Heads, qkv: &mut Self::Tensor);

    /// Stores the key and value columns of `qkv` for the batch's rows in `layer` of the pool.
    fn copy_kv(&self, qkv: &Self::Tensor, layer: usize, batch: &Self::Batch, pool: &mut Self::KvPool);

    /// [`rope`](Self::rope), then [`copy_kv`](Self::copy_kv), for a batch that has all rows of `qkv`. A device may do
    /// both in one pass.
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

    /// Causal attention of the batch's rows: each row attends to the cached keys and values of its sequence up to and
    /// including its own. Queries are columns `0..query * dim` of `qkv`; `out` is `[rows, query * dim]`; scores are
    /// divided by `sqrt(dim)`.
    fn attention_causal(
        &self,
        qkv: &Self::Tensor,
        layer: usize,
        batch: &Self::Batch,
        pool: &Self::KvPool,
        out: &mut Self::Tensor,
    );

    /// Attention of every row to all rows of its own group of `group` rows (an image tile), without a mask. q, k and
    /// v are `[groups * group, heads.query * dim]`; scores are divided by `sqrt(dim)`.
    fn attention_full(&self, qkv: [&Self::Tensor; 3], shape: FullAttention, out: &mut Self::Tensor);
}

/// Shape and arithmetic of [`Backend::attention_full`], the attention of the vision tower, which has no mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullAttention {
    /// Rows that attend to each other: 577 for a tile of 24 x 24 patches and its class token.
    pub group: usize,
    /// Head counts and size.
    pub heads: Heads,
    /// Arithmetic of the dot products; the softmax is f32.
    pub precision: Precision,
}

/// [`Backend::normed_linear`] as separate operations.
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

/// [`Backend::feed_forward`] as separate operations.
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
