//! What differs from system to system. What can run anywhere of `windows` is tested everywhere.

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

/// What shows windows and keeps the clipboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "a build is for one of them"))]
pub(crate) enum Desktop {
    /// That of macOS, which is always there.
    Macos,
    /// That of Windows, which is always there.
    Windows,
    /// A Wayland or X server, named by variables where there is one.
    Server,
}
