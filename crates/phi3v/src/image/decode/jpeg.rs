//! JPEG: all lossy kinds with 8 bits per sample.

mod scans;

use phi3v_jpeg::{Jpeg as Stream, JpegError};

use super::super::error::ImageError;
use super::super::orientation::Orientation;
use super::super::{ImageLimits, ImageMode, Size};
use super::raster::{Layout, Raster, cmyk_to_rgb};
use scans::Scans;

const FORMAT: &str = "JPEG";
/// The application segment that holds EXIF.
const EXIF: u8 = 1;

pub(super) fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<Raster, ImageError> {
    let image = decompress(bytes, limits)?;
    let (layout, samples) = match image.components {
        1 => (Layout::Gray, image.samples),
        3 => (Layout::Rgb, image.samples),
        _ => (Layout::Rgb, inverted_cmyk_to_rgb(image.samples)?),
    };
    let mut raster = Raster::new(image.size, layout, samples);
    if mode == ImageMode::AsSeen {
        raster.orientation = image.orientation;
    }
    Ok(raster)
}

/// The output of libjpeg.
pub(super) struct Jpeg {
    pub(super) size: Size,
    /// 1 (gray), 3 (RGB) or 4 (CMYK as stored, usually inverted).
    pub(super) components: usize,
    /// `[height, width, components]`
    pub(super) samples: Vec<u8>,
    orientation: Orientation,
}

/// Decompresses a JPEG stream. Data after its last row is ignored.
pub(super) fn decompress(bytes: &[u8], limits: &ImageLimits) -> Result<Jpeg, ImageError> {
    decompress_by(bytes, limits, |stream| stream.read())
}

/// Decompresses a JPEG stream, but keeps three components as YCbCr and repeats shared chroma without interpolation.
pub(super) fn decompress_ycbcr(bytes: &[u8], limits: &ImageLimits) -> Result<Jpeg, ImageError> {
    decompress_by(bytes, limits, |stream| stream.read_ycbcr())
}

fn decompress_by(
    bytes: &[u8],
    limits: &ImageLimits,
    read: impl FnOnce(Stream<'_>) -> Result<Vec<u8>, JpegError>,
) -> Result<Jpeg, ImageError> {
    let scans = Scans::of(bytes);
    scans.check_count()?;
    let stream = Stream::open(bytes, EXIF).map_err(|fault| error(fault, bytes.len()))?;
    let (size, components) = (Size { width: stream.width(), height: stream.height() }, stream.components());
    limits.check_size(size)?;
    scans.check_passes()?;
    let exif = stream.segments().find(|body| body.starts_with(b"Exif\0\0"));
    let orientation = exif.map(Orientation::from_exif).unwrap_or_default();
    let samples = read(stream).map_err(|fault| error(fault, size.pixels() as usize * components))?;
    Ok(Jpeg { size, components, samples, orientation })
}

/// Converts an error of a stream that needs `bytes` bytes of memory.
fn error(error: JpegError, bytes: usize) -> ImageError {
    match error {
        JpegError::Ended => ImageError::Truncated { format: FORMAT },
        JpegError::OutOfMemory => ImageError::OutOfMemory { bytes },
        JpegError::Unsupported { kind } => ImageError::UnsupportedKind { format: FORMAT, kind },
        other => ImageError::Damaged { format: FORMAT, reason: other.to_string() },
    }
}

/// Converts inverted CMYK, as Adobe and nearly all other programs store it.
fn inverted_cmyk_to_rgb(mut samples: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    samples.iter_mut().for_each(|v| *v = 255 - *v);
    cmyk_to_rgb(&samples)
}
