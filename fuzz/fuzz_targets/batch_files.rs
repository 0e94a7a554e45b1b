//! Files of a batch: JSON lines of requests, files of questions, and a journal that something has damaged. Each is used or
//! refused in words; what is used names every input once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v_cli::batch::journal::{Journal, Resumed};
use phi3v_cli::batch::lines::Lines;
use phi3v_cli::batch::questions;
use std::collections::HashSet;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => lines(rest),
        1 => question_file(&String::from_utf8_lossy(rest)),
        _ => journal(rest),
    }
});

/// Every line that was taken can be read again, under a name of its own.
fn lines(bytes: &[u8]) {
    let Ok(lines) = Lines::of_bytes(bytes.to_vec()) else { return };
    let ids: Vec<&str> = lines.ids().collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    for index in 0..ids.len() {
        match lines.body(index) {
            Ok(body) => assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok()),
            // meant for another address
            Err(error) => assert_eq!(error.code, "invalid_value"),
        }
    }
}

/// Every question has a text, and a name of its own.
fn question_file(text: &str) {
    let Ok(questions) = questions::parse(text) else { return };
    let ids: HashSet<String> = questions.iter().map(|question| question.row_id("a")).collect();
    assert_eq!(ids.len(), questions.len());
    assert!(questions.iter().all(|question| !question.prompt.trim().is_empty()));
}

/// What is gone on with ends with a whole line, and is found the same the next time.
fn journal(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("phi3v-fuzz-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written to");
    if let Ok(Some(Resumed { journal, done, .. })) = Journal::resume(&path) {
        drop(journal);
        let kept = std::fs::read(&path).expect("it was written a moment ago");
        assert!(kept.ends_with(b"\n") && bytes.starts_with(&kept));
        let again = Journal::resume(&path).expect("it was taken before").expect("it is there");
        assert_eq!(again.done, done);
    } else {
        assert_eq!(
            std::fs::read(&path).expect("it was written a moment ago"),
            bytes,
            "refused, and left alone"
        );
    }
}
