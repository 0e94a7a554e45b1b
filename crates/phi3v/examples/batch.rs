//! Asks the same about many images: `cargo run --release -p phi3v --example batch -- QUESTION IMAGE...`.

use phi3v::batch::{Asked, read_ahead};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let question = arguments.next().ok_or("give a question and images")?;
    let mut session = phi3v::load("demo")?;
    let preparer = session.preparer();
    let images: Vec<String> = arguments.collect();
    // the next images are read and cut on two threads while the model works
    let coming = read_ahead(images, 2, move |path| {
        let request = preparer.image(&path).and_then(|image| preparer.ask([image], &question));
        vec![Asked { key: path, request }]
    })?;
    for ended in session.batch(coming) {
        match ended.result {
            Ok(answer) => println!("{}: {}", ended.key, answer.text),
            Err(error) => eprintln!("{}: {error}", ended.key),
        }
    }
    Ok(())
}
