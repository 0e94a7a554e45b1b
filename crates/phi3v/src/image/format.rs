//! Detects the format of a file from its content, never from its name.

use super::converter::{VIDEO_AVI, VIDEO_MATROSKA, VIDEO_MP4};
use super::error::ImageError;

/// A decoded format.
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

/// Common formats that are refused by name: the position of the signature, the signature, the name. Formats whose
/// signature could begin a text are in [`REFUSED_BY_HEADER`].
const REFUSED: &[(usize, &[u8], &str)] = &[
    (4, b"ftypcrx", "Canon RAW"),
    (4, b"ftyp", VIDEO_MP4),
    (0, b"II\x1a\0\0\0HEAPCCDR", "Canon RAW"),
    (0, b"FUJIFILMCCD-RAW ", "Fujifilm RAW"),
    (0, b"IIU\0", "Panasonic RAW"),
    (0, b"IIRO\x08\0\0\0", "Olympus RAW"),
    (0, b"IIRS\x08\0\0\0", "Olympus RAW"),
    (0, b"MMOR\0\0\0\x08", "Olympus RAW"),
    (0, b"\0MRM", "Minolta RAW"),
    (0, b"\x1a\x45\xdf\xa3", VIDEO_MATROSKA),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"AT&TFORM", "DjVu"),
    (128, b"DICM", "DICOM"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS\0", "Photoshop"),
    (0, b"DDS \x7c\0\0\0", "DirectDraw surface"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE\n", "Radiance HDR"),
    (0, b"#?RGBE\n", "Radiance HDR"),
    (0, b"PK\x03\x04", "zip archive"),
];

/// Detects one format from the beginning of a file.
type Test = fn(&[u8]) -> bool;

/// Formats whose signature is a word that a text may begin with, so that the bytes after it are checked as well.
const REFUSED_BY_HEADER: &[(Test, &str)] = &[
    (is_avif, "AVIF"),
    (is_heif, "HEIF"),
    (is_avi, VIDEO_AVI),
    (is_quicktime, VIDEO_MP4),
    (is_netpbm, "Netpbm"),
    (is_iff, "IFF"),
    (is_qoi, "QOI"),
    (is_gimp, "GIMP"),
    (is_foveon, "Sigma RAW"),
];

/// The end of a TGA image since version 2.
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

    /// Detects the format from the first bytes.
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
        if is_bmp(bytes) {
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

/// The brands at the beginning of a file of the MP4 family.
struct Brands<'a> {
    own: &'a [u8],
    /// The compatible brands.
    others: Vec<&'a [u8]>,
}

impl<'a> Brands<'a> {
    /// Returns the brands of a file, or `None` if it is not of the MP4 family.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(4..8) != Some(b"ftyp") {
            return None;
        }
        // the length and name of the box come first
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        // read no further than callers that have only the first `HEAD_BYTES`
        let mut brands = bytes[8..length.clamp(8, bytes.len().min(HEAD_BYTES))].chunks_exact(4);
        let own = brands.next().unwrap_or_default();
        // a version comes between them
        Some(Self { own, others: brands.skip(1).collect() })
    }

    /// Whether `is_so` holds for one of the compatible brands.
    fn may_be(&self, is_so: fn(&[u8]) -> bool) -> bool {
        self.others.iter().any(|brand| is_so(brand))
    }

    fn are_of_heic(&self) -> bool {
        is_hevc(self.own)
            || (!is_av1(self.own)
                && (self.may_be(is_hevc_pictures)
                    || (is_general(self.own) && !self.are_of_avif() && !self.may_be(is_of_another_codec))))
    }

    fn are_of_avif(&self) -> bool {
        is_av1(self.own) || (!is_hevc(self.own) && self.may_be(is_av1) && !self.may_be(is_hevc))
    }
}

/// Whether a brand denotes HEVC pictures.
fn is_hevc(brand: &[u8]) -> bool {
    brand.starts_with(b"hei") || brand.starts_with(b"hev")
}

/// Whether a brand denotes HEVC pictures and not video: a video brand also begins with "hev".
fn is_hevc_pictures(brand: &[u8]) -> bool {
    brand.starts_with(b"hei") || matches!(brand, b"hevc" | b"hevx")
}

/// Whether a brand denotes AV1 pictures.
fn is_av1(brand: &[u8]) -> bool {
    matches!(brand, b"avif" | b"avis")
}

/// Whether a brand denotes pictures without naming a codec.
fn is_general(brand: &[u8]) -> bool {
    matches!(brand, b"mif1" | b"mif2" | b"mif3" | b"msf1" | b"miaf") || brand.starts_with(b"MiH")
}

/// Whether a brand denotes pictures of another codec: AVC, JPEG, JPEG 2000, VVC, EVC.
fn is_of_another_codec(brand: &[u8]) -> bool {
    matches!(
        brand,
        b"avci" | b"avcs" | b"jpeg" | b"jpgs" | b"j2ki" | b"j2is" | b"vvic" | b"vvis" | b"evbi" | b"evbs"
    )
}

/// Whether a file that begins with `head` is HEIC; its first [`HEAD_BYTES`] bytes suffice. A file is HEIC by its major
/// brand, by a compatible brand, or by a major brand that names no codec if no compatible brand names another codec.
///
/// ```
/// use phi3v::image::is_heic;
///
/// assert!(is_heic(b"\0\0\0\x14ftypheic\0\0\0\0mif1") && is_heic(b"\0\0\0\x18ftypmiaf\0\0\0\0mif1heic"));
/// assert!(!is_heic(b"\0\0\0\x14ftypavif\0\0\0\0mif1") && !is_heic(b"heic"));
/// ```
#[must_use]
pub fn is_heic(head: &[u8]) -> bool {
    Brands::of(head).is_some_and(|brands| brands.are_of_heic())
}

/// Whether a file that begins with `head` is AVIF; its first [`HEAD_BYTES`] bytes suffice. A file is AVIF by its major
/// brand, or by a compatible brand if it is not compatible with HEIC.
///
/// ```
/// use phi3v::image::is_avif;
///
/// assert!(is_avif(b"\0\0\0\x14ftypavif") && is_avif(b"\0\0\0\x18ftypmif1\0\0\0\0avifmiaf"));
/// assert!(!is_avif(b"\0\0\0\x14ftypheic\0\0\0\0mif1") && !is_avif(b"avif"));
/// ```
#[must_use]
pub fn is_avif(head: &[u8]) -> bool {
    Brands::of(head).is_some_and(|brands| brands.are_of_avif())
}

/// Whether a file holds pictures of the HEIF family, in any codec.
fn is_heif(bytes: &[u8]) -> bool {
    let Some(brands) = Brands::of(bytes) else { return false };
    let is_named = is_general(brands.own) || is_of_another_codec(brands.own);
    brands.are_of_heic() || is_named || brands.may_be(is_general)
}

/// Whether the first bytes are a BMP header. A text may begin with its two letters, so the length of the next header
/// must be a known one. OS/2's short form is included, which is refused by name.
fn is_bmp(bytes: &[u8]) -> bool {
    let length = bytes.get(14..18).and_then(|length| length.first_chunk());
    let length = length.map(|length| u32::from_le_bytes(*length));
    bytes.starts_with(b"BM") && matches!(length, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// Whether a file is RIFF that holds AVI video.
fn is_avi(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"AVI ")
}

/// Whether a file is QuickTime without a brand box: a typical first box, of a length that fits the file, followed by
/// another box or the end.
fn is_quicktime(bytes: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"];
    let name = |at: usize| bytes.get(at.checked_add(4)?..at.checked_add(8)?);
    let is_known = |at: usize, others: &[&[u8]]| {
        name(at).is_some_and(|name| NAMES.contains(&name) || others.contains(&name))
    };
    if !is_known(0, &[]) {
        return false;
    }
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    let end = match (length, bytes.get(8..16).and_then(|length| length.first_chunk())) {
        // as long as the file, which is valid for the last box; below, the length follows the name
        (0, _) => Some(bytes.len()),
        (1, Some(length)) => usize::try_from(u64::from_be_bytes(*length)).ok().filter(|end| *end >= 16),
        (2..8, _) | (1, None) => None,
        (length, _) => usize::try_from(length).ok(),
    };
    end.is_some_and(|end| match name(0) {
        Some(b"moov" | b"mdat") if end == bytes.len() => true,
        _ => is_known(end, &[b"PICT", b"udta", b"uuid", b"ftyp"]),
    })
}

/// Whether a file is Netpbm: `P1` to `P6`, white space and a number; or `P7`, a new line and a word of its header, or
/// the number of its older kind. A comment may precede each.
fn is_netpbm(bytes: &[u8]) -> bool {
    let Some(([b'P', kind @ b'1'..=b'7'], rest)) = bytes.split_first_chunk() else { return false };
    // a vertical tab counts as white space here
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    if rest.first() == Some(&b'#') {
        return true;
    }
    let spaces = rest.iter().take_while(|byte| is_space(byte)).count();
    let (spaces, rest) = rest.split_at(spaces);
    let words: &[&[u8]] = &[b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL", b"TUPLTYPE", b"ENDHDR", b"332"];
    match (spaces.is_empty(), rest.first()) {
        (true, _) => false,
        (false, None | Some(b'#')) => true,
        (false, Some(first)) if *kind != b'7' => first.is_ascii_digit(),
        (false, Some(_)) => words.iter().any(|word| rest.starts_with(word)),
    }
}

/// Whether a file is a form of the Interchange File Format that holds pictures or sound.
fn is_iff(bytes: &[u8]) -> bool {
    const FORMS: &[&[u8]] = &[
        b"ILBM", b"PBM ", b"ACBM", b"RGBN", b"RGB8", b"DEEP", b"ANIM", b"YUVN", b"FAXX", b"AIFF", b"AIFC",
        b"8SVX",
    ];
    bytes.starts_with(b"FORM") && bytes.get(8..12).is_some_and(|form| FORMS.contains(&form))
}

/// Whether a file is QOI: four letters, a width and a height, three or four channels, and one of two colour spaces.
fn is_qoi(bytes: &[u8]) -> bool {
    bytes.starts_with(b"qoif") && matches!(bytes.get(12..14), Some([3 | 4, 0 | 1]))
}

/// Whether a file is GIMP's: `gimp xcf `, a version, and a zero.
fn is_gimp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"gimp xcf ") && bytes.get(13) == Some(&0)
}

/// Whether a file is Foveon's: `FOVb` and a version of two 16-bit little-endian numbers, the second of which is small.
fn is_foveon(bytes: &[u8]) -> bool {
    bytes.starts_with(b"FOVb") && matches!(bytes.get(6..8), Some([1..=9, 0]))
}

/// Number of bytes at the beginning of a file that suffice to detect its format.
pub const HEAD_BYTES: usize = 64;

/// Refused formats of photographs and pictures that people keep in the same places as supported ones.
const PICTURES_REFUSED: &[&str] = &[
    "AVIF",
    "HEIF",
    "JPEG XL",
    "JPEG 2000",
    "Canon RAW",
    "Fujifilm RAW",
    "Minolta RAW",
    "Olympus RAW",
    "Panasonic RAW",
    "Sigma RAW",
];

/// Whether a file that begins with `head` is a picture, judging by its first [`HEAD_BYTES`] bytes. Pictures are the
/// decoded formats and others that hold photographs (AVIF, HEIF, JPEG XL and the like).
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

/// Whether a file that begins with `head` is a TIFF, which may have several pages.
///
/// ```
/// use phi3v::image::is_tiff;
///
/// assert!(is_tiff(b"II\x2a\0") && is_tiff(b"MM\0\x2a") && !is_tiff(b"\x89PNG\r\n\x1a\n"));
/// ```
#[must_use]
pub fn is_tiff(head: &[u8]) -> bool {
    matches!(Format::of(head), Ok(Format::Tiff))
}

/// Returns the error for bytes in no supported format.
fn refusal(bytes: &[u8]) -> ImageError {
    if let Some(&(_, format)) = REFUSED_BY_HEADER.iter().find(|(test, _)| test(bytes)) {
        return ImageError::UnsupportedFormat { format };
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
    if is_svg(text) {
        return ImageError::UnsupportedFormat { format: "SVG" };
    }
    ImageError::NotAnImage { start: printable(bytes) }
}

/// Whether a text is an SVG drawing. It may begin as XML does; a web page that contains a drawing does not count.
fn is_svg(text: &str) -> bool {
    let may_begin = ["<?xml", "<!DOCTYPE svg", "<!--"].iter().any(|start| text.starts_with(start));
    text.starts_with("<svg") || (may_begin && text.contains("<svg") && !text.contains("<html"))
}

/// Returns the name of a Windows icon or cursor. Its first four bytes do not suffice: TGA images begin with them as well.
fn icon(bytes: &[u8]) -> Option<&'static str> {
    let head: &[u8; 10] = bytes.first_chunk()?;
    let format = match head[..4] {
        [0, 0, 1, 0] => "Windows icon",
        [0, 0, 2, 0] => "Windows cursor",
        _ => return None,
    };
    let entries = u16::from_le_bytes([head[4], head[5]]);
    // the first entry has a reserved byte, which some programs set to 255
    (entries > 0 && matches!(head[9], 0 | 255)).then_some(format)
}

/// Returns the first bytes as text if they are printable, otherwise in hexadecimal.
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
        for length in [12, 16, 40, 52, 56, 64, 108, 124] {
            let file = [b"BM".as_slice(), &[0; 12], &[length, 0, 0, 0]].concat();
            assert_eq!(Format::of(&file), Ok(Format::Bmp), "{length}");
        }
        #[cfg(feature = "heic")]
        for brands in [
            "ftypheic",
            "ftypheix\0\0\0\0mif1",
            "ftypmif1\0\0\0\0mif1heic",
            "ftypmif1\0\0\0\0",
            "ftypmif1\0\0\0\0avifheic",
            "ftypmiaf\0\0\0\0mif1heic",
            "ftypmif3\0\0\0\0heix",
            "ftypMiHB\0\0\0\0mif1miafheic",
            "ftypavci\0\0\0\0mif1heic",
            "ftypabcd\0\0\0\0mif1heic",
        ] {
            let bytes = [&(4 + brands.len() as u32).to_be_bytes(), brands.as_bytes()].concat();
            assert_eq!(Format::of(&bytes), Ok(Format::Heic), "{brands}");
        }
        #[cfg(feature = "avif")]
        for brands in [
            "ftypavif",
            "ftypavis\0\0\0\0msf1",
            "ftypmif1\0\0\0\0miafavif",
            "ftypmiaf\0\0\0\0avif",
            "ftypMA1B\0\0\0\0avif",
            "ftypabcd\0\0\0\0mif1avif",
        ] {
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
        assert_eq!(name_refused(b"\0\0\0\x18ftypqt  \0\0\0\0hev1"), "video (MP4 or QuickTime)");
        assert_eq!(name_refused(b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom"), "Canon RAW");
        for pictures in [b"\0\0\0\x18ftypavci\0\0\0\0mif1miaf", b"\0\0\0\x18ftypj2ki\0\0\0\0mif1j2ki"] {
            assert_eq!(name_refused(pictures), "HEIF");
        }
        for (head, name) in [
            (&b"II\x1a\0\0\0HEAPCCDR\x02\0\x01\0"[..], "Canon RAW"),
            (b"FUJIFILMCCD-RAW 0201FF383501X-T4", "Fujifilm RAW"),
            (b"IIU\0\x18\0\0\0\x88\xe7\x74\xd8", "Panasonic RAW"),
            (b"IIRO\x08\0\0\0\x0f\0", "Olympus RAW"),
            (b"IIRS\x08\0\0\0\x0f\0", "Olympus RAW"),
            (b"MMOR\0\0\0\x08\0\x0f", "Olympus RAW"),
            (b"\0MRM\0\0\x12\x34\0PRD", "Minolta RAW"),
            (b"FOVb\0\0\x02\0\x01\x02\x03\x04", "Sigma RAW"),
            (b"FOVb\x01\0\x04\0\x01\x02\x03\x04", "Sigma RAW"),
        ] {
            assert_eq!(name_refused(head), name);
            assert!(is_picture(head), "{name}");
        }
        assert_eq!(name_refused(b"%PDF-1.7"), "PDF");
        assert_eq!(name_refused(b"RIFF\0\0\0\0AVI LIST"), "video (AVI)");
        assert_eq!(name_refused(b"<?xml version=\"1.0\"?>\n<svg xmlns"), "SVG");
        assert_eq!(name_refused(b"  <svg>"), "SVG");
        assert_eq!(name_refused(b"<!DOCTYPE svg PUBLIC \"...\">\n<svg>"), "SVG");
        assert_eq!(name_refused(b"<!-- drawn -->\n<svg>"), "SVG");
        assert_eq!(name_refused(b"\xff\x0a\0"), "JPEG XL");
        assert_eq!(name_refused(b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x18\0"), "Windows icon");
        assert_eq!(name_refused(b"\0\0\x02\0\x01\0\x20\x20\0\0\x05\0\x05\0"), "Windows cursor");
    }

    #[test]
    fn quicktime_without_brands_is_a_video() {
        let atom = |name: &[u8; 4], body: usize| {
            [&(8 + body as u32).to_be_bytes(), name.as_slice(), &vec![0; body]].concat()
        };
        let long = [b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x14", [7; 4].as_slice()].concat();
        for (file, what) in [
            ([atom(b"moov", 30), atom(b"mdat", 9)].concat(), "the head first"),
            ([atom(b"mdat", 9), atom(b"moov", 30)].concat(), "the head last"),
            ([atom(b"wide", 0), atom(b"mdat", 9)].concat(), "room for a longer length"),
            ([atom(b"skip", 5), atom(b"free", 3), atom(b"mdat", 1)].concat(), "nothing first"),
            ([atom(b"pnot", 12), atom(b"PICT", 3)].concat(), "a preview first"),
            ([long, atom(b"moov", 3)].concat(), "a length of 64 bits"),
            ([b"\0\0\0\0mdat", [7; 9].as_slice()].concat(), "as long as the file"),
            (atom(b"moov", 40), "the head alone"),
            ([atom(b"moov", 30), b"\0\0\x10\0mdat".to_vec()].concat(), "cut short"),
        ] {
            assert_eq!(name_refused(&file), "video (MP4 or QuickTime)", "{what}");
        }
        for (file, what) in [
            (b"The free lunch, and what became of it".to_vec(), "a text"),
            (b"\0\0\0\x09free".to_vec(), "longer than the file"),
            (atom(b"free", 9), "nothing alone"),
            (b"\0\0\0\x04moov".to_vec(), "shorter than its head"),
            (b"\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "longer than anything"),
            ([atom(b"moov", 30), b"\0\0\0\x08what".to_vec()].concat(), "something unknown behind it"),
            (atom(b"what", 30), "something unknown"),
        ] {
            let told = Format::of(&file);
            assert!(matches!(told, Err(ImageError::NotAnImage { .. })), "{what}: {told:?}");
        }
    }

    #[test]
    fn marks_that_are_words_need_their_headers() {
        for file in [
            &b"P6\n2 2\n255\n"[..],
            b"P6 2 2 255\n",
            b"P3\t2\r\n2 255",
            b"P1\x0b# by hand\n2 2",
            b"P5\x0c2 2 255\n",
            b"P4# by hand\n8 1\n",
            b"P7\nWIDTH 2\n",
            b"P7 332\n",
            b"P2\n",
        ] {
            assert_eq!(name_refused(file), "Netpbm", "{file:?}");
        }
        for form in [b"ILBM", b"PBM ", b"AIFF"] {
            assert_eq!(name_refused(&[b"FORM\0\0\x10\0", form.as_slice()].concat()), "IFF");
        }
        assert_eq!(name_refused(b"qoif\0\0\0\x02\0\0\0\x02\x03\0"), "QOI");
        assert_eq!(name_refused(b"gimp xcf v011\0"), "GIMP");
        assert_eq!(name_refused(b"8BPS\0\x01"), "Photoshop");
        assert_eq!(name_refused(b"DDS \x7c\0\0\0"), "DirectDraw surface");
        assert_eq!(name_refused(b"#?RGBE\nFORMAT="), "Radiance HDR");
        assert_eq!(name_refused(b"\0\0\0\x0cJXL \r\n\x87\n"), "JPEG XL");
    }

    #[test]
    fn texts_are_no_pictures() {
        for text in [
            "BMW sales figures of the third quarter",
            "BM",
            "FORMULA 1 results",
            "FORM 1040 for the year",
            "P1 is the first priority",
            "P7 tiles in the kitchen",
            "P3",
            "P60 2 2 255",
            "qoif is a picture format, and this a text",
            "gimp xcf files are opened with gimp",
            "8BPS is how Photoshop files begin",
            "DDS files are textures",
            "FOVb is how X3F files begin",
            "IIRO is how ORF files begin",
            "#?RADIANCE is how HDR files begin",
            "RIFFs and AVI LIST and so on",
            "<!DOCTYPE html><html><svg></svg></html>",
            "<?xml version=\"1.0\"?><html xmlns=\"...\"><svg/></html>",
        ] {
            assert!(matches!(Format::of(text.as_bytes()), Err(ImageError::NotAnImage { .. })), "{text}");
            assert!(!is_picture(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn every_refused_format_has_a_command() {
        let marked = REFUSED.iter().map(|&(_, _, name)| name);
        let marked = marked.chain(REFUSED_BY_HEADER.iter().map(|&(_, name)| name));
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
