//! Shared, read-only bytes: a mapped file, static data, or owned memory. Weights are views into them and are never
//! copied.

use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::Arc;

#[derive(Debug)]
enum Owner {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl Owner {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// A view of immutable bytes, owned or mapped, that is cheap to clone and to slice. It has no guaranteed alignment.
#[derive(Clone, Debug)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Maps an open file for reading. An empty file gives an empty view.
    ///
    /// # Errors
    /// Any error of the operating system while it maps the file.
    pub fn map(file: &File) -> std::io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self::from(Vec::new()));
        }
        let options = memmap2::MmapOptions::new();
        // SAFETY: the mapping is read-only, and private except on Windows. If another process truncates the file
        // while it is mapped, which Windows refuses, reads past the new end raise SIGBUS; SECURITY.md names this as
        // the user's responsibility.
        let map = unsafe {
            // for a private mapping, Windows reserves memory for all bytes that might be written
            if cfg!(windows) { options.map(file)? } else { options.map_copy_read_only(file)? }
        };
        let range = 0..map.len();
        Ok(Self { owner: Arc::new(Owner::Mapped(map)), range })
    }

    /// Wraps bytes that live as long as the program, such as those of `include_bytes!`.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self { owner: Arc::new(Owner::Static(bytes)), range: 0..bytes.len() }
    }

    /// Tells the system that the mapped pages of this view are not needed for now, so that reading a large file once
    /// does not fill the memory. The contents do not change: the system reads them again when they are used.
    pub fn forget_pages(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(map) = &*self.owner {
            // SAFETY: the mapping is private, read-only and backed by a file, so dropped pages are read back
            // unchanged.
            let advice = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
            // if the system refuses the advice, only memory is lost
            drop(advice);
        }
    }

    /// Returns the part `range` of this view, which shares its owner.
    ///
    /// # Panics
    /// If `range` is not within the view.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of {} bytes",
            self.len()
        );
        let start = self.range.start;
        Self { owner: Arc::clone(&self.owner), range: start + range.start..start + range.end }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.owner.as_slice()[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(Owner::Owned(bytes)), range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the environment tells the tests how large pages are, as in an emulator, they have that size.
    #[test]
    #[cfg(unix)]
    fn pages_are_as_large_as_was_said() {
        let Some(told) = std::env::var_os("PHI3V_PAGE_BYTES") else { return };
        // SAFETY: the call only reads a number from the system.
        let found = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        assert_eq!(told.to_str(), Some(&*found.to_string()));
    }

    #[test]
    fn forgotten_pages_come_back_wherever_they_begin() {
        // four pages of 16 KB and a part of one: the ranges do not begin on a page boundary, whatever the page size
        let written: Vec<u8> = (0..4 * 16_384 + 100u32).map(|i| (i * 31 / 8) as u8).collect();
        let path = std::env::temp_dir().join(format!("phi3v-bytes-{}", std::process::id()));
        std::fs::write(&path, &written).unwrap();
        let mapped = Bytes::map(&File::open(&path).unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        for range in
            [0..written.len(), 1..4_097, 4_095..4_096, 5_000..40_000, 16_384..32_768, 65_000..65_636, 7..7]
        {
            let view = mapped.slice(range.clone());
            view.forget_pages();
            assert!(*view == written[range.clone()], "{range:?}");
            assert!(*mapped == written[..], "all after {range:?}");
        }
    }
}
