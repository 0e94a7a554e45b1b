//! Picture files, HEIC among them: refused, or whole, within the limits and ready to be cut into tiles; and frames of animations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::image::{ImageLimits, ImageMode, ImageParams, decode, frames, process};

/// Small, so that a run spends its time on files and not on pixels.
const LIMITS: ImageLimits = ImageLimits {
    bytes_max: 1 << 20,
    pixels_max: 1 << 16,
    side_max: 4096,
    frames_max: 100,
};

fuzz_target!(|data: &[u8]| {
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        match decode(data, mode, &LIMITS) {
            Ok(image) => {
                assert_eq!(image.pixels.len(), image.width * image.height * 3);
                assert!(image.width * image.height <= 1 << 16);
                let params = ImageParams { num_crops: 1, ..ImageParams::default() };
                if let Ok(inputs) = process(&image, &params) {
                    assert_eq!(inputs.tile_of.len(), 1 + inputs.grid.tiles());
                }
            }
            Err(error) => assert!(!error.to_string().contains('\n') && error.hint().is_some()),
        }
        if let Ok(Some(frames)) = frames(data, mode, &LIMITS) {
            for frame in frames.flatten() {
                assert_eq!(frame.image.pixels.len(), frame.image.width * frame.image.height * 3);
            }
        }
    }
});
