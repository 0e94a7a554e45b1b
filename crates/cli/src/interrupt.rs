//! Ctrl-C stops the answer that is being made; where none is, or pressed again, it stops the program.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const STOPPING: u8 = 2;
const ELSEWHERE: u8 = 3;

static SHARED: OnceLock<Interrupt> = OnceLock::new();

/// Shared with the handler of the signal.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Takes Ctrl-C over, once for the whole program. Where the system refuses, it goes on ending the program.
    #[must_use]
    pub fn install() -> Self {
        SHARED.get_or_init(Self::set_handler).clone()
    }

    fn set_handler() -> Self {
        let interrupt = Self::default();
        let state = Arc::clone(&interrupt.0);
        let installed = ctrlc::set_handler(move || {
            let stopped = state.compare_exchange(ANSWERING, STOPPING, Ordering::SeqCst, Ordering::SeqCst);
            if stopped.is_err_and(|found| found != ELSEWHERE) {
                std::process::exit(i32::from(crate::error::ExitCode::Interrupted as u8));
            }
        });
        if let Err(error) = installed {
            eprintln!("warning: Ctrl-C will end the program at once: {error}");
        }
        interrupt
    }

    /// From here on Ctrl-C does nothing here, where it was taken over at all: somebody else acts on it.
    pub fn leave_to_others() {
        if let Some(interrupt) = SHARED.get() {
            interrupt.0.store(ELSEWHERE, Ordering::SeqCst);
        }
    }

    /// From here on Ctrl-C stops the answer.
    pub fn begin_answer(&self) {
        self.0.store(ANSWERING, Ordering::SeqCst);
    }

    /// From here on Ctrl-C stops the program.
    pub fn end_answer(&self) {
        self.0.store(IDLE, Ordering::SeqCst);
    }

    /// Whether the answer is to be stopped.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst) == STOPPING
    }
}
