//! Limits on the cost of an image, checked from its header before anything is decoded.

use super::Size;
use super::error::ImageError;

/// Limits for an image. A file over a limit is refused before memory is allocated for its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Maximum length of the file in bytes.
    pub bytes_max: usize,
    /// Maximum number of pixels: width times height.
    pub pixels_max: u64,
    /// Maximum width, and maximum height, in pixels.
    pub side_max: u32,
    /// Maximum number of frames of an animated PNG, WebP or GIF, of which `decode` reads only the first. Also the number
    /// of pages of a TIFF that can be read; further pages are allowed but cannot be read.
    pub frames_max: usize,
}

impl Default for ImageLimits {
    /// 256 MiB, 178,956,970 pixels, sides of 65,535 (the most that a JPEG can state), 1,000 frames. The limit of
    /// pixels is where the reference's own library refuses: a quarter of 2 GiB in 3-byte pixels.
    fn default() -> Self {
        Self { bytes_max: 256 << 20, pixels_max: (1 << 30) / 6, side_max: 65_535, frames_max: 1_000 }
    }
}

/// Maximum memory of a decoder per pixel: coefficients and samples of a progressive CMYK JPEG within a TIFF, or a
/// strip of four 16-bit samples together with its decoded form.
const DECODER_BYTES_PER_PIXEL: u64 = 16;

impl ImageLimits {
    /// Maximum memory for decoding a picture within the limits, besides its file: 16 bytes per pixel. A TIFF that
    /// would take more is refused. Photographs take 3 to 6 bytes per pixel.
    ///
    /// ```
    /// use phi3v::image::ImageLimits;
    ///
    /// let limits = ImageLimits { pixels_max: 50_000_000, ..ImageLimits::default() };
    /// assert_eq!(limits.decoder_bytes_max(), 800_000_000);
    /// ```
    #[must_use]
    pub fn decoder_bytes_max(&self) -> u64 {
        self.pixels_max.saturating_mul(DECODER_BYTES_PER_PIXEL)
    }

    /// Checks the length of a file. Decoders do this themselves; it is for callers that pass a file to something else first.
    ///
    /// # Errors
    /// [`ImageError::Bytes`] if the file is empty or has more than `bytes_max` bytes.
    pub fn check_bytes(&self, bytes: usize) -> Result<(), ImageError> {
        if bytes == 0 || bytes > self.bytes_max {
            return Err(ImageError::Bytes { bytes, limit: self.bytes_max });
        }
        Ok(())
    }

    /// Checks the size of a picture. Decoders do this themselves; it is for callers that already have pixels, or that
    /// pass a file to something else.
    ///
    /// ```
    /// use phi3v::image::{ImageError, ImageLimits, Size};
    ///
    /// let limits = ImageLimits { pixels_max: 1000, ..ImageLimits::default() };
    /// assert!(limits.check_size(Size { width: 50, height: 20 }).is_ok());
    /// let refused = limits.check_size(Size { width: 51, height: 20 });
    /// assert!(matches!(refused, Err(ImageError::Pixels { limit: 1000, .. })));
    /// ```
    ///
    /// # Errors
    /// [`ImageError::Empty`] for a side of zero, [`ImageError::Side`] for one beyond `side_max`, and
    /// [`ImageError::Pixels`] beyond `pixels_max`.
    pub fn check_size(&self, size: Size) -> Result<(), ImageError> {
        let (Size { width, height }, limit) = (size, self.side_max);
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { width, height });
        }
        if width > limit || height > limit {
            return Err(ImageError::Side { width, height, limit });
        }
        if size.pixels() > self.pixels_max {
            return Err(ImageError::Pixels { width, height, limit: self.pixels_max });
        }
        Ok(())
    }

    /// Checks a number of frames.
    pub(super) fn check_frames(&self, format: &'static str, frames: usize) -> Result<(), ImageError> {
        if frames > self.frames_max {
            return Err(ImageError::Frames { format, frames, limit: self.frames_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_at_and_over_the_limits() {
        let limits = ImageLimits::default();
        let check = |width, height| limits.check_size(Size { width, height });
        assert_eq!(limits.pixels_max, 178_956_970);
        assert!(check(1, 1).is_ok());
        assert!(check(65_535, 2_730).is_ok());
        assert!(check(65_535, 2_731).is_err());
        assert_eq!(check(0, 1), Err(ImageError::Empty { width: 0, height: 1 }));
        assert_eq!(check(1, 0), Err(ImageError::Empty { width: 1, height: 0 }));
        assert!(check(65_536, 1).is_err());
        assert!(check(u32::MAX, u32::MAX).is_err());
        assert!(limits.check_bytes(0).is_err());
        assert!(limits.check_bytes(limits.bytes_max + 1).is_err());
    }
}
