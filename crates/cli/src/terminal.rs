//! Output of the program: answers to stdout, everything else to stderr, and what may be shown on a terminal.
//!
//! A picture can make the model say anything, and a file can have any name. Stderr may be a pipe that nobody reads or a full
//! disk: its messages never justify losing the answer, so write errors are ignored. Nothing else in this crate writes to
//! stdout or stderr, except for the bars.

use crate::variables::variable;
use phi3v::engine::Token;
use phi3v::words::{EVEN_MIN, SURE_MIN, Word, WordStream};
use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether notes are suppressed; a process has only one stderr.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Suppresses notes and bars from now on: `--quiet`.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether notes and bars are suppressed by `--quiet`.
#[must_use]
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line to stderr without terminal control characters: an error, or requested output. Use it through
/// [`tell!`](crate::tell).
pub fn write_line(line: fmt::Arguments<'_>) {
    // a single write, so that lines of several threads do not mix
    let line = format!("{line}\n");
    let _ = std::io::stderr().write_all(printable(&line).as_bytes());
}

/// Writes an unrequested line to stderr, unless the user wants quiet. Use it through [`note!`](crate::note).
pub fn write_note(line: fmt::Arguments<'_>) {
    if !is_quiet() {
        write_line(line);
    }
}

/// Writes a line to stderr, formatted as by `format!`: an error, or requested output. Write errors are ignored.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::terminal::write_line(format_args!($($words)*)) };
}

/// Writes an unrequested line to stderr, formatted as by `format!`; `--quiet` suppresses it. Write errors are ignored.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => { $crate::terminal::write_note(format_args!($($words)*)) };
}

/// Writes a command's result to stdout: unchanged, or without control characters on a terminal.
///
/// # Errors
/// stdout cannot be written to.
pub fn print(result: impl fmt::Display) -> std::io::Result<()> {
    AnswerOutput::new().piece(&result.to_string())
}

/// `text` without terminal control characters; line breaks and tabs stay.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if text.contains(obeyed) { Cow::Owned(text.replace(obeyed, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Stdout for answers: unchanged, or without control characters on a terminal.
pub struct AnswerOutput {
    stdout: std::io::Stdout,
    terminal: bool,
}

impl AnswerOutput {
    /// The process's stdout; checks once, now, whether it is a terminal.
    #[must_use]
    pub fn new() -> Self {
        let stdout = std::io::stdout();
        Self { terminal: stdout.is_terminal(), stdout }
    }
}

impl Default for AnswerOutput {
    fn default() -> Self {
        Self::new()
    }
}

/// Receives the pieces of an answer in order.
pub trait TextSink {
    /// Takes a piece, which becomes readable at once.
    ///
    /// # Errors
    /// The reader is gone, or the system refuses the write.
    fn piece(&mut self, text: &str) -> std::io::Result<()>;

    /// Takes a token of an answer.
    ///
    /// # Errors
    /// As for [`piece`](Self::piece).
    fn token(&mut self, token: &Token) -> std::io::Result<()> {
        self.piece(&token.text)
    }

    /// Takes the text at the end of an answer.
    ///
    /// # Errors
    /// As for [`piece`](Self::piece).
    fn end(&mut self, text: &str) -> std::io::Result<()> {
        self.piece(text)
    }
}

/// Stdout for answers, with words that the model was unsure of in colour: yellow, or red if the word is more likely wrong than
/// right. A word is written once it is complete.
pub struct ShadedOutput {
    out: AnswerOutput,
    shades: Shades,
}

impl ShadedOutput {
    /// The process's stdout, for use if it shows colours ([`has_colours`]).
    #[must_use]
    pub fn new() -> Option<Self> {
        let out = AnswerOutput::new();
        has_colours(&out.stdout).then(|| Self { out, shades: Shades::default() })
    }

    fn write(&mut self, shaded: &str) -> std::io::Result<()> {
        self.out.stdout.write_all(shaded.as_bytes())?;
        self.out.stdout.flush()
    }
}

impl TextSink for ShadedOutput {
    fn piece(&mut self, text: &str) -> std::io::Result<()> {
        self.out.piece(text)
    }

    fn token(&mut self, token: &Token) -> std::io::Result<()> {
        let shaded = self.shades.token(token);
        self.write(&shaded)
    }

    fn end(&mut self, text: &str) -> std::io::Result<()> {
        let shaded = self.shades.end(text);
        self.write(&shaded)
    }
}

/// The text of an answer in the colours of its words, including text without known probabilities.
#[derive(Default)]
struct Shades {
    words: WordStream,
    /// Pending text: of a word that may continue, or white space that belongs to the next word, if any.
    waiting: String,
}

impl Shades {
    fn token(&mut self, token: &Token) -> String {
        self.waiting.push_str(&token.text);
        let words = self.words.push(token);
        self.shown(&words)
    }

    fn end(&mut self, text: &str) -> String {
        self.waiting.push_str(text);
        let words = self.words.finish(text);
        let shown = self.shown(&words);
        shown + &printable(&std::mem::take(&mut self.waiting))
    }

    fn shown(&mut self, words: &[Word]) -> String {
        let mut shown = String::new();
        for word in words {
            let text = format!("{}{}", word.space, word.text);
            // a word without probability would stand before it; there is none
            let Some(at) = self.waiting.find(&text) else { continue };
            shown += &printable(&self.waiting[..at]);
            shown += &shaded(word);
            self.waiting.drain(..at + text.len());
        }
        shown
    }
}

/// Whether colours are wanted and supported on `stream`: it is a terminal whose `TERM` supports them (on Windows, one where
/// they
/// could be enabled), and `NO_COLOR` is not set.
#[must_use]
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let obeys = || anstyle_query::windows::enable_ansi_colors().unwrap_or(true);
    let knows = anstyle_query::term_supports_color;
    stream.is_terminal() && variable("NO_COLOR").is_none() && knows() && obeys()
}

/// A word with its preceding white space, in the colour of its probability.
fn shaded(Word { space, text, p, .. }: &Word) -> String {
    let (space, text) = (printable(space), printable(text));
    match p {
        p if *p >= SURE_MIN => format!("{space}{text}"),
        p if *p >= EVEN_MIN => format!("{space}\x1b[33m{text}\x1b[0m"),
        _ => format!("{space}\x1b[31m{text}\x1b[0m"),
    }
}

impl TextSink for AnswerOutput {
    fn piece(&mut self, text: &str) -> std::io::Result<()> {
        let text = if self.terminal { printable(text) } else { Cow::Borrowed(text) };
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }
}

/// Stdout for answers, with shades if they are wanted and colours are supported.
#[must_use]
pub fn answer_output(shaded: bool) -> Box<dyn TextSink> {
    match ShadedOutput::new().filter(|_| shaded) {
        Some(output) => Box::new(output),
        None => Box::new(AnswerOutput::new()),
    }
}

/// Ignores everything.
impl TextSink for () {
    fn piece(&mut self, _text: &str) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shaded_by_the_least_probability_of_their_tokens() {
        let word = |p| shaded(&Word { space: " ".to_owned(), text: "a\u{1b}".to_owned(), p, mean: 1.0 });
        assert_eq!(word(0.9), " a\u{fffd}");
        assert_eq!(word(0.6), " \u{1b}[33ma\u{fffd}\u{1b}[0m");
        assert_eq!(word(0.2), " \u{1b}[31ma\u{fffd}\u{1b}[0m");
        // white space that terminals interpret
        let space = "\r\u{b}\u{c}\u{85}\n\t ".to_owned();
        let word = Word { space, text: "a".to_owned(), p: 0.9, mean: 1.0 };
        assert_eq!(shaded(&word), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\n\t a");
    }

    /// The output for tokens with these texts and probabilities, and for the end.
    fn shown(tokens: &[(&str, Option<f32>)], end: &str) -> String {
        let mut shades = Shades::default();
        let mut shown = String::new();
        for &(text, p) in tokens {
            let (text, logprob) = (text.to_owned(), p.map(f32::ln));
            shown += &shades.token(&Token { id: 0, text, held: 0, logprob, top: Vec::new() });
        }
        shown + &shades.end(end)
    }

    #[test]
    fn white_space_at_the_end_belongs_to_no_word_and_is_not_lost() {
        let after = |pieces: &[&str]| {
            let tokens: Vec<_> = pieces.iter().map(|piece| (*piece, Some(1.0))).collect();
            shown(&tokens, "")
        };
        assert_eq!(after(&["Bread", ".\n"]), "Bread.\n");
        assert_eq!(after(&["Bread. ", "\n", "", "\n"]), "Bread. \n\n");
        assert_eq!(after(&["Bread.\n", " Open"]), "Bread.\n Open");
        assert_eq!(after(&["\u{2003}"]), "\u{2003}");
    }

    #[test]
    fn text_of_which_nothing_is_known_is_shown_all_the_same() {
        assert_eq!(shown(&[("one", Some(0.9)), (" ", None)], "E"), "one E");
        assert_eq!(
            shown(&[("one ", None), ("two", Some(0.6))], " three\n"),
            "one \u{1b}[33mtwo\u{1b}[0m three\n"
        );
        assert_eq!(shown(&[("a\u{1b} ", None)], "b"), "a\u{fffd} b");
    }

    #[test]
    fn only_lines_and_tabs_reach_a_terminal() {
        assert_eq!(printable("naïve 狗\n\tx"), "naïve 狗\n\tx");
        assert_eq!(
            printable("a\u{1b}]0;title\u{7}b\rc\u{9b}2J"),
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}c\u{fffd}2J"
        );
    }
}
