//! Measures the most that this machine can do: the peaks that kernels are compared with.
//!
//! The measurements are multiply-adds on registers alone, and reading more memory than any cache holds. A
//! multiply-add counts as two operations. All threads of the pool run at once, because cores share power, heat and
//! memory.

use super::runner::Runner;
use super::tensor::Buffer;
use crate::BackendError;
use crate::cpu::table::PeakKernel;
use crate::threads::SharedMut;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A rate in billions per second, read many times. The spread of the readings shows how much else the machine does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Half of the readings are below it.
    pub median: f64,
    /// A quarter of the readings are below it.
    pub low: f64,
    /// A quarter of the readings are above it.
    pub high: f64,
}

/// The most that this machine can do at a CPU level, as measured for some seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Operations on int8, in 10^9 per second, of all threads together.
    pub int8_gops: Rate,
    /// Operations on bf16, in the same unit, with the instructions that the level multiplies bf16 with.
    pub bf16_gflops: Rate,
    /// Operations on f32, in the same unit.
    pub f32_gflops: Rate,
    /// Bytes read from memory, in 10^9 per second.
    pub read_gb_s: Rate,
    /// Size in bytes of the memory that was read repeatedly for `read_gb_s`.
    pub read_bytes: usize,
}

/// The limits on the memory that is read to measure the bandwidth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRoom {
    /// Total bytes of the largest caches, if known.
    pub(crate) caches: Option<usize>,
    /// Bytes of memory that are available.
    pub(crate) memory: u64,
}

/// Minimum size of the memory read for the bandwidth: more than the largest caches of most processors.
const READ_BYTES_MIN: usize = 1 << 30;
/// How many times larger than the caches the memory is. What the caches keep from the previous read is then a small
/// part.
const READ_CACHES: usize = 4;
/// Bytes that a task reads.
const READ_TASK: usize = 1 << 20;
/// Rounds of a task on registers: 100 us to 1 ms.
const ROUNDS: usize = 20_000;
/// Tasks per thread between two reads of the clock: some milliseconds, enough to average over a wake-up.
const TASKS: usize = 32;
/// How long each figure is measured, and how many times at least.
const DURATION: Duration = Duration::from_millis(300);
const READINGS_MIN: usize = 7;

impl ReadRoom {
    /// Returns the bytes to read, in whole tasks: the wanted number, but at most half of the memory.
    fn bytes(self) -> usize {
        let wanted = self.caches.unwrap_or(0).saturating_mul(READ_CACHES).max(READ_BYTES_MIN);
        let room = usize::try_from(self.memory / 2).unwrap_or(usize::MAX);
        (wanted.min(room) / READ_TASK).max(1) * READ_TASK
    }
}

impl Rate {
    /// Returns the rate of work of which each run does `amount` and takes the given seconds.
    fn new(amount: f64, mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |part: usize| amount / seconds[(seconds.len() - 1) * part / 4] / 1e9;
        Self { median: at(2), low: at(3), high: at(1) }
    }

    /// Measures the rate of `work`, each call of which does `amount`.
    fn measure(amount: f64, mut work: impl FnMut()) -> Self {
        let (start, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < READINGS_MIN || start.elapsed() < DURATION {
            let now = Instant::now();
            work();
            seconds.push(now.elapsed().as_secs_f64());
        }
        Self::new(amount, seconds)
    }
}

impl Runner {
    /// See [`Cpu::limits`](crate::Cpu::limits).
    pub(crate) fn limits(&self, room: ReadRoom) -> Result<Limits, BackendError> {
        let (peak, read_bytes) = (self.kernels.peak, room.bytes());
        Ok(Limits {
            int8_gops: self.rate(peak.int8),
            bf16_gflops: self.rate(peak.bf16),
            f32_gflops: self.rate(peak.f32),
            read_gb_s: self.read_rate(read_bytes)?,
            read_bytes,
        })
    }

    fn rate(&self, burn: PeakKernel) -> Rate {
        let tasks = TASKS * self.threads();
        // SAFETY: the kernels are those of a level this processor has.
        let operations = (tasks * unsafe { burn(1) } * ROUNDS) as f64;
        Rate::measure(operations, || {
            self.pool.run(tasks, |_, _| {
                // SAFETY: as above.
                unsafe { burn(ROUNDS) };
            });
        })
    }

    fn read_rate(&self, bytes: usize) -> Result<Rate, BackendError> {
        const VALUES: usize = READ_TASK / size_of::<u64>();
        let mut memory = Buffer::default();
        memory.reserve::<u64>(bytes / size_of::<u64>())?;
        let values = memory.get_mut::<u64>(bytes / size_of::<u64>());
        let shared = SharedMut::new(values);
        // writes the memory, so that every page is allocated and not the shared page of zeros
        self.pool.run(bytes / READ_TASK, |task, _| {
            // SAFETY: every task writes its own part.
            let part = unsafe { shared.slice(task * VALUES..(task + 1) * VALUES) };
            part.iter_mut().zip(task as u64..).for_each(|(v, i)| *v = i);
        });
        let values = &*values;
        Ok(Rate::measure(bytes as f64, || {
            self.pool.run(bytes / READ_TASK, |task, _| {
                let part = &values[task * VALUES..][..VALUES];
                let mut sums = [0u64; 32];
                for line in part.as_chunks::<32>().0 {
                    sums.iter_mut().zip(line).for_each(|(sum, v)| *sum ^= v);
                }
                black_box(sums);
            });
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_holds_what_is_read_where_memory_allows() {
        let bytes = |caches, memory| ReadRoom { caches, memory }.bytes();
        let gib = 1 << 30;
        assert_eq!(bytes(None, u64::MAX), gib);
        assert_eq!(bytes(Some(32 << 20), 64 << 30), gib);
        // 300 MB of one Emerald Rapids, 1,152 MB of one Genoa-X
        assert_eq!(bytes(Some(300 << 20), 64 << 30), 1200 << 20);
        assert_eq!(bytes(Some(1152 << 20), 64 << 30), 4608 << 20);
        assert_eq!(bytes(Some(1152 << 20), 6 << 30), 3 << 30);
        assert_eq!(bytes(Some(usize::MAX), 1 << 20), READ_TASK);
        assert_eq!(bytes(None, 0), READ_TASK);
    }

    #[test]
    fn half_of_the_readings_lie_between_the_quartiles() {
        // a neighbour used the machine during some of them
        let rate = Rate::new(8e9, vec![1.0, 8.0, 2.0, 1.0, 4.0]);
        assert_eq!((rate.low, rate.median, rate.high), (2.0, 4.0, 8.0));
        assert_eq!(Rate::new(1e9, vec![0.5]), Rate { median: 2.0, low: 2.0, high: 2.0 });
    }
}
