//! What this machine can do at most: the peaks that kernels are compared with.
//!
//! Multiply-adds on registers alone, and a read of more memory than any cache holds. A product counts as two
//! operations. Measured on all threads of the pool at once, because cores share power, heat and memory.

use super::runner::Runner;
use super::tensor::Buffer;
use crate::BackendError;
use crate::cpu::table::PeakKernel;
use crate::threads::SharedMut;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A rate in billions per second, read many times: what else the machine does shows in how far the readings lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Half of the readings are below it.
    pub median: f64,
    /// A quarter of the readings are below it.
    pub low: f64,
    /// A quarter of the readings are above it.
    pub high: f64,
}

/// What this machine can do at most at a CPU level, as measured in some seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Operations on int8, in 10^9 a second, of all threads together.
    pub int8_gops: Rate,
    /// Operations on bf16 likewise, by what the level multiplies it with.
    pub bf16_gflops: Rate,
    /// Operations on f32 likewise.
    pub f32_gflops: Rate,
    /// Bytes read from memory, in 10^9 a second.
    pub read_gb_s: Rate,
    /// How many bytes were read for `read_gb_s`, again and again.
    pub read_bytes: usize,
}

/// What may be taken for a read that no cache can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRoom {
    /// Bytes that the largest caches hold together, if known.
    pub(crate) caches: Option<usize>,
    /// Bytes of memory that may be taken.
    pub(crate) memory: u64,
}

/// Memory read for the bandwidth at least: more than the largest caches of most processors.
const READ_BYTES_MIN: usize = 1 << 30;
/// How much larger than the caches it is: what they keep from the last time is a small part then.
const READ_CACHES: usize = 4;
/// Bytes of a task of the read.
const READ_TASK: usize = 1 << 20;
/// Rounds of a task on registers: from 100 us to 1 ms.
const ROUNDS: usize = 20_000;
/// Tasks per thread between two looks at the clock: some milliseconds, enough to average over a wake-up.
const TASKS: usize = 32;
/// How long each figure is measured, and how often at least.
const DURATION: Duration = Duration::from_millis(300);
const READINGS_MIN: usize = 7;

impl ReadRoom {
    /// Bytes to read, whole tasks: as many as are wanted, or half of the memory.
    fn bytes(self) -> usize {
        let wanted = self.caches.unwrap_or(0).saturating_mul(READ_CACHES).max(READ_BYTES_MIN);
        let room = usize::try_from(self.memory / 2).unwrap_or(usize::MAX);
        (wanted.min(room) / READ_TASK).max(1) * READ_TASK
    }
}

impl Rate {
    /// The rate of work that is `amount` each time and took so many seconds.
    fn new(amount: f64, mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |part: usize| amount / seconds[(seconds.len() - 1) * part / 4] / 1e9;
        Self { median: at(2), low: at(3), high: at(1) }
    }

    /// The rate of `work`, which is `amount` each time.
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
        // written, so that the pages are ours and not all the same page of zeros
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
        // a neighbour took the machine for some of them
        let rate = Rate::new(8e9, vec![1.0, 8.0, 2.0, 1.0, 4.0]);
        assert_eq!((rate.low, rate.median, rate.high), (2.0, 4.0, 8.0));
        assert_eq!(Rate::new(1e9, vec![0.5]), Rate { median: 2.0, low: 2.0, high: 2.0 });
    }
}
