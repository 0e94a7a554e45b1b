//! Any bytes as a PDF: it is drawn or refused. What hayro itself panics at is caught by the library and shows here.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::document::Pdf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pdf) = Pdf::open(bytes.to_vec()) {
        for page in 1..=pdf.pages().min(2) {
            if let Ok(drawn) = pdf.draw(page, 1) {
                assert_eq!(drawn.image.pixels.len(), drawn.image.width * drawn.image.height * 3);
            }
        }
    }
});
