//! Labelled pictures: the right answer to each question about each picture.

use super::{Asked, InputError};
use crate::batch::inputs::{self, Inputs};
use crate::bounded;
use crate::paths::{folder_of, system_words};
use crate::sources::as_url;
use phi3v::decide::CHOICES_MAX;
use phi3v::error;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Most bytes of a file of labels.
const BYTES_MAX: usize = 64 << 20;
/// Most lines of a file of labels.
const LINES_MAX: usize = 100_000;

/// Pictures with their labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The questions, with all their choices.
    pub questions: Vec<Asked>,
    /// The pictures, each once.
    pub pictures: Vec<LabelledPicture>,
}

/// A picture, and the right answers to some of the questions.
#[derive(Debug, PartialEq, Eq)]
pub struct LabelledPicture {
    /// Where the picture is: a path, or an address.
    pub image: OsString,
    /// The picture's labels, in input order.
    pub labels: Vec<Label>,
}

/// The right answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Index of the question.
    pub question: usize,
    /// Index of its right choice.
    pub right: usize,
}

/// A line of a file of labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: String,
    prompt: String,
    answer: String,
    choices: Option<Vec<String>>,
}

/// Reads the labels at `path`: a folder of pictures with the question `prompt`, or a file of JSON lines.
///
/// # Errors
/// No labels, or no question.
pub fn find(path: &Path, prompt: Option<&str>) -> Result<Labels, InputError> {
    if let Err(error) = std::fs::metadata(path) {
        let reason = system_words(&error);
        return Err(InputError::Unreadable { path: path.display().to_string(), reason });
    }
    match (path.is_dir(), prompt) {
        (true, Some(prompt)) => of_folder(path, prompt),
        (true, None) => Err(InputError::NoPrompt { path: path.display().to_string() }),
        (false, Some(_)) => Err(InputError::UselessPrompt),
        (false, None) => {
            let refused = |reason| InputError::Labels { path: path.display().to_string(), reason };
            let text = bounded::read_text(path, BYTES_MAX).map_err(|error| refused(system_words(&error)))?;
            parse(&text, folder_of(path)).map_err(refused)
        }
    }
}

/// Reads a folder with a subfolder for each choice, named like the choice.
fn of_folder(path: &Path, prompt: &str) -> Result<Labels, InputError> {
    let refused = |reason| InputError::Labels { path: path.display().to_string(), reason };
    let mut labels = Labels { questions: vec![Asked::new(prompt, &[])], pictures: Vec::new() };
    for (right, folder) in subfolders(path).map_err(refused)?.into_iter().enumerate() {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refused("a subfolder's name is not UTF-8 text".to_owned()))?;
        labels.questions[0].choices.push(name.to_owned());
        let found = inputs::find(&[folder.into_os_string()], &mut std::io::empty());
        let Inputs::Pictures { items, passed_over } = found.map_err(|error| refused(error.to_string()))?
        else {
            continue; // a folder contains the pictures
        };
        passed_over.tell_named();
        passed_over.tell_unread();
        let label = Label { question: 0, right };
        let picture = |item: inputs::PictureItem| LabelledPicture { image: item.source, labels: vec![label] };
        labels.pictures.extend(items.into_iter().map(picture));
    }
    checked(labels).map_err(refused)
}

/// The subfolders of a folder, ordered by name, without those that begin with a dot.
fn subfolders(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut folders: Vec<PathBuf> = entries
        .map_err(|error| system_words(&error))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .filter(|folder| folder.is_dir() && !leads_back(folder, path))
        .collect();
    folders.sort();
    Ok(folders)
}

/// Whether `folder` is a link to `path` or to a folder above it: its pictures would belong to other choices.
fn leads_back(folder: &Path, path: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(path).zip(real(folder)).is_some_and(|(path, folder)| path.starts_with(folder))
}

/// Reads labels as JSON lines. Pictures are addresses, absolute paths, or paths below `folder`. A question has the choices of
/// its first line that lists any, or else all right answers of its lines.
///
/// # Errors
/// What is wrong, worded to follow the file's name.
pub fn parse(text: &str, folder: &Path) -> Result<Labels, String> {
    let lines = read_lines(text.trim_start_matches('\u{feff}'))?;
    let mut labels = Labels::default();
    let (mut questions, mut pictures) = (HashMap::new(), HashMap::new());
    for (_, line) in &lines {
        let index = *questions.entry(line.prompt.clone()).or_insert_with(|| {
            labels.questions.push(Asked::new(&line.prompt, &[]));
            labels.questions.len() - 1
        });
        let choices = &mut labels.questions[index].choices;
        if let Some(named) = line.choices.as_ref().filter(|_| choices.is_empty()) {
            choices.clone_from(named);
        }
    }
    let named: Vec<bool> = labels.questions.iter().map(|question| !question.choices.is_empty()).collect();
    for (number, line) in lines {
        let question = questions[&line.prompt];
        let choices = &mut labels.questions[question].choices;
        let right = match choices.iter().position(|choice| *choice == line.answer) {
            Some(right) => right,
            None if named[question] => {
                return Err(format!("line {number}: the answer {:?} is none of the choices", line.answer));
            }
            None => {
                choices.push(line.answer);
                choices.len() - 1
            }
        };
        let image = OsStr::new(&line.image);
        let is_address = as_url(image).is_some();
        let image = if is_address { line.image.into() } else { folder.join(&line.image).into_os_string() };
        let index = *pictures.entry(image.clone()).or_insert_with(|| {
            labels.pictures.push(LabelledPicture { image, labels: Vec::new() });
            labels.pictures.len() - 1
        });
        labels.pictures[index].labels.push(Label { question, right });
    }
    checked(labels)
}

/// The non-empty lines with their numbers.
fn read_lines(text: &str) -> Result<Vec<(usize, Line)>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        let line = serde_json::from_str::<Line>(line);
        line.map(|line| (index + 1, line)).map_err(|error| {
            let reason = error.to_string().replace("struct Line", "an object with image, prompt and answer");
            format!("line {}: {reason}", index + 1)
        })
    };
    let lines: Vec<_> = lines.take(LINES_MAX + 1).map(read).collect::<Result<_, _>>()?;
    if lines.len() > LINES_MAX {
        Err(format!("there are more than {LINES_MAX} lines, the limit"))
    } else {
        Ok(lines)
    }
}

fn checked(labels: Labels) -> Result<Labels, String> {
    if labels.pictures.is_empty() {
        return Err("there is no labelled picture".to_owned());
    }
    for question in &labels.questions {
        let count = question.choices.len();
        if !(2..=CHOICES_MAX).contains(&count) {
            let (prompt, answers) = (&question.prompt, error::count(count, "different answer"));
            return Err(format!("{prompt:?} has {answers}, it must have 2 to {CHOICES_MAX}"));
        }
        if question.prompt.trim().is_empty() {
            return Err("a question is empty".to_owned());
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_gathered_by_picture_and_by_question() {
        let text = r#"
            {"image": "a.png", "prompt": "Is it red?", "answer": "no"}
            {"image": "b/b.png", "prompt": "Is it red?", "answer": "yes"}

            {"image": "a.png", "prompt": "What is it?", "answer": "a cat", "choices": ["a dog", "a cat", "a hen"]}
            {"image": "/c.png", "prompt": "What is it?", "answer": "a hen"}
            {"image": "https://example.org/d.png", "prompt": "Is it red?", "answer": "no"}"#;
        let Labels { questions, pictures } = parse(text, Path::new("folder")).unwrap();
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
        let kinds = Asked::new("What is it?", &words(&["a dog", "a cat", "a hen"]));
        assert_eq!(questions, [Asked::new("Is it red?", &words(&["no", "yes"])), kinds]);
        let told: Vec<(&Path, Vec<(usize, usize)>)> = pictures
            .iter()
            .map(|picture| {
                let labels = picture.labels.iter().map(|label| (label.question, label.right));
                (Path::new(&picture.image), labels.collect())
            })
            .collect();
        let expected = [
            ("folder/a.png", vec![(0, 0), (1, 1)]),
            ("folder/b/b.png", vec![(0, 1)]),
            ("/c.png", vec![(1, 2)]),
            ("https://example.org/d.png", vec![(0, 0)]),
        ];
        assert_eq!(told, expected.map(|(image, labels)| (Path::new(image), labels)));
    }

    #[test]
    fn what_says_too_little_is_refused() {
        let line = |answer: &str, more: &str| {
            format!(r#"{{"image": "a.png", "prompt": "Is it?", "answer": "{answer}"{more}}}"#)
        };
        for (text, told) in [
            (String::new(), "there is no labelled picture"),
            (line("yes", ""), "\"Is it?\" has 1 different answer, it must have 2 to 255"),
            (format!("\n{}", line("yes", r#", "x": 1"#)), "line 2: unknown field `x`"),
            ("[]".to_owned(), "line 1"),
            ("1".to_owned(), "expected an object with image, prompt and answer"),
            (
                line("maybe", r#", "choices": ["yes", "no"]"#),
                "line 1: the answer \"maybe\" is none of the choices",
            ),
            ("\n".repeat(3) + "{", "line 4: EOF"),
        ] {
            let refused = parse(&text, Path::new("")).unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }

    #[test]
    fn a_folder_s_subfolders_are_the_choices() {
        let dir = tempfile::tempdir().unwrap();
        let refused = find(dir.path(), Some("Is it?")).unwrap_err().to_string();
        assert!(refused.ends_with("there is no labelled picture"), "{refused}");
        for (folder, names) in [("yes", &["a.png", "b.png"][..]), ("no", &["c.png"]), (".git", &["d.png"])] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            for name in names {
                std::fs::write(dir.path().join(folder).join(name), b"\x89PNG\r\n\x1a\n").unwrap();
            }
        }
        std::fs::write(dir.path().join("readme.txt"), "x").unwrap();
        #[cfg(unix)]
        for (link, to) in [("same", "."), ("around", "..")] {
            std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
        }
        let labels = find(dir.path(), Some("Is it?")).unwrap();
        assert_eq!(labels.questions, [Asked::new("Is it?", &["no".to_owned(), "yes".to_owned()])]);
        let right: Vec<usize> = labels.pictures.iter().map(|picture| picture.labels[0].right).collect();
        assert_eq!(right, [0, 1, 1]);
        assert!(Path::new(&labels.pictures[1].image).ends_with("yes/a.png"), "{labels:?}");
        assert!(matches!(find(dir.path(), None), Err(InputError::NoPrompt { .. })));
        let absent = dir.path().join("absent");
        assert!(matches!(find(&absent, Some("Is it?")), Err(InputError::Unreadable { .. })));
        let file = dir.path().join("labels.jsonl");
        std::fs::write(&file, "{}").unwrap();
        assert!(matches!(find(&file, Some("Is it?")), Err(InputError::UselessPrompt)));
        assert!(matches!(find(&file, None), Err(InputError::Labels { .. })));
    }
}
