//! The directory of a TIFF: its tags, in either byte order, with 32-bit or 64-bit offsets.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::error::ImageError;
use super::{FORMAT, damaged};

/// Maximum number of values that are read for one tag; more than one strip per row of the tallest image.
const VALUES_MAX: usize = 1 << 20;

/// The position of a tag's values.
struct Entry {
    kind: u16,
    count: usize,
    at: usize,
}

/// Sizes in bytes of the numbers of a file, and the position of the first directory's offset.
struct Widths {
    /// Size of an offset and of the count of a tag's values.
    word: usize,
    /// Position of the offset of the first directory.
    first: usize,
    /// Size of the number of entries.
    count: usize,
}

impl Widths {
    /// Size of an entry: tag and type, count and value.
    fn entry(&self) -> usize {
        4 + 2 * self.word
    }
}

/// Walks from directory to directory.
struct Chain {
    /// The start of the next directory, if the file states one.
    start: Option<u64>,
    /// The starts of the previous directories. A chain that returns to one of them ends there.
    seen: BTreeSet<u64>,
}

impl Chain {
    /// Returns the start of the next directory, or `None` at the end of the chain.
    fn next(&mut self, of: &Directory<'_>, widths: &Widths) -> Result<Option<usize>, ImageError> {
        let is_first = self.seen.is_empty();
        let Some(start) = self.start.filter(|start| (*start > 0 || is_first) && self.seen.insert(*start))
        else {
            return Ok(None);
        };
        let place_of = place(start)?;
        let entries = place(of.number(place_of, widths.count)?)?;
        let end = entries.saturating_mul(widths.entry()).saturating_add(place_of + widths.count);
        // an offset beyond the end of the file ends the chain
        self.start = of.number(end, widths.word).ok();
        Ok(Some(place_of))
    }
}

/// A directory of a file; each directory describes a page.
pub(super) struct Directory<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) little_endian: bool,
    entries: BTreeMap<u16, Entry>,
}

impl<'a> Directory<'a> {
    /// Reads the directory of page `page`, counted from 0, or returns `None` if the file has fewer pages. If a tag
    /// occurs twice, the first one counts.
    ///
    /// # Errors
    /// A directory up to this page is truncated.
    pub(super) fn of_page(bytes: &'a [u8], page: usize) -> Result<Option<Self>, ImageError> {
        let mut directory = Self { bytes, little_endian: bytes.starts_with(b"II"), entries: BTreeMap::new() };
        let widths = directory.widths()?;
        let mut chain =
            Chain { start: Some(directory.number(widths.first, widths.word)?), seen: BTreeSet::new() };
        let mut start = None;
        for _ in 0..=page {
            let Some(next) = chain.next(&directory, &widths)? else { return Ok(None) };
            start = Some(next);
        }
        if let Some(start) = start {
            directory.read_entries(start, &widths)?;
        }
        Ok(Some(directory))
    }

    /// Counts the directories, up to `most`. A truncated directory ends the chain.
    pub(super) fn count(bytes: &'a [u8], most: usize) -> Result<usize, ImageError> {
        let directory = Self { bytes, little_endian: bytes.starts_with(b"II"), entries: BTreeMap::new() };
        let widths = directory.widths()?;
        let mut chain =
            Chain { start: Some(directory.number(widths.first, widths.word)?), seen: BTreeSet::new() };
        let mut count = 0;
        while count < most && chain.next(&directory, &widths).is_ok_and(|next| next.is_some()) {
            count += 1;
        }
        Ok(count)
    }

    /// Reads the header: a version, and offsets of 4 bytes, or of 8 bytes in a BigTIFF (version 43).
    fn widths(&self) -> Result<Widths, ImageError> {
        let big = self.number(2, 2)? == 43;
        let (word, first, count) = if big { (8, 8, 8) } else { (4, 4, 2) };
        Ok(Widths { word, first, count })
    }

    fn read_entries(&mut self, start: usize, widths: &Widths) -> Result<(), ImageError> {
        let (directory, word) = (self, widths.word);
        let count = directory.number(start, widths.count)?;
        for i in 0..count.min(u64::from(u16::MAX)) as usize {
            let at = start + widths.count + i * widths.entry();
            let tag = directory.number(at, 2)? as u16;
            let kind = directory.number(at + 2, 2)? as u16;
            let count = place(directory.number(at + 4, word)?)?;
            let value_at = at + 4 + word;
            // values that fit are stored in the entry, others at an offset
            let inline = count.saturating_mul(size_of_kind(kind)) <= word;
            let at = if inline { value_at } else { place(directory.number(value_at, word)?)? };
            directory.entries.entry(tag).or_insert(Entry { kind, count, at });
        }
        Ok(())
    }

    /// Reads an unsigned number of `size` bytes.
    fn number(&self, at: usize, size: usize) -> Result<u64, ImageError> {
        let bytes = at.checked_add(size).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes.ok_or(ImageError::Truncated { format: FORMAT })?;
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Ok(if self.little_endian { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
    }

    /// The values of a tag of integers; empty if the tag is absent.
    pub(super) fn values(&self, tag: u16) -> Result<Vec<u64>, ImageError> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let size = size_of_kind(entry.kind);
        if entry.count > VALUES_MAX {
            return Err(damaged(&format!("tag {tag} has {} values", entry.count)));
        }
        let value = |i: usize| self.number(entry.at.saturating_add(i * size), size);
        (0..entry.count).map(value).collect()
    }

    /// The first value of a tag, or `default` if the tag is absent.
    pub(super) fn value(&self, tag: u16, default: u64) -> Result<u64, ImageError> {
        Ok(self.values(tag)?.first().copied().unwrap_or(default))
    }

    /// The values of a tag of integers, fractions or floats; empty if the tag is absent.
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

    /// Whether a tag holds integers of two or four bytes, or is absent.
    pub(super) fn is_short_or_long(&self, tag: u16) -> bool {
        self.entries.get(&tag).is_none_or(|entry| matches!(entry.kind, 3 | 4 | 8 | 9))
    }

    /// The bytes of a tag's values.
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

/// Converts an offset or count to an index. One that does not fit lies beyond the end of the file anyway.
pub(super) fn place(number: u64) -> Result<usize, ImageError> {
    usize::try_from(number).map_err(|_| ImageError::Truncated { format: FORMAT })
}
