//! Camera raw files that are also TIFF: their first picture is a thumbnail.

use super::directory::Directory;
use super::{ImageError, tag};

/// Refuses a file whose first directory is that of a raw photograph, and names the format. An unreadable directory
/// passes; reading the page reports its error.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageError> {
    let Ok(Some(first)) = Directory::of_page(bytes, 0) else { return Ok(()) };
    name(&first).map_or(Ok(()), |format| Err(ImageError::UnsupportedFormat { format }))
}

/// The name of the raw format whose first directory this is, or `None` if it is not one.
fn name(first: &Directory<'_>) -> Option<&'static str> {
    if first.raw(tag::DNG_VERSION).is_some() {
        return Some("DNG");
    }
    // a reduced version of another picture, which is in a subdirectory of this directory
    let is_reduced = first.value(tag::NEW_SUBFILE_TYPE, 0).unwrap_or(0) & 1 == 1;
    if !is_reduced || first.raw(tag::SUB_IFDS).is_none() {
        return None;
    }
    let maker = first.raw(tag::MAKE).unwrap_or_default().to_ascii_uppercase();
    Some(match maker.get(..5) {
        Some(b"NIKON") => "Nikon RAW",
        Some(b"PENTA" | b"RICOH") => "Pentax RAW",
        Some([b'S', b'O', b'N', b'Y', _]) => "Sony RAW",
        _ => "camera RAW",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one directory with one tag, whose value is a byte.
    fn with(tag: u16, value: u8) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0\x01\0".to_vec();
        bytes.extend(tag.to_le_bytes());
        bytes.extend([1, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_no_photographs() {
        let photograph = with(tag::DNG_VERSION, 1);
        assert!(matches!(check(&photograph), Err(ImageError::UnsupportedFormat { format: "DNG" })));
        assert!(check(&with(tag::WIDTH, 1)).is_ok());
        for len in 0..18 {
            assert!(Directory::of_page(&photograph[..len], 0).is_err(), "{len} bytes");
            assert!(check(&photograph[..len]).is_ok(), "{len} bytes");
        }
    }
}
