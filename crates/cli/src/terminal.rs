//! What is written where: answers to stdout, everything else to stderr, and what a terminal may be shown of it.
//!
//! A picture can make the model say anything, and a file can have any name. stderr may be a pipe that nobody reads or a
//! full disk: what is told there is never worth the answer, so its failures are ignored. Nothing else of this crate
//! writes to stdout or stderr, but for the bars.

use crate::variables::variable;
use phi3v::engine::Token;
use phi3v::words::{EVEN_MIN, SURE_MIN, Word, WordStream};
use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether notes are left out; one process has one stderr.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out notes and bars from here on: `--quiet`.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether notes and bars are left out because the user asked for `--quiet`.
#[must_use]
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line to stderr, without the control characters that terminals obey: an error, or what was asked for. Use it through
/// [`tell!`](crate::tell).
pub fn write_line(line: fmt::Arguments<'_>) {
    // in one piece, so that lines of several threads do not mix
    let line = format!("{line}\n");
    let _ = std::io::stderr().write_all(printable(&line).as_bytes());
}

/// Writes a line that nobody asked for to stderr, unless the user wants quiet. Use it through [`note!`](crate::note).
pub fn write_note(line: fmt::Arguments<'_>) {
    if !is_quiet() {
        write_line(line);
    }
}

/// A line on stderr: an error, or what was asked for; formatted as by `format!`. A stderr that cannot be written to is
/// ignored.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::terminal::write_line(format_args!($($words)*)) };
}

/// A line on stderr that nobody asked for, which `--quiet` leaves out; formatted as by `format!`. A stderr that cannot
/// be written to is ignored.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => { $crate::terminal::write_note(format_args!($($words)*)) };
}

/// Writes a command's result to stdout: to the last byte, but without control characters where it is a terminal.
///
/// # Errors
/// stdout cannot be written to.
pub fn print(result: impl fmt::Display) -> std::io::Result<()> {
    AnswerOutput::new().piece(&result.to_string())
}

/// `text` without the control characters that terminals obey; lines and tabs stay.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if text.contains(obeyed) { Cow::Owned(text.replace(obeyed, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// stdout for answers: to the last byte, but without control characters where it is a terminal.
pub struct AnswerOutput {
    stdout: std::io::Stdout,
    terminal: bool,
}

impl AnswerOutput {
    /// The process's stdout; whether it is a terminal is found out now and once.
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

/// Where the pieces of an answer go, in the order in which they come.
pub trait TextSink {
    /// Takes a piece; it can be read at once.
    ///
    /// # Errors
    /// The reader is gone, or the system refuses.
    fn piece(&mut self, text: &str) -> std::io::Result<()>;

    /// Takes a token of an answer.
    ///
    /// # Errors
    /// As for [`piece`](Self::piece).
    fn token(&mut self, token: &Token) -> std::io::Result<()> {
        self.piece(&token.text)
    }

    /// Takes the text that comes with the end of an answer.
    ///
    /// # Errors
    /// As for [`piece`](Self::piece).
    fn end(&mut self, text: &str) -> std::io::Result<()> {
        self.piece(text)
    }
}

/// stdout for answers, words that the model was not sure of in colours: yellow, or red where it was rather wrong than
/// right. A word is written when it is whole.
pub struct ShadedOutput {
    out: AnswerOutput,
    shades: Shades,
}

impl ShadedOutput {
    /// The process's stdout, where colours are ([`has_colours`]).
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

/// The text of an answer as a terminal shows it, in the colours of its words: all of it, whatever is known of them.
#[derive(Default)]
struct Shades {
    words: WordStream,
    /// Text that is not shown yet: of a word that goes on, or white space that belongs to none if no other comes.
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
            // before it are words without probabilities, of which there are none
            let Some(at) = self.waiting.find(&text) else { continue };
            shown += &printable(&self.waiting[..at]);
            shown += &shaded(word);
            self.waiting.drain(..at + text.len());
        }
        shown
    }
}

/// Whether colours are wanted and shown on `stream`: it is a terminal that knows them by `TERM`, on Windows one that was told to
/// obey them now, and `NO_COLOR` is not set.
#[must_use]
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let obeys = || anstyle_query::windows::enable_ansi_colors().unwrap_or(true);
    let knows = anstyle_query::term_supports_color;
    stream.is_terminal() && variable("NO_COLOR").is_none() && knows() && obeys()
}

/// A word with the white space before it, in the colour of its probability.
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

/// stdout for answers, with shades where they are wanted and there are colours.
#[must_use]
pub fn answer_output(shaded: bool) -> Box<dyn TextSink> {
    match ShadedOutput::new().filter(|_| shaded) {
        Some(output) => Box::new(output),
        None => Box::new(AnswerOutput::new()),
    }
}

/// Takes no notice.
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
        // white space that a terminal obeys
        let space = "\r\u{b}\u{c}\u{85}\n\t ".to_owned();
        let word = Word { space, text: "a".to_owned(), p: 0.9, mean: 1.0 };
        assert_eq!(shaded(&word), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\n\t a");
    }

    /// What is shown of tokens of these texts, each with its probability, and of the end.
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
