//! What the targets that decode pictures share.

use phi3v::image::{ImageError, ImageLimits, RgbImage};

/// Small, so that a run spends its time on files and not on pixels.
pub const LIMITS: ImageLimits = ImageLimits {
    bytes_max: 1 << 20,
    pixels_max: 1 << 16,
    side_max: 4096,
    frames_max: 100,
};

/// The picture, which is whole and within the limits; or nothing, with an error that says what to do.
pub fn checked(decoded: Result<RgbImage, ImageError>) -> Option<RgbImage> {
    match decoded {
        Ok(image) => {
            assert_eq!(image.pixels.len(), image.width * image.height * 3);
            assert!(image.width * image.height <= 1 << 16);
            Some(image)
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n') && error.hint().is_some());
            None
        }
    }
}
