//! Reads the chunks of a PNG without decoding: to restore a cut-off end, and to find the orientation that some
//! programs write in text chunks instead of an eXIf chunk.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;

use super::super::super::orientation::Orientation;

const SIGNATURE: usize = 8;
/// Length (4), name (4) and checksum (4) that surround a chunk's body.
const AROUND: usize = 12;
/// The whole end chunk: no body, and the checksum of its name.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
/// Maximum length of an unpacked text that is searched for an orientation. A camera's EXIF block has at most 64 kB and
/// takes twice as much in hexadecimal; an XMP packet is no longer.
const TEXT_MAX: usize = 1 << 18;
/// Maximum number of texts per keyword that are unpacked; programs write one.
const TEXTS_MAX: usize = 4;

/// The keyword under which ImageMagick and Exiftool store EXIF in a text chunk.
const RAW_EXIF: &[u8] = b"Raw profile type exif";
/// The keyword of XMP, by its specification.
const XMP: &[u8] = b"XML:com.adobe.xmp";

/// Returns the name and body of each complete chunk, and the position where the chunk ends.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], usize)> {
    let mut at = SIGNATURE;
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
        let end = at.checked_add(length)?.checked_add(AROUND)?;
        let chunk = bytes.get(at..end)?;
        at = end;
        Some((&chunk[4..8], &chunk[8..length + 8], end))
    })
}

/// Returns the file with an end chunk. If the end is missing, it is added after the last available pixel data. Pillow
/// needs only the pixels, not the checksums after them.
pub(super) fn with_end(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut whole = SIGNATURE.min(bytes.len());
    for (name, _, end) in chunks(bytes) {
        if name == b"IEND" {
            return Cow::Borrowed(bytes);
        }
        whole = end;
    }
    let (whole, rest) = bytes.split_at(whole);
    Cow::Owned([whole, &cut_pixels(rest).unwrap_or_default(), END].concat())
}

/// Turns the available part of a cut-off pixel chunk into a complete chunk. The decoder detects whether pixels are missing.
fn cut_pixels(chunk: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = chunk.split_first_chunk()?;
    let body = rest.strip_prefix(b"IDAT")?;
    let body = &body[..body.len().min(u32::from_be_bytes(*length) as usize)];
    let length = u32::try_from(body.len()).ok()?;
    let mut sum = flate2::Crc::new();
    sum.update(b"IDAT");
    sum.update(body);
    Some([&length.to_be_bytes(), b"IDAT".as_slice(), body, &sum.sum().to_be_bytes()].concat())
}

/// Returns the orientation from text chunks. Like Pillow, tries a raw EXIF profile first, then XMP.
pub(super) fn orientation(bytes: &[u8]) -> Option<Orientation> {
    let of = |keyword: &'static [u8]| {
        let texts = chunks(bytes).filter_map(|(name, body, _)| Text::read(name, body));
        texts.filter(move |text| text.keyword == keyword).take(TEXTS_MAX).filter_map(|text| text.unpacked())
    };
    let from_exif = of(RAW_EXIF).find_map(|text| Orientation::in_exif(&profile(&text)?));
    from_exif.or_else(|| of(XMP).find_map(|text| Orientation::in_xmp(&text)))
}

/// A text chunk of one of the three kinds.
struct Text<'a> {
    keyword: &'a [u8],
    packed: bool,
    text: &'a [u8],
}

impl<'a> Text<'a> {
    fn read(name: &[u8], body: &'a [u8]) -> Option<Self> {
        let (keyword, rest) = split_at_zero(body)?;
        match name {
            b"tEXt" => Some(Self { keyword, packed: false, text: rest }),
            // the compression method: only 0, zlib, exists
            b"zTXt" => Some(Self { keyword, packed: true, text: rest.strip_prefix(&[0])? }),
            b"iTXt" => {
                let (&[packed, method], rest) = rest.split_first_chunk()?;
                let (_language, rest) = split_at_zero(rest)?;
                let (_translated, text) = split_at_zero(rest)?;
                (method == 0).then_some(Self { keyword, packed: packed == 1, text })
            }
            _ => None,
        }
    }

    /// Returns the text, or `None` if it is too long or damaged.
    fn unpacked(&self) -> Option<Cow<'a, [u8]>> {
        if !self.packed {
            return (self.text.len() <= TEXT_MAX).then_some(Cow::Borrowed(self.text));
        }
        let mut text = Vec::new();
        ZlibDecoder::new(self.text).take(TEXT_MAX as u64 + 1).read_to_end(&mut text).ok()?;
        (text.len() <= TEXT_MAX).then_some(Cow::Owned(text))
    }
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Decodes a raw profile: an empty line, a name, a length, then lines of hexadecimal digits.
fn profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|byte| *byte == b'\n').skip(3);
    let digits: Vec<u8> = lines.flatten().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits.chunks_exact(2).map(|pair| Some((value(pair[0])? << 4 | value(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        // checksums are not verified here
        [&(body.len() as u32).to_be_bytes(), name.as_slice(), body, &[0; 4]].concat()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text).unwrap();
        packed.finish().unwrap()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"\x89PNG\r\n\x1a\n".as_slice(), &chunks.concat()].concat()
    }

    /// An EXIF block with an orientation, as hexadecimal digits after the three lines that ImageMagick writes.
    fn raw_profile(orientation: u8) -> Vec<u8> {
        let exif =
            [b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation, 0, 0]]
                .concat();
        let digits: Vec<String> = exif.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\nexif\n      {}\n{}\n{}\n", exif.len(), digits[..20].concat(), digits[20..].concat())
            .into_bytes()
    }

    #[test]
    fn an_orientation_is_found_in_any_kind_of_text() {
        let raw = raw_profile(6);
        let xmp: &[u8] = b"<x:xmpmeta><rdf:Description tiff:Orientation=\"3\"/></x:xmpmeta>";
        let itxt = |packed: u8, text: &[u8]| [XMP, &[0, packed, 0], b"en\0\0", text].concat();
        let raw_exif = |text: &[u8]| [RAW_EXIF, &[0], text].concat();
        let of = |chunks: &[Vec<u8>]| orientation(&file(chunks));
        assert_eq!(of(&[chunk(b"tEXt", &raw_exif(&raw))]), Some(Orientation::Turn90));
        assert_eq!(
            of(&[chunk(b"zTXt", &raw_exif(&[&[0], zlib(&raw).as_slice()].concat()))]),
            Some(Orientation::Turn90)
        );
        assert_eq!(of(&[chunk(b"iTXt", &itxt(0, xmp))]), Some(Orientation::Turned180));
        assert_eq!(of(&[chunk(b"iTXt", &itxt(1, &zlib(xmp)))]), Some(Orientation::Turned180));
        let both = [chunk(b"iTXt", &itxt(0, xmp)), chunk(b"tEXt", &raw_exif(&raw))];
        assert_eq!(of(&both), Some(Orientation::Turn90), "EXIF comes first");
        assert_eq!(of(&[chunk(b"tEXt", b"Comment\0tiff:Orientation=\"3\"")]), None);
    }

    #[test]
    fn a_text_that_is_too_long_or_damaged_says_nothing() {
        let mut long = raw_profile(6);
        long.resize(TEXT_MAX + 2, b'0');
        let packed = |text: &[u8]| chunk(b"zTXt", &[RAW_EXIF, &[0, 0], text].concat());
        assert_eq!(orientation(&file(&[packed(&zlib(&long))])), None);
        assert_eq!(orientation(&file(&[packed(b"no zlib")])), None);
        assert_eq!(orientation(&file(&[chunk(b"tEXt", b"no keyword's end")])), None);
        for cut in 0..40 {
            let whole = file(&[packed(&zlib(&raw_profile(6)))]);
            assert_eq!(orientation(&whole[..whole.len() - 1 - cut]), None, "{cut}");
        }
    }

    #[test]
    fn only_the_first_texts_are_looked_at() {
        let text = |body: &[u8]| chunk(b"tEXt", &[RAW_EXIF, &[0], body].concat());
        let behind = |empty: usize| {
            orientation(&file(&[vec![text(b""); empty], vec![text(&raw_profile(6))]].concat()))
        };
        assert_eq!(behind(TEXTS_MAX - 1), Some(Orientation::Turn90));
        assert_eq!(behind(TEXTS_MAX), None);
    }

    #[test]
    fn an_end_is_added_where_only_that_is_missing() {
        let whole = [file(&[chunk(b"IHDR", &[1, 2]), chunk(b"IDAT", &[3])]), END.to_vec()].concat();
        let pixels = whole.len() - END.len();
        for cut in pixels..=whole.len() {
            assert_eq!(*with_end(&whole[..cut]), *whole, "{cut}");
        }
        let summed = [&whole[..pixels - 4], &[0xb1, 0x31, 0x2c, 0x52], END].concat();
        for cut in pixels - 4..pixels {
            assert_eq!(*with_end(&whole[..cut]), *summed, "{cut}");
        }
        assert!(matches!(with_end(&whole), Cow::Borrowed(_)));
        assert!(with_end(&whole[..pixels - 5]).len() < whole.len());
        assert_eq!(*with_end(&whole[..3]), *[&whole[..3], END].concat());
    }
}
