//! Answers, whole and cut, as they are told: values by their pointers, and rows of a table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::constraint::Grammar;
use phi3v::engine::Token;
use phi3v::fields::fields;
use phi3v_cli::tables;
use serde_json::Value;
use std::collections::HashSet;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    values(text, usize::from(cut));
    // an answer, a blank line, and a schema
    let (answer, schema) = text.split_once("\n\n").unwrap_or((text, "{}"));
    if let (Ok(answer), Ok(schema)) = (serde_json::from_str(answer), serde_json::from_str(schema)) {
        table(&answer, &schema);
    }
});

/// Of JSON every value is the one at its pointer, unless names stand there twice; probabilities are those that were given.
fn values(text: &str, cut: usize) {
    let middle = (0..=cut.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let token = |text: &str, p: f32| Token { id: 0, text: text.to_owned(), logprob: Some(p.ln()), top: Vec::new() };
    let tokens = [token(&text[..middle], 0.25), token(&text[middle..], 0.5)];
    let found = fields(&Grammar::JsonObject, &tokens, "");
    assert!(found.iter().all(|field| field.p > 0.2 && field.p <= 1.0));
    let Ok(answer) = serde_json::from_str::<Value>(text) else { return };
    let paths: HashSet<&str> = found.iter().map(|field| field.path.as_str()).collect();
    if paths.len() == found.len() {
        let at = |path: &str| answer.pointer(path);
        let wrong = found.iter().find(|field| at(&field.path).is_some_and(|value| *value != field.value));
        assert_eq!(wrong, None, "{text}");
    }
}

/// Every line has as many cells as the first.
fn table(answer: &Value, schema: &Value) {
    let Some(csv) = tables::csv_of(answer, schema) else { return };
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
    let records = tables::records(answer).map_or(0, |records| records.len());
    let lines: Vec<usize> = reader.records().map(|line| line.expect("it is CSV").len()).collect();
    assert!(lines.is_empty() || lines.len() == records + 1, "{} lines of {records} rows", lines.len());
}
