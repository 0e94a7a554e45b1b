//! Parses name patterns such as `photos/**/*.jpg`.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf, is_separator};

/// One component of a pattern, between two separators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A literal name.
    Name(OsString),
    /// A pattern that a name must match. A name that is not valid Unicode is matched as it would be displayed.
    Pattern(glob::Pattern),
    /// `**`: any number of folders.
    AnyDepth,
}

/// The folder a pattern starts from (empty: the working folder) and its parts. A trailing `**` matches no file, as after a
/// trailing separator.
///
/// # Errors
/// The pattern is invalid; the error says why.
pub(super) fn parts(pattern: &str) -> Result<(PathBuf, Vec<Part>), &'static str> {
    let parsed = |text: &str| glob::Pattern::new(text).map_err(|error| error.msg);
    parsed(pattern)?;
    let (mut begin, mut parts) = (PathBuf::new(), Vec::new());
    for component in Path::new(pattern).components() {
        let text = component.as_os_str().to_string_lossy();
        parts.push(match component {
            Component::Prefix(_) | Component::RootDir => {
                begin.push(component);
                continue;
            }
            Component::CurDir => continue,
            _ if text == "**" => Part::AnyDepth,
            _ if text.contains(['*', '?', '[']) => Part::Pattern(parsed(&text)?),
            _ => Part::Name(component.as_os_str().to_owned()),
        });
    }
    if pattern.ends_with(is_separator) {
        parts.push(Part::AnyDepth);
    }
    parts.dedup_by(|one, other| *one == Part::AnyDepth && *other == Part::AnyDepth);
    Ok((begin, parts))
}
