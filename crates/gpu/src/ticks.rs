//! Counts submissions on the card. Metal's driver tells wgpu that a submission is complete even if it failed for lack
//! of memory or time, and data read then is from an earlier one. So each submission on Metal ends with a kernel that
//! counts it, and readers compare the count.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::pipelines::Compiled;
use phi3v_kernels::BackendError;

const WORD_BYTES: u64 = 4;

/// See the module documentation.
pub(crate) struct Ticks {
    /// The card's count.
    done: Buffer,
    readback: Buffer,
    sent: u32,
}

impl Ticks {
    pub(crate) fn new(device: &Device) -> Result<Self, BackendError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self { done: device.buffer(16)?, readback: device.buffer_for(16, usage)?, sent: 0 })
    }

    /// Returns the buffer in which the kernel counts.
    pub(crate) fn done(&self) -> &Buffer {
        &self.done
    }

    /// Ends a submission, by the kernel and its bindings: [`done`](Self::done) and the buffer that the last kernel
    /// wrote.
    pub(crate) fn end(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        tick: &Compiled,
        group: &wgpu::BindGroup,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&tick.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(self.done.raw(), 0, self.readback.raw(), 0, WORD_BYTES);
        self.sent = self.sent.wrapping_add(1);
    }

    /// Returns the slice from which the host reads the count.
    pub(crate) fn slice(&self) -> wgpu::BufferSlice<'_> {
        self.readback.raw().slice(..WORD_BYTES)
    }

    /// Returns an error unless the card has completed everything sent; the count must be mapped.
    pub(crate) fn check(&self, device: &Device) -> Result<(), BackendError> {
        let view = self.slice().get_mapped_range();
        let view = view.map_err(|e| BackendError::Device { reason: e.to_string() })?;
        if *view != self.sent.to_le_bytes() {
            device.failure.set("it left work undone, for want of memory or of time".to_owned());
        }
        device.failure.check()
    }

    /// Unmaps the count for the next use.
    pub(crate) fn unmap(&self) {
        self.readback.raw().unmap();
    }

    /// Counts a submission as sent that the card never receives, for tests.
    pub(crate) fn miss(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }
}
