//! EXIF orientation: how the camera was held, and how to turn the pixels accordingly.

use super::RgbImage;
use super::error::ImageError;
use super::room::zeros;

/// The EXIF orientation tag.
const ORIENTATION: u16 = 0x0112;
/// The TIFF types of one, two and four byte integers.
const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;
/// The name of the same tag in XMP.
const XMP_ORIENTATION: &[u8] = b"tiff:Orientation";

/// The eight ways in which an image may be stored. The number is the EXIF value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Orientation {
    /// 1: unchanged.
    #[default]
    Upright,
    /// 2: mirrored left to right.
    MirroredX,
    /// 3: the image is upside down.
    Turned180,
    /// 4: mirrored top to bottom.
    MirroredY,
    /// 5: rows and columns exchanged.
    Transposed,
    /// 6: needs a quarter turn clockwise.
    Turn90,
    /// 7: rows and columns exchanged about the other diagonal.
    Transversed,
    /// 8: needs a quarter turn counter-clockwise.
    Turn270,
}

impl Orientation {
    /// Converts an EXIF value; unknown values mean upright.
    pub(super) fn from_exif_value(value: u16) -> Self {
        match value {
            2 => Self::MirroredX,
            3 => Self::Turned180,
            4 => Self::MirroredY,
            5 => Self::Transposed,
            6 => Self::Turn90,
            7 => Self::Transversed,
            8 => Self::Turn270,
            _ => Self::Upright,
        }
    }

    /// Reads the orientation from an EXIF block: a TIFF header and its first directory, with or without the leading `Exif\0\0`.
    pub(super) fn from_exif(exif: &[u8]) -> Self {
        Self::in_exif(exif).unwrap_or_default()
    }

    /// As [`from_exif`](Self::from_exif), but returns `None` if the block states no orientation.
    pub(super) fn in_exif(exif: &[u8]) -> Option<Self> {
        orientation_value(exif).map(Self::from_exif_value)
    }

    /// Reads the orientation from an XMP packet, as an attribute or an element: `tiff:Orientation="6"`,
    /// `<tiff:Orientation>6<`.
    pub(super) fn in_xmp(xmp: &[u8]) -> Option<Self> {
        let mut rest = xmp;
        while let Some(at) = rest.windows(XMP_ORIENTATION.len()).position(|word| word == XMP_ORIENTATION) {
            rest = &rest[at + XMP_ORIENTATION.len()..];
            let value = [b"=\"".as_slice(), b"='", b">"].iter().find_map(|before| rest.strip_prefix(*before));
            if let Some(digit @ b'0'..=b'9') = value.and_then(<[u8]>::first) {
                return Some(Self::from_exif_value(u16::from(digit - b'0')));
            }
        }
        None
    }

    /// Turns the pixels upright.
    ///
    /// # Errors
    /// [`ImageError::OutOfMemory`].
    pub(super) fn apply(self, image: RgbImage) -> Result<RgbImage, ImageError> {
        let (w, h) = (image.width, image.height);
        let (kept, swapped) = (Sides::Kept, Sides::Swapped);
        // the source of pixel (x, y) of the result
        match self {
            Self::Upright => Ok(image),
            Self::MirroredX => gather(&image, kept, |x, y| (w - 1 - x, y)),
            Self::Turned180 => gather(&image, kept, |x, y| (w - 1 - x, h - 1 - y)),
            Self::MirroredY => gather(&image, kept, |x, y| (x, h - 1 - y)),
            Self::Transposed => gather(&image, swapped, |x, y| (y, x)),
            Self::Turn90 => gather(&image, swapped, |x, y| (y, h - 1 - x)),
            Self::Transversed => gather(&image, swapped, |x, y| (w - 1 - y, h - 1 - x)),
            Self::Turn270 => gather(&image, swapped, |x, y| (w - 1 - y, x)),
        }
    }
}

/// Whether width and height of an image are exchanged.
enum Sides {
    Kept,
    Swapped,
}

/// Builds an image whose pixel at (x, y) is the source's at `from(x, y)`. Works in blocks of 64x64 pixels, so that the
/// 64 source lines of a block (64 * 64 * 3 = 12 KiB) stay in the L1 cache when rows become columns.
fn gather(
    image: &RgbImage,
    sides: Sides,
    from: impl Fn(usize, usize) -> (usize, usize),
) -> Result<RgbImage, ImageError> {
    const BLOCK: usize = 64;
    let (width, height) = match sides {
        Sides::Kept => (image.width, image.height),
        Sides::Swapped => (image.height, image.width),
    };
    let mut pixels = zeros(image.pixels.len())?;
    let bands = pixels.chunks_mut(BLOCK * width * 3).enumerate();
    for (band, rows) in bands {
        for left in (0..width).step_by(BLOCK) {
            let right = (left + BLOCK).min(width);
            for (i, row) in rows.chunks_exact_mut(width * 3).enumerate() {
                let y = band * BLOCK + i;
                let out = row[left * 3..right * 3].chunks_exact_mut(3);
                for (x, pixel) in (left..right).zip(out) {
                    let (sx, sy) = from(x, y);
                    let at = (sy * image.width + sx) * 3;
                    pixel.copy_from_slice(&image.pixels[at..at + 3]);
                }
            }
        }
    }
    Ok(RgbImage { width, height, pixels })
}

/// Finds the orientation in the first directory.
fn orientation_value(exif: &[u8]) -> Option<u16> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match tiff.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| -> Option<usize> {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize)
    };
    let directory = long(4)?;
    let entries = usize::from(short(directory)?);
    // a directory is a count and entries of 12 bytes: tag, type, number of values, values
    (0..entries)
        .map(|i| directory + 2 + i * 12)
        .take_while(|entry| short(*entry).is_some())
        .filter(|entry| short(*entry) == Some(ORIENTATION))
        .find_map(|entry| match short(entry + 2)? {
            BYTE => tiff.get(entry + 8).copied().map(u16::from),
            SHORT => short(entry + 8),
            // a value beyond two bytes is not an orientation
            LONG => long(entry + 8).map(|value| u16::try_from(value).unwrap_or(0)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EXIF block with one entry: the orientation as a value of type `kind`.
    fn exif(kind: u16, value: [u8; 4], little: bool) -> Vec<u8> {
        let number = |bytes: [u8; 2]| if little { [bytes[1], bytes[0]] } else { bytes };
        let head: &[u8] = if little { b"II\x2a\0\x08\0\0\0" } else { b"MM\0\x2a\0\0\0\x08" };
        let count = if little { [1, 0, 0, 0] } else { [0, 0, 0, 1] };
        let entry = [number([0, 1]), number([1, 0x12]), number(kind.to_be_bytes())].concat();
        [head, &entry, &count, &value].concat()
    }

    #[test]
    fn the_orientation_may_have_one_two_or_four_bytes() {
        for (kind, big, little) in [
            (BYTE, [6, 0, 0, 0], [6, 0, 0, 0]),
            (SHORT, [0, 6, 0, 0], [6, 0, 0, 0]),
            (LONG, [0, 0, 0, 6], [6, 0, 0, 0]),
        ] {
            assert_eq!(Orientation::from_exif(&exif(kind, big, false)), Orientation::Turn90, "type {kind}");
            assert_eq!(Orientation::from_exif(&exif(kind, little, true)), Orientation::Turn90, "type {kind}");
        }
        assert_eq!(Orientation::in_exif(&exif(5, [0, 6, 0, 0], false)), None);
        assert_eq!(Orientation::from_exif(&exif(LONG, [1, 0, 0, 6], false)), Orientation::Upright);
    }

    #[test]
    fn xmp_names_it_as_an_attribute_or_an_element() {
        let of = |text: &str| Orientation::in_xmp(text.as_bytes());
        assert_eq!(of("<a tiff:Orientation=\"8\" b=\"1\"/>"), Some(Orientation::Turn270));
        assert_eq!(of("<a tiff:Orientation='8'/>"), Some(Orientation::Turn270));
        assert_eq!(of("<tiff:Orientation>3</tiff:Orientation>"), Some(Orientation::Turned180));
        assert_eq!(of("tiff:Orientation, then tiff:Orientation=\"2\""), Some(Orientation::MirroredX));
        assert_eq!(of("<a tiff:Orientation=\"\"/>"), None);
        assert_eq!(of("tiff:Orientation"), None);
    }
}
