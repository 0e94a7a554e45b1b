//! What systems do differently in opening files. What can run anywhere of `windows` is tested everywhere.

#[cfg(unix)]
mod unix;
#[cfg(any(test, windows))]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub(super) use system::{
    has_no_locks, is_at, kind, open_to_write_alone, prepare, refuse_device_name, sync_otherwise,
};

/// What becomes of a link that has the name of a file to be opened.
#[derive(Clone, Copy)]
pub(super) enum Links {
    /// What it leads to is opened.
    Follow,
    /// It is not opened.
    Refuse,
}
