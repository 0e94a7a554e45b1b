//! Environment variables, and when they count as set.

use std::ffi::{OsStr, OsString};

/// A variable's value, if it is not blank: compose files set empty variables (`X=${Y:-}`), which count as unset.
#[must_use]
pub fn variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name.as_ref()).filter(|value| !is_blank(value))
}

/// Whether a variable's value is empty or blank.
#[must_use]
pub fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|value| value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_variables_count_as_unset() {
        for (value, blank) in [("", true), (" \t\n", true), (" /x", false), ("0", false)] {
            assert_eq!(is_blank(OsStr::new(value)), blank, "{value:?}");
        }
        assert!(variable("PATH").is_some());
        assert!(variable("PHI3V_NOBODY_SETS_THIS").is_none());
    }
}
