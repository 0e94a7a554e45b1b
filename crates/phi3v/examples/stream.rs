//! Prints an answer as it is made: `cargo run --release -p phi3v --example stream -- IMAGE QUESTION [MODEL_FOLDER]`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, question, model @ ..] = arguments.as_slice() else {
        return Err("give an image and a question".into());
    };
    let mut session = phi3v::load(model.first().map_or("demo", String::as_str))?;
    let image = session.image(image)?;
    session.ask([image], question, |text| {
        print!("{text}");
        // an answer that cannot be shown piece by piece is still shown in the end
        let _ = std::io::stdout().flush();
    })?;
    println!();
    Ok(())
}
