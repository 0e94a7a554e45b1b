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
    CACHE_VARIABLE, FOLDS_CASE, REPLACES_OPEN_FILES, as_named, away_from_ctrl_c, changed, lead_to_one_file,
    link_blob, open_without_waiting, outlive_size_limits, quoted, termination,
};
