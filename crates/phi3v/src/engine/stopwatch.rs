//! Measures the time that the device takes to do its work, not the time to submit it, and checks that the work succeeded.

use crate::Result;
use phi3v_kernels::Backend;
use std::time::{Duration, Instant};

/// Does a stage's `work`, waits until the device has finished, and returns the result and how long it took. All durations
/// of work that the engine reports are measured here. Errors on the device are known only after that wait, so only then
/// may results of the work be handed out.
pub(super) fn timed<B: Backend, T>(backend: &B, work: impl FnOnce() -> Result<T>) -> (Result<T>, Duration) {
    let start = Instant::now();
    let result = work();
    let finished = backend.finish();
    let result = result.and_then(|value| {
        finished?;
        Ok(value)
    });
    (result, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::device::test_device;
    use phi3v_kernels::testing::Deferred;

    #[test]
    fn time_is_taken_when_the_device_has_done_all() {
        let backend = Deferred::new(test_device());
        let mut x = backend.tensor(2, 2).unwrap();
        for result in [Ok(7), Err(Error::Stopped)] {
            let (result, took) = timed(&backend, || {
                backend.upload(&[1.0; 4], 0, &mut x);
                assert_eq!(backend.waiting(), 1);
                result
            });
            assert_eq!(backend.waiting(), 0);
            assert!(matches!(result, Ok(7) | Err(Error::Stopped)));
            assert!(took > Duration::ZERO);
        }
    }

    #[test]
    fn what_the_device_did_not_do_did_not_succeed() {
        let backend = Deferred::new(test_device());
        backend.lost().store(true, std::sync::atomic::Ordering::Release);
        let (result, _) = timed(&backend, || Ok(7));
        assert!(matches!(result, Err(Error::Backend(_))));
    }
}
