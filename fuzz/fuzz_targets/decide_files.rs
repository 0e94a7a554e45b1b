//! What `phi3v decide` and `phi3v calibrate` read: files of questions, labels, and calibrations; and the bodies of requests
//! for decisions. Each is used or refused in words, and what is used says what it has to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::decide::{Calibration, Decision, TEMPERATURE_MAX, TEMPERATURE_MIN};
use phi3v_cli::decide::{labels, questions};
use phi3v_cli::server::openai::decisions::types::DecisionRequest;
use phi3v_cli::server::openai::parse;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let text = || String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => question_file(&text()),
        1 => label_file(&text()),
        2 => calibration(rest),
        _ => drop(parse::parse::<DecisionRequest>(rest)),
    }
});

/// Every question has a text.
fn question_file(text: &str) {
    let Ok(questions) = questions::parse(text, &["yes".to_owned()]) else { return };
    assert!(questions.iter().all(|asked| !asked.prompt.trim().is_empty() && !asked.choices.is_empty()));
}

/// Every label is one of its question's choices.
fn label_file(text: &str) {
    let Ok(labels) = labels::parse(text, Path::new("folder")) else { return };
    assert!(!labels.pictures.is_empty());
    for label in labels.pictures.iter().flat_map(|picture| &picture.labels) {
        assert!(label.right < labels.questions[label.question].choices.len());
    }
}

/// A temperature that was taken compares choices.
fn calibration(json: &[u8]) {
    let Ok(calibration) = Calibration::from_json(json) else { return };
    for fitted in &calibration.questions {
        let temperature = calibration.temperature(&fitted.question, &fitted.choices).expect("it is there");
        assert!((TEMPERATURE_MIN..=TEMPERATURE_MAX).contains(&temperature));
        let decision = Decision::new(vec![-1.0, -700.0, f64::NEG_INFINITY], temperature);
        assert!((decision.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
