//! Answers the lines of stdin about one image, each knowing those before:
//! `cargo run --release -p phi3v --example chat -- IMAGE`.

use phi3v::Conversation;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("give an image")?;
    let mut session = phi3v::load("demo")?;
    let mut images = vec![session.image(path)?];
    let mut conversation = Conversation::new(None);
    for question in std::io::stdin().lines() {
        conversation.ask(images.drain(..), &question?);
        let reply = session.reply(&mut conversation, &mut |_| ControlFlow::Continue(()))?;
        println!("{}", reply.text);
    }
    Ok(())
}
