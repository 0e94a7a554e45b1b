//! HEIF: the container of HEIC (pictures coded with HEVC, the photographs of phones) and of AVIF (coded with AV1). A
//! picture is a single coded image or is assembled from tiles and layers.
//!
//! The file itself states how the picture is rotated, mirrored and cropped, and its EXIF orientation is ignored. Both
//! modes show the picture upright, as every reader does. The reference reads neither format, so the modes differ in
//! transparency only. Pixels equal those of libheif and libavif, which most programs use. Colour profiles are ignored,
//! as in all formats here.

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

/// The codec of a file's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    #[cfg(feature = "heic")]
    Hevc,
    #[cfg(feature = "avif")]
    Av1,
}

impl Codec {
    /// The name of the format that uses the codec.
    fn format(self) -> &'static str {
        match self {
            #[cfg(feature = "heic")]
            Self::Hevc => "HEIC",
            #[cfg(feature = "avif")]
            Self::Av1 => "AVIF",
        }
    }

    /// Whether an item of this kind is a picture coded with the codec.
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

/// Decodes AVIF. A damaged file can end the whole process.
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

/// Why a picture could not be decoded, before the format is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The file ends before its picture does.
    Truncated,
    /// The file contradicts its format.
    Damaged(String),
    /// The file uses a form of the format that is not decoded.
    Unsupported(String),
    /// The file exceeds a limit.
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
