//! An opened card: its buffers, and what goes wrong on it.

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

/// Whether products of many rows go through matrix units, where a card has some that compute rightly. The bits are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseUnits {
    /// Where they are faster than integer products without them, which is measured once for a card and driver.
    #[default]
    IfFaster,
    /// Nowhere.
    Never,
    /// Also where they are slower, for tests and benchmarks.
    Always,
}

/// How the GPU backend shall run.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Which card, where [`Gpu::new`](crate::Gpu::new) is to find it.
    pub choice: Choice,
    /// Folder for compiled kernels and what the self-test found, per card and driver; nothing is kept if `None`.
    pub cache: Option<PathBuf>,
    /// Whether products of many rows go through matrix units.
    pub use_units: UseUnits,
    /// Measures each kernel by timestamps, see [`Gpu::take_kernel_times`](crate::Gpu::take_kernel_times): for benchmarks. Costs
    /// nothing where it is off.
    pub timestamps: bool,
    /// Most bytes of a buffer that a kernel sees, where that shall be less than the card allows; for tests.
    pub binding_bytes_max: Option<u64>,
    /// Most bytes that are taken from the driver for buffers of 1 MB and more, where that shall be less than the card has; for tests, and
    /// only on cards whose driver is Vulkan's or DirectX 12's.
    pub memory_bytes_max: Option<u64>,
    /// Multiplications after which the card is told to begin, where they shall not depend on how fast it is; for tests.
    pub work_max: Option<u64>,
    /// Notices a submission that failed on cards whose driver tells too, as it is with Metal; for tests.
    pub count_submissions: bool,
    /// Counts barriers in [`Counts`](crate::Counts): for tests.
    pub count_barriers: bool,
}

/// The first thing that went wrong, from whichever thread the driver tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Failed>>>);

#[derive(Debug)]
struct Failed {
    reason: String,
    /// Whether something is not as the driver wants it, which will be so at the next start: a kernel, for all else is checked.
    is_refusal: bool,
}

impl Failure {
    fn failed(&self) -> MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, reason: String) {
        self.failed().get_or_insert(Failed { reason, is_refusal: false });
    }

    /// An error that nobody waits for.
    fn set_error(&self, error: &wgpu::Error) {
        let is_refusal = !matches!(error, wgpu::Error::OutOfMemory { .. });
        self.failed().get_or_insert(Failed { reason: error.to_string(), is_refusal });
    }

    /// That the card was lost, of which whatever went wrong before may be a consequence.
    fn set_lost(&self, reason: String) {
        *self.failed() = Some(Failed { reason, is_refusal: false });
    }

    /// Whether the driver refused a kernel.
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

/// Bytes of a buffer from which on it is asked whether the card has room. What is smaller lies in blocks, most of which are there: a step
/// shall not fail for the sake of its table because another program has taken memory.
const ASKED_BYTES: u64 = 1 << 20;

/// Bytes after which the card is told to copy what was written; as many may be written meanwhile. They lie in memory that both can
/// reach, of which a card without resizable BAR has 256 MB for all programs.
const UPLOAD_BYTES: u64 = 16 << 20;

/// How long is waited for a submission before it is looked whether the card was lost, and how often: a submission shall take half a second,
/// on a busy card in software perhaps a minute.
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
    /// Whether they are.
    by_units: AtomicBool,
    /// Rows and columns to a workgroup of theirs, where that shall not depend on the product; 0 where it shall.
    side: AtomicU32,
    /// Most bytes of a buffer that a kernel sees.
    pub(crate) binding_bytes_max: u64,
    /// Most bytes that are taken from the driver, where a test says how many.
    memory_bytes_max: AtomicU64,
    /// How much work it is sent at a time.
    pub(crate) pace: Pace,
    /// Whether submissions are counted on the card, see `ticks.rs`.
    pub(crate) counts_submissions: bool,
    pub(crate) counts_barriers: bool,
    pub(crate) gone: Gone,
    next_number: AtomicU64,
    uploads: Mutex<Uploads>,
}

/// What waits on the host for its copy to the card.
#[derive(Default)]
struct Uploads {
    /// Bytes that were written since the card was last told to copy.
    bytes: u64,
    /// What it was told then, and may be at work on.
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
            // where the driver is Metal, each buffer has memory of its own anyway
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
            // a device that is dropped is lost too, and nobody is left who asks
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
            // a word is the smallest thing that is bound
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

    /// Has products of many rows go through matrix units from now on, where there are any, or not.
    pub(crate) fn use_units(&self, units: bool) {
        self.by_units.store(units, Ordering::Relaxed);
    }

    /// Matrix units that products of many rows go through.
    pub(crate) fn used_units(&self) -> Option<MatrixUnits> {
        self.units.filter(|_| self.by_units.load(Ordering::Relaxed))
    }

    /// Has the kernel for matrix units make so many rows and columns in a workgroup, of whichever product, or as many as suit.
    pub(crate) fn use_side(&self, side: Option<u32>) {
        self.side.store(side.unwrap_or(0), Ordering::Relaxed);
    }

    /// Rows and columns to a workgroup of the kernel for matrix units, of a product of `rows` rows and `cols` columns of the matrix.
    pub(crate) fn side_for(&self, rows: usize, cols: usize) -> u32 {
        match self.side.load(Ordering::Relaxed) {
            0 => side_for(rows, cols),
            side => side,
        }
    }

    /// A buffer of at least `bytes` bytes, zeros.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<Buffer, BackendError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.buffer_for(bytes, usage)
    }

    pub(crate) fn buffer_for(&self, bytes: usize, usage: wgpu::BufferUsages) -> Result<Buffer, BackendError> {
        // a binding of vec4s has 16 bytes at least
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

    /// Whether the card has no room for `bytes` more: because another program took it, or by what a test allows.
    fn is_full(&self, bytes: u64) -> bool {
        let limit = self.memory_bytes_max.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return crate::memory::of(&self.adapter.raw).is_some_and(|memory| bytes > memory.room);
        }
        let report = self.raw.generate_allocator_report();
        let taken = report.map_or(0, |report| report.total_reserved_bytes);
        taken + bytes > limit
    }

    /// Has the card no more memory than this from now on, for tests, or what it has.
    pub(crate) fn limit_memory(&self, bytes: Option<u64>) {
        self.memory_bytes_max.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether each kernel is measured.
    pub(crate) fn is_timed(&self) -> bool {
        self.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// A buffer that holds `bytes`. What waits on the host for its copy is bounded.
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

    /// Writes `bytes`, whole words, to `buffer` at `at`, before whatever is submitted from now on. In pieces: wgpu counts a card for lost
    /// where there is no room for what waits for its copy. That is nothing that a full card decides: where memory of the card that the
    /// host can reach is not to be had, wgpu takes the host's.
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
        // a piece is copied while the next is written
        let before = uploads.last.replace(self.queue.submit([]));
        before.map_or(Ok(()), |before| self.wait(before))
    }

    /// Waits until what was written has been copied, for which room was taken on the host.
    pub(crate) fn finish_writes(&self) -> Result<(), BackendError> {
        let index = self.queue.submit([]);
        self.wait(index)
    }

    /// Waits for a submission, but not for ever: a driver may forget one.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        let timeout = Some(WAIT);
        self.waited(|| {
            let submission_index = Some(submission.clone());
            self.raw.poll(wgpu::PollType::Wait { submission_index, timeout })
        })
    }

    /// Waits by `poll`, for as long as that does, [`WAITS`] times at most.
    fn waited(
        &self,
        poll: impl Fn() -> Result<wgpu::PollStatus, wgpu::PollError>,
    ) -> Result<(), BackendError> {
        for _ in 0..WAITS {
            match catch_unwind(AssertUnwindSafe(&poll)) {
                Ok(Ok(_)) => return self.failure.check(),
                // another thread may have been told what it is
                Ok(Err(wgpu::PollError::Timeout)) => self.failure.check()?,
                Ok(Err(error)) => {
                    self.failure.set(error.to_string());
                    return self.failure.check();
                }
                // it is no error to wgpu but a panic if the driver says, when it is waited for, that the card was lost
                Err(_) => {
                    self.failure.set_lost("it was lost".to_owned());
                    return self.failure.check();
                }
            }
        }
        // who drops wgpu's device waits for all that was submitted, without end
        std::mem::forget((self.raw.clone(), self.queue.clone()));
        self.failure.set(format!("it did not answer within {} s", (WAITS * WAIT).as_secs()));
        self.failure.check()
    }
}

/// What is asked of the card: numbers beside each dispatch, and what makes things faster where it is there.
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
        // where either is missing, their kernels are refused when they are compiled, and the card runs without them
        features |= found & UNITS_FEATURES;
    }
    Ok(features)
}

#[expect(unsafe_code, reason = "wgpu asks for it: matrix units are an experiment of it")]
fn experimental(units: Option<MatrixUnits>) -> wgpu::ExperimentalFeatures {
    match units {
        // SAFETY: of the experimental features matrix units alone are used, by a kernel of ours that a self-test compares.
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
            // told by every one after it, too
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
        // to which nothing is written, so that they take no memory of a card in software
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
        // what is no larger than a block: of the tower in bf16, and norms of the decoder
        let tower = [2 << 20, 4096].repeat(4 * 23);
        let (taken, needed) = taken_for(&[&tower[..], &[12_288; 64]].concat());
        assert!(taken <= needed + SPARE_BYTES, "{taken} bytes for {needed}");
    }
}
