//! A deliberately asynchronous backend: it queues operations and runs none of them before the next download or
//! finish.
//!
//! Tests that pass on it also hold for a device with a queue. They show that no caller reads a result or the clock
//! before a download or finish, keeps a borrowed value for later, or expects an error where it happens. Shapes are
//! known at once, as on any device.

use crate::{
    Backend, BackendError, DeviceMemory, Epilogue, FeedForward, FullAttention, HeadDims, Heads, KvLayout,
    MatrixSource, Norm, Rotation, Sizes, Span,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Operation<B> = Box<dyn FnOnce(&B) -> Result<(), BackendError> + Send>;

/// `B`, whose operations run only when the host waits for the device.
pub struct Deferred<B> {
    backend: B,
    queue: Mutex<Vec<Operation<B>>>,
    lost: Arc<AtomicBool>,
}

/// A value that the queue and the host share.
pub struct Shared<T>(Arc<RwLock<T>>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    fn handle(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tensor whose shape the host knows before its values are computed.
pub struct DeferredTensor<T> {
    values: Shared<T>,
    rows: usize,
    cols: usize,
}

/// A [`Norm`] that owns its vectors.
enum OwnedNorm<V> {
    Rms(Arc<V>, f32),
    Layer((Arc<V>, Arc<V>), f32),
}

impl<V> OwnedNorm<V> {
    fn new(norm: Norm<'_, Arc<V>>) -> Self {
        match norm {
            Norm::Rms(weight, eps) => Self::Rms(Arc::clone(weight), eps),
            Norm::Layer((weight, bias), eps) => Self::Layer((Arc::clone(weight), Arc::clone(bias)), eps),
        }
    }

    fn as_norm(&self) -> Norm<'_, V> {
        match self {
            Self::Rms(weight, eps) => Norm::Rms(weight, *eps),
            Self::Layer((weight, bias), eps) => Norm::Layer((weight, bias), *eps),
        }
    }
}

impl<B: Backend + 'static> Deferred<B> {
    /// Defers the operations of `backend`.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self { backend, queue: Mutex::default(), lost: Arc::default() }
    }

    /// Returns a flag that, once set, makes the device fail from the next download on, like a device that was
    /// unplugged.
    #[must_use]
    pub fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Operation<B>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of operations that wait for a download or a finish.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    fn later(&self, operation: impl FnOnce(&B) -> Result<(), BackendError> + Send + 'static) {
        self.queue().push(Box::new(operation));
    }

    /// Runs the queued operations in order, up to the first error. The operations after an error are lost, as on a
    /// device.
    fn run(&self) -> Result<(), BackendError> {
        let operations = std::mem::take(&mut *self.queue());
        if self.lost.load(Ordering::Acquire) {
            return Err(BackendError::Device { reason: "it was lost".to_owned() });
        }
        operations.into_iter().try_for_each(|operation| operation(&self.backend))
    }
}

impl<B: Backend + 'static> Backend for Deferred<B> {
    type Tensor = DeferredTensor<B::Tensor>;
    type Linear = Arc<B::Linear>;
    type Table = Arc<B::Table>;
    type Vector = Arc<B::Vector>;
    type Batch = Arc<B::Batch>;
    type KvPool = Shared<B::KvPool>;

    fn sizes(&self) -> Sizes {
        self.backend.sizes()
    }

    fn memory(&self) -> DeviceMemory {
        self.backend.memory()
    }

    fn buffer_bytes_max(&self) -> u64 {
        self.backend.buffer_bytes_max()
    }

    fn head_dims_max(&self) -> HeadDims {
        self.backend.head_dims_max()
    }

    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor, BackendError> {
        Ok(DeferredTensor { values: Shared::new(self.backend.tensor(rows, cols)?), rows, cols })
    }

    fn reshape(&self, tensor: &mut Self::Tensor, rows: usize, cols: usize) -> Result<(), BackendError> {
        (tensor.rows, tensor.cols) = (rows, cols);
        let values = tensor.values.handle();
        self.later(move |backend| backend.reshape(&mut values.write(), rows, cols));
        Ok(())
    }

    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize) {
        (tensor.rows, tensor.cols)
    }

    fn upload(&self, values: &[f32], first_row: usize, out: &mut Self::Tensor) {
        let (values, out) = (values.to_vec(), out.values.handle());
        self.later(move |backend| {
            backend.upload(&values, first_row, &mut out.write());
            Ok(())
        });
    }

    fn download(
        &self,
        tensor: &Self::Tensor,
        rows: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        self.run()?;
        self.backend.download(&tensor.values.read(), rows, out)
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.run()?;
        self.backend.finish()
    }

    fn linear_weight(&self, source: MatrixSource) -> Result<Self::Linear, BackendError> {
        self.backend.linear_weight(source).map(Arc::new)
    }

    fn embedding(&self, source: MatrixSource) -> Result<Self::Table, BackendError> {
        self.backend.embedding(source).map(Arc::new)
    }

    fn vector(&self, values: &[f32]) -> Result<Self::Vector, BackendError> {
        self.backend.vector(values).map(Arc::new)
    }

    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<Self::KvPool, BackendError> {
        self.backend.kv_pool(layout, blocks).map(Shared::new)
    }

    fn kv_grow(&self, pool: &mut Self::KvPool, blocks: usize) -> Result<(), BackendError> {
        self.backend.kv_grow(&mut pool.write(), blocks)
    }

    fn batch(&self) -> Self::Batch {
        Arc::new(self.backend.batch())
    }

    fn set_batch(&self, spans: &[Span<'_>], batch: &mut Self::Batch) -> Result<(), BackendError> {
        // queued operations may still use the previous batch
        let mut next = self.backend.batch();
        self.backend.set_batch(spans, &mut next)?;
        *batch = Arc::new(next);
        Ok(())
    }

    fn embed(&self, table: &Self::Table, ids: &[u32], out_row: usize, out: &mut Self::Tensor) {
        let (table, ids, out) = (Arc::clone(table), ids.to_vec(), out.values.handle());
        self.later(move |backend| {
            backend.embed(&table, &ids, out_row, &mut out.write());
            Ok(())
        });
    }

    fn gather(&self, src: &Self::Tensor, rows: &[u32], out_row: usize, out: &mut Self::Tensor) {
        let (src, rows, out) = (src.values.handle(), rows.to_vec(), out.values.handle());
        self.later(move |backend| {
            backend.gather(&src.read(), &rows, out_row, &mut out.write());
            Ok(())
        });
    }

    fn linear(&self, x: &Self::Tensor, weight: &Self::Linear, epilogue: Epilogue, out: &mut Self::Tensor) {
        let (x, weight, out) = (x.values.handle(), Arc::clone(weight), out.values.handle());
        self.later(move |backend| {
            backend.linear(&x.read(), &weight, epilogue, &mut out.write());
            Ok(())
        });
    }

    fn norm(&self, x: &Self::Tensor, norm: Norm<'_, Self::Vector>, out: &mut Self::Tensor) {
        let (x, norm, out) = (x.values.handle(), OwnedNorm::new(norm), out.values.handle());
        self.later(move |backend| {
            backend.norm(&x.read(), norm.as_norm(), &mut out.write());
            Ok(())
        });
    }

    fn normed_linear(
        &self,
        x: &Self::Tensor,
        norm: Norm<'_, Self::Vector>,
        products: &mut [(&Self::Linear, &mut Self::Tensor)],
        normed: &mut Self::Tensor,
    ) -> Result<(), BackendError> {
        let (x, norm, normed) = (x.values.handle(), OwnedNorm::new(norm), normed.values.handle());
        let products: Vec<_> =
            products.iter().map(|(weight, out)| (Arc::clone(weight), out.values.handle())).collect();
        self.later(move |backend| {
            let mut outs: Vec<_> = products.iter().map(|(_, out)| out.write()).collect();
            let weights = products.iter().map(|(weight, _)| &**weight);
            let mut products: Vec<_> = weights.zip(outs.iter_mut().map(|out| &mut **out)).collect();
            backend.normed_linear(&x.read(), norm.as_norm(), &mut products, &mut normed.write())
        });
        Ok(())
    }

    fn feed_forward(
        &self,
        x: &mut Self::Tensor,
        norm: Norm<'_, Self::Vector>,
        block: FeedForward<'_, Self::Linear>,
        between: [&mut Self::Tensor; 2],
    ) -> Result<(), BackendError> {
        let (x, norm) = (x.values.handle(), OwnedNorm::new(norm));
        let [normed, inner] = between.map(|tensor| tensor.values.handle());
        let FeedForward { first, epilogue, hidden, second } = block;
        let (first, second) = (Arc::clone(first), Arc::clone(second));
        self.later(move |backend| {
            let block = FeedForward { first: &*first, epilogue, hidden, second: &*second };
            let between = [&mut *normed.write(), &mut *inner.write()];
            backend.feed_forward(&mut x.write(), norm.as_norm(), block, between)
        });
        Ok(())
    }

    fn add(&self, addend: &Self::Tensor, x: &mut Self::Tensor) {
        let (addend, x) = (addend.values.handle(), x.values.handle());
        self.later(move |backend| {
            backend.add(&addend.read(), &mut x.write());
            Ok(())
        });
    }

    fn rope(&self, cos_sin: &Self::Tensor, heads: Heads, qkv: &mut Self::Tensor) {
        let (cos_sin, qkv) = (cos_sin.values.handle(), qkv.values.handle());
        self.later(move |backend| {
            backend.rope(&cos_sin.read(), heads, &mut qkv.write());
            Ok(())
        });
    }

    fn copy_kv(&self, qkv: &Self::Tensor, layer: usize, batch: &Self::Batch, pool: &mut Self::KvPool) {
        let (qkv, batch, pool) = (qkv.values.handle(), Arc::clone(batch), pool.handle());
        self.later(move |backend| {
            backend.copy_kv(&qkv.read(), layer, &batch, &mut pool.write());
            Ok(())
        });
    }

    fn rope_and_copy_kv(
        &self,
        rotation: Rotation<'_, Self::Tensor>,
        qkv: &mut Self::Tensor,
        layer: usize,
        batch: &Self::Batch,
        pool: &mut Self::KvPool,
    ) {
        let Rotation { cos_sin, heads } = rotation;
        let (cos_sin, qkv) = (cos_sin.values.handle(), qkv.values.handle());
        let (batch, pool) = (Arc::clone(batch), pool.handle());
        self.later(move |backend| {
            let rotation = Rotation { cos_sin: &*cos_sin.read(), heads };
            backend.rope_and_copy_kv(rotation, &mut qkv.write(), layer, &batch, &mut pool.write());
            Ok(())
        });
    }

    fn attention_causal(
        &self,
        qkv: &Self::Tensor,
        layer: usize,
        batch: &Self::Batch,
        pool: &Self::KvPool,
        out: &mut Self::Tensor,
    ) {
        let (qkv, batch) = (qkv.values.handle(), Arc::clone(batch));
        let (pool, out) = (pool.handle(), out.values.handle());
        self.later(move |backend| {
            backend.attention_causal(&qkv.read(), layer, &batch, &pool.read(), &mut out.write());
            Ok(())
        });
    }

    fn attention_full(&self, qkv: [&Self::Tensor; 3], shape: FullAttention, out: &mut Self::Tensor) {
        let (qkv, out) = (qkv.map(|tensor| tensor.values.handle()), out.values.handle());
        self.later(move |backend| {
            let [q, k, v] = qkv.each_ref().map(Shared::read);
            backend.attention_full([&q, &k, &v], shape, &mut out.write());
            Ok(())
        });
    }
}
