//! Records operations, and sends them to the card about a hundred at a time.
//!
//! A decode step takes a few submissions, so that the card computes its first layers while the last are recorded;
//! prefill takes one for every one or two layers. A submission is sent when enough work or enough kernels are recorded,
//! and recording waits while more than two submissions are in flight. Attention and products of many rows, which could
//! be too long in one dispatch, are split into several. So no submission comes near the two seconds after which Windows
//! resets the card, and progress reports per layer are accurate.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::failures::Failures;
use crate::kernel::Kernel;
use crate::pace::Done;
use crate::ticks::Ticks;
use crate::timer::{KernelTime, Timer};
use phi3v_kernels::BackendError;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Immediate data of a dispatch, in words.
const NUMBERS: usize = 8;
/// Immediate data of a dispatch, in bytes.
pub(crate) const NUMBERS_BYTES: u32 = 4 * NUMBERS as u32;

/// Bytes staged for one submission; larger data is written separately.
const ARENA_BYTES: usize = 4 << 20;

/// Number of kernels after which work is submitted to an idle card.
const KERNELS_FIRST: usize = 32;
/// Number of kernels after which work is submitted to a busy card, and so the maximum of a submission.
pub(crate) const KERNELS_NEXT: usize = 128;

/// Maximum number of submissions in flight while more is recorded.
const IN_FLIGHT_MAX: usize = 2;

/// A wait longer than this means that the submission was not complete before.
const WAIT_MIN: Duration = Duration::from_micros(200);

/// Maximum bindings of a kernel.
const BINDINGS_MAX: usize = 5;

/// Workgroups along a side of a grid that WebGPU, Vulkan, Metal and DirectX 12 guarantee.
pub(crate) const SIDE_MAX: usize = 65_535;

/// Rows along one dimension of a dispatch; matches `common.wgsl`.
const ROWS_PER_LAYER: usize = 32_768;

/// Returns a grid of `across` workgroups for each of `rows` rows.
pub(crate) fn row_grid(across: usize, rows: usize) -> [usize; 3] {
    [across, rows.min(ROWS_PER_LAYER), rows.div_ceil(ROWS_PER_LAYER)]
}

/// Counts since a recorder was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels started.
    pub dispatches: u64,
    /// Batches of commands sent to the card.
    pub submissions: u64,
    /// Dispatches that had to wait for an earlier one or a copy, because one of the two writes a buffer of both; 0 unless
    /// [`GpuOptions::count_barriers`](crate::GpuOptions::count_barriers) is set.
    pub barriers: u64,
    /// Bytes of weights, keys and values that the dispatches read.
    pub bytes_read: u64,
    /// Bytes copied before the dispatches: rows of the embedding, rotations, block tables.
    pub bytes_copied: u64,
    /// Multiplications of the largest batch of commands so far, which decides how long the card is busy at a time;
    /// those of floats count four times.
    pub work_largest: u64,
}

/// The target of a kernel's binding.
#[derive(Clone, Copy)]
pub(crate) enum Bound<'a> {
    Buffer(&'a Buffer),
    /// The staged words.
    Arena,
    /// Reserved scratch memory.
    Scratch(Scratch),
    /// Nothing, since the kernel does not read the binding.
    Empty,
}

/// One kernel to run.
pub(crate) struct Dispatch<'a> {
    pub(crate) kernel: Kernel,
    /// Bindings, in the kernel's order.
    pub(crate) bound: &'a [Bound<'a>],
    pub(crate) numbers: &'a [u32],
    /// Number of workgroups along each side.
    pub(crate) grid: [usize; 3],
    /// Bytes of weights, keys and values that it reads.
    pub(crate) reads: u64,
    /// Multiplications.
    pub(crate) work: u64,
}

impl Dispatch<'_> {
    /// Returns its multiplications weighted by their cost, in the units of the pace.
    fn cost(&self) -> u64 {
        self.work * self.kernel.cost()
    }
}

/// Buffers between the kernels of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scratch {
    /// Quantized rows.
    Quantized,
    /// Scales, sums and outliers of the quantized rows.
    Meta,
    /// Chunks of an attention.
    Chunks,
    /// A product before its gates are applied.
    Gates,
}

/// Buffers used since the last barrier, by their numbers.
#[derive(Default)]
struct Used {
    written: HashSet<u64>,
    read: HashSet<u64>,
}

impl Used {
    fn clear(&mut self) {
        self.written.clear();
        self.read.clear();
    }

    /// Records the buffers that `kernel` binds, given by `numbers`. Returns whether it must wait for an earlier kernel.
    fn note(&mut self, kernel: Kernel, numbers: &[u64]) -> bool {
        let accesses = || kernel.bindings().chars().zip(numbers);
        let Self { written, read } = &*self;
        let waits = accesses()
            .any(|(access, number)| written.contains(number) || access == 'w' && read.contains(number));
        if waits {
            self.clear();
        }
        for (access, number) in accesses() {
            let of_access = if access == 'w' { &mut self.written } else { &mut self.read };
            of_access.insert(*number);
        }
        waits
    }
}

/// The key of a kernel's bind group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct GroupKey {
    kernel: Kernel,
    /// Numbers of its buffers; 0 after the last.
    buffers: [u64; BINDINGS_MAX],
}

/// A buffer and its number, which identifies its bind groups. It may be dropped before it is bound.
struct Numbered {
    raw: wgpu::Buffer,
    number: u64,
}

impl Numbered {
    fn of(buffer: &Buffer) -> Self {
        Self { raw: buffer.raw().clone(), number: buffer.number() }
    }
}

/// A submission in flight.
struct Submitted {
    index: wgpu::SubmissionIndex,
    /// Its multiplications, weighted by their cost.
    work: u64,
    at: Instant,
}

/// See the module documentation.
pub(crate) struct Recorder {
    // the pass is dropped before the encoder that it records into
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    arena: Buffer,
    staged: Vec<u8>,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    scratch: [Option<Buffer>; 4],
    readback: Option<Buffer>,
    /// Counts submissions, if the driver does not report failed ones.
    ticks: Option<Ticks>,
    /// The buffer that the last recorded kernel writes, if submissions are counted.
    last: Option<Numbered>,
    /// Bound if a kernel has nothing to read.
    empty: Buffer,
    in_flight: VecDeque<Submitted>,
    /// When the last submission was seen to be complete.
    last_done: Option<Instant>,
    /// The weighted multiplications since the last submission, and (below) its kernels.
    work: u64,
    kernels: usize,
    /// Measures every kernel, if requested.
    timer: Option<Timer>,
    /// Counts barriers, if requested.
    used: Option<Used>,
    counts: Counts,
    /// Errors of operations that cannot return one.
    failed: Failures,
    /// Every dispatch, if a test inspects them.
    #[cfg(test)]
    pub(crate) log: Option<Vec<Logged>>,
}

/// A dispatch as it was recorded.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Logged {
    pub(crate) kernel: Kernel,
    pub(crate) buffers: Vec<wgpu::Buffer>,
    pub(crate) words: [u32; NUMBERS],
    pub(crate) grid: [u32; 3],
    pub(crate) reads: u64,
}

impl Recorder {
    pub(crate) fn new(device: &Device) -> Result<Self, BackendError> {
        Ok(Self {
            pass: None,
            encoder: None,
            arena: device.buffer(ARENA_BYTES)?,
            staged: Vec::new(),
            groups: HashMap::new(),
            scratch: [const { None }; 4],
            readback: None,
            ticks: device.counts_submissions.then(|| Ticks::new(device)).transpose()?,
            last: None,
            empty: device.buffer(64)?,
            in_flight: VecDeque::new(),
            last_done: None,
            work: 0,
            kernels: 0,
            timer: device.is_timed().then(|| Timer::new(&device.raw, device.queue.get_timestamp_period())),
            used: device.counts_barriers.then(Used::default),
            counts: Counts::default(),
            failed: Failures::default(),
            #[cfg(test)]
            log: None,
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// See [`Ticks::miss`].
    pub(crate) fn miss_submission(&mut self) {
        self.ticks.iter_mut().for_each(Ticks::miss);
    }

    /// Returns the kernels' times since the last call, the longest first.
    pub(crate) fn take_times(&mut self) -> Vec<KernelTime> {
        self.timer.as_mut().map(Timer::take).unwrap_or_default()
    }

    /// Keeps the first error of each thread's operations that cannot return one, for the next download.
    pub(crate) fn keep(&mut self, result: Result<(), BackendError>) {
        if let Err(error) = result {
            self.failed.keep(error);
        }
    }

    /// Reserves `bytes` bytes of scratch memory between kernels.
    pub(crate) fn reserve(
        &mut self,
        device: &Device,
        scratch: Scratch,
        bytes: usize,
    ) -> Result<(), BackendError> {
        let slot = &mut self.scratch[scratch as usize];
        if slot.as_ref().is_none_or(|buffer| buffer.size() < bytes as u64) {
            // frees the smaller buffer first, in case there is no room for both
            *slot = None;
            let buffer = self.new_buffer(device, bytes)?;
            self.scratch[scratch as usize] = Some(buffer);
        }
        Ok(())
    }

    /// Creates a new buffer, see [`with_room`](Self::with_room).
    pub(crate) fn new_buffer(&mut self, device: &Device, bytes: usize) -> Result<Buffer, BackendError> {
        self.with_room(device, || device.buffer(bytes))
    }

    /// Creates a new buffer that holds `bytes`, see [`with_room`](Self::with_room).
    pub(crate) fn filled(&mut self, device: &Device, bytes: &[u8]) -> Result<Buffer, BackendError> {
        self.with_room(device, || device.filled(bytes))
    }

    /// Runs `take`, which allocates memory of the card. If it runs out of memory, waits for all submitted work, which
    /// frees dropped buffers, and tries once more: a dropped buffer lives until the work that uses it is complete.
    fn with_room<T>(
        &mut self,
        device: &Device,
        take: impl Fn() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match take() {
            Err(BackendError::OutOfMemory { bytes }) if bytes as u64 <= device.binding_bytes_max => {
                self.wait_for_all(device)?;
                device.finish_writes()?;
                take()
            }
            done => done,
        }
    }

    /// Records a dispatch.
    pub(crate) fn dispatch(&mut self, device: &Device, dispatch: &Dispatch<'_>) {
        if dispatch.grid.contains(&0) {
            return;
        }
        // the words staged for this dispatch must stay where they are
        let is_staged = dispatch.bound.iter().any(|bound| matches!(bound, Bound::Arena));
        if !is_staged && self.work > 0 && self.work + dispatch.cost() > device.pace.work_max() {
            let result = self.submit(device);
            self.keep(result);
        }
        let compiled = device.pipelines.get(&device.raw, dispatch.kernel);
        let key = self.key(dispatch);
        self.count(dispatch, &key.buffers);
        let group = self.group(device, dispatch, &compiled.layout, key);
        let mut words = [0u32; NUMBERS];
        words[..dispatch.numbers.len()].copy_from_slice(dispatch.numbers);
        let (encoder, timer) = (&mut self.encoder, &mut self.timer);
        if timer.is_some() {
            self.pass = None; // a timed kernel has a pass of its own
        }
        let pass = self.pass.get_or_insert_with(|| {
            let encoder = encoder.get_or_insert_with(|| new_encoder(device));
            let timestamp_writes = timer.as_mut().map(|timer| timer.time(dispatch));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        });
        pass.set_pipeline(&compiled.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.set_immediates(0, bytemuck::cast_slice(&words));
        let [x, y, z] = dispatch.grid.map(|size| size as u32);
        pass.dispatch_workgroups(x, y, z);
        #[cfg(test)]
        self.log(dispatch, words);
        if self.ticks.is_some() {
            let mut accesses = dispatch.kernel.bindings().chars().zip(dispatch.bound);
            let written = accesses.find(|(access, _)| *access == 'w');
            self.last = written.map(|(_, bound)| Numbered::of(self.buffer(*bound)));
        }
        self.work += dispatch.cost();
        self.kernels += 1;
        let kernels_max = if self.in_flight.is_empty() { KERNELS_FIRST } else { KERNELS_NEXT };
        if self.work >= device.pace.work_max() || self.kernels >= kernels_max {
            let result = self.submit(device);
            self.keep(result);
        }
    }

    #[cfg(test)]
    fn log(&mut self, dispatch: &Dispatch<'_>, words: [u32; NUMBERS]) {
        let Some(mut log) = self.log.take() else { return };
        log.push(Logged {
            kernel: dispatch.kernel,
            buffers: dispatch.bound.iter().map(|bound| self.buffer(*bound).raw().clone()).collect(),
            words,
            grid: dispatch.grid.map(|size| size as u32),
            reads: dispatch.reads,
        });
        self.log = Some(log);
    }

    /// Returns the buffer of a binding.
    fn buffer<'a>(&'a self, bound: Bound<'a>) -> &'a Buffer {
        match bound {
            Bound::Buffer(buffer) => buffer,
            Bound::Arena => &self.arena,
            Bound::Scratch(which) => self.scratch[which as usize].as_ref().unwrap_or(&self.empty),
            Bound::Empty => &self.empty,
        }
    }

    fn key(&self, dispatch: &Dispatch<'_>) -> GroupKey {
        let mut buffers = [0; BINDINGS_MAX];
        for (number, bound) in buffers.iter_mut().zip(dispatch.bound) {
            *number = self.buffer(*bound).number();
        }
        GroupKey { kernel: dispatch.kernel, buffers }
    }

    /// Returns the bind group of a dispatch, created once for the same buffers.
    fn group(
        &mut self,
        device: &Device,
        dispatch: &Dispatch<'_>,
        layout: &wgpu::BindGroupLayout,
        key: GroupKey,
    ) -> wgpu::BindGroup {
        if let Some(group) = self.groups.get(&key) {
            return group.clone();
        }
        let buffers: Vec<_> = dispatch.bound.iter().map(|bound| self.buffer(*bound).raw()).collect();
        let group = bind(device, layout, &buffers);
        self.groups.entry(key).or_insert(group).clone()
    }

    fn count(&mut self, dispatch: &Dispatch<'_>, numbers: &[u64]) {
        let waits = self.used.as_mut().is_some_and(|used| used.note(dispatch.kernel, numbers));
        self.counts.barriers += u64::from(waits);
        self.counts.dispatches += 1;
        self.counts.bytes_read += dispatch.reads;
    }

    /// Writes words to the arena for the next dispatch, and returns their word offset.
    pub(crate) fn stage(&mut self, device: &Device, words: &[u32]) -> Result<u32, BackendError> {
        let bytes = bytemuck::cast_slice::<u32, u8>(words);
        if bytes.len() > ARENA_BYTES {
            return Err(BackendError::OutOfMemory { bytes: bytes.len() });
        }
        if self.staged.len() + bytes.len() > ARENA_BYTES {
            self.submit(device)?;
        }
        let at = self.staged.len();
        self.staged.extend_from_slice(bytes);
        Ok((at / 4) as u32)
    }

    /// Writes `bytes`, whole words, to `buffer` at offset `at`, in the order of the operations.
    pub(crate) fn write(
        &mut self,
        device: &Device,
        bytes: &[u8],
        buffer: &Buffer,
        at: u64,
    ) -> Result<(), BackendError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.counts.bytes_copied += bytes.len() as u64;
        if bytes.len() > ARENA_BYTES / 4 {
            self.submit(device)?;
            return device.write(bytes, buffer, at);
        }
        let from = 4 * u64::from(self.stage(device, bytemuck::cast_slice(bytes))?);
        self.pass = None;
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(device));
        encoder.copy_buffer_to_buffer(self.arena.raw(), from, buffer.raw(), at, bytes.len() as u64);
        if let Some(used) = &mut self.used {
            used.written.insert(buffer.number());
        }
        Ok(())
    }

    /// Sends the recorded work to the card, and waits until at most two submissions are in flight.
    pub(crate) fn submit(&mut self, device: &Device) -> Result<(), BackendError> {
        self.pass = None;
        if !self.staged.is_empty() {
            device.queue.write_buffer(self.arena.raw(), 0, &self.staged);
            self.staged.clear();
        }
        if let Some(mut encoder) = self.encoder.take() {
            if let Some(timer) = &self.timer {
                timer.resolve(&mut encoder);
            }
            self.end_counted(device, &mut encoder);
            let submission = device.queue.submit([encoder.finish()]);
            if let Some(timer) = &mut self.timer {
                timer.read(device, &submission)?;
            }
            self.in_flight.push_back(Submitted { index: submission, work: self.work, at: Instant::now() });
            self.counts.submissions += 1;
        }
        self.counts.work_largest = self.counts.work_largest.max(self.work);
        self.work = 0;
        self.kernels = 0;
        self.forget_gone(device);
        while self.in_flight.len() > IN_FLIGHT_MAX {
            self.wait_for_oldest(device)?;
        }
        Ok(())
    }

    /// Ends a submission, if submissions are counted on the card.
    fn end_counted(&mut self, device: &Device, encoder: &mut wgpu::CommandEncoder) {
        let Some(ticks) = &mut self.ticks else { return };
        let last = self.last.take().unwrap_or_else(|| Numbered::of(&self.empty));
        let tick = device.pipelines.get(&device.raw, Kernel::Tick);
        let mut buffers = [0; BINDINGS_MAX];
        buffers[..2].copy_from_slice(&[ticks.done().number(), last.number]);
        let bound = [ticks.done().raw(), &last.raw];
        let make = || bind(device, &tick.layout, &bound);
        let group =
            self.groups.entry(GroupKey { kernel: Kernel::Tick, buffers }).or_insert_with(make).clone();
        ticks.end(encoder, &tick, &group);
    }

    /// Waits for the oldest submission in flight, and learns the card's speed.
    fn wait_for_oldest(&mut self, device: &Device) -> Result<(), BackendError> {
        let Some(Submitted { index, work, at }) = self.in_flight.pop_front() else { return Ok(()) };
        let start = Instant::now();
        let waited = device.wait(index);
        let done = Instant::now();
        let began = self.last_done.map_or(at, |last| last.max(at));
        let was_waited_for = done - start > WAIT_MIN;
        device.pace.learn(Done { work, took: done.saturating_duration_since(began), was_waited_for });
        self.last_done = Some(done);
        waited
    }

    /// Drops bind groups of dropped buffers, which would keep their memory.
    fn forget_gone(&mut self, device: &Device) {
        let gone = device.gone.take();
        if !gone.is_empty() {
            self.groups.retain(|key, _| !key.buffers.iter().any(|number| gone.contains(number)));
        }
    }

    /// Waits for everything and reads the bytes `range` of `buffer` into `out`.
    pub(crate) fn read(
        &mut self,
        device: &Device,
        buffer: &Buffer,
        range: Range<u64>,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        let bytes = range.end - range.start;
        if self.readback.as_ref().is_none_or(|readback| readback.size() < bytes) {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            self.readback = None;
            self.readback = Some(self.with_room(device, || device.buffer_for(bytes as usize, usage))?);
        }
        self.pass = None;
        let Some(readback) = &self.readback else {
            return Err(BackendError::OutOfMemory { bytes: bytes as usize });
        };
        let raw = readback.raw().clone();
        let encoder = self.encoder.get_or_insert_with(|| new_encoder(device));
        encoder.copy_buffer_to_buffer(buffer.raw(), range.start, &raw, 0, bytes);
        self.submit(device)?;
        let slice = raw.slice(..bytes);
        for slice in self.ticks.iter().map(Ticks::slice).chain([slice]) {
            let failure = device.failure.clone();
            slice.map_async(wgpu::MapMode::Read, move |result| {
                if let Err(e) = result {
                    failure.set(e.to_string());
                }
            });
        }
        let done = self.finish(device).and_then(|()| {
            self.ticks.iter().try_for_each(|ticks| ticks.check(device))?;
            let view =
                slice.get_mapped_range().map_err(|e| BackendError::Device { reason: e.to_string() })?;
            out.extend_from_slice(bytemuck::cast_slice(&view));
            Ok(())
        });
        // unmapped for the next use, even after an error
        raw.unmap();
        self.ticks.iter().for_each(Ticks::unmap);
        done
    }

    fn wait_for_all(&mut self, device: &Device) -> Result<(), BackendError> {
        self.submit(device)?;
        while !self.in_flight.is_empty() {
            self.wait_for_oldest(device)?;
        }
        Ok(())
    }

    /// Waits until everything is done.
    pub(crate) fn finish(&mut self, device: &Device) -> Result<(), BackendError> {
        let waited = self.wait_for_all(device);
        // taken in any case, so that the same thread does not receive it again later
        let failed = self.failed.told();
        waited?;
        self.used.iter_mut().for_each(Used::clear);
        failed.map_or_else(|| device.failure.check(), Err)
    }
}

fn new_encoder(device: &Device) -> wgpu::CommandEncoder {
    device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

pub(crate) fn bind(
    device: &Device,
    layout: &wgpu::BindGroupLayout,
    buffers: &[&wgpu::Buffer],
) -> wgpu::BindGroup {
    let numbered = buffers.iter().enumerate();
    let entries: Vec<_> = numbered
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: wgpu::BindingResource::Buffer(buffer.as_entire_buffer_binding()),
        })
        .collect();
    device.raw.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}
