//! Paths as people type them for a shell or drop them on a terminal.

use crate::paths::from_home;
use crate::paths::has_picture_ending;
use crate::sys::BACKSLASH_ESCAPES;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Parses a path as typed for a shell or dropped on a terminal: in quotes, starting with `~/`, or with backslashes.
pub(super) fn typed(path: &str) -> OsString {
    // on Windows, Tab opens a quote and leaves it open
    let unquoted = |quote| path.strip_prefix(quote).map(|rest| rest.strip_suffix(quote).unwrap_or(rest));
    let inner = ['"', '\''].into_iter().find_map(unquoted).filter(|inner| !inner.is_empty());
    let path = inner.unwrap_or(path);
    if inner.is_some() || Path::new(path).exists() {
        return path.into();
    }
    let mut plain = String::new();
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        let escaped = if BACKSLASH_ESCAPES && letter == '\\' { letters.next() } else { None };
        plain.push(escaped.unwrap_or(letter));
    }
    from_home(&plain).into()
}

/// The pictures that a question names by the paths of existing files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The files.
    pub(super) pictures: Vec<PathBuf>,
    /// The question without the paths at its start and end, which were dropped rather than typed.
    pub(super) question: String,
    /// Whether the line begins with a path.
    pub(super) first: bool,
}

/// Finds pictures in a line. An absolute path to an existing file at its beginning counts as a picture whatever its name: the
/// line is not a command.
pub(super) fn named(line: &str) -> Named {
    if let Some(picture) = picture(line.trim()).or_else(|| absolute(line.trim_end())) {
        return Named { pictures: vec![picture], question: String::new(), first: true };
    }
    let words = words(line);
    let found: Vec<Option<PathBuf>> = words
        .iter()
        .enumerate()
        .map(|(index, word)| {
            let named = picture(word).or_else(|| picture(word.trim_end_matches(PUNCTUATION)));
            named.or_else(|| absolute(word).filter(|_| index == 0 && line.starts_with('/')))
        })
        .collect();
    let pictures: Vec<PathBuf> = found.iter().flatten().cloned().collect();
    let Some(first) = found.iter().position(Option::is_none) else {
        return Named { first: !pictures.is_empty(), pictures, question: String::new() };
    };
    let end = found.iter().rposition(Option::is_none).map_or(first, |last| last + 1);
    // a path that ends a sentence is a part of it: "what is in cat.png?"
    let complete = words[end - 1].ends_with(['?', '.', '!', ':']);
    let said = if complete { &words[first..end] } else { &words[first..] };
    Named { pictures, question: said.join(" "), first: first > 0 }
}

const PUNCTUATION: [char; 7] = ['?', '.', '!', ':', ';', ',', ')'];

fn picture(word: &str) -> Option<PathBuf> {
    let path = PathBuf::from(typed(word));
    (has_picture_ending(&path.to_string_lossy()) && path.is_file()).then_some(path)
}

/// The file at an absolute path; a command is a single name without a folder.
fn absolute(word: &str) -> Option<PathBuf> {
    let path = PathBuf::from(typed(word));
    (word.strip_prefix('/')?.contains('/') && path.is_file()).then_some(path)
}

/// The words of a line; whitespace in quotes or after a backslash belongs to the word.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut begin, mut quote, mut escaped) = (Vec::new(), None, None, false);
    for (at, letter) in line.char_indices() {
        let blank = letter.is_whitespace() && !escaped && quote.is_none();
        match (begin, blank) {
            (Some(from), true) => {
                words.push(&line[from..at]);
                begin = None;
            }
            (None, false) => {
                begin = Some(at);
                // neither an apostrophe within a word nor an unclosed one is a quote
                let closed = line[at + letter.len_utf8()..].contains(letter);
                quote = Some(letter).filter(|letter| matches!(letter, '"' | '\'') && closed);
            }
            _ if quote == Some(letter) => quote = None,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
    }
    words.extend(begin.map(|from| &line[from..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_no_part_of_a_path_closed_or_not() {
        for path in ["\"a b.png\"", "'a b.png'", "\"a b.png", "a b.png"] {
            assert_eq!(typed(path), "a b.png");
        }
        assert_eq!(typed("\""), "\"");
    }

    #[cfg(unix)]
    #[test]
    fn pictures_are_found_as_they_are_typed_and_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (cat, dog) = (folder.path().join("cat.png"), folder.path().join("my dog.jpeg"));
        let scan = folder.path().join("scan 7");
        for file in [&cat, &dog, &scan] {
            std::fs::write(file, "").unwrap();
        }
        let (c, d) = (cat.display().to_string(), dog.display().to_string());
        let s = scan.display().to_string().replace(' ', "\\ ");
        let escaped = d.replace(' ', "\\ ");
        let both = vec![cat.clone(), dog.clone()];
        for (line, pictures, question) in [
            (c.clone(), vec![cat.clone()], String::new()),
            (d.clone(), vec![dog.clone()], String::new()),
            (format!(" '{d}' "), vec![dog.clone()], String::new()),
            (format!("{escaped} What's this?"), vec![dog.clone()], "What's this?".to_owned()),
            (format!("What is this? {c}"), vec![cat.clone()], "What is this?".to_owned()),
            (format!("What is in {c}?"), vec![cat.clone()], format!("What is in {c}?")),
            (format!("What is in {c}"), vec![cat.clone()], format!("What is in {c}")),
            (
                format!("Compare {c} and \"{d}\", please."),
                both.clone(),
                format!("Compare {c} and \"{d}\", please."),
            ),
            (format!("{c} {escaped}"), both, String::new()),
            (format!("{c}x What?"), vec![], format!("{c}x What?")),
            ("It's John's, isn't it?".to_owned(), vec![], "It's John's, isn't it?".to_owned()),
            // no command begins like this, whatever the file's name
            (s.clone(), vec![scan.clone()], String::new()),
            (scan.display().to_string(), vec![scan.clone()], String::new()),
            (format!("{s} What is it?"), vec![scan.clone()], "What is it?".to_owned()),
            (format!(" {s} is it?"), vec![], format!("{s} is it?")),
            (format!("What is {s}?"), vec![], format!("What is {s}?")),
            (format!("{s}x What?"), vec![], format!("{s}x What?")),
            (folder.path().display().to_string(), vec![], folder.path().display().to_string()),
        ] {
            let found = named(&line);
            assert_eq!((found.pictures, found.question), (pictures, question), "{line}");
        }
    }
}
