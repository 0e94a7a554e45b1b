//! Checks the lists of a file before its items are looked up one by one, and finds where its complete part ends.
//!
//! heifer searches for the location and properties of every item from the beginning and keeps a copy for each. Lists
//! longer than a picture needs would take minutes, and gigabytes if their entries take no bytes.

use super::{Fault, damaged, unsupported};
use heifer_isobmff::BoxIter;
use std::collections::HashSet;

/// Maximum number of items, and of locations and properties of items: a grid has at most 65,536 tiles.
const ENTRIES_MAX: u64 = 70_000;
/// Maximum number of references between items: colours and transparency have a grid each.
const REFERENCES_MAX: u64 = 2 * ENTRIES_MAX;

/// Returns the file up to the end of its last complete box, if its lists are no longer than a picture needs. Data that
/// other programs append is not a box. In a truncated file, the box at the cut is missing.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], Fault> {
    let (mut end, mut meta) = (0, None);
    for part in BoxIter::new(bytes).map_while(Result::ok) {
        // `BoxIter` returns boxes within the file only
        end = part.offset + part.header.header_size as usize + part.content.len();
        if &part.header.box_type.0 == b"meta" {
            meta = Some(part.content);
        }
    }
    let whole = &bytes[..end.min(bytes.len())];
    match meta {
        // skip the version and flags
        Some(meta) => Lists::of(meta.get(4..).unwrap_or_default())?.check().map(|()| whole),
        None if whole.len() < bytes.len() => Err(Fault::Truncated),
        None => Err(damaged("it does not tell of any pictures")),
    }
}

/// The lengths of a file's lists.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    items: u64,
    /// Items that have a location.
    located: u64,
    /// Extents that the locations consist of.
    pieces: u64,
    /// Items that have properties.
    described: u64,
    references: u64,
}

impl Lists {
    /// Counts the entries of lists without storing them.
    fn of(meta: &[u8]) -> Result<Self, Fault> {
        let mut lists = Self::default();
        for part in BoxIter::new(meta) {
            let part = part?;
            match &part.header.box_type.0 {
                b"iinf" => lists.items += items(part.content)?,
                b"iloc" => lists.add_places(part.content).ok_or(Fault::Truncated)?,
                b"iref" => lists.references += references(part.content)?,
                b"iprp" => {
                    for child in BoxIter::new(part.content) {
                        let child = child?;
                        if &child.header.box_type.0 == b"ipma" {
                            let count = Reader(child.content.get(4..).unwrap_or_default()).number(4);
                            lists.described += count.ok_or(Fault::Truncated)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(lists)
    }

    /// Adds the entries of an item location box. An entry may have extents that take no bytes.
    fn add_places(&mut self, content: &[u8]) -> Option<()> {
        let mut reader = Reader(content);
        let version = reader.number(1)?;
        reader.skip(3)?;
        let [offset, length, base, index] = {
            let (first, second) = (reader.number(1)?, reader.number(1)?);
            [first >> 4, first & 15, second >> 4, if version > 0 { second & 15 } else { 0 }]
        };
        let id_bytes = if version < 2 { 2 } else { 4 };
        let count = reader.number(id_bytes)?;
        self.located += count;
        if self.located > ENTRIES_MAX {
            return Some(());
        }
        // from version 1 on, two bytes say what the location is relative to; two more say which file it is in
        let before = id_bytes + if version > 0 { 4 } else { 2 } + base as usize;
        for _ in 0..count {
            reader.skip(before)?;
            let pieces = reader.number(2)?;
            reader.skip(pieces as usize * (offset + length + index) as usize)?;
            self.pieces += pieces;
        }
        Some(())
    }

    fn check(&self) -> Result<(), Fault> {
        for (count, what, limit) in [
            (self.items, "items", ENTRIES_MAX),
            (self.located, "places of items", ENTRIES_MAX),
            (self.pieces, "pieces of items", ENTRIES_MAX),
            (self.described, "lists of items' properties", ENTRIES_MAX),
            (self.references, "references of items", REFERENCES_MAX),
        ] {
            if count > limit {
                return Err(unsupported(format!("it has {count} {what}, and {limit} at most are read")));
            }
        }
        Ok(())
    }
}

/// Counts the items of a list and checks that their identifiers are distinct.
fn items(content: &[u8]) -> Result<u64, Fault> {
    let mut reader = Reader(content);
    let version = reader.number(1).ok_or(Fault::Truncated)?;
    reader.skip(if version == 0 { 5 } else { 7 }).ok_or(Fault::Truncated)?;
    let (mut count, mut seen) = (0, HashSet::new());
    for part in BoxIter::new(reader.0) {
        let part = part?;
        if &part.header.box_type.0 != b"infe" {
            continue;
        }
        count += 1;
        let mut entry = Reader(part.content);
        let id_bytes = if entry.number(1) == Some(3) { 4 } else { 2 };
        let id = entry.skip(3).and_then(|()| entry.number(id_bytes)).ok_or(Fault::Truncated)?;
        // a longer list is refused for its length
        if count <= ENTRIES_MAX && !seen.insert(id) {
            return Err(damaged(&format!("it tells of item {id} twice")));
        }
    }
    Ok(count)
}

/// Counts the items that other items refer to, plus the reference lists themselves.
fn references(content: &[u8]) -> Result<u64, Fault> {
    let mut reader = Reader(content);
    let version = reader.number(1).ok_or(Fault::Truncated)?;
    reader.skip(3).ok_or(Fault::Truncated)?;
    let mut count = 0;
    for part in BoxIter::new(reader.0) {
        let mut entry = Reader(part?.content);
        let to = entry.skip(if version == 0 { 2 } else { 4 }).and_then(|()| entry.number(2));
        count += 1 + to.ok_or(Fault::Truncated)?;
    }
    Ok(count)
}

/// Reads big-endian numbers.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Returns the next number, of `bytes` bytes; at most 8.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(8 + content.len() as u32).to_be_bytes(), name.as_slice(), content].concat()
    }

    fn file(meta: &[u8]) -> Vec<u8> {
        [part(b"ftyp", b"heic\0\0\0\0mif1"), part(b"meta", &[&[0; 4], meta].concat())].concat()
    }

    fn refusal(meta: &[u8]) -> String {
        match checked(&file(meta)) {
            Err(Fault::Unsupported(kind)) => kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_stands_behind_the_last_box_is_left_out() {
        let whole = [file(&[]), part(b"mdat", &[7; 9])].concat();
        assert_eq!(checked(&whole), Ok(&whole[..]));
        for tail in [&b"SEFT and more"[..], b"\0\0", b"\0\0\0\x02free", &[0xff; 40]] {
            assert_eq!(checked(&[&whole, tail].concat()), Ok(&whole[..]), "{tail:?}");
        }
        assert_eq!(checked(&whole[..whole.len() - 1]), Ok(&file(&[])[..]), "the pixels' box is not whole");
        assert_eq!(checked(&whole[..30]), Err(Fault::Truncated));
        assert!(matches!(checked(&part(b"ftyp", b"heic\0\0\0\0")), Err(Fault::Damaged(_))));
    }

    #[test]
    fn lists_are_counted_as_they_are_stored() {
        let item = |version: u8, id: &[u8]| part(b"infe", &[&[version, 0, 0, 0], id, b"\0\0hvc1\0"].concat());
        let items = [&[0, 0, 0, 0, 0, 2][..], &item(2, &[0, 1]), &item(3, &[0, 0, 0, 2])].concat();
        let places =
            [&[1, 0, 0, 0, 0x44, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..], &[0; 8], &[0, 2], &[0; 16]].concat();
        let owners = part(b"ipma", &[0, 0, 0, 0, 0, 0, 0, 3]);
        let references = [&[0; 4][..], &part(b"dimg", &[0, 1, 0, 2, 0, 2, 0, 3])].concat();
        let meta = [
            part(b"iinf", &items),
            part(b"iloc", &places),
            part(b"iprp", &[part(b"ipco", &[]), owners].concat()),
            part(b"iref", &references),
        ];
        let counted = Lists { items: 2, located: 1, pieces: 2, described: 3, references: 3 };
        assert_eq!(Lists::of(&meta.concat()), Ok(counted));
        assert_eq!(Lists::of(&part(b"iloc", &places[..places.len() - 1])), Err(Fault::Truncated));
        let same = part(b"iinf", &[&[0, 0, 0, 0, 0, 2][..], &item(2, &[0, 1]), &item(2, &[0, 1])].concat());
        assert_eq!(Lists::of(&same), Err(damaged("it tells of item 1 twice")));
    }

    #[test]
    fn lists_longer_than_a_picture_needs_are_refused_by_their_number() {
        let item = |id: u32| part(b"infe", &[&[3, 0, 0, 0][..], &id.to_be_bytes(), b"\0\0hvc1\0"].concat());
        let items = |count: u32| {
            let entries: Vec<u8> = (0..count).flat_map(|id| item(id % 60_000)).collect();
            part(b"iinf", &[&[1, 0, 0, 0][..], &count.to_be_bytes(), &entries].concat())
        };
        assert!(checked(&file(&items(60_000))).is_ok());
        assert!(refusal(&[items(60_000), items(10_001)].concat()).contains("has 70001 items, and 70000"));
        let owners = part(b"iprp", &part(b"ipma", &[0, 0, 0, 0, 0, 2, 0, 0]));
        assert!(refusal(&owners).contains("131072 lists of items' properties"));
        let places = part(b"iloc", &[2, 0, 0, 0, 0x44, 0, 0, 2, 0, 0]);
        assert!(refusal(&places).contains("131072 places"));
        // two entries with 65,535 extents that take no bytes
        let empty = [&[0, 0, 0, 0, 0, 0, 0, 2][..], &[0, 1, 0, 0, 0xff, 0xff], &[0, 2, 0, 0, 0xff, 0xff]];
        assert!(refusal(&part(b"iloc", &empty.concat())).contains("131070 pieces"));
        let list = part(b"auxl", &[&[0, 1, 0xff, 0xff][..], &[0, 2].repeat(65_535)].concat());
        assert!(
            refusal(&part(b"iref", &[vec![0; 4], list.repeat(3)].concat())).contains("196608 references")
        );
    }
}
