//! The access token.

use super::HubError;
use crate::paths::{open_named, system_words};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// An access token and its origin. It stays out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// A variable's name, or a file's path.
    origin: String,
    /// Why the file cannot be read.
    refusal: Option<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Most bytes of a token; the hub's have 37, and a server accepts some thousand bytes of headers.
const TOKEN_BYTES_MAX: usize = 1000;
/// Most bytes of a token's file.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Token {
    /// The token in `text`, without surrounding white space and invisible characters. `None` if nothing is left.
    #[must_use]
    pub fn new(text: &str, origin: &str) -> Option<Self> {
        // zero-width space; byte order mark
        let text =
            text.trim_matches(|letter: char| letter.is_whitespace() || "\u{200b}\u{feff}".contains(letter));
        (!text.is_empty()).then(|| Self { text: text.to_owned(), origin: origin.to_owned(), refusal: None })
    }

    /// The token in the file that the hub's login command writes. `None` if there is no file.
    #[must_use]
    pub fn from_file(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        let origin = path.display().to_string();
        match open_named(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
            Ok(_) => Self::new(&String::from_utf8_lossy(&bytes), &origin),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => Some(Self { text: String::new(), origin, refusal: Some(system_words(&error)) }),
        }
    }

    /// The token to be sent to the hub.
    ///
    /// # Errors
    /// [`HubError::NoToken`] if it contains an invalid character (RFC 6750 section 2.1), [`HubError::TokenSize`] or
    /// [`HubError::TokenFile`].
    pub(super) fn checked(&self) -> Result<&str, HubError> {
        let origin = self.origin.clone();
        if let Some(reason) = self.refusal.clone() {
            return Err(HubError::TokenFile { path: origin, reason });
        }
        if self.text.len() > TOKEN_BYTES_MAX {
            return Err(HubError::TokenSize { origin, limit: TOKEN_BYTES_MAX });
        }
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._~+/=".contains(letter);
        match self.text.chars().enumerate().find(|(_, letter)| !allowed(*letter)) {
            None => Ok(&self.text),
            Some((index, letter)) => Err(HubError::NoToken { origin, position: index + 1, letter }),
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
            ("\"hf_a\"", 1, "a quotation mark"),
            ("'hf_a'", 1, "a quotation mark"),
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
        // as an editor for UTF-16 saves it
        std::fs::write(&file, b"\xff\xfeh\0f\0").unwrap();
        let error = Token::from_file(&file).unwrap().checked().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} holds no access token", file.display())), "{error}");
        assert_eq!(Token::from_file(&folder.path().join("absent")), None);
        assert_eq!(Token::from_file(&file.join("absent")), None);
    }

    #[test]
    fn what_no_token_can_be_read_from_is_named() {
        assert!(Token::new(&"a".repeat(TOKEN_BYTES_MAX), "HF_TOKEN").unwrap().checked().is_ok());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let refusal = || {
            let error = Token::from_file(&file).unwrap().checked().map(str::to_owned).unwrap_err();
            assert!(error.hint().is_some());
            error.to_string().replace(&file.display().to_string(), "FILE")
        };
        std::fs::write(&file, "a".repeat(3_000_000)).unwrap();
        assert_eq!(refusal(), "FILE holds no access token: it is longer than 1000 characters");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(refusal().starts_with("the access token in FILE cannot be read: "), "{}", refusal());
        std::fs::remove_dir(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        if made.is_ok_and(|status| status.success()) {
            assert_eq!(refusal(), "the access token in FILE cannot be read: it is a pipe and not a file");
        } else {
            phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
        }
    }
}
