//! Stop strings over text that arrives in pieces.
//!
//! An answer ends when the first stop string is complete, and is cut before it. Text that may be the beginning of a
//! stop string is held back, so no part of it is ever shown. The result depends only on the text and not on how it was
//! cut into pieces. Every byte is examined once for each stop string (Knuth, Morris, Pratt 1977).

use crate::sampler::SamplerError;

/// Watches the text of one answer for strings that end it, however the text is cut.
///
/// ```
/// use phi3v::stop::StopStrings;
///
/// let mut stop = StopStrings::new(&["END"])?;
/// assert_eq!(stop.push("one E").text, "one ");
/// let output = stop.push("ND two");
/// assert_eq!((output.text.as_str(), output.stopped_by), ("", Some(0)));
/// # Ok::<(), phi3v::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    /// The end of the text so far that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

/// The part of an answer's text that has become final, and whether the answer ends there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that can be shown, possibly empty.
    pub text: String,
    /// The index of the stop string that ended the answer.
    pub stopped_by: Option<usize>,
}

impl StopStrings {
    /// The maximum number of stop strings for one answer.
    pub const COUNT_MAX: usize = 64;
    /// The maximum length of a stop string, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 1024;

    /// Watches for any of `strings`. Without strings, the answer is never stopped.
    ///
    /// # Errors
    /// [`SamplerError::StopString`] for an empty string, a string above [`Self::BYTES_MAX`] bytes or more than
    /// [`Self::COUNT_MAX`] strings.
    pub fn new(strings: &[impl AsRef<str>]) -> Result<Self, SamplerError> {
        if strings.len() > Self::COUNT_MAX {
            return Err(SamplerError::StopString {
                what: "the number of stop strings".to_owned(),
                value: strings.len(),
                range: format!("at most {}", Self::COUNT_MAX),
            });
        }
        for (i, string) in strings.iter().enumerate() {
            let bytes = string.as_ref().len();
            if !(1..=Self::BYTES_MAX).contains(&bytes) {
                return Err(SamplerError::StopString {
                    what: format!("the length of stop string {} in bytes", i + 1),
                    value: bytes,
                    range: format!("from 1 to {}", Self::BYTES_MAX),
                });
            }
        }
        let patterns = strings.iter().map(|string| Pattern::new(string.as_ref())).collect();
        Ok(Self { patterns, held: String::new(), stopped: false })
    }

    /// Takes the next text. After a stop, the output is empty.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.stopped {
            return StopOutput { text: String::new(), stopped_by: None };
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            if let Some((index, len)) = self.longest_match(byte) {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + i + 1 - len);
                return StopOutput { text, stopped_by: Some(index) };
            }
        }
        // A stop string begins with the first byte of a character, so this is a border between characters.
        let hold = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped_by: None }
    }

    /// Returns the text held back, at the end of an answer that no stop string ended.
    pub fn finish(&mut self) -> String {
        self.stopped = true;
        std::mem::take(&mut self.held)
    }

    /// Returns the number of bytes that are held back now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Advances every pattern by a byte. Of the patterns complete now, returns the longest and its length.
    fn longest_match(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut longest: Option<(usize, usize)> = None;
        for (index, pattern) in self.patterns.iter_mut().enumerate() {
            let len = pattern.bytes.len();
            if pattern.advance(byte) && longest.is_none_or(|(_, other)| len > other) {
                longest = Some((index, len));
            }
        }
        longest
    }
}

/// One stop string and how much of it the text ends with.
#[derive(Debug, Clone)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each prefix length, the length of its longest proper prefix that is also its suffix. // [bytes + 1]
    border: Vec<usize>,
    matched: usize,
}

impl Pattern {
    fn new(string: &str) -> Self {
        let bytes = string.as_bytes().to_vec();
        let mut border = vec![0; bytes.len() + 1];
        let mut matched = 0;
        for i in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[i] {
                matched = border[matched];
            }
            matched += usize::from(bytes[matched] == bytes[i]);
            border[i + 1] = matched;
        }
        Self { bytes, border, matched: 0 }
    }

    /// Returns whether the pattern is complete with this byte. Must not be called again after that.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.border[self.matched];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}
