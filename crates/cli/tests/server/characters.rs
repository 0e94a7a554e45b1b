//! Characters that the vocabulary spells in byte tokens.

use super::harness::{Running, user};
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));

/// A question whose answer has the form of `pattern`.
fn question(pattern: &str, tokens: usize) -> Value {
    let form = json!({"type": "regex", "pattern": pattern});
    json!({"messages": [user("hi")], "max_tokens": tokens, "response_format": form})
}

/// The texts of a streamed answer, as they came, and its last event with usage.
fn streamed(body: &Value) -> (Vec<String>, Value) {
    let mut body = body.clone();
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let events = SERVER.chat(&body).events();
    let chunks: Vec<Value> = events.iter().filter_map(|(_, data)| serde_json::from_str(data).ok()).collect();
    let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    let texts = chunks.iter().filter_map(text).filter(|text| !text.is_empty()).collect();
    (texts, chunks.last().unwrap()["usage"].clone())
}

#[test]
fn an_answer_cut_within_a_character_keeps_those_before_it() {
    for tokens in 1..=10 {
        let body = question("[\u{1f600}\u{1f389}]{40}", tokens);
        let answer = SERVER.chat(&body);
        let content = answer.content();
        let unfinished = content.ends_with('\u{fffd}');
        let whole = content.trim_end_matches('\u{fffd}');
        assert!(whole.chars().all(|letter| "\u{1f600}\u{1f389}".contains(letter)), "{content:?}");
        assert_eq!(content.chars().filter(|&letter| letter == '\u{fffd}').count(), usize::from(unfinished));
        // the first token may be the space that no text begins with
        let characters = whole.chars().count();
        assert!(characters == tokens / 4 || characters == (tokens - 1) / 4, "{tokens}: {content:?}");
        let usage = answer.json()["usage"].clone();
        assert_eq!(usage["completion_tokens"], tokens);
        let (texts, streamed_usage) = streamed(&body);
        assert_eq!(
            (texts.concat(), &streamed_usage["completion_tokens"]),
            (content, &usage["completion_tokens"])
        );
    }
}

#[test]
fn a_streamed_character_comes_with_its_last_byte() {
    let body = question("[\u{1f600}\u{1f389}]{12}", 100);
    let (texts, _) = streamed(&body);
    assert_eq!(texts.len(), 12, "one event for each: {texts:?}");
    assert!(texts.iter().all(|text| text.chars().count() == 1), "{texts:?}");
    assert_eq!(texts.concat(), SERVER.chat(&body).content());
}

#[test]
fn a_stop_text_in_byte_tokens_ends_the_answer_with_its_last_byte() {
    let mut body = question("x\u{1f600}[\u{1f600}\u{1f389}]{40}", 200);
    body["stop"] = json!(["\u{1f600}"]);
    let answer = SERVER.chat(&body);
    assert_eq!(answer.content(), "x");
    let answer = answer.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((5..=6).contains(&tokens), "{tokens} tokens for x and four bytes");
    assert_eq!(streamed(&body).0.concat(), "x");
}
