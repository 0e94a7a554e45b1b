//! Tab completion at the prompt of `chat`: commands, and paths after `/image`.

use crate::paths::from_home;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// The commands that Tab completes.
const COMMANDS: [&str; 5] = ["/image ", "/paste", "/reset", "/help", "/quit"];

/// Completes the line of a prompt.
pub(super) struct Completion(FilenameCompleter);

impl Completion {
    pub(super) fn new() -> Self {
        Self(FilenameCompleter::new())
    }

    /// Where the completed word begins in `line`, and the candidates for it.
    fn candidates(&self, line: &str) -> rustyline::Result<(usize, Vec<Pair>)> {
        if let Some(path) = line.strip_prefix("/image ") {
            let begin = line.len() - path.trim_start().len();
            let path = path.trim_start();
            if path.starts_with("~/") {
                let expanded = from_home(path).to_string_lossy().into_owned();
                let (_, pairs) = self.0.complete_path(&expanded, expanded.len())?;
                return Ok((begin, pairs));
            }
            let (word, pairs) = self.0.complete_path(path, path.len())?;
            return Ok((begin + word, pairs));
        }
        let fits = |command: &&&str| line.starts_with('/') && command.starts_with(line);
        let pair =
            |command: &str| Pair { display: command.trim().to_owned(), replacement: command.to_owned() };
        Ok((0, COMMANDS.iter().filter(fits).map(|command| pair(command)).collect()))
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        self.candidates(&line[..pos])
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> (usize, Vec<String>) {
        let (begin, pairs) = Completion::new().candidates(line).unwrap();
        (begin, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn commands_and_paths_are_completed() {
        assert_eq!(offered("/i"), (0, vec!["/image ".to_owned()]));
        assert_eq!(offered("/").1.len(), COMMANDS.len());
        assert_eq!(offered("What").1, Vec::<String>::new());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cover one.png"), "").unwrap();
        let typed = format!("/image {}", folder.path().join("cov").display());
        let whole = folder.path().join("cover one.png").display().to_string();
        // each in the form that a line accepts
        let whole = if cfg!(windows) { format!("\"{whole}") } else { whole.replace(' ', "\\ ") };
        assert_eq!(offered(&typed), (7, vec![whole]));
    }
}
