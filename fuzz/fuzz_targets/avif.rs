//! AVIF files: refused, or whole and within the limits. Where the decoder of AV1 panics, the process ends and shows it here; the
//! command line and the server decode AVIF in a process of its own.
#![no_main]

mod picture;

use libfuzzer_sys::fuzz_target;
use phi3v::image::{ImageMode, decode_avif, is_avif};
use picture::{LIMITS, checked};

fuzz_target!(|data: &[u8]| {
    if is_avif(data) {
        checked(decode_avif(data, ImageMode::AsSeen, &LIMITS));
    }
});
