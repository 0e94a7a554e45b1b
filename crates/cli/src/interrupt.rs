//! Ctrl-C stops the current answer. With no answer running, or pressed again, it ends the program; a program meant to stay
//! (`chat`) warns first.

use crate::sys::termination;
use crate::{note, tell};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const STOPPING: u8 = 2;
const ELSEWHERE: u8 = 3;
const STAYING: u8 = 4;
const WARNED: u8 = 5;

/// Printed if Ctrl-C stops neither an answer nor the program.
pub const HOW_TO_LEAVE: &str = "(Ctrl-D or /quit to leave)";

/// Printed if the next Ctrl-C ends a program that would stay.
const ONCE_MORE: &str = "(stopping; Ctrl-C once more ends chat)";

static SHARED: OnceLock<Interrupt> = OnceLock::new();

/// The state of Ctrl-C: what was requested and what may be stopped; shared with the signal handler.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug)]
struct State {
    now: AtomicU8,
    /// The state between answers.
    at_rest: AtomicU8,
}

/// The effect of a press of Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Press {
    /// The current answer stops, or other code handles the press.
    Taken,
    /// No answer is running, and the program stays.
    Stay,
    /// The answer has not stopped yet; the next press ends a program that would stay.
    Warn,
    /// The program ends at once.
    End,
}

impl Default for State {
    fn default() -> Self {
        Self { now: AtomicU8::new(IDLE), at_rest: AtomicU8::new(IDLE) }
    }
}

impl Interrupt {
    /// Installs the Ctrl-C handler, once per process. If the system refuses, Ctrl-C still ends the program.
    #[must_use]
    pub fn install() -> Self {
        SHARED.get_or_init(Self::set_handler).clone()
    }

    /// Leaves Ctrl-C to the host program permanently: nothing here handles it afterwards. The host's handler reports to
    /// running work that it was given up.
    pub fn leave_to_host() {
        SHARED.get_or_init(Self::default);
    }

    fn set_handler() -> Self {
        let interrupt = Self::default();
        let pressed = interrupt.clone();
        let installed = ctrlc::set_handler(move || match pressed.press() {
            Press::Taken => {}
            Press::Stay => tell!("{HOW_TO_LEAVE}"),
            Press::Warn => tell!("{ONCE_MORE}"),
            Press::End => std::process::exit(i32::from(crate::error::ExitCode::Interrupted as u8)),
        });
        if let Err(error) = installed {
            note!("warning: Ctrl-C will end the program at once: {error}");
        }
        interrupt
    }

    /// Handles a press of Ctrl-C.
    fn press(&self) -> Press {
        let State { now, at_rest } = &*self.0;
        let becomes = |from, to| now.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        match becomes(ANSWERING, STOPPING) {
            Ok(_) | Err(ELSEWHERE) => Press::Taken,
            Err(STAYING) => Press::Stay,
            // a step of a large model takes seconds, and waiting users press again
            Err(STOPPING) if at_rest.load(Ordering::SeqCst) == STAYING => {
                becomes(STOPPING, WARNED).map_or(Press::Taken, |_| Press::Warn)
            }
            Err(_) => Press::End,
        }
    }

    /// From here on, an installed handler ignores Ctrl-C: other code handles it.
    pub fn leave_to_others() {
        if let Some(interrupt) = SHARED.get() {
            interrupt.0.now.store(ELSEWHERE, Ordering::SeqCst);
        }
    }

    /// From here on, Ctrl-C does not end the program while no answer is running. A terminal without line editing sends the
    /// signal at the prompt too, and every terminal does between an answer and the prompt.
    pub fn stay(&self) {
        self.0.at_rest.store(STAYING, Ordering::SeqCst);
        self.end_answer();
    }

    /// From here on, Ctrl-C stops the current answer instead of the program.
    pub fn begin_answer(&self) {
        self.0.now.store(ANSWERING, Ordering::SeqCst);
    }

    /// From here on, Ctrl-C ends the program, unless it is to [`stay`](Self::stay).
    pub fn end_answer(&self) {
        self.0.now.store(self.0.at_rest.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the answer began, so that the answer must stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        matches!(self.0.now.load(Ordering::SeqCst), STOPPING | WARNED)
    }
}

/// Whether a signal requested an orderly end. A second one ends the program at once.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for Ctrl-C and SIGTERM on `runtime`. If the system refuses, they still end the program.
    #[must_use]
    pub fn on_signals(runtime: &tokio::runtime::Handle) -> Self {
        let stop = Self::default();
        let told = stop.clone();
        // quantizing at startup installs a handler that ends the program at once
        Interrupt::leave_to_others();
        runtime.spawn(async move {
            if termination().await.is_err() {
                return;
            }
            told.0.store(true, Ordering::SeqCst);
            note!("stopping: what is being answered is finished first; once more stops at once");
            if termination().await.is_ok() {
                std::process::exit(i32::from(crate::error::ExitCode::Interrupted as u8));
            }
        });
        stop
    }

    /// Whether a signal has arrived.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_press_ends_a_script() {
        let interrupt = Interrupt::default();
        interrupt.begin_answer();
        assert!(!interrupt.requested());
        assert_eq!((interrupt.press(), interrupt.requested()), (Press::Taken, true));
        assert_eq!(interrupt.press(), Press::End);
        interrupt.end_answer();
        assert_eq!(interrupt.press(), Press::End, "nothing is answered");
    }

    #[test]
    fn a_conversation_is_not_lost_before_it_was_told() {
        let interrupt = Interrupt::default();
        interrupt.stay();
        assert_eq!(interrupt.press(), Press::Stay);
        for _ in 0..2 {
            interrupt.begin_answer();
            assert_eq!((interrupt.press(), interrupt.requested()), (Press::Taken, true));
            assert_eq!((interrupt.press(), interrupt.requested()), (Press::Warn, true));
            interrupt.end_answer();
            assert_eq!((interrupt.press(), interrupt.requested()), (Press::Stay, false));
        }
        interrupt.begin_answer();
        let pressed = [(); 3].map(|()| interrupt.press());
        assert_eq!(pressed, [Press::Taken, Press::Warn, Press::End]);
    }
}
