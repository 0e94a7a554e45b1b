//! Asks the same about many pictures, several at a time; an answer is what it would be alone:
//! `cargo run --release -p phi3v --example batch -- QUESTION PICTURE...`.

mod common;

use phi3v::engine::Event;
use std::collections::HashMap;

fn main() -> Result<(), common::Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((question, pictures)) = arguments.split_first() else {
        return Err("give a question and pictures".into());
    };
    let checkpoint = common::checkpoint(None)?;
    let mut engine = common::engine(&checkpoint)?;
    let mut answers = HashMap::new();
    for picture in pictures {
        let id = engine.submit(common::request(&checkpoint, &[picture], question)?)?;
        answers.insert(id, (picture, String::new()));
    }
    while !engine.is_idle() {
        for output in engine.step(&mut ())? {
            let Some((picture, answer)) = answers.get_mut(&output.id) else { continue };
            match output.event {
                Event::Token(token) => answer.push_str(&token.text),
                Event::Finished(finished) => println!("{picture}: {answer}{}", finished.text),
                Event::Failed(error) => eprintln!("{picture}: {error}"),
            }
        }
    }
    Ok(())
}
