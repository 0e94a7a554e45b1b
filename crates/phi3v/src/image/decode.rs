//! Decodes the bytes of a file to RGB pixels.

mod bmp;
mod gif;
#[cfg(any(feature = "avif", feature = "heic"))]
mod heif;
mod jpeg;
mod png;
mod raster;
mod tiff;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::error::ImageError;
use super::format::Format;
use super::{ImageLimits, ImageMode, RgbImage};
use raster::Raster;

/// Decodes an image: PNG, JPEG, WebP, GIF (first frame), BMP, TIFF (first page) or, with the feature `heic`, HEIC. The
/// format is detected from the content. AVIF needs `decode_avif`.
///
/// The cost of decoding grows with the size that the file states. The largest HEIC within the limits takes many
/// seconds, so programs that read untrusted files should also set a time limit, which needs a separate process.
///
/// ```
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cover.png");
/// use phi3v::image::{ImageLimits, ImageMode, decode};
///
/// let image = decode(&std::fs::read(path)?, ImageMode::AsSeen, &ImageLimits::default())?;
/// assert_eq!(image.pixels.len(), image.width * image.height * 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An input that is not a complete, supported image within the limits; see [`ImageError`].
pub fn decode(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    limits.check_bytes(bytes.len())?;
    let format = Format::of(bytes)?;
    let decoder: Decoder = match format {
        #[cfg(feature = "avif")]
        Format::Avif => return Err(ImageError::OwnProcess { format: format.name() }),
        Format::Bmp => bmp::decode,
        Format::Gif => gif::decode,
        #[cfg(feature = "heic")]
        Format::Heic => heif::heic,
        Format::Tiff => tiff::decode,
        Format::WebP => webp::decode,
        Format::Png => png::decode,
        Format::Jpeg => jpeg::decode,
    };
    caught(format, || decoder(bytes, mode, limits))?.into_rgb(mode)
}

/// Decodes AVIF and every format that [`decode`] decodes.
///
/// The AV1 decoder is translated from C: a damaged file may end the whole process. Programs that read untrusted files
/// should call this function in a separate process with limits on time and memory, as the command line and the server do.
///
/// ```
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/avif/color_420.avif");
/// use phi3v::image::{ImageLimits, ImageMode, decode_avif};
///
/// let image = decode_avif(&std::fs::read(path)?, ImageMode::AsSeen, &ImageLimits::default())?;
/// assert_eq!((image.width, image.height), (64, 48));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As for [`decode`].
#[cfg(feature = "avif")]
pub fn decode_avif(bytes: &[u8], mode: ImageMode, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    limits.check_bytes(bytes.len())?;
    let Format::Avif = Format::of(bytes)? else { return decode(bytes, mode, limits) };
    caught(Format::Avif, || heif::avif(bytes, mode, limits))?.into_rgb(mode)
}

/// Returns the number of pages of a TIFF, or `None` if the format has no pages. Counting stops one page above
/// [`ImageLimits::frames_max`]; that result means "more than the limit".
///
/// # Errors
/// The file is empty, too long, damaged at its beginning or in no supported format.
pub fn pages(bytes: &[u8], limits: &ImageLimits) -> Result<Option<usize>, ImageError> {
    limits.check_bytes(bytes.len())?;
    let Format::Tiff = Format::of(bytes)? else { return Ok(None) };
    caught(Format::Tiff, || tiff::pages(bytes, limits)).map(Some)
}

/// Decodes page `page` of a TIFF, counted from 1. A file in another format is decoded as by [`decode`]; `page` is ignored.
///
/// # Errors
/// As for [`decode`]; also if the TIFF has fewer pages or `page` exceeds [`ImageLimits::frames_max`].
pub fn decode_page(
    bytes: &[u8],
    page: usize,
    mode: ImageMode,
    limits: &ImageLimits,
) -> Result<RgbImage, ImageError> {
    limits.check_bytes(bytes.len())?;
    let Format::Tiff = Format::of(bytes)? else { return decode(bytes, mode, limits) };
    let index = page.saturating_sub(1);
    let decoded = caught(Format::Tiff, || {
        if page > limits.frames_max {
            limits.check_frames(Format::Tiff.name(), tiff::pages(bytes, limits)?)?;
        }
        tiff::decode_page(bytes, index, mode, limits)
    });
    decoded?.into_rgb(mode)
}

/// A frame of an animation, as a viewer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnimationFrame {
    /// The whole picture, even if the frame changes only a part of it.
    pub image: RgbImage,
    /// How long the frame is shown.
    pub duration: Duration,
}

/// Returns the frames of an animated WebP, decoded one after the other, or `None` if the file is a still picture or
/// has another format. The file may have up to [`ImageLimits::frames_max`] frames.
///
/// # Errors
/// As for [`decode`]. A frame that cannot be decoded is the last item.
pub fn frames(
    bytes: &[u8],
    mode: ImageMode,
    limits: &ImageLimits,
) -> Result<Option<impl Iterator<Item = Result<AnimationFrame, ImageError>> + use<>>, ImageError> {
    limits.check_bytes(bytes.len())?;
    let Format::WebP = Format::of(bytes)? else { return Ok(None) };
    let Some(mut frames) = caught(Format::WebP, || webp::Frames::of(bytes, mode, limits))? else {
        return Ok(None);
    };
    Ok(Some(std::iter::from_fn(move || {
        let frame = caught(Format::WebP, || frames.next().transpose()).transpose()?;
        Some(
            frame.and_then(|(raster, duration)| {
                Ok(AnimationFrame { image: raster.into_rgb(mode)?, duration })
            }),
        )
    })))
}

/// Returns the decoder's result, and turns a panic into an error of this image. Decoders may be third-party code that
/// processes hostile bytes; a panic must not end the program.
fn caught<T>(format: Format, decoder: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|payload| {
        Err(ImageError::Damaged { format: format.name(), reason: reason(payload.as_ref()) })
    })
}

/// One format's decoder.
type Decoder = fn(&[u8], ImageMode, &ImageLimits) -> Result<Raster, ImageError>;

/// Returns the message of a decoder's panic.
fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("the decoder gave up").trim_end_matches('.').to_owned()
}
