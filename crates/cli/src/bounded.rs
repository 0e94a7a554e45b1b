//! Reads whole files and stdin up to a limit: a wrong name, or an endless device, must not fill the memory.

use crate::paths::open_named;
use phi3v::files::read_to_limit;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

/// Most bytes of a text given to a model. The largest context, 131,072 tokens, holds about 0.5 MiB of English.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// As for [`open_named`], or [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let bytes = read_to_limit(open_named(path)?, bytes_max)?;
    if bytes.len() > bytes_max { Err(too_large("it", bytes_max)) } else { Ok(bytes) }
}

/// Reads a whole text file of at most `bytes_max` bytes.
///
/// # Errors
/// As for [`read`], or [`ErrorKind::InvalidData`] if the file is not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    text(read(path, bytes_max)?)
}

/// Reads a line of at most `bytes_max` bytes, not counting its line break; `None` at the end of the input.
///
/// # Errors
/// As for [`read_text`]. The rest of a line that is too long remains unread.
pub fn read_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    input.take(bytes_max as u64 + 1).read_until(b'\n', &mut line)?;
    if line.len() > bytes_max && !line.ends_with(b"\n") {
        return Err(too_large("the line", bytes_max));
    }
    if line.is_empty() { Ok(None) } else { text(line).map(Some) }
}

/// The error for a text that is too long: what kind of text, and the limit in bytes.
#[must_use]
pub fn too_large(what: &str, bytes_max: usize) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("{what} has more than {bytes_max} bytes, the limit"))
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "twelve bytes").unwrap();
        assert_eq!(read_text(&path, 12).unwrap(), "twelve bytes");
        let error = read_text(&path, 11).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it has more than 11 bytes, the limit");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 12).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_an_end_is_refused() {
        assert!(read(Path::new("/dev/zero"), 1000).is_err());
    }

    #[test]
    fn lines_are_read_up_to_their_limit() {
        let mut input: &[u8] = b"1234\n\n12345\n";
        assert_eq!(read_line(&mut input, 4).unwrap().as_deref(), Some("1234\n"));
        assert_eq!(read_line(&mut input, 4).unwrap().as_deref(), Some("\n"));
        assert_eq!(read_line(&mut input, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let mut input: &[u8] = b"1234";
        assert_eq!(read_line(&mut input, 4).unwrap().as_deref(), Some("1234"));
        assert_eq!(read_line(&mut input, 4).unwrap(), None);
        let mut endless = io::BufReader::new(io::repeat(b'a'));
        assert_eq!(read_line(&mut endless, 1000).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
