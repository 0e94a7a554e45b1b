//! The digest that a quantized file carries of itself, so that damage to it can be told.
//!
//! `__metadata__` holds it as `digest`: the BLAKE3 digest, in 64 hexadecimal digits, of the whole file with 64 zeros in
//! their place.

use crate::files::{ReadError, map_regular};
use std::ops::Range;
use std::path::Path;

/// Its key in the metadata.
pub(super) const KEY: &str = "digest";
/// What stands in its place while it is computed.
pub(super) const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whether the quantized file at `path` is what was written once. A file without a digest is not. All of it is read, and
/// hashed on all cores, so that it takes about as long as the disk takes to give it.
///
/// # Errors
/// [`ReadError`]: the file cannot be opened or mapped.
pub fn is_undamaged(path: &Path) -> Result<bool, ReadError> {
    let bytes = map_regular(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
    let header = bytes.first_chunk().and_then(|len| {
        let end = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_add(len.len())?;
        bytes.get(..end)
    });
    let Some(place) = header.and_then(place) else { return Ok(false) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..place.start]).update(BLANK.as_bytes()).update_rayon(&bytes[place.end..]);
    Ok(hasher.finalize().to_hex().as_bytes() == &bytes[place])
}

/// Where the digest stands in a header, counted from the beginning of the file. Texts in the header cannot be taken for
/// it: quotation marks in them are escaped.
pub(super) fn place(header: &[u8]) -> Option<Range<usize>> {
    let key = format!("\"{KEY}\":\"");
    let start = header.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let end = start + BLANK.len();
    (header.get(end) == Some(&b'"')).then_some(start..end)
}
