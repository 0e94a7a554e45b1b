//! What comes over the wire in forms that other servers read: codings, marks, addresses of pictures, parts of messages.

use super::harness::{Running, data_url, png, receive, request, user, user_with_picture};
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));
static DEMO: LazyLock<Running> = LazyLock::new(Running::demo);

const JSON: (&str, &str) = ("content-type", "application/json");
const ROUTES: [&str; 3] = ["/v1/chat/completions", "/v1/responses", "/tokenize"];

fn body_of(path: &str) -> Vec<u8> {
    match path {
        "/v1/responses" => json!({"input": "x", "max_output_tokens": 1}),
        _ => json!({"messages": [user("x")], "max_tokens": 1}),
    }
    .to_string()
    .into_bytes()
}

#[test]
fn a_coded_body_is_refused_by_the_name_of_its_coding() {
    for path in ROUTES {
        let body = body_of(path);
        for coding in ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "gzip, br", "x-own"] {
            let refused = request(SERVER.address, "POST", path, &[JSON, ("content-encoding", coding)], &body);
            assert_eq!((refused.status, refused.code().as_str()), (415, "content_encoding"), "{coding}");
            let named = coding.split(", ").find(|name| *name != "identity").unwrap();
            assert!(refused.json()["error"]["message"].as_str().unwrap().contains(named), "{coding}");
        }
        let plain = [JSON, ("content-encoding", "identity")];
        assert_eq!(request(SERVER.address, "POST", path, &plain, &body).status, 200);
        for coding in ["gzip, chunked", "chunked, chunked", "x, chunked"] {
            let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            let headers = [JSON, ("transfer-encoding", coding)];
            let refused = receive(SERVER.open("POST", path, &headers, &chunked));
            assert_eq!((refused.status, refused.code().as_str()), (400, "transfer_encoding"), "{coding}");
            let headers = [JSON, ("transfer-encoding", "Chunked")];
            assert_eq!(receive(SERVER.open("POST", path, &headers, &chunked)).status, 200);
        }
    }
}

#[test]
fn a_byte_order_mark_is_skipped_and_other_encodings_are_named() {
    for path in ROUTES {
        let body = String::from_utf8(body_of(path)).unwrap();
        assert_eq!(SERVER.post_bytes(path, format!("\u{feff}{body}").as_bytes()).status, 200);
        let wide = |mark: &str| format!("{mark}{body}").encode_utf16().collect::<Vec<u16>>();
        for mark in ["\u{feff}", ""] {
            let little: Vec<u8> = wide(mark).into_iter().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = wide(mark).into_iter().flat_map(u16::to_be_bytes).collect();
            for bytes in [little, big] {
                let refused = SERVER.post_bytes(path, &bytes);
                assert_eq!(refused.code(), "invalid_json");
                assert!(refused.text().contains("UTF-16"), "{}", refused.text());
            }
        }
        let refused = SERVER.post_bytes(path, b"{\"a\": \"\xfc\"}");
        assert!(refused.text().contains("not valid UTF-8: see byte 8"), "{}", refused.text());
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    for body in [
        r#"{"messages": [{"role": "user", "content": "a"}], "messages": [{"role": "user", "content": "b"}]}"#,
        r#"{"messages": [{"role": "user", "content": "a", "role": "user"}], "max_tokens": 1}"#,
        r#"{"messages": [{"role": "user", "content": "a"}], "user": "x", "user": "y"}"#,
        r#"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "max\u005ftokens": 2}"#,
    ] {
        let refused = SERVER.post_bytes("/v1/chat/completions", body.as_bytes());
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_json"), "{body}");
        assert!(refused.text().contains("stands twice in one object: see line 1"), "{}", refused.text());
    }
}

#[test]
fn data_urls_are_read_in_the_forms_that_browsers_read() {
    let picture = png(40, 30, 1);
    let base64 = data_url(&picture).split_once(',').unwrap().1.to_owned();
    let escaped = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let raw: String = picture.iter().map(|byte| format!("%{byte:02x}")).collect();
    let tokens = |url: &str| {
        let body = json!({"messages": [user_with_picture(url, "What is this?")]});
        let answer = SERVER.post("/tokenize", &body);
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        answer.json()["images"][0]["width"].clone()
    };
    for url in [
        format!("data:image/png;base64,{base64}"),
        format!("data:image/png; base64,{base64}"),
        format!("DATA:image/png;charset=x; BASE64 ,{base64}"),
        format!(" data:;base64,{}", base64.trim_end_matches('=')),
        format!("data:image/png;base64,{escaped}"),
        format!("data:image/png;base64,{base64}#picture"),
        format!("data:image/png,{raw}"),
    ] {
        assert_eq!(tokens(&url), 40, "{url}");
    }
}

#[test]
fn refusals_among_the_parts_of_the_assistant_are_its_text() {
    let part = json!({"type": "refusal", "refusal": "No."});
    let chat = |role: &str, content: Value| {
        let messages = json!([user("x"), {"role": role, "content": content}, user("y")]);
        SERVER.post("/tokenize", &json!({"messages": messages}))
    };
    let text = json!([{"type": "text", "text": "No."}]);
    assert_eq!(chat("assistant", json!([part])).json()["tokens"], chat("assistant", text).json()["tokens"]);
    let refused = chat("user", json!([part]));
    assert_eq!((refused.code().as_str(), refused.status), ("invalid_value", 400));
    assert_eq!(refused.json()["error"]["param"], "messages[1].content[0]");
    let input = |role: &str| {
        let input = json!([user("x"), {"role": role, "content": [part]}, user("y")]);
        SERVER.post("/v1/responses", &json!({"input": input, "max_output_tokens": 1}))
    };
    assert_eq!(input("assistant").status, 200);
    assert_eq!(input("user").json()["error"]["param"], "input[1].content[0]");
}

/// Text and joined bytes of the tokens of each choice, whole or as streamed; while streamed, no token is told before
/// its text.
fn with_logprobs(server: &Running, mut body: Value, stream: bool) -> Vec<(String, Vec<u8>)> {
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(2);
    body["stream"] = json!(stream);
    let answer = server.chat(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bytes = |logprobs: &Value| -> Vec<u8> {
        let tokens = logprobs["content"].as_array().into_iter().flatten();
        tokens.flat_map(|token| serde_json::from_value::<Vec<u8>>(token["bytes"].clone()).unwrap()).collect()
    };
    let count = body["n"].as_u64().unwrap_or(1) as usize;
    let mut choices = vec![(String::new(), Vec::new()); count];
    if !stream {
        for choice in answer.json()["choices"].as_array().unwrap() {
            let content = choice["message"]["content"].as_str().unwrap().to_owned();
            choices[choice["index"].as_u64().unwrap() as usize] = (content, bytes(&choice["logprobs"]));
        }
        return choices;
    }
    for (_, data) in answer.events().iter().filter(|(_, data)| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let Some(choice) = chunk["choices"].get(0) else { continue };
        let (text, all) = &mut choices[choice["index"].as_u64().unwrap() as usize];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or(""));
        all.extend(bytes(&choice["logprobs"]));
        assert!(text.as_bytes().starts_with(all), "{text:?} {}", String::from_utf8_lossy(all));
    }
    choices
}

#[test]
fn the_bytes_of_the_tokens_are_the_text() {
    let ask = |text: &str| json!({"messages": [user(text)], "max_tokens": 20});
    let mut bodies = vec![ask("hi")];
    bodies[0]["response_format"] = json!({"type": "regex", "pattern": "abcde"});
    let whole = DEMO.chat(&ask("What can you do?")).content();
    let words: Vec<&str> = whole.split_whitespace().collect();
    assert!(words.len() > 3, "{whole}");
    let within = &whole[words[0].len() + 1..][..words[1].len() / 2 + 1];
    for stop in
        [words[2], within, &whole[..3], "never to be seen", &format!("{}x", &whole[whole.len() - 3..])]
    {
        let mut body = ask("What can you do?");
        body["stop"] = json!([stop]);
        bodies.push(body);
    }
    let mut several = ask("Say something");
    several["n"] = json!(3);
    several["temperature"] = json!(1.0);
    several["seed"] = json!(1);
    bodies.push(several);
    for body in bodies {
        for stream in [false, true] {
            for (text, bytes) in with_logprobs(&DEMO, body.clone(), stream) {
                assert_eq!(text.as_bytes(), bytes, "{body}: {}", String::from_utf8_lossy(&bytes));
            }
        }
    }
}

#[test]
fn tokens_joined_are_the_text_too() {
    let body = json!({"messages": [user("hi")], "max_tokens": 20, "logprobs": true, "top_logprobs": 3,
        "response_format": {"type": "regex", "pattern": "abcde"}});
    let answer = SERVER.chat(&body);
    let tokens = answer.json()["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let joined: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!((joined.as_str(), answer.content().as_str()), ("abcde", "abcde"));
}

#[test]
fn a_response_quotes_the_numbers_of_its_request() {
    let mut body = json!({"input": "Hello", "max_output_tokens": 2, "temperature": 0.7, "top_p": 0.9});
    for stream in [false, true] {
        body["stream"] = json!(stream);
        let text = SERVER.post("/v1/responses", &body).text();
        let quoted = |name: &str, digits: &str| {
            let all = text.matches(&format!("\"{name}\":")).count();
            all > 0 && text.matches(&format!("\"{name}\":{digits},")).count() == all
        };
        assert!(quoted("temperature", "0.7") && quoted("top_p", "0.9"), "{text}");
    }
    let text = SERVER.post("/v1/responses", &json!({"input": "Hello", "max_output_tokens": 2})).text();
    assert!(text.contains("\"temperature\":null,"), "{text}");
}
