//! Patterns for names, as `photos/**/*.jpg`, taken apart.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf, is_separator};

/// What stands between two separators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A name, which is no pattern.
    Name(OsString),
    /// What a name has to be like. Of one that is no text it is what would be shown.
    Pattern(glob::Pattern),
    /// `**`: any number of folders.
    AnyDepth,
}

/// Where the paths of a pattern begin, which is nowhere for those from the working folder, and its parts. A last `**` stands for
/// what is no file, as behind a last separator.
///
/// # Errors
/// It is no pattern: what is wrong with it.
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
