//! From the bytes of a file to RGB pixels.

mod bmp;
mod gif;
mod jpeg;
mod png;
mod raster;
mod tiff;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::ImageError;
use super::format::Format;
use super::{ImageLimits, ImageMode, RgbImage};
use raster::Raster;

/// Decodes an image: PNG, JPEG, WebP, GIF (first frame), BMP or TIFF (first page), told by content.
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
        Format::Bmp => bmp::decode,
        Format::Gif => gif::decode,
        Format::Tiff => tiff::decode,
        Format::WebP => webp::decode,
        Format::Png => png::decode,
        Format::Jpeg => jpeg::decode,
    };
    // The decoders are other people's code on hostile bytes: should one panic, it is this image's error and not the
    // end of the program.
    let raster = catch_unwind(AssertUnwindSafe(|| decoder(bytes, mode, limits)));
    let raster = raster.unwrap_or_else(|payload| {
        Err(ImageError::Damaged { format: format.name(), reason: reason(payload.as_ref()) })
    })?;
    Ok(raster.into_rgb(mode))
}

/// One format's decoder.
type Decoder = fn(&[u8], ImageMode, &ImageLimits) -> Result<Raster, ImageError>;

/// What an unwinding decoder had to say.
fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("the decoder gave up").trim_end_matches('.').to_owned()
}
