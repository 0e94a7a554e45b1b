//! How much work is sent to a card at a time, adapted to its measured speed. Work is counted in integer
//! multiplications, from which the speed is learned if weights are packed. A float multiplication counts for as many as
//! [`Kernel::cost`](crate::kernel::Kernel::cost) returns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Maximum multiplications of a submission on the fastest card: a layer of 1,024 tokens has 116 G, a decode step of 16
/// sequences 60 G.
pub(crate) const WORK_MAX: u64 = 1 << 37;
/// Maximum multiplications of a submission on a card of unknown speed: 0.2 s on an integrated card that emulates
/// integer products (50 G per second).
pub(crate) const WORK_FIRST: u64 = 1 << 33;
/// Maximum multiplications of a submission on the slowest card, so that a submission is worth its overhead.
pub(crate) const WORK_MIN: u64 = 1 << 30;

/// Target time of a submission: a quarter of what Windows allows.
const AIM: Duration = Duration::from_millis(500);

/// Measurements of a completed submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Its multiplications, weighted by their cost.
    pub(crate) work: u64,
    /// Time from when it was sent, or when the previous one completed, until it was seen to be complete.
    pub(crate) took: Duration,
    /// Whether it was waited for; otherwise it may have completed long before that was seen.
    pub(crate) was_waited_for: bool,
}

/// The number of multiplications after which work is submitted.
pub(crate) struct Pace {
    work_max: AtomicU64,
    /// The fixed number, if any; 0 if `work_max` applies.
    held: AtomicU64,
    is_fixed: bool,
}

impl Pace {
    /// Creates a pace; if a test gives a number, that number is fixed.
    pub(crate) fn new(fixed: Option<u64>) -> Self {
        let work_max = AtomicU64::new(fixed.unwrap_or(WORK_FIRST));
        Self { work_max, held: AtomicU64::new(0), is_fixed: fixed.is_some() }
    }

    pub(crate) fn work_max(&self) -> u64 {
        match self.held.load(Ordering::Relaxed) {
            0 => self.work_max.load(Ordering::Relaxed),
            held => held,
        }
    }

    /// Fixes the number from now on and stops learning, or returns to the learned number.
    pub(crate) fn hold(&self, work_max: Option<u64>) {
        self.held.store(work_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// Learns from a submission. A submission with little work is ignored, since its time shows its overhead, not the
    /// card's speed.
    pub(crate) fn learn(&self, done: Done) {
        let before = self.work_max();
        let is_fixed = self.is_fixed || self.held.load(Ordering::Relaxed) > 0;
        if is_fixed || done.work < before / 4 {
            return;
        }
        let most = done.work as f64 * AIM.as_secs_f64() / done.took.as_secs_f64().max(1e-9);
        let most = (most as u64).clamp(WORK_MIN, WORK_MAX);
        self.work_max.store(if done.was_waited_for { most } else { most.max(before) }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the learned number for a card of `per_second` multiplications a second, after some submissions of the
    /// maximum size.
    fn learned(per_second: f64, was_waited_for: bool) -> u64 {
        let pace = Pace::new(None);
        for _ in 0..4 {
            let work = pace.work_max();
            let took = Duration::from_secs_f64(work as f64 / per_second);
            pace.learn(Done { work, took, was_waited_for });
        }
        pace.work_max()
    }

    #[test]
    fn a_submission_takes_half_a_second_at_most_however_slow_the_card() {
        assert_eq!(learned(3e13, true), WORK_MAX);
        assert_eq!(learned(3e13, false), WORK_MAX);
        for (per_second, most) in [(5e10, 2.5e10), (4e9, 2e9)] {
            let learned = learned(per_second, true) as f64;
            assert!((learned / most - 1.0).abs() < 1e-6, "{learned}, not {most}");
        }
        assert_eq!(learned(1e9, true), WORK_MIN);
        // which is no reason to slow down if nobody waited before
        assert_eq!(learned(1e9, false), WORK_FIRST);
    }

    #[test]
    fn little_work_teaches_nothing_and_what_a_test_says_stays() {
        let pace = Pace::new(None);
        pace.learn(Done { work: 1 << 30, took: Duration::from_secs(1), was_waited_for: true });
        assert_eq!(pace.work_max(), WORK_FIRST);
        let pace = Pace::new(Some(1000));
        pace.learn(Done { work: 1000, took: Duration::from_secs(1), was_waited_for: true });
        assert_eq!(pace.work_max(), 1000);
        let pace = Pace::new(None);
        pace.hold(Some(7));
        pace.learn(Done { work: 1 << 33, took: Duration::from_secs(1), was_waited_for: true });
        assert_eq!(pace.work_max(), 7);
        pace.hold(None);
        assert_eq!(pace.work_max(), WORK_FIRST);
    }
}
