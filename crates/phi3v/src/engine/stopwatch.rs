//! How long the device takes, not how long it takes to tell it what to do.

use crate::Result;
use phi3v_kernels::Backend;
use std::time::{Duration, Instant};

/// The time of a stage. Every duration of work that the engine tells of is measured by one.
pub(super) struct Stopwatch {
    start: Instant,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Waits until the device has done what it was given, and tells what came of it and how long it took.
    pub(super) fn stop<B: Backend, T>(self, backend: &B, result: Result<T>) -> (Result<T>, Duration) {
        let finished = backend.finish();
        let result = result.and_then(|value| {
            finished?;
            Ok(value)
        });
        (result, self.start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::device::{Device, DeviceOptions};
    use phi3v_kernels::testing::{Deferred, test_device};

    #[test]
    fn it_stops_when_the_device_has_done_all() {
        let options = DeviceOptions { choice: test_device().parse().unwrap(), ..DeviceOptions::default() };
        let backend = Deferred::new(Device::open(&options).unwrap());
        let mut x = backend.tensor(2, 2).unwrap();
        for result in [Ok(7), Err(Error::Stopped)] {
            let stopwatch = Stopwatch::start();
            backend.upload(&[1.0; 4], 0, &mut x);
            assert_eq!(backend.waiting(), 1);
            let (stopped, took) = stopwatch.stop(&backend, result);
            assert_eq!(backend.waiting(), 0);
            assert!(matches!(stopped, Ok(7) | Err(Error::Stopped)));
            assert!(took > Duration::ZERO);
        }
    }
}
