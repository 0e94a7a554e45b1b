//! What every operation runs with: kernels, threads, and memory kept from call to call.

use super::tensor::Buffer;
use crate::cpu::table::Kernels;
use crate::threads::{Apart, Pool};
use bytemuck::Pod;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory that operations share, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    /// The input of a product, packed or rounded for its kernel.
    pub(super) packed: Buffer,
    /// What lies between the products of a feed-forward block, packed.
    pub(super) hidden: Buffer,
    /// What chunks of the keys of single rows come to.
    pub(super) chunks: Buffer,
}

/// Memory of one thread, kept from call to call.
#[derive(Default)]
pub(super) struct ThreadScratch {
    /// Panels of keys and values.
    pub(super) panels: Buffer,
    /// Everything else.
    pub(super) work: Buffer,
}

/// Runs operations on the host's processor.
pub(crate) struct Runner {
    pub(super) kernels: Kernels,
    pub(super) pool: Pool,
    scratch: Mutex<Scratch>,
    /// One per thread of the pool.
    thread_scratch: Vec<Apart<Mutex<ThreadScratch>>>,
    /// Bytes that `work` has in every thread's scratch at least.
    work_bytes: AtomicUsize,
}

impl Runner {
    /// Runs `kernels` on `threads` threads, the calling one included.
    ///
    /// # Safety
    /// This processor has the instructions that the kernels were chosen for.
    pub(crate) unsafe fn new(kernels: Kernels, threads: usize) -> std::io::Result<Self> {
        Ok(Self {
            kernels,
            pool: Pool::new(threads)?,
            scratch: Mutex::default(),
            thread_scratch: (0..threads).map(|_| Apart::default()).collect(),
            work_bytes: AtomicUsize::new(0),
        })
    }

    /// Threads that compute, the calling one included.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub(super) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn thread_scratch(&self, thread: usize) -> MutexGuard<'_, ThreadScratch> {
        self.thread_scratch[thread].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `len` values in every thread's `work`: which threads get a task is chance, and one that gets its
    /// first in a later call must not allocate then.
    pub(super) fn reserve_work<T: Pod>(&self, len: usize) {
        let bytes = len * size_of::<T>();
        if self.work_bytes.fetch_max(bytes, Ordering::Relaxed) < bytes {
            for thread in 0..self.threads() {
                self.thread_scratch(thread).work.take::<T>(len);
            }
        }
    }
}
