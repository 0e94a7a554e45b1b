//! Errors of operations that return none, kept until they are reported.

use phi3v_kernels::BackendError;
use std::thread::{self, ThreadId};

/// Errors of operations that could not return them, and which threads were informed. If threads share a card, the next
/// thread to wait need not be the one whose operation failed. The thread of the operation always receives its error,
/// since what it reads was not written. The first other thread that waits before it receives the error too, since it may depend on the
/// failed operation; no further thread does, for the thread of the operation may have ended.
#[derive(Default)]
pub(crate) struct Failures(Vec<Failed>);

struct Failed {
    error: BackendError,
    /// The thread whose operation failed.
    of: ThreadId,
    /// Whether another thread has received the error.
    told: bool,
}

impl Failures {
    /// Keeps the first error of this thread until it is reported.
    pub(crate) fn keep(&mut self, error: BackendError) {
        let of = thread::current().id();
        if self.0.iter().all(|failed| failed.of != of) {
            self.0.push(Failed { error, of, told: false });
        }
    }

    /// Returns the error that this thread must receive now that it waits.
    pub(crate) fn told(&mut self) -> Option<BackendError> {
        let thread = thread::current().id();
        if let Some(own) = self.0.iter().position(|failed| failed.of == thread) {
            return Some(self.0.remove(own).error);
        }
        let failed = self.0.iter_mut().find(|failed| !failed.told)?;
        failed.told = true;
        Some(failed.error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(bytes: usize) -> BackendError {
        BackendError::OutOfMemory { bytes }
    }

    /// Runs `work` on another thread.
    fn beside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn an_error_is_told_to_the_thread_whose_it_is_whoever_waits_first() {
        let mut failures = Failures::default();
        assert_eq!(failures.told(), None);
        failures.keep(full(1));
        failures.keep(full(2));
        assert_eq!(beside(|| failures.told()), Some(full(1)));
        assert_eq!((failures.told(), failures.told()), (Some(full(1)), None));
        assert_eq!(beside(|| failures.told()), None);
    }

    #[test]
    fn who_goes_on_with_what_another_thread_began_hears_of_it_once() {
        let mut failures = Failures::default();
        beside(|| failures.keep(full(1)));
        // a thread that never asks
        assert_eq!((failures.told(), failures.told()), (Some(full(1)), None));
        assert_eq!(beside(|| failures.told()), None);
        failures.keep(full(2));
        assert_eq!((failures.told(), failures.told()), (Some(full(2)), None));
    }
}
