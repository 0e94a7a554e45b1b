//! Asks the same about several images at once: `cargo run --release -p phi3v --example batch -- QUESTION IMAGE...`.

use phi3v::engine::Event;
use std::collections::HashMap;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut images = std::env::args().skip(1);
    let question = images.next().ok_or("give a question and images")?;
    let session = phi3v::load("demo")?;
    let mut requests = Vec::new();
    for image in images {
        let mut conversation = phi3v::Conversation::default();
        conversation.ask([session.image(&image)?], &question);
        requests.push((image, session.request(&conversation)?));
    }
    let mut engine = session.into_engine();
    let submit = |(image, request)| Ok((engine.submit(request)?, format!("{image}: ")));
    let mut answers = requests.into_iter().map(submit).collect::<phi3v::Result<HashMap<_, _>>>()?;
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(token) => answers.entry(output.id).or_default().push_str(&token.text),
                Event::Finished(end) => println!("{}{}", answers[&output.id], end.text),
                Event::Failed(error) => eprintln!("{}{error}", answers[&output.id]),
            }
        }
    }
    Ok(())
}
