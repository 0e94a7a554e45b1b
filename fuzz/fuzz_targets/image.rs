//! Picture files: refused, or whole, within the limits and ready to be cut into tiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::image::{ImageLimits, ImageMode, ImageParams, decode, process};

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
    }
});
