//! API keys: read from a file, stored as hashes, and looked up for the Authorization header of a request.

use crate::bounded;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use phi3v::engine::CacheSalt;
use phi3v::error::count;
use std::path::Path;

/// Enough for some ten thousand keys.
const KEY_FILE_BYTES_MAX: usize = 1 << 20;
/// Shorter keys can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// The byte order mark that Windows editors put before a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a key file is refused: it cannot be read, it is empty, or a line of it is not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refuses to read the file.
    #[error("the file of API keys cannot be read")]
    Read(#[source] std::io::Error),
    /// The file has only blank lines and comments.
    #[error("the file of API keys is empty")]
    Empty,
    /// A key that can be guessed.
    #[error("line {line} of the file of API keys has {}, at least {KEY_BYTES_MIN} are needed", count(*.bytes, "byte"))]
    Short {
        /// Number of the line, from 1.
        line: usize,
        /// Length of the key in bytes.
        bytes: usize,
    },
    /// A line that is probably not meant as a key.
    #[error("line {line} of the file of API keys has {what}, which no key can have")]
    Odd {
        /// Number of the line, from 1.
        line: usize,
        /// What the line contains.
        what: &'static str,
    },
}

/// The keys of a server; if empty, no key is required.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Vec<blake3::Hash>);

/// What a request's headers say about its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A valid key: the salt that keeps its caches apart from those of other keys.
    Valid(CacheSalt),
    /// No key, or an invalid one.
    Invalid,
    /// More than one header, so it is not clear which counts.
    Several,
}

impl Keys {
    /// Reads the keys from a file: one per line, skipping blank lines and lines that begin with #.
    pub(super) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = bounded::read(path, KEY_FILE_BYTES_MAX).map_err(KeyFileError::Read)?;
        let text = bytes.strip_prefix(BOM).unwrap_or(&bytes);
        let mut keys = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let key = line.trim_ascii();
            if key.is_empty() || key.starts_with(b"#") {
                continue;
            }
            check(key, index + 1)?;
            keys.push(blake3::hash(key));
        }
        if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(Self(keys)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what the headers of a request say about its key.
    pub(super) fn claim(&self, headers: &HeaderMap) -> Claim {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(key) = values.next().and_then(key_in) else { return Claim::Invalid };
        if values.next().is_some() {
            return Claim::Several;
        }
        let hash = blake3::hash(key.as_bytes());
        // comparing hashes takes constant time, and so does visiting all of them
        match self.0.iter().fold(false, |found, key| found | (*key == hash)) {
            true => Claim::Valid(*hash.as_bytes()),
            false => Claim::Invalid,
        }
    }
}

fn check(key: &[u8], line: usize) -> Result<(), KeyFileError> {
    let odd = |what| Err(KeyFileError::Odd { line, what });
    if key.iter().any(|byte| !byte.is_ascii()) {
        return odd("characters beyond ASCII");
    }
    if key.iter().any(u8::is_ascii_whitespace) {
        return odd("a blank between other characters");
    }
    if key.iter().any(u8::is_ascii_control) {
        return odd("control characters");
    }
    if key.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        return odd("quotation marks");
    }
    if key.len() < KEY_BYTES_MIN {
        return Err(KeyFileError::Short { line, bytes: key.len() });
    }
    Ok(())
}

/// Returns the key of `Bearer KEY`, or of `Basic` with the key as the password, for which browsers can ask their user.
fn key_in(authorization: &HeaderValue) -> Option<String> {
    let (scheme, value) = authorization.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn read(bytes: &[u8]) -> Result<Keys, KeyFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, bytes).unwrap();
        Keys::read(&path)
    }

    fn claim(keys: &Keys, authorization: &[&str]) -> Claim {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        keys.claim(&headers)
    }

    #[test]
    fn comments_and_a_bom_are_no_part_of_a_key() {
        let file =
            format!("\u{feff}{KEY}\r\n# key of the test machine\n\n  #another comment\n fedcba9876543210 ");
        let keys = read(file.as_bytes()).unwrap();
        for (value, valid) in [
            (KEY, true),
            ("fedcba9876543210", true),
            ("# key of the test machine", false),
            ("#another comment", false),
            ("\u{feff}0123456789abcdef", false),
        ] {
            let claim = claim(&keys, &[&format!("Bearer {value}")]);
            assert_eq!(matches!(claim, Claim::Valid(_)), valid, "{value}");
        }
        let commented = format!("\u{feff}# a comment of many bytes\n{KEY}");
        assert_eq!(read(commented.as_bytes()).unwrap().0.len(), 1);
    }

    #[test]
    fn odd_lines_are_refused_by_their_number() {
        let utf16: Vec<u8> = format!("\u{feff}{KEY}\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (odd, what) in [
            (b"0123456789abcdef # of alice".as_slice(), "a blank"),
            (b"key = 0123456789abcdef", "a blank"),
            (b"01234567\x0089abcdef", "control characters"),
            (b"\"0123456789abcdef\"", "quotation marks"),
            ("schlüssel-der-testmaschine".as_bytes(), "beyond ASCII"),
            (b"0123456789abcde\xff", "beyond ASCII"),
            (b"short", "5 bytes"),
        ] {
            let file = [format!("# first\n{KEY}\n").as_bytes(), odd, b"\n"].concat();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.starts_with("line 3 of the file") && error.contains(what), "{error}");
            assert!(!error.contains(KEY), "{error}");
        }
        assert!(read(&utf16).unwrap_err().to_string().starts_with("line 1 of"));
        for empty in ["", "\n", "# only a comment of many bytes\n", "\u{feff}"] {
            assert!(matches!(read(empty.as_bytes()), Err(KeyFileError::Empty)), "{empty:?}");
        }
    }

    #[test]
    fn one_header_names_one_key() {
        let keys = read(format!("{KEY}\nfedcba9876543210\n").as_bytes()).unwrap();
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let Claim::Valid(salt) = claim(&keys, &["Bearer 0123456789abcdef"]) else { panic!("a valid key") };
        for same in ["bearer 0123456789abcdef", &basic("me:0123456789abcdef")] {
            assert_eq!(claim(&keys, &[same]), Claim::Valid(salt), "{same}");
        }
        let Claim::Valid(other) = claim(&keys, &["Bearer fedcba9876543210"]) else { panic!("a valid key") };
        assert_ne!(salt, other);
        for wrong in
            ["Bearer 0123456789abcde", "Bearer", KEY, "Basic ???", &basic("0123456789abcdef:"), "Bearer "]
        {
            assert_eq!(claim(&keys, &[wrong]), Claim::Invalid, "{wrong}");
        }
        assert_eq!(claim(&keys, &["Bearer 0123456789abcdef", "Bearer x"]), Claim::Several);
        assert_eq!(claim(&keys, &[]), Claim::Invalid);
    }
}
