//! Differences between systems in opening files. The parts of `windows` that can run anywhere are tested everywhere.

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

/// What to do if the name of a file to be opened is a link.
#[derive(Clone, Copy)]
pub(super) enum Links {
    /// Open the link's target.
    Follow,
    /// Refuse to open it.
    Refuse,
}
