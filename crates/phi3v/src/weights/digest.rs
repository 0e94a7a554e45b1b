//! The digest that a quantized file carries of itself, so that damage to it can be detected.
//!
//! `__metadata__` holds it as `digest`: the BLAKE3 digest, in 64 hexadecimal digits, of the whole file with 64 zeros in
//! their place.

use crate::files::{ReadError, map_regular};
use rayon_core::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;
use std::path::Path;

/// The key of the digest in the metadata.
pub(super) const KEY: &str = "digest";
/// The placeholder for the digest while it is computed.
pub(super) const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Returns whether the quantized file at `path` is as it was written. A file without a digest is not. The whole file is
/// read and hashed on all cores, so this takes about as long as reading it from disk.
///
/// # Errors
/// [`ReadError`]: if the file cannot be opened or mapped.
pub fn is_undamaged(path: &Path) -> Result<bool, ReadError> {
    Ok(is_undamaged_while(path, &|| true)?.unwrap_or(false))
}

/// Like [`is_undamaged`], but continues only while `is_wanted` returns true. It is called many times a second. Returns
/// `None` if it has returned false.
///
/// # Errors
/// As for [`is_undamaged`].
pub fn is_undamaged_while(path: &Path, is_wanted: &dyn Fn() -> bool) -> Result<Option<bool>, ReadError> {
    /// Hashed in a few hundredths of a second, and read in a few tenths.
    const PIECE_BYTES: usize = 64 << 20;
    let bytes = map_regular(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
    let header = bytes.first_chunk().and_then(|len| {
        let end = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_add(len.len())?;
        bytes.get(..end)
    });
    let Some(place) = header.and_then(place) else { return Ok(Some(false)) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..place.start]).update(BLANK.as_bytes());
    if !update_while(&mut hasher, &bytes[place.end..], PIECE_BYTES, is_wanted) {
        return Ok(None);
    }
    Ok(Some(hasher.finalize().to_hex().as_bytes() == &bytes[place]))
}

/// Adds `bytes` to a digest in pieces, and stops when `is_wanted`, called before each piece, returns false. Returns whether
/// all bytes were added.
fn update_while(
    hasher: &mut blake3::Hasher,
    mut bytes: &[u8],
    piece_bytes: usize,
    is_wanted: &dyn Fn() -> bool,
) -> bool {
    let cores = AllCores::new();
    while !bytes.is_empty() {
        if !is_wanted() {
            return false;
        }
        // pieces that end at multiples of the piece size are whole subtrees of the digest
        let first = piece_bytes - (hasher.count() % piece_bytes as u64) as usize;
        let (piece, rest) = bytes.split_at(first.min(bytes.len()));
        cores.update(hasher, piece);
        bytes = rest;
    }
    true
}

/// Threads for hashing, which end when this is dropped. The threads that rayon keeps for the whole process do not exist in
/// a fork of it, which would wait for them forever.
pub(super) struct AllCores(Option<ThreadPool>);

impl AllCores {
    /// Starts one thread for each core; none if the system cannot start threads.
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

/// Returns the position of the digest in a header, counted from the beginning of the file. Strings in the header cannot be
/// mistaken for it: quotation marks in them are escaped.
pub(super) fn place(header: &[u8]) -> Option<Range<usize>> {
    let key = format!("\"{KEY}\":\"");
    let start = header.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let end = start + BLANK.len();
    (header.get(end) == Some(&b'"')).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect()
    }

    #[test]
    fn pieces_change_no_digest_and_are_taken_while_somebody_waits() {
        let bytes = bytes();
        for piece_bytes in [1 << 16, 1 << 20, 64 << 20, 1_000_000] {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&bytes[..1001]);
            assert!(update_while(&mut hasher, &bytes[1001..], piece_bytes, &|| true));
            assert_eq!(hasher.finalize(), blake3::hash(&bytes), "{piece_bytes}");
        }
        let (asked, mut hasher) = (std::cell::Cell::new(0), blake3::Hasher::new());
        let twice = || asked.replace(asked.get() + 1) < 2;
        assert!(!update_while(&mut hasher, &bytes, 1 << 20, &twice));
        assert_eq!((asked.get(), hasher.count()), (3, 2 << 20));
    }

    #[test]
    fn threads_change_no_digest() {
        let bytes = bytes();
        for cores in [AllCores::new(), AllCores(None)] {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"head");
            cores.update(&mut hasher, &bytes);
            let whole = [b"head".as_slice(), &bytes].concat();
            assert_eq!(hasher.finalize(), blake3::hash(&whole));
        }
    }
}
