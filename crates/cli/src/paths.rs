//! Paths given by users and variables, and the files they lead to.

use crate::sys;
use crate::variables::is_blank;
use phi3v::files::{check_regular, is_full, open_regular};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The folder that contains a file; the working folder for a bare name.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether two paths lead to the same place, even if nothing exists there. macOS and Windows volumes usually ignore letter
/// case: an existing file decides it, and paths without a file are compared without case on these systems.
#[must_use]
pub fn lead_to_one_place(a: &Path, b: &Path) -> bool {
    if a.exists() || b.exists() {
        return sys::lead_to_one_file(a, b);
    }
    let (folder_a, folder_b) = (folder_of(a), folder_of(b));
    a.file_name().map(folded) == b.file_name().map(folded)
        && (folder_a == folder_b || sys::lead_to_one_file(folder_a, folder_b))
}

/// A key for a name or path that is equal for all spellings usually equivalent on this system.
#[must_use]
pub fn folded(name: impl AsRef<Path>) -> PathBuf {
    folded_on(sys::FOLDS_CASE, name.as_ref())
}

fn folded_on(folds_case: bool, name: &Path) -> PathBuf {
    if folds_case { name.to_string_lossy().to_lowercase().into() } else { name.to_owned() }
}

/// Replaces a leading `~` by the user's folder, if no shell has done so.
#[must_use]
pub fn from_home(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    match (path.strip_prefix("~"), home()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Replaces variables in the path, `$NAME` and `${NAME}` and on Windows also `%NAME%`, by their values from `get`, as the
/// hub's tools do.
#[must_use]
pub fn with_variables(path: PathBuf, get: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    with_variables_behind(sys::SIGNS_OF_VARIABLES, path, get)
}

/// Like `with_variables`, for variables introduced by `signs`.
fn with_variables_behind(signs: &[char], path: PathBuf, get: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let Some(text) = path.to_str() else { return path };
    let (mut made, mut rest) = (OsString::new(), text);
    while let Some(at) = rest.find(signs) {
        let (before, named) = rest.split_at(at);
        made.push(before);
        let (sign, after) = named.split_at(1);
        let (name, after) = named_variable(sign, after).unwrap_or(("", after));
        let as_it_stands = &named[..named.len() - after.len()];
        made.push(Some(name).filter(|name| !name.is_empty()).and_then(&get).unwrap_or(as_it_stands.into()));
        rest = after;
    }
    made.push(rest);
    made.into()
}

/// Splits `text`, which follows `sign`, into a variable's name and the rest.
fn named_variable<'a>(sign: &str, text: &'a str) -> Option<(&'a str, &'a str)> {
    if sign == "%" {
        return text.split_once('%');
    }
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let is_end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let named = text.split_at(text.find(is_end).unwrap_or(text.len()));
    (!named.0.is_empty()).then_some(named)
}

/// The user's cache folder, from the variables returned by `get`: `XDG_CACHE_HOME`, with variables in it replaced; on Windows
/// `LOCALAPPDATA`; or else `~/.cache`.
pub fn user_cache(get: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    cache_folder(get, sys::CACHE_VARIABLE)
}

/// The folder that contains the cache of the hub's own tools, the same on every system: `XDG_CACHE_HOME`, or else `~/.cache`.
pub fn shared_cache(get: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    cache_folder(get, None)
}

fn cache_folder(get: impl Fn(&str) -> Option<OsString>, of_system: Option<&str>) -> PathBuf {
    let given = |name: &str| get(name).filter(|value| !is_blank(value)).map(from_home);
    let folder = given("XDG_CACHE_HOME").map(|path| with_variables(path, &get));
    let folder = folder.or_else(|| given(of_system?));
    folder.unwrap_or_else(|| home().unwrap_or_default().join(".cache"))
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !is_blank(home.as_os_str()))
}

/// Refuses a user-named file that is not a regular file or whose opening would block.
///
/// # Errors
/// As for [`open_named`].
pub fn check_named(path: &Path) -> std::io::Result<()> {
    if sys::is_own_descriptor(path) { Ok(()) } else { check_regular(path) }
}

/// Opens a file that the user named for reading: a regular file, or one that a shell has already opened for the program, such
/// as `/dev/stdin` or bash's `<(...)`, which may be a pipe.
///
/// # Errors
/// The system's error, or our own message for a folder, a pipe, a device or a socket.
pub fn open_named(path: &Path) -> std::io::Result<File> {
    if sys::is_own_descriptor(path) { File::open(path) } else { open_regular(path) }
}

/// Reads at most `bytes_max` bytes of a small text that a program has stored in a file. `None` if there is no regular file
/// with the name, or its content is not text.
pub fn noted_text(path: &Path, bytes_max: u64) -> Option<String> {
    let mut text = String::new();
    open_regular(path).ok()?.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether the path leads to a pipe or the like that a shell opened for the program: what is read from it is gone.
#[must_use]
pub fn is_read_once(path: &Path) -> bool {
    sys::is_own_descriptor(path) && std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// The word, quoted if a shell would otherwise split or change it.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    sys::quoted(word)
}

/// Extensions of pictures and photographs, including unsupported ones, whose users need an error message.
const PICTURE_ENDINGS: &[&str] = &[
    "arw", "avif", "bmp", "cr2", "cr3", "crw", "dng", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg",
    "jpg", "jxl", "mrw", "nef", "orf", "pef", "png", "raf", "rw2", "tif", "tiff", "webp", "x3f",
];
/// Extensions of documents and videos that pictures are taken from, including unsupported ones.
const ENDINGS_OF_SEVERAL: &[&str] =
    &["3gp", "avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "pdf", "webm", "wmv"];

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

/// Whether a name has a picture's extension.
#[must_use]
pub fn is_called_a_picture(name: &str) -> bool {
    has_ending(name, PICTURE_ENDINGS)
}

/// Whether a name has the extension of a picture, a document or a video.
#[must_use]
pub fn has_picture_ending(name: &str) -> bool {
    is_called_a_picture(name) || has_ending(name, ENDINGS_OF_SEVERAL)
}

/// Whether a word that names no file is probably part of a question rather than a wrong file name.
#[must_use]
pub fn is_loose_word(word: &str) -> bool {
    !word.contains(['/', '\\', '*', '[']) && !word.contains("://") && !has_picture_ending(word)
}

/// The advice for a file that cannot be written.
#[must_use]
pub fn unwritable(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "make the folder first, or give another path",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give a path in a folder that you may write to"
        }
        ErrorKind::InvalidFilename => "give a shorter name",
        ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::InvalidInput => {
            "give the path of a file"
        }
        ErrorKind::FileTooLarge => {
            "raise the limit on the size of files (ulimit -f), or write to another disk"
        }
        _ if is_full(error) => "free some space, or write to another disk",
        // a link, a pipe or a device, which are refused with our own message
        ErrorKind::Other => "give the path of another file",
        _ => "try again, or write to another disk",
    }
}

/// The system's message for an error, without the number in brackets that Rust adds, and without the full stop of Windows.
#[must_use]
pub fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_many_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let one = |a: &str, b: &str| lead_to_one_place(&path(a), &path(b));
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path("a"), "x").unwrap();
        std::fs::write(path("c"), "x").unwrap();
        assert!(one("a", "in/../a") && one("b", "./in/../b") && one("nowhere/a", "nowhere/a"));
        assert!(!one("a", "b") && !one("a", "c") && !one("in/a", "a") && !one("nowhere/a", "a"));
        // without a file, the system's usual rule applies; with a file, the actual one
        let folds = cfg!(any(target_os = "macos", windows));
        assert_eq!(one("new", "in/../NEW"), folds);
        assert_eq!(one("a", "A"), path("A").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_its_file_are_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "x").unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        assert!(lead_to_one_place(&path("link"), &path("a")));
    }

    #[test]
    fn what_is_called_as_a_picture_is_no_word_of_a_question() {
        for (name, picture, word) in [
            ("a.JPG", true, false),
            ("IMG_7.nef", true, false),
            ("a.b.heif", true, false),
            ("report.pdf", false, false),
            ("trip.mov", false, false),
            ("trip.AVI", false, false),
            ("clip.m4v", false, false),
            ("jpg", false, true),
            ("etc.", false, true),
        ] {
            assert_eq!((is_called_a_picture(name), is_loose_word(name)), (picture, word), "{name}");
        }
    }

    #[test]
    fn names_are_folded_where_case_is() {
        let folded = |folds, name| folded_on(folds, Path::new(name)).to_str().unwrap().to_owned();
        assert_eq!(folded(true, "Bilder/GRÖSSE.Jsonl"), "bilder/grösse.jsonl");
        assert_eq!(folded(false, "Bilder/GRÖSSE.Jsonl"), "Bilder/GRÖSSE.Jsonl");
    }

    #[test]
    fn the_users_folders() {
        let Some(home) = std::env::home_dir() else { return };
        assert_eq!(from_home("~/x"), home.join("x"));
        assert_eq!(from_home("~"), home);
        assert_eq!(from_home("~other/x"), Path::new("~other/x"));
        assert_eq!(from_home("/a/~/x"), Path::new("/a/~/x"));
        let cache = |value: &'static str| user_cache(move |_| Some(value.into()));
        assert_eq!(cache("/nowhere/cache"), Path::new("/nowhere/cache"));
        assert_eq!(cache("~/there"), home.join("there"));
        assert_eq!(cache(""), home.join(".cache"));
        assert_eq!(cache(" "), home.join(".cache"));
    }

    #[test]
    fn variables_within_a_path_have_their_values() {
        let get = |name: &str| match name {
            "A" => Some("/a".into()),
            "B_1" => Some("$A".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        };
        for (path, expected) in [
            ("$A/x", "/a/x"),
            ("${A}x/$B_1", "/ax/$A"),
            ("x$EMPTY${EMPTY}y", "xy"),
            ("$NONE/${NONE}/$/${/$$A", "$NONE/${NONE}/$/${/$/a"),
            ("/no/variables", "/no/variables"),
            ("$", "$"),
            ("${NONE$A}", "${NONE$A}"),
        ] {
            for signs in [&['$'][..], &['$', '%']] {
                assert_eq!(with_variables_behind(signs, path.into(), get), Path::new(expected), "{path}");
            }
        }
        for (path, expected) in [
            ("%A%/x", "/a/x"),
            ("x%EMPTY%%B_1%y$A", "x$Ay/a"),
            ("%NONE%/%/%%/%A", "%NONE%/%/%%/%A"),
            ("%NONE%A%", "%NONE%A%"),
        ] {
            let made = with_variables_behind(&['$', '%'], path.into(), get);
            assert_eq!(made, Path::new(expected), "{path}");
        }
        assert_eq!(with_variables_behind(&['$'], "%A%".into(), get), Path::new("%A%"));
    }

    #[test]
    fn what_phi3v_makes_is_kept_where_the_system_has_such_things() {
        let Some(home) = std::env::home_dir() else { return };
        let local: fn(&str) -> Option<OsString> = |name| (name == "LOCALAPPDATA").then(|| "/local".into());
        let both: fn(&str) -> Option<OsString> = |name| match name {
            "LOCALAPPDATA" => Some("/local".into()),
            "XDG_CACHE_HOME" => Some("/cache".into()),
            _ => None,
        };
        let within: fn(&str) -> Option<OsString> = |name| match name {
            "XDG_CACHE_HOME" => Some("$SCRATCH/cache".into()),
            "SCRATCH" => Some("/scratch".into()),
            _ => None,
        };
        for folder in [user_cache(within), shared_cache(within)] {
            assert_eq!(folder, Path::new("/scratch/cache"), "one folder for downloads and copies");
        }
        let own = Some("LOCALAPPDATA");
        assert_eq!(cache_folder(local, own), Path::new("/local"));
        assert_eq!(cache_folder(both, own), Path::new("/cache"), "who sets it means it");
        assert_eq!(cache_folder(|_| None, own), home.join(".cache"));
        assert_eq!(cache_folder(|name| local(name).map(|_| " ".into()), own), home.join(".cache"));
        assert_eq!(shared_cache(local), home.join(".cache"), "as the hub's tools have it on Windows");
        assert_eq!(shared_cache(both), Path::new("/cache"));
        let expected = if cfg!(windows) { PathBuf::from("/local") } else { home.join(".cache") };
        assert_eq!(user_cache(local), expected);
    }
}
