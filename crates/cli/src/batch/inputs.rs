//! The inputs of a batch: pictures from folders, names, patterns and lists, or requests as JSON lines.

use super::error::BatchError;
use super::lines::Lines;
use super::passed_over::PassedOver;
use super::pattern::{self, Part};
use crate::bounded;
use crate::paths::{has_picture_ending, is_loose_word, is_read_once, open_named};
use crate::sources::{DATA_URL, as_data_url, http_url, page_name};
use crate::sys::name_of_bytes;
use phi3v::document::{PDF_HEAD_BYTES, is_pdf};
use phi3v::files::read_to_limit;
use phi3v::image::is_picture;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a list or of JSON lines from stdin, which are kept in memory.
pub const STDIN_BYTES_MAX: usize = 256 << 20;

/// A picture to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureItem {
    /// The name used in results: the path below the folder, or the name as given.
    pub id: String,
    /// The picture's path or address.
    pub source: OsString,
    /// The page number, from 1, if the source is a document.
    pub page: Option<usize>,
}

impl PictureItem {
    /// The name used for the whole file, if this item is a page of it.
    #[must_use]
    pub fn file_id(&self) -> Option<&str> {
        self.id.strip_suffix(&page_name("", self.page?))
    }
}

/// The inputs that a batch's names resolve to.
pub enum Inputs {
    /// Pictures, in order, each once.
    Pictures {
        /// The pictures to ask about.
        items: Vec<PictureItem>,
        /// Entries that were named or found and yielded no picture.
        passed_over: Box<PassedOver>,
    },
    /// Requests as JSON lines, which cannot be combined with other inputs.
    Lines(Lines),
}

/// Resolves `names` to inputs; `-` reads from `stdin`. If the only name is a folder, pictures are named by their path within
/// it; otherwise by the name as given. Unreadable folders below the named ones are passed over.
///
/// # Errors
/// An input that cannot be read, a pipe that would have to be read twice, a bad pattern or one that matches no picture, or
/// no picture at all.
pub fn find(names: &[OsString], stdin: &mut dyn Read) -> Result<Inputs, BatchError> {
    if let [name] = names
        && let Some(lines) = lines_of(name, stdin)?
    {
        return Ok(lines);
    }
    let alone = names.len() == 1;
    let mut found = Found::default();
    for name in names {
        let path = Path::new(name);
        match std::fs::metadata(path) {
            _ if name == "-" => found.list(&bytes_of_stdin(stdin)?)?,
            _ if is_read_once(path) => return Err(BatchError::Pipe { path: path.display().to_string() }),
            Ok(metadata) if metadata.is_dir() => {
                let before = found.items.len();
                found.folder(path, if alone { path } else { Path::new("") })?;
                if found.items.len() == before {
                    found.passed_over.empty.push(path.display().to_string());
                }
            }
            Ok(metadata) => {
                if metadata.is_file() && begins_with_brace(path) {
                    return Err(BatchError::Mixed { path: path.display().to_string() });
                }
                found.named(name.clone());
            }
            Err(_) if http_url(name).is_some() => found.named(name.clone()),
            // the whole URL would become the name of its answers
            Err(_) if as_data_url(name).is_some() => {
                let error = io::Error::other("a batch takes pictures that data URLs hold in JSON lines only");
                return Err(BatchError::read(Path::new(DATA_URL), error));
            }
            Err(error) => match name.to_str().filter(|name| name.contains(['*', '?', '['])) {
                Some(pattern) => found.pattern(pattern)?,
                None => return Err(BatchError::read(path, error)),
            },
        }
    }
    found.done(names)
}

impl Inputs {
    /// Refuses two pictures of the same name: a file's name may equal that of another document's page.
    ///
    /// # Errors
    /// [`BatchError::SameId`].
    pub fn check_ids(&self) -> Result<(), BatchError> {
        let Self::Pictures { items, .. } = self else { return Ok(()) };
        let mut named = Named::with_capacity(items.len());
        items.iter().try_for_each(|item| match name_once(&mut named, item)? {
            true => Ok(()),
            false => {
                let source = Path::new(&item.source).display().to_string();
                Err(BatchError::SameId { id: item.id.clone(), first: source.clone(), second: source })
            }
        })
    }
}

/// Replaces `error` if no question was given and the input it names looks like one. An unquoted question arrives word by
/// word, so the names after that input belong to it.
#[must_use]
pub fn unless_a_question(names: &[OsString], error: BatchError) -> BatchError {
    let name = match &error {
        BatchError::Read { path, error } if error.kind() == io::ErrorKind::NotFound => path,
        BatchError::NoPictures { names } => names,
        _ => return error,
    };
    let Some(at) = names.iter().position(|other| other == name.as_str()) else { return error };
    let is_sentence = name.contains(char::is_whitespace) && !has_picture_ending(name);
    let is_there = Path::new(name).exists();
    if is_there || !(is_sentence || (at > 0 && is_loose_word(name))) {
        return error;
    }
    let words =
        names[at..].iter().filter_map(|word| word.to_str()).take_while(|word| !Path::new(word).exists());
    let question = if is_sentence { name.clone() } else { words.collect::<Vec<_>>().join(" ") };
    BatchError::NoPrompt { error: Box::new(error), question }
}

/// Sources by the names of their answers.
type Named<'a> = HashMap<&'a str, &'a OsStr>;

/// Registers a picture's name; returns whether the picture is new.
///
/// # Errors
/// Another picture has the same name.
fn name_once<'a>(named: &mut Named<'a>, item: &'a PictureItem) -> Result<bool, BatchError> {
    let PictureItem { id, source, .. } = item;
    match named.insert(id, source) {
        None => Ok(true),
        // compared as paths: Windows has two separators
        Some(first) if Path::new(first) == Path::new(source) => Ok(false),
        Some(first) => {
            let shown = |source: &OsStr| format!("{}", Path::new(source).display());
            Err(BatchError::SameId { id: id.clone(), first: shown(first), second: shown(source) })
        }
    }
}

/// Requests as JSON lines, if the only name refers to such a file; detected by content.
fn lines_of(name: &OsStr, stdin: &mut dyn Read) -> Result<Option<Inputs>, BatchError> {
    let path = Path::new(name);
    if name == "-" {
        let bytes = bytes_of_stdin(stdin)?;
        if first_letter(&bytes) == Some(b'{') {
            return Ok(Some(Inputs::Lines(Lines::of_bytes(bytes, Path::new("stdin"))?)));
        }
        let mut found = Found::default();
        found.list(&bytes)?;
        return found.done(&[name.to_owned()]).map(Some);
    }
    if is_read_once(path) {
        let refused = |error| BatchError::read(path, error);
        let bytes = bounded::read(path, STDIN_BYTES_MAX).map_err(refused)?;
        return match first_letter(&bytes) {
            Some(b'{') => Ok(Some(Inputs::Lines(Lines::of_bytes(bytes, path)?))),
            _ => Err(BatchError::Pipe { path: path.display().to_string() }),
        };
    }
    if !path.is_dir() && begins_with_brace(path) {
        let file = open_named(path).map_err(|error| BatchError::read(path, error))?;
        return Ok(Some(Inputs::Lines(Lines::of_file(file, path)?)));
    }
    Ok(None)
}

fn bytes_of_stdin(stdin: &mut dyn Read) -> Result<Vec<u8>, BatchError> {
    let refused = |error| BatchError::read(Path::new("stdin"), error);
    let bytes = read_to_limit(stdin, STDIN_BYTES_MAX).map_err(refused)?;
    if bytes.len() > STDIN_BYTES_MAX {
        return Err(refused(crate::bounded::too_large("it", STDIN_BYTES_MAX)));
    }
    Ok(bytes)
}

/// The first byte that is neither whitespace nor part of a byte order mark.
fn first_letter(bytes: &[u8]) -> Option<u8> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn begins_with_brace(path: &Path) -> bool {
    head(path).is_ok_and(|head| first_letter(&head) == Some(b'{'))
}

/// Reads the first bytes of a regular file. A pipe is left alone, as its bytes could not be read again.
pub(super) fn head(path: &Path) -> io::Result<Vec<u8>> {
    if is_read_once(path) {
        return Err(io::Error::other("it is a pipe and not a file"));
    }
    let mut head = Vec::with_capacity(PDF_HEAD_BYTES);
    open_named(path)?.take(PDF_HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Pictures found so far.
#[derive(Default)]
struct Found {
    items: Vec<PictureItem>,
    passed_over: PassedOver,
}

impl Found {
    /// Adds a named picture, whatever it contains: a read error is reported in its row.
    fn named(&mut self, source: OsString) {
        self.items.push(PictureItem { id: with_slashes(Path::new(&source)), source, page: None });
    }

    /// Adds a list of names from stdin, one per line.
    ///
    /// # Errors
    /// A line cannot be a name on this system.
    fn list(&mut self, bytes: &[u8]) -> Result<(), BatchError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if String::from_utf8_lossy(line).trim().is_empty() {
                continue;
            }
            let name = name_of_bytes(line).ok_or_else(|| {
                let reason = format!("its line {} is not UTF-8 text", index + 1);
                BatchError::read(Path::new("stdin"), io::Error::new(io::ErrorKind::InvalidData, reason))
            })?;
            self.named(name);
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), BatchError> {
        let refused = |reason| BatchError::Pattern { pattern: pattern.to_owned(), reason };
        let (begin, parts) = pattern::parts(pattern).map_err(refused)?;
        let before = self.items.len();
        // set aside: it belongs to other inputs
        let earlier = self.passed_over.first_unread.take();
        self.matching(&begin, &parts);
        if self.items.len() == before {
            return Err(self.passed_over.none(pattern.to_owned()));
        }
        self.passed_over.first_unread = earlier.or(self.passed_over.first_unread.take());
        Ok(())
    }

    /// Adds the pictures below `folder` whose relative paths match `parts`, ordered by name. Links to folders are followed if
    /// a part names or matches them, but not under `**`, where a link could lead back here.
    fn matching(&mut self, folder: &Path, parts: &[Part]) {
        let is_deep = matches!(parts, [Part::AnyDepth, ..]);
        let [part, rest @ ..] = &parts[usize::from(is_deep)..] else { return };
        if let Part::Name(name) = part {
            self.matched(&folder.join(name), rest);
            if !is_deep {
                return;
            }
        }
        let entries = match entries(folder) {
            Ok(entries) => entries,
            Err(error) => return self.passed_over.unread(error),
        };
        for (name, kind) in entries {
            let path = folder.join(&name);
            if matches!(part, Part::Pattern(pattern) if pattern.matches(&name.to_string_lossy())) {
                self.matched(&path, rest);
            }
            if is_deep && kind.is_dir() {
                self.matching(&path, parts);
            } else if is_deep && kind.is_symlink() && path.is_dir() {
                self.passed_over.linked.add(&path);
            }
        }
    }

    /// Adds the file at `path`, or, if `parts` remain, the matches in that folder.
    fn matched(&mut self, path: &Path, parts: &[Part]) {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.matching(path, parts),
            Ok(metadata) if metadata.is_file() && parts.is_empty() => self.file(path, Path::new("")),
            Ok(_) if !parts.is_empty() => {}
            told => self.passed_over.no_file(path, told),
        }
    }

    /// Adds the pictures in a folder and below it, ordered by name. Their names are relative to `base`.
    ///
    /// # Errors
    /// The folder itself cannot be read. Unreadable folders below it are passed over.
    fn folder(&mut self, folder: &Path, base: &Path) -> Result<(), BatchError> {
        for (name, kind) in entries(folder)? {
            let path = folder.join(name);
            // links are not followed: one could lead back here
            if kind.is_dir() {
                self.folder(&path, base).unwrap_or_else(|error| self.passed_over.unread(error));
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => self.file(&path, base),
                told => self.passed_over.no_file(&path, told),
            }
        }
        Ok(())
    }

    /// Adds a file if it is a picture, or if it cannot be examined; its row then reports the error.
    fn file(&mut self, path: &Path, base: &Path) {
        let (is_one, is_pdf) = match head(path) {
            Ok(head) => (is_picture(&head) || (cfg!(feature = "pdf") && is_pdf(&head)), is_pdf(&head)),
            Err(error) => (error.kind() != io::ErrorKind::NotFound, false),
        };
        if !is_one {
            self.passed_over.file(path, is_pdf);
            return;
        }
        let id = with_slashes(path.strip_prefix(base).unwrap_or(path));
        self.items.push(PictureItem { id, source: path.into(), page: None });
    }

    fn done(self, names: &[OsString]) -> Result<Inputs, BatchError> {
        let Self { items, mut passed_over } = self;
        if items.is_empty() {
            let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            return Err(passed_over.none(names.join(", ")));
        }
        let mut named = Named::with_capacity(items.len());
        let first = items.iter().map(|item| name_once(&mut named, item)).collect::<Result<Vec<_>, _>>()?;
        let once = items.iter().zip(first).filter(|(_, first)| *first).map(|(item, _)| item.clone());
        Ok(Inputs::Pictures { items: once.collect(), passed_over: Box::new(passed_over) })
    }
}

/// The visible names in a folder, sorted, each with its type; links are not resolved.
fn entries(folder: &Path) -> Result<Vec<(OsString, FileType)>, BatchError> {
    let refused = |error| BatchError::read(folder, error);
    // the folder in which a pattern starts
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(place).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match entry.file_type() {
            Ok(kind) => entries.push((entry.file_name(), kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            Err(error) => return Err(BatchError::read(&folder.join(entry.file_name()), error)),
        }
    }
    entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

/// The path with `/` on every system. Bytes that are not valid Unicode become `\xFF`, so distinct names stay distinct.
fn with_slashes(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    if std::path::MAIN_SEPARATOR == '/' { text } else { text.replace(std::path::MAIN_SEPARATOR, "/") }
}

#[cfg(test)]
mod tests {
    use super::super::passed_over::Passed;
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and more";

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("b/c")).unwrap();
        std::fs::create_dir(dir.path().join(".thumbs")).unwrap();
        for name in ["z.png", "a.PNG", "no-ending", "b/x.jpg", "b/c/y.txt", ".hidden.png", ".thumbs/z.png"] {
            std::fs::write(dir.path().join(name), PNG).unwrap();
        }
        std::fs::write(dir.path().join("photo.heic"), b"\0\0\0\x18ftypheic").unwrap();
        for (name, content) in [("notes.txt", "some notes"), ("b/report.pdf", "%PDF-1.7"), ("empty.png", "")]
        {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn ids(names: &[OsString], stdin: &str) -> Vec<String> {
        let Inputs::Pictures { items, .. } = find(names, &mut stdin.as_bytes()).unwrap() else {
            panic!("lines")
        };
        items.into_iter().map(|item| item.id).collect()
    }

    #[test]
    fn a_folder_gives_what_is_a_picture_by_its_content() {
        let dir = folder();
        let name = dir.path().as_os_str().to_owned();
        let all = ["a.PNG", "b/c/y.txt", "b/report.pdf", "b/x.jpg", "no-ending", "photo.heic", "z.png"];
        let is_read = |name: &&str| cfg!(feature = "pdf") || !name.ends_with("pdf");
        let expected: Vec<&str> = all.into_iter().filter(is_read).collect();
        assert_eq!(ids(std::slice::from_ref(&name), ""), expected);
        let found = find(&[name], &mut io::empty()).unwrap();
        let Inputs::Pictures { passed_over, .. } = found else { panic!("lines") };
        let PassedOver { files, called, pdfs, .. } = *passed_over;
        let first = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!((files, called), (1, Passed { count: 1, first: first("empty.png") }));
        let report = Passed { count: 1, first: dir.path().join("b/report.pdf").display().to_string() };
        assert_eq!(pdfs, if cfg!(feature = "pdf") { Passed::default() } else { report });
    }

    #[test]
    fn several_names_give_each_picture_as_it_was_named_and_once() {
        let dir = folder();
        let below = |name: &str| dir.path().join(name).into_os_string();
        let shown = |name: &str| with_slashes(&dir.path().join(name));
        let names = [below("b"), below("z.png"), below("*.p*"), below("notes.txt"), below("b/x.jpg")];
        let all = ["b/c/y.txt", "b/report.pdf", "b/x.jpg", "z.png", "notes.txt"];
        let is_read = |name: &&str| cfg!(feature = "pdf") || !name.ends_with("pdf");
        let expected: Vec<String> = all.into_iter().filter(is_read).map(shown).collect();
        assert_eq!(ids(&names, ""), expected, "what was named is asked about, whatever is in it");
        let deep = [below("**/*.jpg")];
        assert_eq!(ids(&deep, ""), [shown("b/x.jpg")]);
    }

    #[test]
    fn a_list_gives_what_it_names_there_or_not() {
        let text = "\u{feff}one.png\r\n\n two words.png\nhttps://example.org/a.png\none.png\n";
        let expected = ["one.png", " two words.png", "https://example.org/a.png"];
        assert_eq!(ids(&["-".into()], text), expected);
    }

    #[test]
    fn requests_are_told_by_content_and_come_alone() {
        let dir = folder();
        let path = dir.path().join("requests.txt");
        std::fs::write(&path, "\n {\"custom_id\": \"a\", \"body\": {}}\n").unwrap();
        let lines = |found: Inputs| matches!(found, Inputs::Lines(lines) if lines.ids().eq(["a"]));
        assert!(lines(find(&[path.clone().into()], &mut io::empty()).unwrap()));
        let text = std::fs::read(&path).unwrap();
        assert!(lines(find(&["-".into()], &mut text.as_slice()).unwrap()));
        let refused = find(&[path.into(), dir.path().into()], &mut io::empty());
        assert!(matches!(refused, Err(BatchError::Mixed { .. })));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name: &Path| find(&[name.into()], &mut io::empty()).err().unwrap();
        assert!(matches!(find(&dir.path().join("nope.png")), BatchError::Read { .. }));
        assert!(matches!(find(&dir.path().join("*.png")), BatchError::NoPictures { .. }));
        assert!(matches!(find(&dir.path().join("[")), BatchError::Pattern { .. }));
        assert!(matches!(find(dir.path()), BatchError::NoPictures { .. }));
    }

    #[test]
    fn a_pattern_without_a_picture_is_refused_beside_other_inputs_too() {
        let dir = folder();
        let below = |name: &str| dir.path().join(name).into_os_string();
        for nothing in ["nosuch*.png", "*.txt"] {
            let refused = find(&[below("z.png"), below(nothing)], &mut io::empty()).err().unwrap();
            let BatchError::NoPictures { names } = refused else { panic!("{refused}") };
            assert_eq!(OsString::from(names), below(nothing));
        }
        std::fs::create_dir(below("empty")).unwrap();
        let Ok(Inputs::Pictures { passed_over, .. }) =
            find(&[below("z.png"), below("empty")], &mut io::empty())
        else {
            panic!("a picture was named")
        };
        assert_eq!(passed_over.empty, [below("empty").into_string().unwrap()], "and told");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_read_is_passed_over_below_another() {
        use std::os::unix::fs::PermissionsExt;
        let dir = folder();
        let closed = dir.path().join("b");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let is_root = std::fs::read_dir(&closed).is_ok();
        let found = |name: &Path| find(&[name.as_os_str().to_owned()], &mut io::empty());
        let (all, pattern, itself) = (found(dir.path()), found(&dir.path().join("**/*.*")), found(&closed));
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        if is_root {
            phi3v_kernels::testing::skip("a folder that cannot be read", "root reads every folder");
            return;
        }
        for found in [all, pattern] {
            let Ok(Inputs::Pictures { items, passed_over }) = found else { panic!("nothing was found") };
            assert!(!items.is_empty());
            let first = passed_over.first_unread.unwrap();
            assert!(passed_over.unread == 1 && matches!(first, BatchError::Read { .. }), "{first}");
        }
        assert!(matches!(itself, Err(BatchError::Read { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_no_text_stay_apart() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        for name in [&b"\xfe.png"[..], b"\xff.png", b"\xc3\xa9\n.png"] {
            std::fs::write(dir.path().join(OsStr::from_bytes(name)), PNG).unwrap();
        }
        assert_eq!(ids(&[dir.path().into()], ""), ["\u{e9}\n.png", "\\xFE.png", "\\xFF.png"]);
        let below = |names: [&str; 3]| names.map(|name| format!("{}/{name}", dir.path().display()));
        let all = below(["\u{e9}\n.png", "\\xFE.png", "\\xFF.png"]);
        assert_eq!(ids(&[dir.path().join("*.png").into()], ""), all, "by a pattern too");
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_looked_at_is_told() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = folder();
        let closed = dir.path().join("b/c");
        symlink("x".repeat(300), dir.path().join("b/far.png")).unwrap();
        let told = |pattern: &str| {
            let found = find(&[dir.path().join(pattern).into()], &mut io::empty());
            let Ok(Inputs::Pictures { passed_over, .. }) = found else { panic!("nothing was found") };
            let first = passed_over.first_unread.map(|error| error.to_string()).unwrap_or_default();
            (passed_over.unread, first)
        };
        let patterns = ["b", "b/*", "b/**/*.*"];
        for pattern in patterns {
            let (unread, first) = told(pattern);
            assert!(unread == 1 && first.contains("b/far.png: file name too long"), "{pattern}: {first}");
        }
        std::fs::remove_file(dir.path().join("b/far.png")).unwrap();
        // its names can be read, but not its entries
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o444)).unwrap();
        let is_root = std::fs::metadata(closed.join("y.txt")).is_ok();
        let all = patterns.map(told);
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        if is_root {
            phi3v_kernels::testing::skip("a file that cannot be looked at", "root looks at every file");
            return;
        }
        for index in [0, 2] {
            let (unread, first) = &all[index];
            assert!(*unread == 1 && first.contains("b/c/y.txt: permission denied"), "{first}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn patterns_of_any_depth_follow_no_links_to_folders() {
        use std::os::unix::fs::symlink;
        let dir = folder();
        symlink(".", dir.path().join("around")).unwrap();
        let below = |name: &str| dir.path().join(name).into_os_string();
        let shown = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| with_slashes(&dir.path().join(name))).collect()
        };
        assert_eq!(ids(&[below("**/*.jpg")], ""), shown(&["b/x.jpg"]));
        // two links that form cycles
        symlink(".", dir.path().join("b/around")).unwrap();
        let found = find(&[below("**/*")], &mut io::empty()).unwrap();
        let Inputs::Pictures { items, passed_over } = found else { panic!("lines") };
        assert_eq!(items.len(), if cfg!(feature = "pdf") { 7 } else { 6 });
        let first = dir.path().join("around").display().to_string();
        assert_eq!(passed_over.linked, Passed { count: 2, first });
        // a link that is named, or matched by its own part of the pattern, is followed
        assert_eq!(ids(&[below("around/b/*.jpg")], ""), shown(&["around/b/x.jpg"]));
        assert_eq!(ids(&[below("a*d/z.png")], ""), shown(&["around/z.png"]));
    }

    #[test]
    fn patterns_take_names_part_by_part_and_no_hidden_ones() {
        let dir = folder();
        for (pattern, expected) in [
            ("*.[pP][nN][gG]", &["a.PNG", "z.png"][..]),
            ("?/?/?.txt", &["b/c/y.txt"]),
            ("b/**/y.txt", &["b/c/y.txt"]),
            ("**/c/../x.jpg", &["b/c/../x.jpg"]),
            ("**/b/**/**/*.[jt]*", &["b/c/y.txt", "b/x.jpg"]),
            ("*/x.jpg", &["b/x.jpg"]),
            (".thumbs/*.png", &[".thumbs/z.png"]),
        ] {
            let expected: Vec<String> =
                expected.iter().map(|name| with_slashes(&dir.path().join(name))).collect();
            assert_eq!(ids(&[dir.path().join(pattern).into()], ""), expected, "{pattern}");
        }
        for nothing in ["*hidden*", ".*", "*.png/", "b*x.jpg", "**", "b/*/z.png", "z.png/*"] {
            let found = find(&[dir.path().join(nothing).into()], &mut io::empty());
            assert!(matches!(found, Err(BatchError::NoPictures { .. })), "{nothing}");
        }
    }

    #[test]
    fn a_name_of_a_list_that_is_no_text_is_a_name_where_it_can_be_one() {
        let text = b"a.png\r\n\n\xff.png\nb.png";
        let found = find(&["-".into()], &mut text.as_slice());
        if cfg!(unix) {
            let Ok(Inputs::Pictures { items, .. }) = found else { panic!("it was refused") };
            let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
            assert_eq!(ids, ["a.png", "\\xFF.png", "b.png"]);
        } else {
            let refused = found.err().unwrap().to_string();
            assert!(refused.contains("line 3"), "{refused}");
        }
    }

    #[test]
    fn a_file_called_as_a_page_of_another_is_refused() {
        let item =
            |id: &str, source: &str, page| PictureItem { id: id.to_owned(), source: source.into(), page };
        let of = |items| Inputs::Pictures { items, passed_over: Box::default() };
        let pages = |last: &str| {
            vec![
                item("a.pdf#page=1", "a.pdf", Some(1)),
                item("a.pdf#page=2", "a.pdf", Some(2)),
                item(last, last, None),
            ]
        };
        of(pages("b.png")).check_ids().unwrap();
        let refused = of(pages("a.pdf#page=2")).check_ids().unwrap_err().to_string();
        assert_eq!(refused, "a.pdf#page=2 is the name of two inputs: a.pdf and a.pdf#page=2");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_not_followed_and_devices_are_left_alone() {
        let dir = folder();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("b/up")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("zero.png")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("z.png"), dir.path().join("link.png")).unwrap();
        std::os::unix::fs::symlink("nowhere.png", dir.path().join("broken.png")).unwrap();
        let found = find(&[dir.path().into()], &mut io::empty()).unwrap();
        let Inputs::Pictures { passed_over, .. } = found else { panic!("lines") };
        let PassedOver { dangling, linked, special, .. } = *passed_over;
        let passed = |name: &str| Passed { count: 1, first: dir.path().join(name).display().to_string() };
        let expected = (passed("broken.png"), passed("b/up"), passed("zero.png"));
        assert_eq!((dangling, linked, special), expected);
        let ids = ids(&[dir.path().into()], "");
        assert!(ids.contains(&"link.png".to_owned()) && !ids.contains(&"zero.png".to_owned()));
        assert_eq!(ids.len(), if cfg!(feature = "pdf") { 8 } else { 7 });
    }
}
