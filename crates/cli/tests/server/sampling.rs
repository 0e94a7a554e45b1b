//! How answers are chosen, over HTTP: penalties and JSON objects.

use super::harness::{Collect, Running, load, user};
use phi3v::chat_template::{Message, Role};
use phi3v::engine::{EngineOptions, Request};
use phi3v::processor::chat_prompt;
use phi3v::sampler::SamplingParams;
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));

#[test]
fn penalties_reach_the_sampler() {
    let mut loaded = load(EngineOptions::default()).unwrap();
    let ids = chat_prompt(&loaded.model.tokenizer, &[Message::text(Role::User, "Count")], &[]).unwrap();
    let mut engine_s = |sampling: SamplingParams| {
        let mut text = Collect(String::new());
        let request = Request { sampling, ..Request::greedy(ids.clone(), Vec::new(), 60) };
        let finished = loaded.engine.run(request, &mut text).unwrap();
        text.0 + &finished.text
    };
    let plain = engine_s(SamplingParams::default());
    let mut differ = 0;
    for (name, value) in [("presence_penalty", 2.0), ("frequency_penalty", 2.0), ("repetition_penalty", 5.0)]
    {
        let mut sampling = SamplingParams::default();
        match name {
            "presence_penalty" => sampling.presence_penalty = value,
            "frequency_penalty" => sampling.frequency_penalty = value,
            _ => sampling.repetition_penalty = value,
        }
        let expected = engine_s(sampling);
        let body = json!({"messages": [user("Count")], "max_tokens": 60, name: value});
        assert_eq!(SERVER.chat(&body).content(), expected, "{name}");
        differ += usize::from(expected != plain);
    }
    assert!(differ > 0, "no penalty changes {plain:?}");
}

#[test]
fn a_json_object_is_one_unless_it_is_cut() {
    let mut whole = 0;
    for seed in 0..12 {
        let answer = SERVER.chat(&json!({"messages": [user("Describe the book")], "max_tokens": 400,
            "temperature": 1.5, "seed": seed, "response_format": {"type": "json_object"}}));
        let text = answer.content();
        if answer.json()["choices"][0]["finish_reason"] == "length" {
            continue;
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(object) => assert!(object.is_object(), "{object}"),
            // JSON itself knows no largest number
            Err(error) => assert!(error.to_string().contains("number out of range"), "{error}: {text}"),
        }
        whole += 1;
    }
    assert!(whole > 0, "every object was cut");
}
