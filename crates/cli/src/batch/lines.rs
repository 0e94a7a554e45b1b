//! Requests as JSON lines in OpenAI's batch format: `{"custom_id", "method", "url", "body"}`; `method` and `url` are
//! optional. One pass collects names and positions; each line is then read again when needed.

use super::error::BatchError;
use crate::server::error::{ApiError, Code};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Most bytes of a line: those of a body that the server accepts, and some for the members around it.
pub const LINE_BYTES_MAX: usize = (32 << 20) + (64 << 10);
/// Most bytes of a `custom_id`.
const ID_BYTES_MAX: usize = 1024;
/// The only endpoint that a request may name.
const URL: &str = "/v1/chat/completions";

/// The requests of a file, or of what was read from stdin.
pub struct Lines {
    source: Mutex<Box<dyn Source>>,
    places: Vec<Place>,
    /// BLAKE3 digest of all bytes.
    pub digest: String,
}

/// A seekable reader.
trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// The position of a request.
#[derive(Debug)]
struct Place {
    id: String,
    offset: u64,
    bytes: usize,
    digest: [u8; 8],
}

/// A line.
#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    method: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Lines {
    /// Scans an open file called `name`.
    ///
    /// # Errors
    /// The file cannot be read, or a line has no unique `custom_id`.
    pub fn of_file(file: File, name: &Path) -> Result<Self, BatchError> {
        Self::of(Box::new(file), name)
    }

    /// Scans the contents of stdin, or of another pipe called `name`.
    ///
    /// # Errors
    /// A line has no unique `custom_id`.
    pub fn of_bytes(bytes: Vec<u8>, name: &Path) -> Result<Self, BatchError> {
        Self::of(Box::new(io::Cursor::new(bytes)), name)
    }

    fn of(mut source: Box<dyn Source>, name: &Path) -> Result<Self, BatchError> {
        let read = |error| BatchError::read(name, error);
        source.rewind().map_err(read)?;
        let mut hasher = blake3::Hasher::new();
        let mut places = Vec::new();
        let mut reader = BufReader::new(&mut source);
        let (mut offset, mut number) = (0, 0);
        loop {
            let mut line = Vec::new();
            let bytes =
                (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(read)?;
            if bytes == 0 {
                break;
            }
            hasher.update(&line);
            number += 1;
            let refused =
                |reason| BatchError::Line { path: name.display().to_string(), line: number, reason };
            if bytes > LINE_BYTES_MAX {
                return Err(refused(format!("has more than {LINE_BYTES_MAX} bytes, the limit")));
            }
            if let Some(id) = id_of(&line).map_err(refused)? {
                places.push((Place { id, offset, bytes, digest: digest_of(&line) }, number));
            }
            offset += bytes as u64;
        }
        check_ids(&places, name)?;
        let places = places.into_iter().map(|(place, _)| place).collect();
        Ok(Self { source: Mutex::new(source), places, digest: hasher.finalize().to_hex().to_string() })
    }

    /// The requests' names, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| place.id.as_str())
    }

    /// Reads the body of request `index`.
    ///
    /// # Errors
    /// The request is for another endpoint, or the file has changed or vanished since the scan.
    pub fn body(&self, index: usize) -> Result<Vec<u8>, ApiError> {
        let changed = || ApiError::new(Code::InputChanged, "the line has changed since the batch began");
        let Place { offset, bytes, digest, .. } = &self.places[index];
        let mut line = vec![0; *bytes];
        {
            let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            source.seek(SeekFrom::Start(*offset)).map_err(|_| changed())?;
            source.read_exact(&mut line).map_err(|_| changed())?;
        }
        if digest_of(&line) != *digest {
            return Err(changed());
        }
        let line: Line<'_> = serde_json::from_slice(without_mark(&line)).map_err(|_| changed())?;
        check_address(line.method.as_deref(), line.url.as_deref())?;
        Ok(line.body.get().as_bytes().to_owned())
    }
}

/// The first bytes of a line's BLAKE3 digest: enough to detect a change.
fn digest_of(line: &[u8]) -> [u8; 8] {
    let digest = *blake3::hash(line).as_bytes();
    *digest.first_chunk().unwrap_or(&[0; 8])
}

/// The name of the request on a line; `None` if the line is blank.
///
/// # Errors
/// What is wrong with the line, worded to follow its position.
pub fn id_of(line: &[u8]) -> Result<Option<String>, String> {
    let line = without_mark(line);
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let Line { custom_id, .. } = serde_json::from_slice(line).map_err(|error| {
        let error = error.to_string().replace("struct Line", "an object with custom_id and body");
        format!("is no request: {error}")
    })?;
    if custom_id.is_empty() || custom_id.len() > ID_BYTES_MAX {
        return Err(format!(
            "has a custom_id of {} bytes, it must have 1 to {ID_BYTES_MAX}",
            custom_id.len()
        ));
    }
    Ok(Some(custom_id))
}

/// The text without the byte order mark that some programs write.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

fn check_ids(places: &[(Place, usize)], name: &Path) -> Result<(), BatchError> {
    let mut lines = HashMap::new();
    for (place, number) in places {
        if let Some(first) = lines.insert(place.id.as_str(), number) {
            let at = |number| format!("line {number} of {}", name.display());
            let (id, first, second) = (place.id.clone(), at(first), at(number));
            return Err(BatchError::SameId { id, first, second });
        }
    }
    Ok(())
}

fn check_address(method: Option<&str>, url: Option<&str>) -> Result<(), ApiError> {
    match (method, url) {
        (Some(method), _) if !method.eq_ignore_ascii_case("POST") => {
            let message = format!("the method is {method:.16}, it must be POST");
            Err(ApiError::invalid_value("method", message).hint("write POST, or leave method out"))
        }
        (_, Some(url)) if url != URL => {
            let message = format!("the url is {url:.64}, it must be {URL}");
            Err(ApiError::invalid_value("url", message).hint("write that, or leave url out"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_stdin(text: &str) -> Result<Lines, BatchError> {
        Lines::of_bytes(text.as_bytes().to_vec(), Path::new("stdin"))
    }

    #[test]
    fn lines_are_found_and_read_again() {
        let text = "\u{feff}{\"custom_id\": \"a\", \"body\": {\"x\": 1.10}}\r\n\n{\"body\": [2], \"custom_id\": \"b\", \
                    \"method\": \"POST\", \"url\": \"/v1/chat/completions\"}";
        let lines = of_stdin(text).unwrap();
        assert_eq!(lines.ids().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(lines.body(1).unwrap(), b"[2]");
        assert_eq!(lines.body(0).unwrap(), b"{\"x\": 1.10}", "to the letter");
    }

    #[test]
    fn a_request_for_somebody_else_is_an_error_of_its_own() {
        let line = |more: &str| format!("{{\"custom_id\": \"a\", \"body\": {{}}, {more}}}");
        for (more, param) in [("\"method\": \"GET\"", "method"), ("\"url\": \"/v1/embeddings\"", "url")] {
            let lines = of_stdin(&line(more)).unwrap();
            assert_eq!(lines.body(0).unwrap_err().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn lines_that_cannot_be_answered_are_refused_with_their_number() {
        for (text, told) in [
            ("{\"custom_id\": \"a\", \"body\": {}}\nx\n", "line 2 of stdin is no request"),
            ("{\"custom_id\": \"a\"}", "missing field `body`"),
            ("{\"body\": {}}", "missing field `custom_id`"),
            ("{\"custom_id\": \"\", \"body\": {}}", "custom_id of 0 bytes"),
            ("{\"custom_id\": 7, \"body\": {}}", "invalid type"),
            ("[]", "line 1 of stdin is no request"),
            (
                "{\"custom_id\": \"a\", \"body\": {}}\n\n{\"custom_id\": \"a\", \"body\": {}}",
                "a is the name of two inputs: line 1 of stdin and line 3 of stdin",
            ),
        ] {
            let Err(refused) = of_stdin(text) else { panic!("{text} was taken") };
            assert!(refused.to_string().contains(told), "{text}: {refused}");
        }
    }

    #[test]
    fn a_file_that_changes_gives_errors_and_not_the_wrong_body() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests");
        std::fs::write(&path, "{\"custom_id\": \"a\", \"body\": 1}\n{\"custom_id\": \"b\", \"body\": 2}\n")
            .unwrap();
        let lines = Lines::of_file(File::open(&path).unwrap(), &path).unwrap();
        std::fs::write(&path, "{\"custom_id\": \"b\", \"body\": 1}\n").unwrap();
        assert!((0..2).all(|index| lines.body(index).unwrap_err().code == Code::InputChanged));
        // of the same name and length
        std::fs::write(&path, "{\"custom_id\": \"a\", \"body\": 1}\n{\"custom_id\": \"b\", \"body\": 3}\n")
            .unwrap();
        assert_eq!(lines.body(0).unwrap(), b"1");
        assert_eq!(lines.body(1).unwrap_err().code, Code::InputChanged);
    }
}
