//! An opened card: its buffers and its failures.

use crate::GpuError;
use crate::adapter::{Adapter, Choice, MatrixUnits, UNITS_FEATURES};
use crate::buffer::{Buffer, Gone};
use crate::linear::side_for;
use crate::memory::BLOCK_BYTES;
use crate::pace::Pace;
use crate::pipelines::Pipelines;
use phi3v_kernels::BackendError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether products of many rows use matrix units, if a card has some that compute correctly. The bits are the same
/// either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseUnits {
    /// If they are faster than integer products without them, which is measured once for each card and driver.
    #[default]
    IfFaster,
    /// Never used.
    Never,
    /// Used even if they are slower; for tests and benchmarks.
    Always,
}

/// Options of the GPU backend.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// The card, if [`Gpu::new`](crate::Gpu::new) is to find it.
    pub choice: Choice,
    /// Folder for compiled kernels and the results of the self-test, per card and driver; nothing is stored if `None`.
    pub cache: Option<PathBuf>,
    /// Whether products of many rows use matrix units.
    pub use_units: UseUnits,
    /// Measures each kernel by timestamps, for benchmarks; see
    /// [`Gpu::take_kernel_times`](crate::Gpu::take_kernel_times). Costs nothing if off.
    pub timestamps: bool,
    /// Limits the bytes of a buffer that a kernel binds below the card's own limit; for tests.
    pub binding_bytes_max: Option<u64>,
    /// Limits the bytes taken from the driver for buffers of 1 MB and more below the card's memory; for tests, and only
    /// on cards with a Vulkan or DirectX 12 driver.
    pub memory_bytes_max: Option<u64>,
    /// Fixes the number of multiplications after which work is submitted, instead of adapting it to the card's speed;
    /// for tests.
    pub work_max: Option<u64>,
    /// Detects failed submissions by counting, as on Metal, also on cards whose driver reports them; for tests.
    pub count_submissions: bool,
    /// Counts barriers in [`Counts`](crate::Counts); for tests.
    pub count_barriers: bool,
}

/// The first failure, reported by the driver from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Failed>>>);

#[derive(Debug)]
struct Failed {
    reason: String,
    /// Whether the driver rejected a kernel, which will happen again at the next start; everything else is validated
    /// beforehand.
    is_refusal: bool,
}

impl Failure {
    fn failed(&self) -> MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, reason: String) {
        self.failed().get_or_insert(Failed { reason, is_refusal: false });
    }

    /// Records an error that nobody waits for.
    fn set_error(&self, error: &wgpu::Error) {
        let is_refusal = !matches!(error, wgpu::Error::OutOfMemory { .. });
        self.failed().get_or_insert(Failed { reason: error.to_string(), is_refusal });
    }

    /// Records that the card was lost. Replaces earlier errors, which may be consequences of the loss.
    fn set_lost(&self, reason: String) {
        *self.failed() = Some(Failed { reason, is_refusal: false });
    }

    /// Returns whether the driver rejected a kernel.
    pub(crate) fn is_refusal(&self) -> bool {
        self.failed().as_ref().is_some_and(|failed| failed.is_refusal)
    }

    pub(crate) fn check(&self) -> Result<(), BackendError> {
        match &*self.failed() {
            Some(Failed { reason, .. }) => Err(BackendError::Device { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Buffers from this size on are allocated only after checking for free memory. Smaller ones lie in blocks, most of
/// which exist already: a step must not fail for its small block table because another program has taken memory.
const ASKED_BYTES: u64 = 1 << 20;

/// Number of bytes written after which a copy is submitted; as many may be written meanwhile. They lie in memory that
/// both host and card can access. A card without resizable BAR has 256 MB of it for all programs.
const UPLOAD_BYTES: u64 = 16 << 20;

/// How long to wait for a submission before checking whether the card was lost ([`WAIT`]), and how many times
/// ([`WAITS`]). A submission should take half a second; on a busy software driver perhaps a minute.
const WAIT: Duration = Duration::from_secs(30);
const WAITS: u32 = 10;

/// An opened card.
pub(crate) struct Device {
    pub(crate) adapter: Adapter,
    pub(crate) raw: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) failure: Failure,
    pub(crate) pipelines: Pipelines,
    /// Matrix units whose kernels may be used.
    pub(crate) units: Option<MatrixUnits>,
    /// Whether matrix units are used.
    by_units: AtomicBool,
    /// Rows and columns of a workgroup of the kernel for matrix units, if fixed; 0 if chosen by the product.
    side: AtomicU32,
    /// Maximum bytes of a buffer that a kernel binds.
    pub(crate) binding_bytes_max: u64,
    /// Maximum bytes taken from the driver, if a test limits them.
    memory_bytes_max: AtomicU64,
    /// How much work is submitted at a time.
    pub(crate) pace: Pace,
    /// Whether submissions are counted on the card; see `ticks.rs`.
    pub(crate) counts_submissions: bool,
    pub(crate) counts_barriers: bool,
    pub(crate) gone: Gone,
    next_number: AtomicU64,
    uploads: Mutex<Uploads>,
}

/// Data on the host that waits to be copied to the card.
#[derive(Default)]
struct Uploads {
    /// Bytes written since the last copy was submitted.
    bytes: u64,
    /// The last copy submitted, which may still be running.
    last: Option<wgpu::SubmissionIndex>,
}

impl Device {
    pub(crate) fn open(adapter: Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        let units = adapter.matrix_units.filter(|_| options.use_units != UseUnits::Never);
        let features = features(&adapter, units, options.timestamps)?;
        let limits = adapter.raw.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("phi3v"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental(units),
            // on Metal, each buffer has memory of its own anyway
            memory_hints: wgpu::MemoryHints::Manual {
                suballocated_device_memory_block_size: BLOCK_BYTES..BLOCK_BYTES,
            },
            ..Default::default()
        };
        let (raw, queue) = pollster::block_on(adapter.raw.request_device(&descriptor))
            .map_err(|e| GpuError::Open { name: adapter.name.clone(), reason: e.to_string() })?;
        let failure = Failure::default();
        let (on_error, on_loss) = (failure.clone(), failure.clone());
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| on_error.set_error(&error)));
        raw.set_device_lost_callback(move |reason, message| {
            // dropping a device also counts as losing it, when no caller is left
            on_loss.set_lost(match reason {
                wgpu::DeviceLostReason::Destroyed => "it was lost".to_owned(),
                wgpu::DeviceLostReason::Unknown => format!("it was lost: {message}"),
            });
        });
        let binding_bytes_max = adapter.binding_bytes_max.min(options.binding_bytes_max.unwrap_or(u64::MAX));
        let pipelines = Pipelines::new(&raw, &adapter, options.cache.as_deref());
        Ok(Self {
            units,
            by_units: AtomicBool::new(true),
            side: AtomicU32::new(0),
            raw,
            queue,
            failure,
            pipelines,
            // a word is the smallest unit of a binding
            binding_bytes_max: binding_bytes_max / 4 * 4,
            memory_bytes_max: AtomicU64::new(options.memory_bytes_max.unwrap_or(u64::MAX)),
            pace: Pace::new(options.work_max),
            counts_submissions: options.count_submissions || cfg!(target_vendor = "apple"),
            counts_barriers: options.count_barriers,
            gone: Gone::default(),
            next_number: AtomicU64::new(1),
            uploads: Mutex::default(),
            adapter,
        })
    }

    /// Makes products of many rows use matrix units from now on, if there are any, or not.
    pub(crate) fn use_units(&self, units: bool) {
        self.by_units.store(units, Ordering::Relaxed);
    }

    /// Returns the matrix units that products of many rows use.
    pub(crate) fn used_units(&self) -> Option<MatrixUnits> {
        self.units.filter(|_| self.by_units.load(Ordering::Relaxed))
    }

    /// Fixes the rows and columns of a workgroup of the kernel for matrix units, or lets the product decide.
    pub(crate) fn use_side(&self, side: Option<u32>) {
        self.side.store(side.unwrap_or(0), Ordering::Relaxed);
    }

    /// Returns the rows and columns of a workgroup of the kernel for matrix units, for a product of `rows` rows and
    /// `cols` columns.
    pub(crate) fn side_for(&self, rows: usize, cols: usize) -> u32 {
        match self.side.load(Ordering::Relaxed) {
            0 => side_for(rows, cols),
            side => side,
        }
    }

    /// Returns a buffer of at least `bytes` bytes, filled with zeros.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<Buffer, BackendError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.buffer_for(bytes, usage)
    }

    pub(crate) fn buffer_for(&self, bytes: usize, usage: wgpu::BufferUsages) -> Result<Buffer, BackendError> {
        // a binding of vec4s has at least 16 bytes
        let size = (bytes as u64).next_multiple_of(16).max(16);
        let is_on_card = usage.contains(wgpu::BufferUsages::STORAGE);
        if size > self.binding_bytes_max || is_on_card && size >= ASKED_BYTES && self.is_full(size) {
            return Err(BackendError::OutOfMemory { bytes });
        }
        self.failure.check()?;
        let scope = self.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let raw = self.raw.create_buffer(&descriptor);
        match pollster::block_on(scope.pop()) {
            Some(_) => Err(BackendError::OutOfMemory { bytes }),
            None => {
                let number = self.next_number.fetch_add(1, Ordering::Relaxed);
                Ok(Buffer::new(raw, number, self.gone.clone()))
            }
        }
    }

    /// Returns whether the card has no room for `bytes` more, because of other programs or the limit of a test.
    fn is_full(&self, bytes: u64) -> bool {
        let limit = self.memory_bytes_max.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return crate::memory::of(&self.adapter.raw).is_some_and(|memory| bytes > memory.room);
        }
        let report = self.raw.generate_allocator_report();
        let taken = report.map_or(0, |report| report.total_reserved_bytes);
        taken + bytes > limit
    }

    /// Limits the card's memory to this size from now on, for tests, or removes the limit.
    pub(crate) fn limit_memory(&self, bytes: Option<u64>) {
        self.memory_bytes_max.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns whether each kernel is measured.
    pub(crate) fn is_timed(&self) -> bool {
        self.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Returns a buffer that holds `bytes`. Limits the data on the host that waits to be copied.
    pub(crate) fn filled(&self, bytes: &[u8]) -> Result<Buffer, BackendError> {
        let buffer = self.buffer(bytes.len())?;
        let whole = bytes.len() / 4 * 4;
        self.write(&bytes[..whole], &buffer, 0)?;
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.write(&word, &buffer, whole as u64)?;
        }
        Ok(buffer)
    }

    /// Writes `bytes`, whole words, to `buffer` at offset `at`, before all later submissions. Writes in pieces: wgpu
    /// declares the device lost if staging memory runs out. A full card does not cause that: if no host-visible memory
    /// of the card is left, wgpu takes the host's.
    pub(crate) fn write(&self, bytes: &[u8], buffer: &Buffer, at: u64) -> Result<(), BackendError> {
        for (i, piece) in bytes.chunks(UPLOAD_BYTES as usize).enumerate() {
            self.queue.write_buffer(buffer.raw(), at + i as u64 * UPLOAD_BYTES, piece);
            self.count_upload(piece.len() as u64)?;
        }
        Ok(())
    }

    fn count_upload(&self, bytes: u64) -> Result<(), BackendError> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.bytes += bytes;
        if uploads.bytes < UPLOAD_BYTES {
            return Ok(());
        }
        uploads.bytes = 0;
        // one piece is copied while the next is written
        let before = uploads.last.replace(self.queue.submit([]));
        before.map_or(Ok(()), |before| self.wait(before))
    }

    /// Waits until all writes have been copied; until then they take memory of the host.
    pub(crate) fn finish_writes(&self) -> Result<(), BackendError> {
        let index = self.queue.submit([]);
        self.wait(index)
    }

    /// Waits for a submission, but not forever: a driver may lose track of one.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        let timeout = Some(WAIT);
        self.waited(|| {
            let submission_index = Some(submission.clone());
            self.raw.poll(wgpu::PollType::Wait { submission_index, timeout })
        })
    }

    /// Waits by calling `poll` at most [`WAITS`] times.
    fn waited(
        &self,
        poll: impl Fn() -> Result<wgpu::PollStatus, wgpu::PollError>,
    ) -> Result<(), BackendError> {
        for _ in 0..WAITS {
            match catch_unwind(AssertUnwindSafe(&poll)) {
                Ok(Ok(_)) => return self.failure.check(),
                // another thread may have received the error
                Ok(Err(wgpu::PollError::Timeout)) => self.failure.check()?,
                Ok(Err(error)) => {
                    self.failure.set(error.to_string());
                    return self.failure.check();
                }
                // wgpu panics instead of returning an error if the driver reports, during a wait, that the card was
                // lost
                Err(_) => {
                    self.failure.set_lost("it was lost".to_owned());
                    return self.failure.check();
                }
            }
        }
        // dropping wgpu's device waits for everything submitted, without a timeout
        std::mem::forget((self.raw.clone(), self.queue.clone()));
        self.failure.set(format!("it did not answer within {} s", (WAITS * WAIT).as_secs()));
        self.failure.check()
    }
}

/// Returns the features to request from the card: immediate data for each dispatch, and those that make kernels faster
/// if available.
fn features(
    adapter: &Adapter,
    units: Option<MatrixUnits>,
    timestamps: bool,
) -> Result<wgpu::Features, GpuError> {
    let found = adapter.raw.features();
    let needed = wgpu::Features::IMMEDIATES;
    let missing = |missing| GpuError::Unsuitable { name: adapter.name.clone(), missing };
    if !found.contains(needed) || adapter.raw.limits().max_immediate_size < crate::recorder::NUMBERS_BYTES {
        return Err(missing("room for a kernel's numbers (push constants)"));
    }
    let limits = adapter.raw.limits();
    if limits.max_compute_invocations_per_workgroup < 256
        || limits.max_compute_workgroup_storage_size < 16_384
    {
        return Err(missing("workgroups of 256 threads and 16 KB"));
    }
    let mut features = needed | (found & wgpu::Features::PIPELINE_CACHE);
    if timestamps {
        if !found.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(missing("timestamps, by which kernels are measured"));
        }
        features |= wgpu::Features::TIMESTAMP_QUERY;
    }
    if units.is_some() {
        // if either is missing, the driver rejects their kernels, and the card runs without them
        features |= found & UNITS_FEATURES;
    }
    Ok(features)
}

#[expect(unsafe_code, reason = "wgpu asks for it: matrix units are an experiment of it")]
fn experimental(units: Option<MatrixUnits>) -> wgpu::ExperimentalFeatures {
    match units {
        // SAFETY: of the experimental features only matrix units are used, by a kernel of this crate whose results a
        // self-test compares.
        Some(_) => unsafe { wgpu::ExperimentalFeatures::enabled() },
        None => wgpu::ExperimentalFeatures::disabled(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gpu;
    use crate::memory::SPARE_BYTES;
    use crate::testing::card;
    use phi3v_kernels::Backend;
    use phi3v_kernels::testing::skip;
    use std::cell::Cell;

    #[test]
    fn a_card_that_does_not_answer_or_is_lost_while_it_is_waited_for_is_an_error() {
        let error_of = |gpu: &Gpu, poll: &dyn Fn() -> Result<wgpu::PollStatus, wgpu::PollError>| {
            let error = gpu.device.waited(poll).unwrap_err().to_string();
            // every later operation reports it too
            assert_eq!(gpu.finish().unwrap_err().to_string(), error);
            error
        };
        let Some(gpu) = card() else { return };
        let calls = Cell::new(0);
        let never = || {
            calls.set(calls.get() + 1);
            Err(wgpu::PollError::Timeout)
        };
        assert_eq!(error_of(&gpu, &never), "the device failed: it did not answer within 300 s");
        assert_eq!(calls.get(), 10);
        let gpu = card().unwrap();
        assert_eq!(error_of(&gpu, &|| panic!("as wgpu does")), "the device failed: it was lost");
        let gpu = card().unwrap();
        calls.set(0);
        let late = || if calls.get() < 3 { never() } else { Ok(wgpu::PollStatus::QueueEmpty) };
        gpu.device.waited(late).unwrap();
        gpu.finish().unwrap();
    }

    #[test]
    fn what_is_taken_from_the_driver_is_what_the_buffers_need() {
        let Some(gpu) = card() else { return };
        let reserved =
            || gpu.device.raw.generate_allocator_report().map(|report| report.total_reserved_bytes);
        if reserved().is_none() {
            return skip(
                "the card's driver keeps its own accounts",
                "run it on Vulkan, as Mesa's in software",
            );
        }
        // nothing is written to these buffers, so a software driver commits no memory for them
        let taken_for = |sizes: &[usize]| {
            let before = reserved().unwrap();
            let buffers: Vec<_> = sizes.iter().map(|bytes| gpu.device.buffer(*bytes).unwrap()).collect();
            (reserved().unwrap() - before, buffers.iter().map(Buffer::size).sum::<u64>())
        };
        // keys and values of a layer, gates and ups in q8 and in q4, the smallest matrix of a layer in q4
        for bytes in [96 << 20, 51 << 20, 27 << 20, 5 << 20] {
            let (taken, needed) = taken_for(&[bytes; 2]);
            assert!((needed..needed + (1 << 20)).contains(&taken), "{taken} bytes for {needed}");
        }
        // buffers no larger than a block: matrices of the tower in bf16, and norms of the decoder
        let tower = [2 << 20, 4096].repeat(4 * 23);
        let (taken, needed) = taken_for(&[&tower[..], &[12_288; 64]].concat());
        assert!(taken <= needed + SPARE_BYTES, "{taken} bytes for {needed}");
    }
}
