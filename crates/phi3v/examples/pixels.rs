//! Writes the pixels of an image as PPM to stdout, read as the reference does it:
//! `cargo run --release -p phi3v --example pixels -- PICTURE > pixels.ppm`.

use phi3v::image::{ImageLimits, ImageMode, decode};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match write_pixels() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write_pixels() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("give a picture")?;
    let image = decode(&std::fs::read(path)?, ImageMode::Reference, &ImageLimits::default())?;
    let mut out = std::io::stdout().lock();
    write!(out, "P6\n{} {}\n255\n", image.width, image.height)?;
    out.write_all(&image.pixels)?;
    Ok(())
}
