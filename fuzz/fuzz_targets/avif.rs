//! AVIF files: refused, or whole and within the limits. Where the decoder of AV1 panics, the process ends and shows it here; the
//! command line and the server decode AVIF in a process of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::image::{ImageLimits, ImageMode, decode_avif, is_avif};

/// Small, so that a run spends its time on files and not on pixels.
const LIMITS: ImageLimits = ImageLimits {
    bytes_max: 1 << 20,
    pixels_max: 1 << 16,
    side_max: 4096,
    frames_max: 100,
};

fuzz_target!(|data: &[u8]| {
    if !is_avif(data) {
        return;
    }
    match decode_avif(data, ImageMode::AsSeen, &LIMITS) {
        Ok(image) => {
            assert_eq!(image.pixels.len(), image.width * image.height * 3);
            assert!(image.width * image.height <= 1 << 16);
        }
        Err(error) => assert!(!error.to_string().contains('\n') && error.hint().is_some()),
    }
});
