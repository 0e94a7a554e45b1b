//! Prints an answer token by token: `cargo run --release -p phi3v --example stream -- PICTURE QUESTION [MODEL_FOLDER]`.

mod common;

use phi3v::engine::{Observer, Token};
use std::io::Write;

/// Writes each piece of text as soon as it is certain.
struct Printer;

impl Observer for Printer {
    fn token(&mut self, token: &Token) {
        print!("{}", token.text);
        // an answer that cannot be shown piece by piece is still shown in the end
        let _ = std::io::stdout().flush();
    }
}

fn main() -> Result<(), common::Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [picture, question, model @ ..] = arguments.as_slice() else {
        return Err("give a picture and a question".into());
    };
    let checkpoint = common::checkpoint(model.first().map(String::as_str))?;
    let mut engine = common::engine(&checkpoint)?;
    let finished = engine.run(common::request(&checkpoint, &[picture], question)?, &mut Printer)?;
    println!("{}", finished.text);
    Ok(())
}
