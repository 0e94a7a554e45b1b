//! From the bytes of a file to RGB pixels.

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

/// Decodes an image: PNG, JPEG, WebP, GIF (first frame), BMP, TIFF (first page) or, with the feature `heic`, HEIC, told by
/// content. AVIF is read by a function of its own, `decode_avif`.
///
/// What a file may cost grows with the size that it states: the largest HEIC that the limits allow takes many seconds, so that
/// programs that read files of strangers may want a time limit, and thus a process, around this as well.
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
/// Every input that is not a whole, supported image within the limits; see [`ImageError`].
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

/// Decodes AVIF, or what [`decode`] decodes.
///
/// The decoder of AV1 is code translated from C: a damaged file may end the whole process. Programs that read files of strangers
/// call this in a process of its own, with limits on its time and memory, as the command line and the server do.
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

/// Number of pages of a TIFF; none where the format has no pages. No more than [`ImageLimits::frames_max`] are counted, and one
/// more stands for all that there are beyond.
///
/// # Errors
/// The file is in no supported format, empty, too long or damaged at its beginning.
pub fn pages(bytes: &[u8], limits: &ImageLimits) -> Result<Option<usize>, ImageError> {
    limits.check_bytes(bytes.len())?;
    let Format::Tiff = Format::of(bytes)? else { return Ok(None) };
    caught(Format::Tiff, || tiff::pages(bytes, limits)).map(Some)
}

/// Decodes page `page` of a TIFF, counted from 1. What has no pages is decoded as by [`decode`], whatever `page` is.
///
/// # Errors
/// As for [`decode`]; there are not so many pages, or it lies beyond [`ImageLimits::frames_max`].
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

/// A frame of an animation, as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnimationFrame {
    /// The whole picture, also where only a part of it has changed.
    pub image: RgbImage,
    /// For how long it is shown.
    pub duration: Duration,
}

/// The frames of an animated WebP, of which [`ImageLimits::frames_max`] may be looked at, decoded one after the other; none
/// where the file is a still picture or in another format.
///
/// # Errors
/// As for [`decode`]; a frame that cannot be decoded is the last.
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

/// What a decoder returns. It may be other people's code on hostile bytes: should it panic, it is this image's error and
/// not the end of the program.
fn caught<T>(format: Format, decoder: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|payload| {
        Err(ImageError::Damaged { format: format.name(), reason: reason(payload.as_ref()) })
    })
}

/// One format's decoder.
type Decoder = fn(&[u8], ImageMode, &ImageLimits) -> Result<Raster, ImageError>;

/// What an unwinding decoder had to say.
fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("the decoder gave up").trim_end_matches('.').to_owned()
}
