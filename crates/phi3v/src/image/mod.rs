//! Images: converts the bytes of a file to the normalised tiles that the vision tower reads.
//!
//! 1. [`decode`] detects the format from the content, checks the header against [`ImageLimits`] and decodes to RGB,
//!    either as people see the image or as the reference does ([`ImageMode`]).
//! 2. [`HdGrid::of`] computes how an image of a given size is cut, without its pixels.
//! 3. [`process`] resizes and pads the image to the HD image ([`hd_transform`]), computes the global view and
//!    normalises.
//!
//! Follows `image_processing_phi3_v.py` of the checkpoint on Pillow 10.3 and torch 2.4. Invariants:
//! - In reference mode, the HD image equals the reference's to the last byte.
//! - Results do not depend on the number of threads.
//! - No input makes this module panic, or allocate memory for pixels before the header has passed the limits. The
//!   parts of a HEIC are counted before they are decoded. `decode_avif` describes the exception for AVIF.

mod converter;
mod decode;
mod error;
mod format;
mod global_view;
mod hd_transform;
mod inputs;
mod limits;
mod orientation;
mod resize;
mod room;
mod threads;

#[cfg(feature = "avif")]
pub use decode::decode_avif;
pub use decode::{AnimationFrame, decode, decode_page, frames, pages};
pub use error::ImageError;
pub use format::{HEAD_BYTES, is_avif, is_heic, is_picture, is_tiff};
pub use hd_transform::{HdGrid, NUM_CROPS_HIGH, NUM_CROPS_MAX, hd_transform};
pub use inputs::{ImageInputs, ImageParams, TILE_VALUES, process};
pub use limits::ImageLimits;

/// Side of a tile in pixels: the input size of the vision tower, CLIP ViT-L/14-336.
pub const TILE_SIDE: usize = 336;

/// How a file's pixels are read: as people see them, or exactly as the reference reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageMode {
    /// As people see the image: EXIF orientation applied, transparency on white, 16-bit gray scaled to 8 bits.
    #[default]
    AsSeen,
    /// As the reference reads it, which is Pillow's `convert("RGB")` and nothing else. EXIF orientation is ignored
    /// (except in TIFF, where Pillow applies it), the colour under transparent pixels is shown, and 16-bit gray is
    /// clipped at 255.
    Reference,
}

/// A size in pixels, as files state it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Pixels in each row.
    pub width: u32,
    /// Rows of the image.
    pub height: u32,
}

impl Size {
    /// Creates a size from `usize` sides. A side beyond `u32` becomes the maximum, which is beyond any limit.
    ///
    /// ```
    /// use phi3v::image::Size;
    ///
    /// assert_eq!(Size::of(640, usize::MAX), Size { width: 640, height: u32::MAX });
    /// ```
    #[must_use]
    pub fn of(width: usize, height: usize) -> Self {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        Self { width: side(width), height: side(height) }
    }

    /// Number of pixels; cannot overflow.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// A decoded image: 8 bits for each of red, green and blue, without transparency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in each row.
    pub width: usize,
    /// Rows of the image.
    pub height: usize,
    /// `[height, width, 3]`, rows from the top.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// Checks that the pixels fit the size.
    fn check(&self) -> Result<(), ImageError> {
        let expected = self.width.checked_mul(self.height).and_then(|n| n.checked_mul(3));
        if expected == Some(self.pixels.len()) {
            return Ok(());
        }
        Err(ImageError::PixelBytes { width: self.width, height: self.height, bytes: self.pixels.len() })
    }
}
