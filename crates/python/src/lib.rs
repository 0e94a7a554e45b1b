//! The module `phi3v._phi3v`: types of Python turned into those of the library, and back. What people use is written in
//! Python on top of it, in `python/phi3v`.
//!
//! Invariants: the interpreter's lock is held by nobody who computes or waits; whoever waits looks for Ctrl-C; no panic
//! leaves this crate.

mod answers;
mod engine_thread;
mod errors;
mod forms;
mod generation;
mod hub;
mod model;
mod picture;
mod processor;
mod source;
mod work;

/// What Python imports as `phi3v._phi3v`.
#[pyo3::pymodule]
mod _phi3v {
    use phi3v_cli::documents::{HostProgram, draw_by_host};
    use pyo3::prelude::*;
    use std::ffi::OsString;

    #[pymodule_export]
    use crate::answers::{Answers, Ended, Piece, compare};
    #[pymodule_export]
    use crate::model::{Model, load, presets};
    #[pymodule_export]
    use crate::picture::{Picture, check_size, prepare};
    #[pymodule_export]
    use crate::processor::{Processor, open_processor};
    #[pymodule_export]
    use crate::source::Source;
    #[pymodule_export]
    use crate::work::CancelFlag;

    /// The version of the program.
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// A word less probable than this is called unsure.
    #[pymodule_export]
    const SURE_MIN: f32 = phi3v::words::SURE_MIN;

    /// Has pages of documents drawn by this command from here on, to which a word is added: its program first. None where there
    /// is no program that could.
    #[pyfunction]
    fn draw_by(command: Option<Vec<OsString>>) {
        let mut words = command.into_iter().flatten();
        let program = words.next().map(Into::into);
        draw_by_host(program.map(|program| HostProgram { program, words: words.collect() }));
    }

    /// Runs the command line `words`, the program's name first, and returns the number to exit with.
    #[pyfunction]
    fn main(py: Python<'_>, words: Vec<OsString>) -> PyResult<u8> {
        crate::work::outside(py, || Ok(phi3v_cli::entry::main(words)))
    }
}
