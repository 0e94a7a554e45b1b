//! A pool of threads for loops over independent tasks.
//!
//! A decode step runs some 300 such loops of a few dozen microseconds each. Waking a thread takes about 50 us, so
//! waking threads for each loop would cost more than the work. Workers therefore spin for a short while after a loop,
//! and sleep only after that.
//!
//! A loop is a *job*. While the job is open, workers join it: each worker adds one to the state, a single word. The
//! previous value tells the worker whether the job was open and whether a seat was left. A job has as many seats as
//! workers can get a task besides the caller. A worker that comes too late or finds no seat has only incremented a
//! number. Closing the job reads the number of workers that came in the same step, so the caller knows how many
//! workers to wait for: the smaller of that number and the number of seats. A worker increments the state at most
//! once per job, so the number never exceeds that of the workers.
//!
//! Invariants:
//!
//! * Tasks are handed out from a counter, in no particular order and to no particular thread. A task may therefore
//!   write only what no other task reads or writes, and a result never depends on the number of threads.
//! * A closure lent to [`Pool::run`] is never called after `run` has returned, not even if a task panics.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread waits without sleeping: as long as a wake-up takes.
const SPIN: Duration = Duration::from_micros(50);
/// Rounds of waiting between two reads of the clock. The duration of a round varies: `pause` takes some 40 cycles on
/// AMD's processors and 140 on Intel's since Skylake.
const SPIN_ROUNDS: u32 = 256;

/// The low bits of the state: the number of workers that have come to the job.
const CAME: u64 = (1 << 16) - 1;
/// The first bit of the number of seats in the state.
const SEATS: u32 = 16;
/// Maximum number of seats of a job: the remaining bits.
const SEATS_MAX: usize = (1 << 15) - 1;
/// Set in the state while workers may join the job of the state's epoch.
const OPEN: u64 = 1 << 31;
/// The first of the high bits of the state, which number the jobs.
const EPOCH: u32 = 32;

/// A value on its own cache lines: writing to it does not evict neighbouring values from the caches of other threads.
/// 128 bytes are one line of Apple's processors, and two lines that Intel's fetch together.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// A spinning wait for an event that comes soon or not at all.
#[derive(Default)]
struct Spin {
    rounds: u32,
    /// When the clock was first read.
    since: Option<Instant>,
}

impl Spin {
    /// Waits a moment. Returns false once the wait has lasted [`SPIN`].
    fn wait(&mut self) -> bool {
        if self.rounds == SPIN_ROUNDS {
            if self.since.get_or_insert_with(Instant::now).elapsed() >= SPIN {
                return false;
            }
            self.rounds = 0;
        }
        self.rounds += 1;
        std::hint::spin_loop();
        true
    }
}

/// The state word of the pool.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    fn open(epoch: u64, seats: usize) -> Self {
        Self(epoch << EPOCH | OPEN | (seats as u64) << SEATS)
    }

    fn epoch(self) -> u64 {
        self.0 >> EPOCH
    }

    fn seats(self) -> u64 {
        (self.0 & (OPEN - 1)) >> SEATS
    }

    /// Returns the number of workers that have a seat.
    fn seated(self) -> usize {
        (self.0 & CAME).min(self.seats()) as usize
    }

    /// Returns whether a worker that comes now gets a seat if its last job had epoch `seen`.
    fn has_seat(self, seen: u64) -> bool {
        self.0 & OPEN != 0 && self.epoch() != seen && self.0 & CAME < self.seats()
    }
}

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The running loop. The lifetime of the closure is erased; `Pool::run` keeps the closure alive while workers can
/// reach it.
#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    call: *const Task<'static>,
}

struct Shared {
    /// Which loop runs and how many seats are taken, packed as in [`State`].
    state: Apart<AtomicU64>,
    /// Number of workers that had a seat and are done with the job.
    finished: Apart<AtomicUsize>,
    /// The first task that no thread has taken.
    next: Apart<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Number of workers that have started.
    started: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the thread that holds `Pool::turn`, while the state is closed and every worker
// that had a seat has finished. It is read only by workers that got a seat in an open state. The closure behind it is
// `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: see above; the pointer in `job` is followed only while `Pool::run` keeps its closure alive.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a worker as finished when dropped, also during a panic.
struct Finished<'a>(&'a Shared);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.finished.0.fetch_add(1, Ordering::Release);
    }
}

impl Shared {
    fn work(&self, job: Job, thread: usize) {
        // SAFETY: `Pool::run` does not return, and so keeps the closure alive, until every joined worker is counted
        // as finished, which happens after this function has returned or unwound.
        let call = unsafe { &*job.call };
        loop {
            let task = self.next.0.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                return;
            }
            call(task, thread);
        }
    }

    fn state(&self) -> State {
        State(self.state.0.load(Ordering::SeqCst))
    }

    /// Joins the open job if its epoch is not `seen` and a seat is left. Returns its epoch.
    fn join(&self, seen: u64, thread: usize) -> Option<u64> {
        if !self.state().has_seat(seen) {
            return None;
        }
        // only the state found here counts: it may be that of a later job, or closed
        let state = State(self.state.0.fetch_add(1, Ordering::AcqRel));
        if !state.has_seat(seen) {
            return None;
        }
        let _finished = Finished(self);
        // SAFETY: the state was open with a seat left when this thread was counted in. The job is therefore complete,
        // and stays until this thread is counted as finished: `Close` waits for as many workers as had come, or for
        // all seats.
        let job = unsafe { *self.job.get() };
        // `Pool::run` reports a task's panic in the thread that started the loop; the worker lives on.
        let work = std::panic::AssertUnwindSafe(|| self.work(job.expect("an open state has a job"), thread));
        if std::panic::catch_unwind(work).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        Some(state.epoch())
    }

    fn serve(&self, thread: usize) {
        self.started.fetch_add(1, Ordering::Release);
        let (mut seen, mut heard, mut idle) = (0, 0, Spin::default());
        while !self.stop.load(Ordering::Acquire) {
            let epoch = self.state().epoch();
            if let Some(joined) = self.join(seen, thread) {
                (seen, idle) = (joined, Spin::default());
            } else if epoch != heard {
                // jobs keep coming although this thread had no seat: the next may have one
                (heard, idle) = (epoch, Spin::default());
            } else if !idle.wait() {
                self.sleep(seen);
                idle = Spin::default();
            }
        }
    }

    /// Sleeps until a job with an epoch other than `seen` is open and has a seat left.
    fn sleep(&self, seen: u64) {
        let mut guard = lock(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            if self.stop.load(Ordering::SeqCst) || self.state().has_seat(seen) {
                break;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.lock));
            self.wake.notify_all();
        }
    }
}

/// Closes the job when the loop ends, also during a panic, and waits for the workers that had a seat.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let seated = State(self.0.state.0.fetch_and(!OPEN, Ordering::AcqRel)).seated();
        let mut spin = Spin::default();
        while self.0.finished.0.load(Ordering::Acquire) != seated {
            if !spin.wait() {
                std::thread::yield_now();
            }
        }
    }
}

/// A fixed set of threads, including the calling one.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a loop runs: one loop at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts a pool of `threads` threads, at least 1: the caller and `threads - 1` workers.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Apart::default(),
            finished: Apart::default(),
            next: Apart::default(),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("phi3v-{thread}"));
            pool.workers.push(worker.spawn(move || shared.serve(thread))?);
        }
        // a starting thread allocates, which must not happen during a later loop
        while pool.shared.started.load(Ordering::Acquire) < pool.workers.len() {
            std::thread::yield_now();
        }
        Ok(pool)
    }

    /// Returns the number of threads that take tasks, including the caller.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i, thread)` once for every `i < tasks`. Calls that overlap in time have different `thread`
    /// numbers, all below `self.threads()`. A loop of one task runs in the caller, as thread 0.
    ///
    /// # Panics
    /// If a task panics. A task that calls `run` on its own pool never returns.
    pub(crate) fn run<F: Fn(usize, usize) + Sync>(&self, tasks: usize, task: F) {
        let _turn = lock(&self.turn);
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|i| task(i, 0));
            return;
        }
        let call: *const Task<'_> = &raw const task;
        // SAFETY: only the lifetime changes, and `Close` keeps this function from returning while workers use `call`.
        let call = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(call) };
        let job = Job { tasks, call };
        let shared = &*self.shared;
        // SAFETY: this thread holds the turn, and the previous loop's `Close` has waited for its last worker.
        unsafe { *shared.job.get() = Some(job) };
        shared.panicked.store(false, Ordering::Relaxed);
        shared.next.0.store(0, Ordering::Relaxed);
        shared.finished.0.store(0, Ordering::Relaxed);
        let epoch = (shared.state().epoch() + 1) & u64::from(u32::MAX);
        // the caller takes tasks, too
        let seats = self.workers.len().min(tasks - 1).min(SEATS_MAX);
        shared.state.0.store(State::open(epoch, seats).0, Ordering::SeqCst);
        shared.wake_all();
        let close = Close(shared);
        shared.work(job, 0);
        drop(close);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a task of a parallel loop panicked");
    }

    /// Cuts `out`, rows of `cols` values, into chunks of whole rows, and calls `task(first_row, chunk)` for each.
    pub(crate) fn rows<F>(&self, out: &mut [f32], cols: usize, task: F)
    where
        F: Fn(usize, &mut [f32]) + Sync,
    {
        let rows = out.len() / cols.max(1);
        let step = rows_per_task(rows, cols, self.threads());
        let shared = SharedMut::new(out);
        self.run(rows.div_ceil(step), |i, _| {
            let range = i * step..rows.min((i + 1) * step);
            // SAFETY: the tasks' row ranges are disjoint and lie within `out`.
            let chunk = unsafe { shared.slice(range.start * cols..range.end * cols) };
            task(range.start, chunk);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.lock));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // a worker catches the panics of its tasks, so joining cannot report one
            drop(worker.join());
        }
    }
}

/// A mutable slice that tasks share; each task writes its own part.
pub(crate) struct SharedMut<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for the `&mut [T]` it was made from; `slice` requires its callers to keep parts disjoint.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// Returns the part `range`.
    ///
    /// # Safety
    /// No two parts that live at the same time may overlap.
    #[expect(clippy::mut_from_ref, reason = "that is its purpose; the contract keeps parts disjoint")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: the part is within the slice by the assertion, and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// Minimum number of values that a task should touch: 16 K f32 are 64 KB, some 5 us of memory traffic, ten times the
/// cost of taking a task from the counter.
const VALUES_PER_TASK: usize = 16 * 1024;

/// Returns the rows per task of a loop over `rows` rows of `cols` values. Each thread gets about four tasks, so that
/// a thread that falls behind leaves work to the others, but no task has fewer than [`VALUES_PER_TASK`] values.
pub(crate) fn rows_per_task(rows: usize, cols: usize, threads: usize) -> usize {
    let least = VALUES_PER_TASK.div_ceil(cols.max(1));
    rows.div_ceil(4 * threads).max(least).clamp(1, rows.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |i, thread| {
                    assert!(thread < threads);
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn loops_follow_each_other_with_sleeping_and_spinning_workers() {
        let pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        for round in 0..300 {
            if round % 100 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            pool.run(8, |i, _| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), 300 * 28);
    }

    #[test]
    fn no_more_workers_than_tasks_join_and_none_is_lost() {
        for threads in [2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..3000 {
                // fewer tasks than threads, as many, and more; now and then after a pause in which workers go to
                // sleep
                let tasks = 2 + round % (threads + 3);
                if round % 1000 == 999 {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                let counts = [(); 16].map(|()| AtomicUsize::new(0));
                pool.run(tasks, |i, _| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                let counts = counts.map(AtomicUsize::into_inner);
                assert!((0..16).all(|i| counts[i] == usize::from(i < tasks)), "{counts:?} of {tasks}");
                assert!(pool.shared.state().0 & OPEN == 0);
                let finished = pool.shared.finished.0.load(Ordering::Acquire);
                assert!(finished < threads.min(tasks), "{finished} workers joined");
            }
        }
    }

    #[test]
    fn the_state_tells_who_gets_a_seat() {
        let open = State::open(7, 2);
        assert!(open.has_seat(6) && !open.has_seat(7));
        let came = |workers: u64| State(open.0 + workers);
        assert!(came(1).has_seat(6) && !came(2).has_seat(6));
        assert_eq!([0, 1, 2, 5].map(|workers| came(workers).seated()), [0, 1, 2, 2]);
        let closed = State(came(5).0 & !OPEN);
        assert!(!closed.has_seat(6));
        assert_eq!((closed.epoch(), closed.seats()), (7, 2));
        let most = State(State::open(u64::from(u32::MAX), SEATS_MAX).0 + CAME);
        assert_eq!((most.epoch(), most.seats()), (u64::from(u32::MAX), SEATS_MAX as u64));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let run = std::panic::AssertUnwindSafe(|| pool.run(64, |i, _| assert!(i != 33, "task 33")));
        assert!(std::panic::catch_unwind(run).is_err());
        let done = AtomicUsize::new(0);
        pool.run(64, |_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 64);
    }

    #[test]
    fn rows_are_cut_without_gaps() {
        let pool = Pool::new(3).unwrap();
        for (rows, cols) in [(1, 3072), (577, 1024), (2048, 96), (10, 7)] {
            let mut out = vec![0.0; rows * cols];
            pool.rows(&mut out, cols, |first, chunk| {
                for (i, row) in chunk.chunks_exact_mut(cols).enumerate() {
                    row.iter_mut().for_each(|v| *v += (first + i) as f32);
                }
            });
            assert!(out.iter().enumerate().all(|(i, &v)| v == (i / cols) as f32));
        }
    }

    #[test]
    fn the_split_follows_size_and_threads() {
        // 577 rows of 1024: four tasks per thread on 2 threads; on 64 threads, all are busy
        assert_eq!(rows_per_task(577, 1024, 2), 73);
        assert_eq!(rows_per_task(577, 1024, 8), 19);
        assert_eq!(rows_per_task(577, 1024, 64), 16);
        // a decode row is one task
        assert_eq!(rows_per_task(1, 3072, 64), 1);
        assert_eq!(rows_per_task(0, 3072, 2), 1);
    }
}
