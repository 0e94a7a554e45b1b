//! Which format a file is in, told by its content and never by its name.

use super::converter::{VIDEO_AVI, VIDEO_MATROSKA, VIDEO_MP4};
use super::error::ImageError;

/// A format that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
    Bmp,
    Tiff,
    #[cfg(feature = "heic")]
    Heic,
    #[cfg(feature = "avif")]
    Avif,
}

/// Formats people may well hand us and that are refused by name: where the mark stands, the mark, the name.
const REFUSED: &[(usize, &[u8], &str)] = &[
    (4, b"ftyphei", "HEIF"),
    (4, b"ftyphev", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmif2", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypcrx", "Canon RAW"),
    (4, b"ftyp", VIDEO_MP4),
    (0, b"\x1a\x45\xdf\xa3", VIDEO_MATROSKA),
    (8, b"AVI LIST", VIDEO_AVI),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"AT&TFORM", "DjVu"),
    (128, b"DICM", "DICOM"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DirectDraw surface"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"P1\n", "Netpbm"),
    (0, b"P2\n", "Netpbm"),
    (0, b"P3\n", "Netpbm"),
    (0, b"P4\n", "Netpbm"),
    (0, b"P5\n", "Netpbm"),
    (0, b"P6\n", "Netpbm"),
    (0, b"P7\n", "Netpbm"),
    (0, b"FORM", "IFF"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"PK\x03\x04", "zip archive"),
];

/// How a TGA image ends, since version 2.
const TGA_END: &[u8] = b"TRUEVISION-XFILE.\0";

impl Format {
    /// The name used in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            #[cfg(feature = "heic")]
            Self::Heic => "HEIC",
            #[cfg(feature = "avif")]
            Self::Avif => "AVIF",
        }
    }

    /// Tells the format from the first bytes.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        let starts = |mark: &[u8]| bytes.starts_with(mark);
        if starts(b"\x89PNG\r\n\x1a\n") {
            return Ok(Self::Png);
        }
        if starts(b"\xff\xd8\xff") {
            return Ok(Self::Jpeg);
        }
        if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            return Ok(Self::WebP);
        }
        if starts(b"GIF87a") || starts(b"GIF89a") {
            return Ok(Self::Gif);
        }
        if [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"].iter().any(|mark| starts(*mark)) {
            return Ok(Self::Tiff);
        }
        if starts(b"BM") && bytes.len() >= 18 {
            return Ok(Self::Bmp);
        }
        #[cfg(feature = "avif")]
        if is_avif(bytes) {
            return Ok(Self::Avif);
        }
        #[cfg(feature = "heic")]
        if is_heic(bytes) {
            return Ok(Self::Heic);
        }
        Err(refusal(bytes))
    }
}

/// The brands that a file of the family of MP4 begins with: its own, a version, then those that it may be read as.
fn brands(bytes: &[u8]) -> Option<std::slice::ChunksExact<'_, u8>> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    // the box's length and its name come first
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    Some(bytes[8..length.clamp(8, bytes.len())].chunks_exact(4))
}

/// Whether a brand is one of HEVC pictures.
fn is_hevc(brand: &[u8]) -> bool {
    brand.starts_with(b"hei") || brand.starts_with(b"hev")
}

/// Whether a brand says nothing of the codec.
fn is_general(brand: &[u8]) -> bool {
    matches!(brand, b"mif1" | b"mif2" | b"msf1")
}

/// Whether a file's brand is one of HEVC pictures: `heic` and its kin, or a general one beside which none of another codec's stands.
#[cfg(feature = "heic")]
fn is_heic(bytes: &[u8]) -> bool {
    let Some(mut brands) = brands(bytes) else { return false };
    let own = brands.next().unwrap_or_default();
    is_hevc(own) || (is_general(own) && !is_avif(bytes))
}

/// Whether a file that begins with `head`, of which [`HEAD_BYTES`] are enough, is AVIF: by its own brand, or by another where its
/// own is one of several kinds of pictures.
///
/// ```
/// use phi3v::image::is_avif;
///
/// assert!(is_avif(b"\0\0\0\x14ftypavif") && is_avif(b"\0\0\0\x18ftypmif1\0\0\0\0avifmiaf"));
/// assert!(!is_avif(b"\0\0\0\x14ftypheic\0\0\0\0mif1") && !is_avif(b"avif"));
/// ```
#[must_use]
pub fn is_avif(head: &[u8]) -> bool {
    let Some(mut brands) = brands(head) else { return false };
    let is_av1 = |brand: &[u8]| matches!(brand, b"avif" | b"avis");
    let own = brands.next().unwrap_or_default();
    let is_of_pictures = is_general(own) || matches!(own, b"miaf" | b"MA1A" | b"MA1B");
    let mut others = brands.skip(1);
    is_av1(own) || (is_of_pictures && others.any(is_av1) && !brands_hold_hevc(head))
}

/// Whether a file may be read as HEVC pictures.
fn brands_hold_hevc(head: &[u8]) -> bool {
    brands(head).is_some_and(|mut brands| brands.any(is_hevc))
}

/// Bytes of a file's beginning that are enough to tell what it is.
pub const HEAD_BYTES: usize = 64;

/// Formats of photographs and pictures that are refused and that people keep among those that are read.
const PICTURES_REFUSED: &[&str] = &["AVIF", "HEIF", "Canon RAW", "JPEG XL", "JPEG 2000"];

/// Whether a file that begins with `head` is a picture, as far as its first [`HEAD_BYTES`] bytes tell: of a format that is
/// decoded, or of another that holds photographs (AVIF, HEIF, JPEG XL and the like).
///
/// ```
/// use phi3v::image::is_picture;
///
/// assert!(is_picture(b"\x89PNG\r\n\x1a\n") && is_picture(b"\0\0\0\x18ftypheic"));
/// assert!(!is_picture(b"%PDF-1.7") && !is_picture(b""));
/// ```
#[must_use]
pub fn is_picture(head: &[u8]) -> bool {
    match Format::of(head) {
        Ok(_) => true,
        Err(ImageError::UnsupportedFormat { format }) => PICTURES_REFUSED.contains(&format),
        Err(_) => false,
    }
}

/// The error for bytes that are in no supported format.
fn refusal(bytes: &[u8]) -> ImageError {
    if is_avif(bytes) {
        return ImageError::UnsupportedFormat { format: "AVIF" };
    }
    for &(at, mark, format) in REFUSED {
        if bytes.get(at..at + mark.len()) == Some(mark) {
            return ImageError::UnsupportedFormat { format };
        }
    }
    if let Some(format) = icon(bytes).or_else(|| bytes.ends_with(TGA_END).then_some("TGA")) {
        return ImageError::UnsupportedFormat { format };
    }
    let head = &bytes[..bytes.len().min(1024)];
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg")) {
        return ImageError::UnsupportedFormat { format: "SVG" };
    }
    ImageError::NotAnImage { start: printable(bytes) }
}

/// A Windows icon or cursor. Its four bytes alone are no mark: TGA images begin with them as well.
fn icon(bytes: &[u8]) -> Option<&'static str> {
    let head: &[u8; 10] = bytes.first_chunk()?;
    let format = match head[..4] {
        [0, 0, 1, 0] => "Windows icon",
        [0, 0, 2, 0] => "Windows cursor",
        _ => return None,
    };
    let entries = u16::from_le_bytes([head[4], head[5]]);
    // of the first entry a reserved byte, which some programs set to 255
    (entries > 0 && matches!(head[9], 0 | 255)).then_some(format)
}

/// The first bytes, as text where they are text, else as hexadecimal.
fn printable(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(12)];
    if !head.is_empty() && head.iter().all(|b| (0x20..0x7f).contains(b)) {
        return format!("\"{}\"", String::from_utf8_lossy(head));
    }
    let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
    format!("bytes {}", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::converter::converter;
    use super::*;

    fn name_refused(bytes: &[u8]) -> &'static str {
        match Format::of(bytes) {
            Err(ImageError::UnsupportedFormat { format }) => format,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn formats_are_told_by_content() {
        assert_eq!(Format::of(b"\x89PNG\r\n\x1a\n"), Ok(Format::Png));
        assert_eq!(Format::of(b"\xff\xd8\xff\xe0"), Ok(Format::Jpeg));
        assert_eq!(Format::of(b"RIFF\0\0\0\0WEBPVP8 "), Ok(Format::WebP));
        assert_eq!(Format::of(b"GIF89a"), Ok(Format::Gif));
        assert_eq!(Format::of(b"MM\0\x2a"), Ok(Format::Tiff));
        assert_eq!(Format::of(&[b"BM".as_slice(), &[0; 16]].concat()), Ok(Format::Bmp));
        #[cfg(feature = "heic")]
        for brands in ["ftypheic", "ftypheix\0\0\0\0mif1", "ftypmif1\0\0\0\0mif1heic", "ftypmif1\0\0\0\0"] {
            let bytes = [&(4 + brands.len() as u32).to_be_bytes(), brands.as_bytes()].concat();
            assert_eq!(Format::of(&bytes), Ok(Format::Heic), "{brands}");
        }
        #[cfg(feature = "avif")]
        for brands in ["ftypavif", "ftypavis\0\0\0\0msf1", "ftypmif1\0\0\0\0miafavif", "ftypmiaf\0\0\0\0avif"]
        {
            let bytes = [&(4 + brands.len() as u32).to_be_bytes(), brands.as_bytes()].concat();
            assert_eq!(Format::of(&bytes), Ok(Format::Avif), "{brands}");
        }
    }

    #[test]
    fn unsupported_formats_are_named() {
        #[cfg(not(feature = "avif"))]
        for file in [b"\0\0\0\x14ftypavif\0\0\0\0mif1", b"\0\0\0\x14ftypmif1\0\0\0\0avif"] {
            assert_eq!(name_refused(file), "AVIF");
        }
        #[cfg(not(feature = "heic"))]
        assert_eq!(name_refused(b"\0\0\0\x18ftypheic"), "HEIF");
        assert_eq!(name_refused(b"\0\0\0\x18ftypisom"), "video (MP4 or QuickTime)");
        assert_eq!(name_refused(b"%PDF-1.7"), "PDF");
        assert_eq!(name_refused(b"RIFF\0\0\0\0AVI LIST"), "video (AVI)");
        assert_eq!(name_refused(b"<?xml version=\"1.0\"?>\n<svg xmlns"), "SVG");
        assert_eq!(name_refused(b"  <svg>"), "SVG");
        assert_eq!(name_refused(b"\xff\x0a\0"), "JPEG XL");
        assert_eq!(name_refused(b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x18\0"), "Windows icon");
        assert_eq!(name_refused(b"\0\0\x02\0\x01\0\x20\x20\0\0\x05\0\x05\0"), "Windows cursor");
    }

    #[test]
    fn every_refused_format_has_a_command() {
        let marked = REFUSED.iter().map(|&(_, _, name)| name);
        for format in marked.chain(["AVIF", "SVG", "TGA", "Windows icon", "Windows cursor"]) {
            let command = converter(format).unwrap_or_else(|| panic!("{format}"));
            let hint = ImageError::UnsupportedFormat { format }.hint();
            assert!(hint.is_some_and(|hint| hint.contains(command)), "{format}");
        }
    }

    #[test]
    fn a_tga_is_no_cursor() {
        // no name, no palette, RGB; 2x1 pixels of 24 bits
        let head = b"\0\0\x02\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x18\0abcdef";
        assert!(matches!(Format::of(head), Err(ImageError::NotAnImage { .. })));
        assert_eq!(name_refused(&[head.as_slice(), &[0; 8], TGA_END].concat()), "TGA");
    }

    #[test]
    fn anything_else_is_shown() {
        let text = Format::of(b"hello, world, this is text").unwrap_err();
        assert_eq!(text.to_string(), "this is not a picture: it begins with \"hello, world\"");
        let binary = Format::of(&[0, 1, 2]).unwrap_err();
        assert_eq!(binary.to_string(), "this is not a picture: it begins with bytes 00 01 02");
        for error in [text, binary] {
            assert!(error.hint().is_some_and(|hint| hint.contains("TIFF")));
        }
    }
}
