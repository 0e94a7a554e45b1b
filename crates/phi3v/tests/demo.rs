//! The built-in model's answers, in this process: an emulated processor cannot start the program that the command line's
//! tests of the same start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use phi3v::device::DeviceOptions;
use phi3v::{Session, SessionOptions};
use std::path::Path;

#[test]
fn the_examples_are_answered_to_the_letter() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let told = std::fs::read_to_string(examples.join("answers.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&told).unwrap();
    assert!(!cases.is_empty());
    // one thread: emulated ones would only wait for each other
    let device =
        DeviceOptions { choice: "cpu".parse().unwrap(), threads: Some(1), ..DeviceOptions::default() };
    let options = SessionOptions { device, context_tokens: Some(4096), ..SessionOptions::default() };
    let mut session = Session::load("demo", &options).unwrap();
    for case in &cases {
        let names = case["pictures"].as_array().unwrap().iter();
        let pictures = names.map(|name| session.image(examples.join(name.as_str().unwrap())).unwrap());
        let pictures: Vec<_> = pictures.collect();
        let reply = session.ask(pictures, case["question"].as_str().unwrap(), |_| ()).unwrap();
        assert_eq!(reply.text.trim_end(), case["answer"].as_str().unwrap());
    }
}
