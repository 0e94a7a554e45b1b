//! What differs between operating systems. The parts of `windows` that run anywhere are tested on every system.

#[cfg(unix)]
mod unix;
#[cfg(any(test, windows))]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub(crate) use system::{
    BACKSLASH_ESCAPES, CACHE_VARIABLE, DESKTOP, FOLDS_CASE, HandedFile, PROGRAM_ENDING, REPLACES_OPEN_FILES,
    SIGNS_OF_VARIABLES, as_named, away_from_ctrl_c, changed, end_with_parent, give_way_for_memory,
    is_own_descriptor, lead_to_one_file, link_blob, name_of_bytes, open_without_waiting, outlive_size_limits,
    own_program, quoted, setting, termination,
};

/// The system that shows windows and keeps the clipboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "a build is for one of them"))]
pub(crate) enum Desktop {
    /// The macOS desktop, which always exists.
    Macos,
    /// The Windows desktop, which always exists.
    Windows,
    /// A Wayland or X server, named by environment variables if present.
    Server,
}
