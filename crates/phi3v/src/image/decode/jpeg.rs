//! JPEG through libjpeg-turbo's code: accurate integer DCT and smooth chroma upsampling, as in the reference.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use mozjpeg::{ColorSpace, DctMethod, Decompress, Marker};

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::{ImageLimits, ImageMode};
use super::raster::{Layout, Raster};

const FORMAT: &str = "JPEG";
/// EXIF stands in segments of this kind.
const EXIF: Marker = Marker::APP(1);

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    limits.check_frames(FORMAT, scans(bytes))?;
    let ended = Cell::new(false);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        decompress(Whole { rest: bytes, ended: &ended }, mode, limits)
    }));
    match result {
        Ok(Err(ImageError::Damaged { .. })) | Err(_) if ended.get() => {
            Err(ImageError::Truncated { format: FORMAT })
        }
        Ok(result) => result,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

fn decompress(input: Whole<'_>, mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let builder = Decompress::builder().with_markers(&[EXIF]);
    let mut picture = builder.from_reader(input).map_err(|e| damaged(&e))?;
    let size = (
        u32::try_from(picture.width()).unwrap_or(u32::MAX),
        u32::try_from(picture.height()).unwrap_or(u32::MAX),
    );
    limits.check_size(size.0, size.1)?;
    let exif = picture.markers().find(|m| m.data.starts_with(b"Exif\0\0"));
    let orientation = exif.map(|m| Orientation::from_exif(m.data)).unwrap_or_default();
    picture.dct_method(DctMethod::IntegerSlow);
    let (layout, space) = match picture.components().len() {
        1 => (Layout::Gray, ColorSpace::JCS_GRAYSCALE),
        3 => (Layout::Rgb, ColorSpace::JCS_RGB),
        4 => (Layout::Rgb, ColorSpace::JCS_CMYK),
        n => {
            return Err(ImageError::UnsupportedKind {
                format: FORMAT,
                kind: format!("{n} colour components"),
            });
        }
    };
    let mut rows = picture.to_colorspace(space).map_err(|e| damaged(&e))?;
    let mut samples: Vec<u8> = rows.read_scanlines().map_err(|e| damaged(&e))?;
    rows.finish().map_err(|e| damaged(&e))?;
    if space == ColorSpace::JCS_CMYK {
        samples = inverted_cmyk_to_rgb(&samples);
    }
    let mut raster = Raster::new(size, layout, samples);
    if mode == ImageMode::AsSeen {
        raster.orientation = orientation;
    }
    Ok(raster)
}

/// Adobe stores CMYK inverted, and so does practically everybody since. Pillow's conversion, rounding included:
/// `rgb = (255-k) - (255-k)*c/255` with c, k the amounts of ink.
fn inverted_cmyk_to_rgb(samples: &[u8]) -> Vec<u8> {
    let pixel = |p: &[u8]| {
        let light = p[3];
        let channel = |inverted: u8| light - rounded_product(255 - inverted, light);
        [channel(p[0]), channel(p[1]), channel(p[2])]
    };
    samples.chunks_exact(4).flat_map(pixel).collect()
}

/// `a * b / 255`, rounded to nearest; never more than `b`.
fn rounded_product(a: u8, b: u8) -> u8 {
    let t = u32::from(a) * u32::from(b) + 128;
    (((t >> 8) + t) >> 8) as u8
}

/// Number of scans: each costs a pass over all pixels, so a small file with many of them is a trap.
fn scans(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|pair| pair == b"\xff\xda").count()
}

fn damaged(error: &io::Error) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: error.to_string() }
}

/// The file as libjpeg reads it. At its end libjpeg would make up an end marker and paint the rest of the picture
/// gray; an error there stops it.
struct Whole<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Whole<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
            return Err(io::Error::other("the file ends"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount.min(self.rest.len())..];
    }
}
