//! HEIF, the container of HEIC (pictures coded with HEVC, the photographs of phones) and of AVIF (coded with AV1): pictures
//! alone or put together of tiles and layers.
//!
//! The file itself says how it is turned, mirrored and cropped, and its EXIF orientation is not asked for that: both modes show it
//! upright, as every reader does. The reference reads neither, so that there is no other difference between the modes
//! than transparency; pixels are those of libheif and of libavif, which programs of most kinds read them by. Colour profiles are
//! left alone, as in all formats here.

#[cfg(feature = "avif")]
mod av1;
mod canvas;
mod coding;
mod container;
#[cfg(feature = "heic")]
mod hevc;
mod items;

use super::super::error::ImageError;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster};
use heifer_isobmff::HeifFile;
use items::Items;

/// What the pictures of a file are coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    #[cfg(feature = "heic")]
    Hevc,
    #[cfg(feature = "avif")]
    Av1,
}

impl Codec {
    /// The format whose pictures are coded so.
    fn format(self) -> &'static str {
        match self {
            #[cfg(feature = "heic")]
            Self::Hevc => "HEIC",
            #[cfg(feature = "avif")]
            Self::Av1 => "AVIF",
        }
    }

    /// Whether an item of this kind is a picture coded so.
    fn is_of(self, kind: [u8; 4]) -> bool {
        match self {
            #[cfg(feature = "heic")]
            Self::Hevc => matches!(&kind, b"hvc1" | b"hev1"),
            #[cfg(feature = "avif")]
            Self::Av1 => &kind == b"av01",
        }
    }
}

/// Decodes HEIC.
#[cfg(feature = "heic")]
pub(super) fn heic(bytes: &[u8], _: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    read(bytes, limits, Codec::Hevc).map_err(|fault| fault.of(Codec::Hevc.format()))
}

/// Decodes AVIF. Damaged files can end the whole process.
#[cfg(feature = "avif")]
pub(super) fn avif(bytes: &[u8], _: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    read(bytes, limits, Codec::Av1).map_err(|fault| fault.of(Codec::Av1.format()))
}

fn read(bytes: &[u8], limits: &ImageLimits, codec: Codec) -> Result<Raster, Fault> {
    let file = HeifFile::parse(container::checked(bytes)?)?;
    let stated = file.image_size(file.primary_id)?;
    let stated = stated.map(|(width, height)| Size { width, height });
    if let Some(size) = stated {
        limits.check_size(size)?;
    }
    let picture = Items::new(&file, codec, stated, limits).primary()?;
    let size = Size::of(picture.width, picture.height);
    limits.check_size(size)?;
    Ok(Raster::new(size, Layout::Rgba, picture.pixels.into_flattened()))
}

/// Why there is no picture, before it is said in which format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The file ends before its picture does.
    Truncated,
    /// The file contradicts its format.
    Damaged(String),
    /// It is in a form that is not decoded.
    Unsupported(String),
    /// It is beyond a limit.
    Refused(ImageError),
}

impl Fault {
    fn of(self, format: &'static str) -> ImageError {
        match self {
            Self::Truncated => ImageError::Truncated { format },
            Self::Damaged(reason) => {
                ImageError::Damaged { format, reason: reason.trim_end_matches('.').to_owned() }
            }
            Self::Unsupported(kind) => ImageError::UnsupportedKind { format, kind },
            Self::Refused(error) => error,
        }
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Refused(error)
    }
}

impl From<heifer_isobmff::Error> for Fault {
    fn from(error: heifer_isobmff::Error) -> Self {
        match error {
            heifer_isobmff::Error::UnexpectedEof => Self::Truncated,
            heifer_isobmff::Error::Unimplemented(kind) => unsupported(kind),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn damaged(reason: &str) -> Fault {
    Fault::Damaged(reason.to_owned())
}

fn unsupported(kind: impl Into<String>) -> Fault {
    Fault::Unsupported(kind.into())
}
