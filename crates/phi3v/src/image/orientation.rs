//! EXIF orientation: how a camera was held, and turning the pixels accordingly.

use super::RgbImage;

/// The EXIF orientation tag.
const ORIENTATION: u16 = 0x0112;
/// The TIFF type of two-byte integers.
const SHORT: u16 = 3;

/// The eight ways a picture may be stored; the number is the EXIF value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Orientation {
    /// 1: as it is.
    #[default]
    Upright,
    /// 2: mirrored left to right.
    MirroredX,
    /// 3: upside down.
    Turned180,
    /// 4: mirrored top to bottom.
    MirroredY,
    /// 5: rows and columns exchanged.
    Transposed,
    /// 6: to be turned a quarter clockwise.
    Turn90,
    /// 7: rows and columns exchanged about the other diagonal.
    Transversed,
    /// 8: to be turned a quarter counter-clockwise.
    Turn270,
}

impl Orientation {
    /// From the EXIF value; anything unknown means upright.
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

    /// From an EXIF block: a TIFF header and its first directory, with or without the leading `Exif\0\0`.
    pub(super) fn from_exif(exif: &[u8]) -> Self {
        orientation_value(exif).map_or(Self::Upright, Self::from_exif_value)
    }

    /// Turns the pixels upright.
    pub(super) fn apply(self, image: RgbImage) -> RgbImage {
        let (w, h) = (image.width, image.height);
        // Where pixel (x, y) of the result comes from.
        match self {
            Self::Upright => image,
            Self::MirroredX => gather(&image, (w, h), |x, y| (w - 1 - x, y)),
            Self::Turned180 => gather(&image, (w, h), |x, y| (w - 1 - x, h - 1 - y)),
            Self::MirroredY => gather(&image, (w, h), |x, y| (x, h - 1 - y)),
            Self::Transposed => gather(&image, (h, w), |x, y| (y, x)),
            Self::Turn90 => gather(&image, (h, w), |x, y| (y, h - 1 - x)),
            Self::Transversed => gather(&image, (h, w), |x, y| (w - 1 - y, h - 1 - x)),
            Self::Turn270 => gather(&image, (h, w), |x, y| (w - 1 - y, x)),
        }
    }
}

/// Builds a picture of `width` x `height` by asking where each pixel comes from, in blocks of 64x64 pixels, so that
/// the 64 source lines of a block (64 * 64 * 3 = 12 KiB) stay in the L1 cache when rows become columns.
fn gather(
    image: &RgbImage,
    (width, height): (usize, usize),
    from: impl Fn(usize, usize) -> (usize, usize) + Sync,
) -> RgbImage {
    const BLOCK: usize = 64;
    let mut pixels = vec![0; image.pixels.len()];
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
    RgbImage { width, height, pixels }
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
    // A directory is a count and entries of 12 bytes: tag, type, number of values, values.
    (0..entries)
        .map(|i| directory + 2 + i * 12)
        .take_while(|entry| short(*entry).is_some())
        .find(|entry| short(*entry) == Some(ORIENTATION) && short(*entry + 2) == Some(SHORT))
        .and_then(|entry| short(entry + 8))
}
