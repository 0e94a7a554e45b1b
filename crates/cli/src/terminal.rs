//! What a terminal may be shown: a picture can make the model say anything, and a file can have any name.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// `text` without the control characters that terminals obey; lines and tabs stay.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if text.contains(obeyed) { Cow::Owned(text.replace(obeyed, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// stdout for answers: to the letter, unless it is a terminal.
pub struct AnswerOutput {
    stdout: std::io::Stdout,
    terminal: bool,
}

impl AnswerOutput {
    /// The process's stdout.
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

/// Where the pieces of an answer go.
pub trait TextSink {
    /// Takes a piece; it can be read at once.
    ///
    /// # Errors
    /// The reader is gone, or the system refuses.
    fn piece(&mut self, text: &str) -> std::io::Result<()>;
}

impl TextSink for AnswerOutput {
    fn piece(&mut self, text: &str) -> std::io::Result<()> {
        let text = if self.terminal { printable(text) } else { Cow::Borrowed(text) };
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
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
    fn only_lines_and_tabs_reach_a_terminal() {
        assert_eq!(printable("naïve 狗\n\tx"), "naïve 狗\n\tx");
        assert_eq!(
            printable("a\u{1b}]0;title\u{7}b\rc\u{9b}2J"),
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}c\u{fffd}2J"
        );
    }
}
