//! Measures the time of each kernel on the card, by timestamps that it writes before and after; for benchmarks. While
//! this is on, each kernel has a pass of its own and each submission is waited for, so a whole step takes longer than
//! otherwise.

use crate::device::Device;
use crate::recorder::{Dispatch, KERNELS_NEXT};
use phi3v_kernels::BackendError;
use std::collections::HashMap;

/// Measurements of all calls of one kernel on one shape of a matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTime {
    /// The kernel, with the matrix `[n, k]` of a product.
    pub kernel: String,
    /// Number of calls.
    pub calls: u64,
    /// Total seconds on the card.
    pub seconds: f64,
    /// Bytes of weights, keys and values that it read.
    pub bytes_read: u64,
    /// Multiplications.
    pub multiplications: u64,
}

/// Bytes of a timestamp.
const STAMP_BYTES: u64 = 8;

/// See the module documentation.
pub(crate) struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Nanoseconds per unit of a timestamp.
    period: f32,
    /// Dispatches since the last submission, without their seconds.
    recorded: Vec<KernelTime>,
    totals: HashMap<String, KernelTime>,
}

impl Timer {
    pub(crate) fn new(device: &wgpu::Device, period: f32) -> Self {
        // two timestamps per kernel
        let count = 2 * KERNELS_NEXT as u32;
        let buffer = |usage| {
            let size = u64::from(count) * STAMP_BYTES;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let queries = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
        Self {
            queries: device.create_query_set(&queries),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period,
            recorded: Vec::new(),
            totals: HashMap::new(),
        }
    }

    /// Records a dispatch; returns the queries that its pass must write.
    pub(crate) fn time(&mut self, dispatch: &Dispatch<'_>) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * self.recorded.len() as u32;
        self.recorded.push(KernelTime {
            kernel: dispatch.kernel.label(dispatch.numbers),
            calls: 1,
            seconds: 0.0,
            bytes_read: dispatch.reads,
            multiplications: dispatch.work,
        });
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Returns the bytes of the timestamps since the last submission.
    fn bytes(&self) -> u64 {
        2 * self.recorded.len() as u64 * STAMP_BYTES
    }

    /// Records the copy of the timestamps to memory that the host can read.
    pub(crate) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.recorded.is_empty() {
            return;
        }
        encoder.resolve_query_set(&self.queries, 0..2 * self.recorded.len() as u32, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, self.bytes());
    }

    /// Waits for the submission that was resolved and adds its times.
    pub(crate) fn read(
        &mut self,
        device: &Device,
        submission: &wgpu::SubmissionIndex,
    ) -> Result<(), BackendError> {
        if self.recorded.is_empty() {
            return Ok(());
        }
        let slice = self.readback.slice(..self.bytes());
        let failure = device.failure.clone();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            if let Err(e) = result {
                failure.set(e.to_string());
            }
        });
        device.wait(submission.clone())?;
        let view = slice.get_mapped_range().map_err(|e| BackendError::Device { reason: e.to_string() })?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        self.readback.unmap();
        for (dispatch, stamps) in self.recorded.drain(..).zip(stamps.chunks_exact(2)) {
            let ticks = stamps[1].saturating_sub(stamps[0]);
            let total = self.totals.entry(dispatch.kernel.clone()).or_default();
            total.calls += 1;
            total.seconds += ticks as f64 * f64::from(self.period) * 1e-9;
            total.bytes_read += dispatch.bytes_read;
            total.multiplications += dispatch.multiplications;
            total.kernel = dispatch.kernel;
        }
        Ok(())
    }

    /// Returns the measurements since the last call, the longest first.
    pub(crate) fn take(&mut self) -> Vec<KernelTime> {
        let mut times: Vec<_> = self.totals.drain().map(|(_, total)| total).collect();
        times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        times
    }
}
