//! HEIC, the photographs of phones: pictures coded with HEVC, alone or put together of tiles and layers.
//!
//! The file itself says how it is turned, mirrored and cropped, and its EXIF orientation is not asked for that: both modes show it
//! upright, as every reader does. The reference reads no HEIC, so that there is no other difference between the modes
//! than transparency; pixels are those of libheif, which programs of most kinds read HEIC by. Colour profiles are left
//! alone, as in all formats here.

mod canvas;
mod color;
mod items;

use super::super::error::ImageError;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster};
use heifer_isobmff::HeifFile;
use items::Items;

const FORMAT: &str = "HEIC";

pub(super) fn decode(bytes: &[u8], _: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let file = HeifFile::parse(bytes).map_err(container)?;
    let stated = file.image_size(file.primary_id).map_err(container)?;
    let stated = stated.map(|(width, height)| Size { width, height });
    if let Some(size) = stated {
        limits.check_size(size)?;
    }
    let picture = Items::new(&file, stated, limits).primary()?;
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let size = Size { width: side(picture.width), height: side(picture.height) };
    limits.check_size(size)?;
    Ok(Raster::new(size, Layout::Rgba, picture.pixels.into_flattened()))
}

/// The error of a container that contradicts its format.
fn container(error: heifer_isobmff::Error) -> ImageError {
    damaged(&error.to_string())
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: reason.trim_end_matches('.').to_owned() }
}

fn unsupported(kind: impl Into<String>) -> ImageError {
    ImageError::UnsupportedKind { format: FORMAT, kind: kind.into() }
}
