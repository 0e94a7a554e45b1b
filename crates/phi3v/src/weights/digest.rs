//! The digest that a quantized file carries of itself, so that damage to it can be told.
//!
//! `__metadata__` holds it as `digest`: the BLAKE3 digest, in 64 hexadecimal digits, of the whole file with 64 zeros in
//! their place.

use crate::files::{ReadError, map_regular};
use rayon_core::{ThreadPool, ThreadPoolBuilder};
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
    hasher.update(&bytes[..place.start]).update(BLANK.as_bytes());
    AllCores::new().update(&mut hasher, &bytes[place.end..]);
    Ok(hasher.finalize().to_hex().as_bytes() == &bytes[place])
}

/// Threads that hash, and end with this. Those that rayon keeps for a whole process are missing in a fork of it, which would
/// wait for them for ever.
pub(super) struct AllCores(Option<ThreadPool>);

impl AllCores {
    /// One thread for each core; none where the system has none to give.
    pub(super) fn new() -> Self {
        Self(ThreadPoolBuilder::new().thread_name(|_| "digest".to_owned()).build().ok())
    }

    /// Adds `bytes` to a digest, on these threads or on the caller's.
    pub(super) fn update(&self, hasher: &mut blake3::Hasher, bytes: &[u8]) {
        match &self.0 {
            Some(threads) => threads.install(|| hasher.update_rayon(bytes)),
            None => hasher.update(bytes),
        };
    }
}

/// Where the digest stands in a header, counted from the beginning of the file. Texts in the header cannot be taken for
/// it: quotation marks in them are escaped.
pub(super) fn place(header: &[u8]) -> Option<Range<usize>> {
    let key = format!("\"{KEY}\":\"");
    let start = header.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let end = start + BLANK.len();
    (header.get(end) == Some(&b'"')).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_no_digest() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for cores in [AllCores::new(), AllCores(None)] {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"head");
            cores.update(&mut hasher, &bytes);
            let whole = [b"head".as_slice(), &bytes].concat();
            assert_eq!(hasher.finalize(), blake3::hash(&whole));
        }
    }
}
