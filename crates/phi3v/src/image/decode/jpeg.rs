//! JPEG through libjpeg-turbo's code: accurate integer DCT and smooth chroma upsampling, as in the reference.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg::{ColorSpace, DctMethod, Decompress, Marker};

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::{ImageLimits, ImageMode};
use super::raster::{Layout, Raster, cmyk_to_rgb};

const FORMAT: &str = "JPEG";
/// EXIF stands in segments of this kind.
const EXIF: Marker = Marker::APP(1);
/// Encoders make about ten scans; at 100 a picture at the limit of pixels still takes seconds and not hours.
const SCANS_MAX: usize = 100;

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let picture = decompress(bytes, limits)?;
    let (layout, samples) = match picture.components {
        1 => (Layout::Gray, picture.samples),
        3 => (Layout::Rgb, picture.samples),
        _ => (Layout::Rgb, inverted_cmyk_to_rgb(picture.samples)),
    };
    let mut raster = Raster::new(picture.size, layout, samples);
    if mode == ImageMode::AsSeen {
        raster.orientation = picture.orientation;
    }
    Ok(raster)
}

/// What libjpeg gives.
pub(super) struct Jpeg {
    pub(super) size: (u32, u32),
    /// 1 (gray), 3 (RGB) or 4 (CMYK as stored, usually inverted).
    pub(super) components: usize,
    /// `[height, width, components]`
    pub(super) samples: Vec<u8>,
    orientation: Orientation,
}

/// Decompresses a JPEG stream. libjpeg's errors unwind, and are caught by [`decode`](super::decode); here only the
/// one that says that the data ended is told from the others.
pub(super) fn decompress(bytes: &[u8], limits: &ImageLimits) -> Result<Jpeg, ImageError> {
    decompress_to(bytes, limits, ColorSpace::JCS_RGB)
}

/// The same, but three components stay YCbCr, and pixels that share colour samples get them as they are.
pub(super) fn decompress_ycbcr(bytes: &[u8], limits: &ImageLimits) -> Result<Jpeg, ImageError> {
    decompress_to(bytes, limits, ColorSpace::JCS_YCbCr)
}

fn decompress_to(bytes: &[u8], limits: &ImageLimits, color: ColorSpace) -> Result<Jpeg, ImageError> {
    check_scans(bytes)?;
    let ended = Cell::new(false);
    let input = Whole { rest: bytes, ended: &ended };
    match catch_unwind(AssertUnwindSafe(|| decompress_from(input, limits, color))) {
        Ok(Err(ImageError::Damaged { .. })) | Err(_) if ended.get() => {
            Err(ImageError::Truncated { format: FORMAT })
        }
        Ok(result) => result,
        Err(payload) => resume_unwind(payload),
    }
}

fn decompress_from(input: Whole<'_>, limits: &ImageLimits, color: ColorSpace) -> Result<Jpeg, ImageError> {
    let builder = Decompress::builder().with_markers(&[EXIF]);
    let mut picture = builder.from_reader(input).map_err(|e| damaged(&e))?;
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let size = (side(picture.width()), side(picture.height()));
    limits.check_size(size.0, size.1)?;
    let exif = picture.markers().find(|m| m.data.starts_with(b"Exif\0\0"));
    let orientation = exif.map(|m| Orientation::from_exif(m.data)).unwrap_or_default();
    picture.dct_method(DctMethod::IntegerSlow);
    picture.do_fancy_upsampling(color == ColorSpace::JCS_RGB);
    let components = picture.components().len();
    let space = match components {
        1 => ColorSpace::JCS_GRAYSCALE,
        3 => color,
        4 => ColorSpace::JCS_CMYK,
        n => {
            return Err(ImageError::UnsupportedKind {
                format: FORMAT,
                kind: format!("{n} colour components"),
            });
        }
    };
    let mut rows = picture.to_colorspace(space).map_err(|e| damaged(&e))?;
    let samples = rows.read_scanlines().map_err(|e| damaged(&e))?;
    rows.finish().map_err(|e| damaged(&e))?;
    Ok(Jpeg { size, components, samples, orientation })
}

/// Adobe stores CMYK inverted, and so does practically everybody since.
fn inverted_cmyk_to_rgb(mut samples: Vec<u8>) -> Vec<u8> {
    samples.iter_mut().for_each(|v| *v = 255 - *v);
    cmyk_to_rgb(&samples)
}

/// A small file with many scans is a trap: each costs a pass over all pixels.
fn check_scans(bytes: &[u8]) -> Result<(), ImageError> {
    let (mut rest, mut scans) = (bytes, 0);
    while let Some(at) = rest.iter().position(|byte| *byte == 0xff) {
        rest = &rest[at + 1..];
        let Some((&marker, body)) = rest.split_first() else { break };
        match marker {
            // the end: what stands behind it (a phone's film, raw data) is no part of the picture
            0xd9 => break,
            // a segment, whose length counts its own two bytes
            0xc0..=0xcf | 0xda..=0xfe => {
                scans += usize::from(marker == 0xda);
                let length = body.first_chunk().map_or(2, |length| usize::from(u16::from_be_bytes(*length)));
                rest = body.get(length.max(2)..).unwrap_or_default();
            }
            // a stuffed zero, padding, a restart
            _ => {}
        }
    }
    if scans <= SCANS_MAX {
        return Ok(());
    }
    Err(ImageError::Frames { format: FORMAT, frames: scans, limit: SCANS_MAX })
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
