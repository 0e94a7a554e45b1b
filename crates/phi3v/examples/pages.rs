//! Draws the pages of a PDF as they become tiles, into files `PREFIX-1.ppm` and so on:
//! `cargo run --release -p phi3v --example pages -- FILE PREFIX [NUM_CROPS]`. Prints a line for each page: its number, its
//! width and height, and `incomplete` where something of it could not be drawn.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, prefix, num_crops @ ..] = arguments.as_slice() else {
        return Err("give a PDF and the beginning of the names of the pictures".into());
    };
    draw(file, prefix, num_crops.first().map_or(Ok(16), |number| number.parse())?)
}

#[cfg(feature = "pdf")]
fn draw(file: &str, prefix: &str, num_crops: usize) -> Result<(), Box<dyn std::error::Error>> {
    let pdf = phi3v::document::Pdf::open(std::fs::read(file)?)?;
    for page in 1..=pdf.pages() {
        let drawn = pdf.draw(page, num_crops)?;
        let phi3v::image::RgbImage { width, height, pixels } = drawn.image;
        let ppm = [format!("P6 {width} {height} 255\n").into_bytes(), pixels].concat();
        std::fs::write(format!("{prefix}-{page}.ppm"), ppm)?;
        println!("{page} {width} {height}{}", if drawn.is_incomplete { " incomplete" } else { "" });
    }
    Ok(())
}

#[cfg(not(feature = "pdf"))]
fn draw(_: &str, _: &str, _: usize) -> Result<(), Box<dyn std::error::Error>> {
    Err("PDF files are drawn with the feature pdf".into())
}
