//! TIFF, one page of it: gray, palette, RGB, CMYK and YCbCr, in strips or tiles, in one plane or several.
//!
//! The reader is part of phi3v because the `tiff` crate supports neither palettes nor the rarer packings. LZW and the
//! fax compressions are, too, because files from scanners must be read as libtiff reads them, faults included. Unlike
//! with other formats, Pillow turns a TIFF upright by itself, so both modes do.

mod chunks;
mod color;
mod compression;
mod directory;
mod fax;
mod header;
mod jpeg_stream;
mod lzw;
mod old_jpeg;
mod raw;
mod samples;
mod ycbcr;

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::room::{gathered, room, zeros};
use super::super::{ImageLimits, ImageMode, Size};
use super::jpeg;
use super::raster::Raster;
use directory::Directory;
use header::Header;

const FORMAT: &str = "TIFF";

/// The tags that are read.
mod tag {
    pub(super) const NEW_SUBFILE_TYPE: u16 = 254;
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const MAKE: u16 = 271;
    pub(super) const STRIP_OFFSETS: u16 = 273;
    pub(super) const ORIENTATION: u16 = 274;
    pub(super) const SAMPLES: u16 = 277;
    pub(super) const ROWS_PER_STRIP: u16 = 278;
    pub(super) const STRIP_BYTES: u16 = 279;
    pub(super) const PLANAR: u16 = 284;
    pub(super) const GROUP3_OPTIONS: u16 = 292;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const PALETTE: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_HEIGHT: u16 = 323;
    pub(super) const TILE_OFFSETS: u16 = 324;
    pub(super) const TILE_BYTES: u16 = 325;
    pub(super) const SUB_IFDS: u16 = 330;
    pub(super) const EXTRA: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const JPEG_TABLES: u16 = 347;
    pub(super) const OLD_JPEG_START: u16 = 513;
    pub(super) const OLD_JPEG_BYTES: u16 = 514;
    pub(super) const OLD_JPEG_RESTART: u16 = 515;
    pub(super) const OLD_JPEG_QUANTIZATION: u16 = 519;
    pub(super) const OLD_JPEG_DC: u16 = 520;
    pub(super) const OLD_JPEG_AC: u16 = 521;
    pub(super) const YCBCR_COEFFICIENTS: u16 = 529;
    pub(super) const YCBCR_SUBSAMPLING: u16 = 530;
    pub(super) const REFERENCE_BLACK_WHITE: u16 = 532;
    pub(super) const DNG_VERSION: u16 = 50706;
}

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    decode_page(bytes, 0, mode, limits)
}

/// Returns the number of pages. Counting stops one page above [`ImageLimits::frames_max`].
pub(super) fn pages(bytes: &[u8], limits: &ImageLimits) -> Result<usize, ImageError> {
    Directory::count(bytes, limits.frames_max.saturating_add(1))
}

/// Decodes page `page`, counted from 0.
pub(super) fn decode_page(
    bytes: &[u8],
    page: usize,
    mode: ImageMode,
    limits: &ImageLimits,
) -> Result<Raster, ImageError> {
    if mode == ImageMode::AsSeen {
        raw::check(bytes)?;
    }
    let directory = Directory::of_page(bytes, page)?.ok_or(ImageError::Truncated { format: FORMAT })?;
    let header = Header::read(directory, mode, limits)?;
    let samples = header.read_samples(limits)?;
    let mut raster = header.raster(samples)?;
    raster.orientation = header.orientation()?;
    Ok(raster)
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.to_owned() }
}

fn unsupported(kind: &str) -> ImageError {
    ImageError::UnsupportedKind { format: FORMAT, kind: kind.to_owned() }
}
