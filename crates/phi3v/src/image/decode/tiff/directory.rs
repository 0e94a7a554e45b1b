//! The directory of a TIFF: its tags, in either byte order, with 32-bit or 64-bit offsets.

use std::collections::BTreeMap;

use super::super::super::error::ImageError;
use super::{FORMAT, damaged};

/// Most values of one tag that are read: a strip per row of the tallest image and then some.
const VALUES_MAX: usize = 1 << 20;

/// Where the values of a tag stand.
struct Entry {
    kind: u16,
    count: usize,
    at: usize,
}

/// The first directory of a file.
pub(super) struct Directory<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) little_endian: bool,
    entries: BTreeMap<u16, Entry>,
}

impl<'a> Directory<'a> {
    /// Reads the first directory; of a tag that stands twice the first counts.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut directory = Self { bytes, little_endian: bytes.starts_with(b"II"), entries: BTreeMap::new() };
        // The header is a version and offsets of 4 bytes, or in a BigTIFF (version 43) of 8.
        let big = directory.number(2, 2)? == 43;
        let (word, first) = if big { (8, 8) } else { (4, 4) };
        let start = place(directory.number(first, word)?)?;
        let count_bytes = if big { 8 } else { 2 };
        let count = directory.number(start, count_bytes)?;
        let entry_bytes = 4 + 2 * word;
        for i in 0..count.min(u64::from(u16::MAX)) as usize {
            let at = start + count_bytes + i * entry_bytes;
            let tag = directory.number(at, 2)? as u16;
            let kind = directory.number(at + 2, 2)? as u16;
            let count = place(directory.number(at + 4, word)?)?;
            let value_at = at + 4 + word;
            // Values that fit in the entry stand there, others behind an offset.
            let inline = count.saturating_mul(size_of_kind(kind)) <= word;
            let at = if inline { value_at } else { place(directory.number(value_at, word)?)? };
            directory.entries.entry(tag).or_insert(Entry { kind, count, at });
        }
        Ok(directory)
    }

    /// An unsigned number of `size` bytes.
    fn number(&self, at: usize, size: usize) -> Result<u64, ImageError> {
        let bytes = at.checked_add(size).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes.ok_or(ImageError::Truncated { format: FORMAT })?;
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Ok(if self.little_endian { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
    }

    /// The values of a tag of whole numbers; empty when it is absent.
    pub(super) fn values(&self, tag: u16) -> Result<Vec<u64>, ImageError> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let size = size_of_kind(entry.kind);
        if entry.count > VALUES_MAX {
            return Err(damaged(&format!("tag {tag} has {} values", entry.count)));
        }
        let value = |i: usize| self.number(entry.at.saturating_add(i * size), size);
        (0..entry.count).map(value).collect()
    }

    /// The first value of a tag, or `default` when it is absent.
    pub(super) fn value(&self, tag: u16, default: u64) -> Result<u64, ImageError> {
        Ok(self.values(tag)?.first().copied().unwrap_or(default))
    }

    /// The values of a tag of numbers, fractions or not; empty when it is absent.
    pub(super) fn floats(&self, tag: u16) -> Result<Vec<f32>, ImageError> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let values = self.values(tag)?.into_iter();
        Ok(match entry.kind {
            // numerator, then denominator
            5 | 10 => {
                let halves = |value: u64| (value & 0xffff_ffff, value >> 32);
                let order = |value| {
                    if self.little_endian { halves(value) } else { (value >> 32, value & 0xffff_ffff) }
                };
                let fraction =
                    |(above, below): (u64, u64)| if below == 0 { 0.0 } else { above as f32 / below as f32 };
                values.map(order).map(fraction).collect()
            }
            11 => values.map(|bits| f32::from_bits(bits as u32)).collect(),
            12 => values.map(|bits| f64::from_bits(bits) as f32).collect(),
            _ => values.map(|value| value as f32).collect(),
        })
    }

    /// Whether a tag holds whole numbers of two or four bytes, or is absent.
    pub(super) fn is_short_or_long(&self, tag: u16) -> bool {
        self.entries.get(&tag).is_none_or(|entry| matches!(entry.kind, 3 | 4 | 8 | 9))
    }

    /// The bytes of a tag of bytes.
    pub(super) fn raw(&self, tag: u16) -> Option<&'a [u8]> {
        let entry = self.entries.get(&tag)?;
        let len = entry.count.checked_mul(size_of_kind(entry.kind))?;
        self.bytes.get(entry.at..entry.at.checked_add(len)?)
    }
}

/// Bytes per value of a tag's type.
fn size_of_kind(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}

/// An offset or count as an index; one that does not fit points behind the end anyway.
pub(super) fn place(number: u64) -> Result<usize, ImageError> {
    usize::try_from(number).map_err(|_| ImageError::Truncated { format: FORMAT })
}
