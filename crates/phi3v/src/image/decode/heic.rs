//! HEIC, the photographs of phones: pictures coded with HEVC, alone or as a grid of tiles.
//!
//! The file itself says how it is turned, mirrored and cropped, and its EXIF orientation is not asked for that: both modes show it
//! upright, as every reader does. The reference reads no HEIC, so that there is no other difference between the modes
//! than transparency. Colour profiles are left alone, as in all formats here.

use heifer::heifer_isobmff::HeifFile;
use heifer::{Error, Options};

use super::super::error::ImageError;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster};

const FORMAT: &str = "HEIC";

pub(super) fn decode(bytes: &[u8], _: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let file = HeifFile::parse(bytes).map_err(|error| damaged(&error.to_string()))?;
    let stated = file.image_size(file.primary_id).map_err(|error| damaged(&error.to_string()))?;
    if let Some((width, height)) = stated {
        limits.check_size(Size { width, height })?;
    }
    let options = Options { max_pixels: limits.pixels_max, ..Options::default() };
    let image = heifer::decode_rgba8(bytes, &options).map_err(error)?;
    let size = Size { width: image.width, height: image.height };
    limits.check_size(size)?;
    Ok(Raster::new(size, Layout::Rgba, image.data))
}

fn error(error: Error) -> ImageError {
    match error {
        Error::Unsupported(kind) => ImageError::UnsupportedKind { format: FORMAT, kind },
        other => damaged(&other.to_string()),
    }
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.trim_end_matches('.').to_owned() }
}
