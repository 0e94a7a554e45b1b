//! Conversations as clients send them: answers that come back, nulls, the fields of the newer API.

use super::harness::{Running, data_url, png, user};
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));

fn code_and_param(path: &str, body: &Value) -> (String, String) {
    let answer = SERVER.post(path, body);
    let param = answer.json()["error"]["param"].as_str().unwrap_or("").to_owned();
    (answer.code(), param)
}

#[test]
fn an_answer_s_message_can_be_sent_back_as_it_came() {
    let mut messages = vec![user("Hello")];
    for _ in 0..2 {
        let answer = SERVER.chat(&json!({"messages": messages, "max_tokens": 6}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        messages.push(answer.json()["choices"][0]["message"].clone());
        messages.push(user("And then?"));
    }
}

#[test]
fn what_official_clients_add_to_a_message_is_accepted() {
    let assistant = json!({"role": "assistant", "content": "y", "refusal": null, "annotations": [], "audio": null,
        "function_call": null, "tool_calls": null, "name": "phi", "parsed": {"a": 1},
        "reasoning": "hm", "reasoning_content": "hm"});
    let refused = json!({"role": "assistant", "content": null, "refusal": "No."});
    let url = data_url(&png(40, 30, 1));
    let picture = json!({"role": "user", "name": "me", "content": [
        {"type": "image_url", "image_url": {"url": url, "detail": null}},
        {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
    ]});
    let messages = json!([user("x"), assistant, user("x"), refused, picture]);
    let body = json!({"messages": messages, "max_tokens": 2, "stream": true,
        "stream_options": {"include_usage": null, "continuous_usage_stats": false}});
    assert_eq!(SERVER.chat(&body).status, 200, "{}", SERVER.chat(&body).text());
}

#[test]
fn tools_in_a_message_are_refused_by_name() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages =
        json!([user("x"), {"role": "assistant", "content": null, "tool_calls": [call]}, user("y")]);
    let expected = ("unsupported_field".to_owned(), "messages[1].tool_calls".to_owned());
    assert_eq!(code_and_param("/v1/chat/completions", &json!({"messages": messages})), expected);
}

#[test]
fn the_newer_api_names_its_own_fields() {
    let cases = [
        (json!({"input": []}), "invalid_value", "input"),
        (json!({"input": 5}), "invalid_value", "input"),
        (json!({"input": [{"role": "user", "content": []}]}), "invalid_value", "input[0].content"),
        (json!({"input": [{"role": "user", "content": 5}]}), "invalid_value", "input[0].content"),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "invalid_value", "input[0].role"),
        (json!({"input": [user("x"), {"role": "assistant", "content": "y"}]}), "invalid_value", "input"),
        (json!({"input": "x", "max_output_tokens": 0}), "invalid_value", "max_output_tokens"),
        (json!({"input": "x", "max_output_tokens": 5000}), "context_length_exceeded", "max_output_tokens"),
        (
            json!({"input": "x", "text": {"format": {"type": "json_schema", "name": "a", "schema": false}}}),
            "response_format_unusable",
            "text.format",
        ),
    ];
    for (body, code, param) in cases {
        assert_eq!(code_and_param("/v1/responses", &body), (code.to_owned(), param.to_owned()), "{body}");
        let message = SERVER.post("/v1/responses", &body).json()["error"]["message"].to_string();
        assert!(!message.contains("untagged"), "{message}");
    }
}

#[test]
fn a_response_s_output_can_be_sent_back_as_it_came() {
    let first = SERVER.post("/v1/responses", &json!({"input": "Hello", "max_output_tokens": 6})).json();
    let mut input = vec![user("Hello")];
    input.extend(first["output"].as_array().unwrap().iter().cloned());
    input.push(user("And then?"));
    let second = SERVER.post("/v1/responses", &json!({"input": input, "max_output_tokens": 6}));
    assert_eq!(second.status, 200, "{}", second.text());
}

/// Each part with all that openai-python's types have for it, but for files by their ids.
#[test]
fn parts_of_the_official_clients_are_taken_whole() {
    let url = data_url(&png(700, 500, 3));
    let mark = json!({"mode": "explicit", "ttl": "30m"});
    let taken = |path: &str, body: &Value| {
        let answer = SERVER.post(path, body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    };
    let chat = |detail: &str| {
        let parts = json!([
            {"type": "image_url", "image_url": {"url": url, "detail": detail}, "prompt_cache_breakpoint": mark},
            {"type": "file", "file": {"file_data": url, "filename": "a.png"}, "prompt_cache_breakpoint": mark},
            {"type": "text", "text": "What?", "prompt_cache_breakpoint": mark},
        ]);
        let body = json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 1});
        taken("/v1/chat/completions", &body)["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let parts = |picture: &str, file: &str| {
        json!([
            {"type": "input_image", "image_url": url, "detail": picture, "prompt_cache_breakpoint": mark},
            {"type": "input_file", "file_data": url, "filename": "a.png", "detail": file, "prompt_cache_breakpoint": mark},
            {"type": "input_text", "text": "What?", "prompt_cache_breakpoint": mark},
            {"type": "input_json", "data": {"a": 1}},
        ])
    };
    let responses = |picture, file| {
        let body =
            json!({"input": [{"role": "user", "content": parts(picture, file)}], "max_output_tokens": 1});
        taken("/v1/responses", &body)["usage"]["input_tokens"].as_u64().unwrap()
    };
    let decisions = |picture, file| {
        let question = json!({"type": "predicate", "instructions": "It is red."});
        let input = json!([{"role": "user", "content": parts(picture, file)}]);
        let body = json!({"input": input, "questions": [question]});
        taken("/v1/decisions", &body)["usage"]["input_tokens"].as_u64().unwrap()
    };
    assert!(chat("low") < chat("high") && chat("high") == chat("original"));
    for tokens in [&responses as &dyn Fn(&'static str, &'static str) -> u64, &decisions] {
        assert!(tokens("low", "low") < tokens("original", "low"));
        assert_eq!(tokens("high", "low"), tokens("original", "low"));
        assert_eq!(tokens("high", "low"), tokens("low", "high"));
        assert_eq!(tokens("auto", "auto"), tokens("low", "low"), "the server's own number of tiles is 1");
    }
}
