//! Asks the same about many pictures, several at a time; an answer is what it would be alone. The next pictures are
//! read and scaled while the engine works on the ones before:
//! `cargo run --release -p phi3v --example batch -- QUESTION PICTURE...`.

mod common;

use phi3v::engine::{Engine, Event, Request};
use phi3v::kernels::Cpu;
use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver};
use std::thread;

fn main() -> Result<(), common::Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((question, pictures)) = arguments.split_first() else {
        return Err("give a question and pictures".into());
    };
    let checkpoint = common::checkpoint(None)?;
    let mut engine = common::engine(&checkpoint)?;
    let (prepared, requests) = mpsc::sync_channel(2);
    thread::scope(|scope| {
        let checkpoint = &checkpoint;
        scope.spawn(move || {
            for picture in pictures {
                let request = common::request(checkpoint, &[picture], question);
                if prepared.send((picture, request)).is_err() {
                    return; // the engine's side has failed
                }
            }
        });
        answer_all(&mut engine, &requests)
    })
}

/// Answers requests as they come until no more do.
fn answer_all(
    engine: &mut Engine<Cpu>,
    requests: &Receiver<(&String, Result<Request, common::Failure>)>,
) -> Result<(), common::Failure> {
    let mut answers = HashMap::new();
    loop {
        let next = if engine.is_idle() { requests.recv().ok() } else { requests.try_recv().ok() };
        match next {
            Some((picture, Ok(request))) => {
                answers.insert(engine.submit(request)?, (picture, String::new()));
            }
            Some((picture, Err(error))) => eprintln!("{picture}: {error}"),
            None if engine.is_idle() => return Ok(()),
            None => {}
        }
        for output in engine.step(&mut ()) {
            let Some((picture, answer)) = answers.get_mut(&output.id) else { continue };
            match output.event {
                Event::Token(token) => answer.push_str(&token.text),
                Event::Finished(finished) => println!("{picture}: {answer}{}", finished.text),
                Event::Failed(error) => eprintln!("{picture}: {error}"),
            }
        }
    }
}
