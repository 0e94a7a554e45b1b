//! A buffer on the card, which reports when it is dropped.

use std::sync::{Arc, Mutex, PoisonError};

/// Numbers of dropped buffers, for code that keeps data by those numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone(Arc<Mutex<Vec<u64>>>);

impl Gone {
    /// Returns the buffers dropped since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A buffer on the card.
#[derive(Debug)]
pub(crate) struct Buffer {
    raw: wgpu::Buffer,
    number: u64,
    gone: Gone,
}

impl Buffer {
    pub(crate) fn new(raw: wgpu::Buffer, number: u64, gone: Gone) -> Self {
        Self { raw, number, gone }
    }

    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    /// Returns a number that no other buffer of its device has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.raw.size()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gone.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}
