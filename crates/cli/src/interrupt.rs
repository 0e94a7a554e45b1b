//! Ctrl-C stops the answer that is being made; where none is, or pressed again, it stops the program. One that stays where none is
//! says so first.

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

/// Printed where Ctrl-C stops neither an answer nor the program.
pub const HOW_TO_LEAVE: &str = "(Ctrl-D or /quit to leave)";

/// Printed where the next Ctrl-C ends a program that would stay.
const ONCE_MORE: &str = "(stopping; Ctrl-C once more ends chat)";

static SHARED: OnceLock<Interrupt> = OnceLock::new();

/// What Ctrl-C asked for and what it may stop now; shared with the handler of the signal.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug)]
struct State {
    now: AtomicU8,
    /// What it is between answers.
    at_rest: AtomicU8,
}

/// What a press of Ctrl-C means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Press {
    /// The answer that is being made is to stop, or somebody else acts on it.
    Taken,
    /// Nothing is answered, and the program is to stay.
    Stay,
    /// The answer has not stopped yet, and the next press ends a program that is to stay.
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
    /// Takes Ctrl-C over, once for the whole program. Where the system refuses, it goes on ending the program.
    #[must_use]
    pub fn install() -> Self {
        SHARED.get_or_init(Self::set_handler).clone()
    }

    /// Leaves Ctrl-C to the program that this code is a part of, once for all: nothing here takes it over afterwards. Who
    /// acts on it tells what is being made that it was given up.
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

    /// Notes a press of Ctrl-C.
    fn press(&self) -> Press {
        let State { now, at_rest } = &*self.0;
        let becomes = |from, to| now.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        match becomes(ANSWERING, STOPPING) {
            Ok(_) | Err(ELSEWHERE) => Press::Taken,
            Err(STAYING) => Press::Stay,
            // a step of a large model takes seconds, and who waits presses again
            Err(STOPPING) if at_rest.load(Ordering::SeqCst) == STAYING => {
                becomes(STOPPING, WARNED).map_or(Press::Taken, |_| Press::Warn)
            }
            Err(_) => Press::End,
        }
    }

    /// From here on Ctrl-C does nothing here, where it was taken over at all: somebody else acts on it.
    pub fn leave_to_others() {
        if let Some(interrupt) = SHARED.get() {
            interrupt.0.now.store(ELSEWHERE, Ordering::SeqCst);
        }
    }

    /// From here on Ctrl-C does not stop the program where nothing is answered. A terminal without line editing sends
    /// it as a signal at the prompt too, and every terminal does between an answer and the prompt.
    pub fn stay(&self) {
        self.0.at_rest.store(STAYING, Ordering::SeqCst);
        self.end_answer();
    }

    /// From here on Ctrl-C stops the answer that is being made, and not the program.
    pub fn begin_answer(&self) {
        self.0.now.store(ANSWERING, Ordering::SeqCst);
    }

    /// From here on Ctrl-C stops the program, unless it is to [`stay`](Self::stay).
    pub fn end_answer(&self) {
        self.0.now.store(self.0.at_rest.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the answer began, which is then to be stopped.
    #[must_use]
    pub fn requested(&self) -> bool {
        matches!(self.0.now.load(Ordering::SeqCst), STOPPING | WARNED)
    }
}

/// Whether a signal has asked to end in order. A second one ends the program at once.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for Ctrl-C and SIGTERM on `runtime`. Where the system refuses, they go on ending the program.
    #[must_use]
    pub fn on_signals(runtime: &tokio::runtime::Handle) -> Self {
        let stop = Self::default();
        let told = stop.clone();
        // quantizing at the start leaves a handler that ends the program at once
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

    /// Whether one has come.
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
