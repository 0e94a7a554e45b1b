//! The access token.

use super::HubError;
use std::path::Path;

/// An access token, and where it is from. It stays out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// A variable's name, or a file's path.
    origin: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Longest file of a token that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Token {
    /// The token in `text`, without white space and invisible signs around it. None where nothing is left.
    #[must_use]
    pub fn new(text: &str, origin: &str) -> Option<Self> {
        // zero-width space; byte order mark
        let text =
            text.trim_matches(|letter: char| letter.is_whitespace() || "\u{200b}\u{feff}".contains(letter));
        (!text.is_empty()).then(|| Self { text: text.to_owned(), origin: origin.to_owned() })
    }

    /// The token in the file that the hub's login command writes.
    #[must_use]
    pub fn from_file(path: &Path) -> Option<Self> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = crate::paths::open_named(path).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Self::new(&String::from_utf8_lossy(&bytes), &path.display().to_string())
    }

    /// What is sent to the hub.
    ///
    /// # Errors
    /// [`HubError::NoToken`] where it holds what no token does and no header could carry.
    pub(super) fn checked(&self) -> Result<&str, HubError> {
        match self.text.chars().enumerate().find(|(_, letter)| !letter.is_ascii_graphic()) {
            None => Ok(&self.text),
            Some((index, letter)) => {
                Err(HubError::NoToken { origin: self.origin.clone(), position: index + 1, letter })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_token_is_taken_off_and_what_is_within_refused() {
        for text in ["hf_a", " hf_a\r\n", "\u{feff}hf_a", "\thf_a\u{200b}"] {
            assert_eq!(Token::new(text, "HF_TOKEN").unwrap().checked().unwrap(), "hf_a", "{text:?}");
        }
        assert_eq!(Token::new(" \u{feff}\n", "HF_TOKEN"), None);
        for (text, position, named) in [
            ("hf_\u{e9}", 4, "U+00E9"),
            ("hf_a\nhf_b", 5, "a line break"),
            ("hf a", 3, "a space"),
            ("hf\u{200b}a", 3, "U+200B"),
            ("\u{201c}hf_a\u{201d}", 1, "U+201C"),
            ("hf\0", 3, "U+0000"),
        ] {
            let token = Token::new(text, "HF_TOKEN").unwrap();
            let error = token.checked().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("HF_TOKEN holds no access token: character {position} of it is {named}")
            );
            assert!(error.hint().is_some() && !format!("{token:?}").contains("hf"));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        // as an editor for UTF-16 leaves it
        std::fs::write(&file, b"\xff\xfeh\0f\0").unwrap();
        let error = Token::from_file(&file).unwrap().checked().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} holds no access token", file.display())), "{error}");
        assert_eq!(Token::from_file(&folder.path().join("absent")), None);
    }
}
