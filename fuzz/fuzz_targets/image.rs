//! Picture files, HEIC among them: refused, or whole, within the limits and ready to be cut into tiles; and frames of animations.
#![no_main]

mod picture;

use libfuzzer_sys::fuzz_target;
use phi3v::image::{ImageMode, ImageParams, decode, frames, process};
use picture::{LIMITS, checked};

fuzz_target!(|data: &[u8]| {
    for mode in [ImageMode::AsSeen, ImageMode::Reference] {
        if let Some(image) = checked(decode(data, mode, &LIMITS)) {
            let params = ImageParams { num_crops: 1, ..ImageParams::default() };
            if let Ok(inputs) = process(&image, &params) {
                assert_eq!(inputs.tile_of.len(), 1 + inputs.grid.tiles());
            }
        }
        if let Ok(Some(frames)) = frames(data, mode, &LIMITS) {
            for frame in frames.flatten() {
                assert_eq!(frame.image.pixels.len(), frame.image.width * frame.image.height * 3);
            }
        }
    }
});
