//! Work without the interpreter's lock, on this thread or on one of its own, and waiting for it.

use crate::errors::{self, Class};
use phi3v_cli::error::CliError;
use pyo3::prelude::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long somebody waits without looking for Ctrl-C.
pub(crate) const SLICE: Duration = Duration::from_millis(20);

/// Runs `work` without the interpreter's lock. A panic in it becomes an exception.
///
/// # Errors
/// The work's own, as an exception.
pub(crate) fn outside<T: Send>(
    py: Python<'_>,
    work: impl Send + FnOnce() -> Result<T, CliError>,
) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    finished(py, done)
}

/// Does what is short with the interpreter's lock held. A panic in it becomes an exception.
///
/// # Errors
/// A panic.
pub(crate) fn held<T>(py: Python<'_>, work: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| bug(py, reason(payload.as_ref())))
}

/// What who asked sets, on whatever thread, when the work is not wanted any more.
#[pyclass(frozen, module = "phi3v._phi3v")]
#[derive(Default)]
pub(crate) struct CancelFlag(Arc<AtomicBool>);

#[pymethods]
impl CancelFlag {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ends the waiting for what it was given to.
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl CancelFlag {
    /// What the work may look at, and what says that Ctrl-C ended the waiting for it.
    pub(crate) fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Runs `work` on a thread of its own, so that Ctrl-C ends the waiting for it, and whoever sets `cancelled`, which Ctrl-C sets
/// as well. The work goes on then until it looks there.
///
/// # Errors
/// The work's own, as an exception; what a handler of a signal raised; it was given up; or the system has no thread.
pub(crate) fn beside<T: Send + 'static>(
    py: Python<'_>,
    cancelled: &AtomicBool,
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = channel();
    let spawned = std::thread::Builder::new().name("phi3v".to_owned()).spawn(move || {
        // nobody waits any more where this fails
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    });
    spawned.map_err(|error| errors::exception(py, &no_thread("a thread for it", error)))?;
    let receiver = std::sync::Mutex::new(receiver);
    loop {
        let told = py.detach(|| match receiver.lock() {
            Ok(receiver) => receiver.recv_timeout(SLICE),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        });
        match told {
            Ok(done) => return finished(py, done),
            Err(RecvTimeoutError::Disconnected) => return Err(bug(py, "the work was dropped")),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(raised) = py.check_signals().and_then(|()| check_wanted(py, cancelled)) {
                    cancelled.store(true, Ordering::Relaxed);
                    return Err(raised);
                }
            }
        }
    }
}

/// # Errors
/// Who asked has given up.
pub(crate) fn check_wanted(py: Python<'_>, cancelled: &AtomicBool) -> PyResult<()> {
    if cancelled.load(Ordering::Relaxed) {
        return Err(errors::raise(py, Class::GivenUp, "who asked has given up", None));
    }
    Ok(())
}

/// The error where the system has no thread for `what`.
pub(crate) fn no_thread(what: &str, error: std::io::Error) -> CliError {
    CliError::File { action: "start", path: what.to_owned(), error }
}

/// What a piece of work came to, or the payload of its panic.
type Done<T> = Result<Result<T, CliError>, Box<dyn Any + Send>>;

fn finished<T>(py: Python<'_>, done: Done<T>) -> PyResult<T> {
    match done {
        Ok(result) => result.map_err(|error| errors::exception(py, &error)),
        Err(payload) => Err(bug(py, reason(payload.as_ref()))),
    }
}

/// The exception for what must not happen.
pub(crate) fn bug(py: Python<'_>, reason: &str) -> PyErr {
    let message = format!("phi3v has failed: {reason}");
    errors::raise(py, Class::Other, &message, Some("report it, with what was asked"))
}

/// What a panic had to say.
fn reason(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason was given")
}
