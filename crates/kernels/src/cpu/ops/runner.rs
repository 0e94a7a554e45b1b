//! What every operation runs with: kernels, threads, and scratch memory that is kept from call to call.

use super::tensor::Buffer;
use crate::cpu::table::Kernels;
use crate::threads::{Apart, Pool};
use bytemuck::Pod;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory that all threads of an operation share, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    /// The input of a product, packed or rounded for its kernel.
    pub(super) packed: Buffer,
    /// The values between the products of a feed-forward block, packed.
    pub(super) hidden: Buffer,
    /// The partial results of chunks of the keys of single rows.
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
    /// Minimum size in bytes of `work` in every thread's scratch.
    work_bytes: AtomicUsize,
}

impl Runner {
    /// Creates a runner of `kernels` on `threads` threads, including the calling one.
    ///
    /// # Safety
    /// This processor must have the instructions that the kernels were chosen for.
    pub(crate) unsafe fn new(kernels: Kernels, threads: usize) -> std::io::Result<Self> {
        Ok(Self {
            kernels,
            pool: Pool::new(threads)?,
            scratch: Mutex::default(),
            thread_scratch: (0..threads).map(|_| Apart::default()).collect(),
            work_bytes: AtomicUsize::new(0),
        })
    }

    /// Returns the number of threads that compute, including the calling one.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub(super) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn thread_scratch(&self, thread: usize) -> MutexGuard<'_, ThreadScratch> {
        self.thread_scratch[thread].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `len` values in every thread's `work`. Which threads get a task is not deterministic, and a
    /// thread that gets its first task in a later call must not allocate then.
    pub(super) fn reserve_work<T: Pod>(&self, len: usize) {
        let bytes = len * size_of::<T>();
        if self.work_bytes.fetch_max(bytes, Ordering::Relaxed) < bytes {
            for thread in 0..self.threads() {
                self.thread_scratch(thread).work.take::<T>(len);
            }
        }
    }
}
