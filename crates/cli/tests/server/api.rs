//! What clients get.

use super::harness::{
    Collect, ENDLESS, Running, data_url, events, load, png, receive, user, user_with_picture,
};
use phi3v::chat_template::{Message, Role};
use phi3v::engine::{EngineOptions, Request};
use phi3v::processor::chat_prompt;
use phi3v_cli::server::ServerOptions;
use phi3v_cli::server::limits::Limits;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// One server for all tests that do not need one of their own.
static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));

fn question(text: &str, tokens: usize) -> Value {
    json!({"messages": [user(text)], "max_tokens": tokens})
}

#[test]
fn health_models_and_metrics_are_there() {
    assert_eq!(SERVER.get("/health").json(), json!({"status": "ok"}));
    assert_eq!(SERVER.get("/ready").json()["status"], "ready");
    let models = SERVER.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(models["data"][0]["max_model_len"], 4096);
    assert_eq!(SERVER.get("/v1/models/tiny").json()["object"], "model");
    assert_eq!(SERVER.get("/v1/models/other").code(), "model_not_found");
    assert!(SERVER.metric("phi3v_kv_blocks ") > 0.0);
    assert!(SERVER.get("/metrics").text().ends_with("# EOF\n"));
}

#[test]
fn words_come_with_their_probabilities_whole_and_streamed() {
    let mut body = question("Count", 12);
    body["include"] = json!(["words"]);
    let whole = SERVER.chat(&body).json();
    let choice = &whole["choices"][0];
    let words = choice["words"].as_array().unwrap();
    let texts: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(texts, choice["message"]["content"].as_str().unwrap().split_whitespace().collect::<Vec<_>>());
    let number = |word: &Value, name: &str| word[name].as_f64().unwrap();
    assert!(words.iter().all(|word| number(word, "p") > 0.0 && number(word, "p") <= number(word, "mean")));
    assert!(choice["logprobs"].is_null(), "they were not asked for");
    body["stream"] = json!(true);
    let streamed = SERVER.chat(&body).events();
    let chunks = streamed.iter().filter(|(_, data)| data != "[DONE]");
    let chunks = chunks.map(|(_, data)| serde_json::from_str::<Value>(data).unwrap());
    let streamed: Vec<Value> = chunks
        .flat_map(|chunk| chunk["choices"][0]["words"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(streamed, *words);
    body["include"] = json!(["sources"]);
    assert_eq!(SERVER.chat(&body).code(), "invalid_value");
}

#[test]
fn the_answer_is_the_engine_s() {
    let mut loaded = load(EngineOptions::default()).unwrap();
    let messages = [Message::text(Role::System, "Be brief."), Message::text(Role::User, "What is this?")];
    let ids = chat_prompt(&loaded.model.tokenizer, &messages, &[]).unwrap();
    let prompt_tokens = ids.len();
    let mut tokens = Collect(String::new());
    let finished = loaded.engine.run(Request::greedy(ids, Vec::new(), 24), &mut tokens).unwrap();
    let expected = tokens.0 + &finished.text;

    let messages = json!([{"role": "system", "content": "Be brief."}, user("What is this?")]);
    let answer = SERVER.chat(&json!({"messages": messages, "max_tokens": 24, "model": "tiny"}));
    assert_eq!(answer.content(), expected);
    let answer = answer.json();
    assert_eq!(answer["usage"]["prompt_tokens"], prompt_tokens);
    assert_eq!(answer["usage"]["completion_tokens"], finished.usage.completion_tokens);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["image_tokens"], 0);
    assert_eq!(answer["object"], "chat.completion");
    assert!(["stop", "length"].contains(&answer["choices"][0]["finish_reason"].as_str().unwrap()));
}

#[test]
fn a_stream_has_the_whole_answer_in_pieces() {
    let mut body = question("Tell me a story", 30);
    let whole = SERVER.chat(&body);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let stream = SERVER.chat(&body);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    let events = stream.events();
    assert!(events.iter().all(|(name, _)| name.is_empty()), "only OpenAI's own events unless asked for");
    assert_eq!(events.last().unwrap().1, "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole.content());
    let (last, before) = chunks.split_last().unwrap();
    let null = |chunk: &&Value| chunk.as_object().unwrap().get("usage").is_some_and(Value::is_null);
    assert!(before.iter().all(|chunk| null(&chunk)), "OpenAI's chunks have a null before the usage");
    let usage = &last["usage"];
    assert_eq!(usage["completion_tokens"], whole.json()["usage"]["completion_tokens"]);
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons.iter().filter(|reason| reason.is_string()).count(), 1);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
}

#[test]
fn progress_and_timings_are_sent_where_asked_for() {
    let url = data_url(&png(64, 48, 91));
    let body = json!({"messages": [user_with_picture(&url, "What is this?")], "max_tokens": 3, "stream": true,
        "stream_options": {"include_progress": true}});
    let events = SERVER.chat(&body).events();
    let phase = |name: &str| {
        let data = events.iter().filter(|(event, _)| event == "progress").map(|(_, data)| data);
        data.filter(|data| data.contains(name)).count()
    };
    assert!(phase("vision") > 0 && phase("prefill") > 0, "{events:?}");
    let timings = events.iter().find(|(name, _)| name == "timings").unwrap();
    assert!(timings.1.contains("first_token_seconds"));
}

#[test]
fn pictures_count_and_are_not_paid_twice() {
    let url = data_url(&png(80, 60, 17));
    let body = json!({"messages": [user_with_picture(&url, "What is this?")], "max_tokens": 4});
    let first = SERVER.chat(&body).json();
    let tokens = SERVER.post("/tokenize", &body).json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["image_tokens"], tokens["images"][0]["tokens"]);
    assert_eq!(first["usage"]["prompt_tokens"], tokens["count"]);
    assert_eq!(tokens["images"][0]["width"], 80);
    let again = SERVER.chat(&body).json();
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{again}");
    assert_eq!(first["choices"], again["choices"]);
}

#[test]
fn detail_and_order_reach_the_model() {
    let url = data_url(&png(700, 500, 3));
    let tokenize = |content: Value| {
        SERVER.post("/tokenize", &json!({"messages": [{"role": "user", "content": content}]})).json()
    };
    let picture = |detail: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
    let text = json!({"type": "text", "text": "What is this?"});
    let tiles =
        |detail: &str| tokenize(json!([picture(detail), text]))["images"][0]["tiles"].as_u64().unwrap();
    assert_eq!(tiles("low"), 2);
    assert_eq!(tiles("auto"), 2);
    assert!(tiles("high") > 2);
    let first_picture = |tokens: &Value| {
        let ids = tokens["tokens"].as_array().unwrap();
        ids.iter().position(|id| id.as_i64() == Some(-1)).unwrap()
    };
    let before = tokenize(json!([picture("low"), text, picture("low")]));
    let between = tokenize(json!([text, picture("low"), text]));
    assert!(first_picture(&before) < first_picture(&between));
    // pictures that only follow go first, as the models were trained
    let after = tokenize(json!([text, picture("low")]));
    assert_eq!(after["tokens"], tokenize(json!([picture("low"), text]))["tokens"]);
    assert_eq!(before["images"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let ask = |seed: i64| {
        let mut body = question("Say something", 20);
        body["temperature"] = json!(1.0);
        body["seed"] = json!(seed);
        SERVER.chat(&body).content()
    };
    assert_eq!(ask(7), ask(7));
    assert_ne!(ask(7), ask(8));
    assert_eq!(ask(-3), ask(-3));
}

#[test]
fn several_answers_come_in_their_order() {
    let mut body = question("Say something else", 12);
    body["temperature"] = json!(1.0);
    body["seed"] = json!(40);
    body["n"] = json!(3);
    let all = SERVER.chat(&body).json();
    body["n"] = json!(1);
    for index in 0..3 {
        body["seed"] = json!(40 + index);
        let choice = &all["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"].as_str().unwrap(), SERVER.chat(&body).content());
    }
    body["n"] = json!(2);
    body["stream"] = json!(true);
    let events = SERVER.chat(&body).events();
    let ends = events.iter().filter(|(_, data)| data.contains("\"finish_reason\":\"")).count();
    assert_eq!(ends, 2);
}

#[test]
fn an_answer_ends_before_a_stop_text() {
    let whole = SERVER.chat(&question("Count", 30)).content();
    let middle: String = whole.chars().skip(whole.chars().count() / 2).take(4).collect();
    assert!(!middle.is_empty());
    let mut body = question("Count", 30);
    for stop in [json!(middle), json!(["never to be seen", middle])] {
        body["stop"] = stop;
        let stopped = SERVER.chat(&body);
        let expected = &whole[..whole.find(&middle).unwrap()];
        assert_eq!(stopped.content(), expected);
        assert_eq!(stopped.json()["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn log_probabilities_belong_to_the_tokens() {
    let mut compared = 0;
    for number in 0..20 {
        let mut body = question(&format!("Count {number}"), 8);
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(3);
        let answer = SERVER.chat(&body);
        let tokens = answer.json()["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
        assert_eq!(tokens.len() as u64, answer.json()["usage"]["completion_tokens"].as_u64().unwrap());
        let mut bytes = Vec::new();
        for token in &tokens {
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
            // greedy: the token is the likeliest
            assert_eq!(token["bytes"], token["top_logprobs"][0]["bytes"]);
            assert!(token["logprob"].as_f64().unwrap() <= 0.0);
            // special tokens are not part of the text
            if token["token"].as_str().unwrap().starts_with("<|") {
                continue;
            }
            bytes.extend(token["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8));
        }
        // bytes that form no characters become other text than they are
        if let Ok(text) = String::from_utf8(bytes) {
            assert_eq!(text.trim_start_matches(' '), answer.content().trim_start_matches(' '));
            compared += 1;
        }
    }
    assert!(compared > 0);
    assert!(SERVER.chat(&question("Count", 8)).json()["choices"][0]["logprobs"].is_null());
}

#[test]
fn answers_have_the_form_asked_for() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["title", "count", "tags"],
        "properties": {
            "title": {"type": "string", "maxLength": 8},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
        },
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "book", "schema": schema, "strict": true}});
    for seed in 0..100 {
        let body = json!({"messages": [user("Describe the book")], "max_tokens": 300, "temperature": 1.0,
            "seed": seed, "response_format": format, "stream": false});
        let answer = SERVER.chat(&body);
        let object: Value = serde_json::from_str(&answer.content()).unwrap();
        assert!(object["title"].as_str().unwrap().chars().count() <= 8, "{object}");
        assert!((0..=99).contains(&object["count"].as_i64().unwrap()), "{object}");
        let tags = object["tags"].as_array().unwrap();
        assert!(tags.len() <= 3 && tags.iter().all(|tag| tag == "red" || tag == "green"), "{object}");
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
    }
    let ask = |format: Value| {
        SERVER.chat(&json!({"messages": [user("Say it")], "max_tokens": 300, "response_format": format}))
    };
    let regex = ask(json!({"type": "regex", "pattern": "[a-c]{3}-[0-9]{2}"})).content();
    assert!(regex.len() == 6 && regex.as_bytes()[3] == b'-', "{regex}");
    let grammar = ask(json!({"type": "grammar", "grammar": "start: \"yes\" | \"no\""})).content();
    assert!(["yes", "no"].contains(&grammar.as_str()), "{grammar}");
    assert_eq!(ask(json!({"type": "regex", "pattern": "("})).code(), "response_format_unusable");
    assert_eq!(
        ask(json!({"type": "regex", "pattern": "a".repeat(70_000)})).code(),
        "response_format_unusable"
    );
    let elsewhere = json!({"type": "json_schema", "json_schema": {"schema":
        {"$ref": "http://internal.example/secret.json"}}});
    let refused = ask(elsewhere);
    assert_eq!(refused.code(), "response_format_unusable");
    assert_eq!(refused.json()["error"]["param"], "response_format");
    assert!(!refused.text().contains("internal.example"), "{}", refused.text());
    let deep = (0..40).fold(json!({}), |inner, _| json!({"type": "array", "items": inner}));
    let deep = json!({"type": "json_schema", "json_schema": {"schema": deep}});
    assert_eq!(ask(deep).code(), "response_format_unusable");
}

#[test]
fn a_form_that_costs_too_much_is_the_client_s_to_change() {
    let properties: serde_json::Map<_, _> =
        (0..800).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    let schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "wide", "schema": schema}});
    let answer =
        SERVER.chat(&json!({"messages": [user("Say it")], "max_tokens": 30, "response_format": format}));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "response_format_unusable"),
        "{}",
        answer.text()
    );
}

#[test]
fn hostile_forms_are_refused_by_name_and_delay_nobody() {
    let ask = |format: Value| {
        SERVER.chat(&json!({"messages": [user("x")], "max_tokens": 40, "response_format": format}))
    };
    let schema =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let link = |index: usize| json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", index + 1)}});
    let mut chain: serde_json::Map<_, _> = (0..300).map(|index| (format!("d{index}"), link(index))).collect();
    chain.insert("d300".to_owned(), json!({"type": "integer"}));
    assert_eq!(ask(schema(json!({"$ref": "#/$defs/d0", "$defs": chain}))).status, 200);
    let rules: Vec<String> = (0..1_000).map(|index| format!("r{index}: r{}", index + 1)).collect();
    let grammar = format!("start: r0\n{}\nr1000: \"z\"", rules.join("\n"));
    assert_eq!(ask(json!({"type": "grammar", "grammar": grammar})).content(), "z");
    for (unusable, reason) in [
        (json!({"type": "integer", "multipleOf": 4_194_304}), "multipleOf comes to 4194304"),
        (
            json!({"allOf": [{"type": "integer", "multipleOf": 5}, {"multipleOf": 999_999}]}),
            "multipleOf comes to",
        ),
        (json!({"$ref": "#"}), "no JSON value satisfies it"),
    ] {
        let refused = ask(schema(unusable));
        let error = &refused.json()["error"];
        assert_eq!((refused.status, &error["param"]), (400, &json!("response_format")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(reason), "{error}");
    }
    let exact = json!({"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"const": 9_007_199_254_740_993_i64}}});
    assert!(ask(schema(exact)).content().contains("9007199254740993"));
}

#[test]
fn numbers_are_told_of_in_plain_words() {
    let with = |max_tokens: Value| SERVER.chat(&json!({"messages": [user("x")], "max_tokens": max_tokens}));
    let negative = with(json!(-1)).json()["error"]["message"].to_string();
    assert!(negative.contains("expected a whole number from 0 on"), "{negative}");
    let large = with(json!(100_000)).json()["error"]["hint"].to_string();
    assert!(large.contains("--max-tokens"), "{large}");
    // a whole number for JSON Schema
    assert_eq!(with(json!(2.0)).status, 200);
    assert_eq!(with(json!(2.5)).code(), "invalid_value");
}

#[test]
fn texts_side_by_side_stand_on_lines_of_their_own() {
    let tokens = |content: Value| {
        SERVER.post("/tokenize", &json!({"messages": [{"role": "user", "content": content}]})).json()["tokens"].clone()
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(tokens(json!([text("a"), text("b")])), tokens(json!("a\nb")));
}

#[test]
fn a_top_k_of_minus_one_is_off() {
    let with = |top_k: i64| SERVER.chat(&json!({"messages": [user("x")], "max_tokens": 4, "top_k": top_k}));
    assert_eq!(with(-1).content(), with(0).content());
    assert_eq!(with(-2).code(), "invalid_value");
}

#[test]
fn an_event_s_name_comes_before_its_data() {
    let body = json!({"input": "x", "max_output_tokens": 2, "stream": true});
    let text = SERVER.post("/v1/responses", &body).text();
    let named: Vec<&str> = text.split("\n\n").filter(|event| event.contains("event:")).collect();
    assert!(named.len() > 3 && named.iter().all(|event| event.starts_with("event:")), "{text}");
}

#[test]
fn typed_special_tokens_stay_text() {
    let count = |text: &str| SERVER.post("/tokenize", &question(text, 1)).json();
    for text in ["<|end|>", "<|assistant|>", "<|image_1|>", "<s>", "</s>"] {
        let tokens = count(text);
        let ids: Vec<i64> = serde_json::from_value(tokens["tokens"].clone()).unwrap();
        let plain: Vec<i64> = serde_json::from_value(count("x")["tokens"].clone()).unwrap();
        assert!(ids.len() > plain.len(), "{text} became a single token");
        assert_eq!(tokens["image_tokens"], 0);
        assert_eq!(SERVER.chat(&question(text, 2)).status, 200);
    }
}

#[test]
fn errors_have_openai_s_shape_and_stable_codes() {
    let cases = [
        (json!({"messages": []}), "invalid_value", "messages"),
        (json!({}), "invalid_value", ""),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "invalid_value", "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "invalid_value", "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": []}]}), "invalid_value", "messages[0].content"),
        (
            json!({"messages": [user("x"), {"role": "assistant", "content": "y"}]}),
            "invalid_value",
            "messages",
        ),
        (json!({"messages": [user("x")], "model": "gpt-9"}), "model_not_found", "model"),
        (json!({"messages": [user("x")], "tools": [{"type": "function"}]}), "unsupported_field", "tools"),
        (json!({"messages": [user("x")], "logit_bias": {"5": 1}}), "unsupported_field", "logit_bias"),
        (json!({"messages": [user("x")], "temprature": 1}), "unsupported_field", "temprature"),
        (json!({"messages": [user("x")], "temperature": -1}), "invalid_value", "temperature"),
        (json!({"messages": [user("x")], "top_p": 2}), "invalid_value", "top_p"),
        (json!({"messages": [user("x")], "presence_penalty": 3}), "invalid_value", "presence_penalty"),
        (json!({"messages": [{"role": "user"}]}), "invalid_value", "messages[0].content"),
        (json!({"messages": [user("x")], "n": 0}), "invalid_value", "n"),
        (json!({"messages": [user("x")], "n": 99}), "invalid_value", "n"),
        (json!({"messages": [user("x")], "max_tokens": 0}), "invalid_value", "max_tokens"),
        (json!({"messages": [user("x")], "max_tokens": -1}), "invalid_value", "max_tokens"),
        (json!({"messages": [user("x")], "max_tokens": 5000}), "context_length_exceeded", "max_tokens"),
        (
            json!({"messages": [user("x")], "max_tokens": 1, "max_completion_tokens": 1}),
            "invalid_value",
            "max_tokens",
        ),
        (json!({"messages": [user("x")], "top_logprobs": 2}), "invalid_value", "top_logprobs"),
        (
            json!({"messages": [user("x")], "logprobs": true, "top_logprobs": 21}),
            "invalid_value",
            "top_logprobs",
        ),
        (json!({"messages": [user("x")], "stop": [""]}), "invalid_value", "stop"),
        (json!({"messages": [user("x")], "stop": ["1", "2", "3", "4", "5"]}), "invalid_value", "stop"),
        (json!({"messages": [user("x")], "stream_options": {}}), "invalid_value", "stream_options"),
    ];
    for (body, code, param) in cases {
        let answer = SERVER.chat(&body);
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.status);
        assert_eq!(answer.code(), code, "{body}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"].as_str().unwrap_or(""), param, "{body}: {error}");
        assert!(error["type"].is_string() && error["message"].is_string());
        let hint = error["hint"].as_str().unwrap_or_else(|| panic!("no hint: {error}"));
        for flag in ["--detail", "--max-new-tokens", "--num-crops"] {
            assert!(!hint.contains(flag), "{hint}");
        }
    }
    assert_eq!(SERVER.post_bytes("/v1/chat/completions", b"{\"messages\":").code(), "invalid_json");
    assert_eq!(SERVER.post_bytes("/v1/chat/completions", b"[]").code(), "invalid_json");
    let many = format!("{{\"messages\": [{}]}}", ["0"; 200_000].join(","));
    let refused = SERVER.post_bytes("/v1/chat/completions", many.as_bytes());
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_json"));
    assert!(refused.text().contains("the limit is 100000"), "{}", refused.text());
    let text = json!({"messages": [user(&"[,{\\\"".repeat(50_000))], "max_tokens": 1}).to_string();
    assert_ne!(SERVER.post_bytes("/v1/chat/completions", text.as_bytes()).code(), "invalid_json");
    assert_eq!(
        SERVER.post_bytes("/v1/chat/completions", "[".repeat(10_000).as_bytes()).code(),
        "invalid_json"
    );
    assert_eq!(SERVER.get("/v1/chat/completions").code(), "method_not_allowed");
    assert_eq!(SERVER.get("/v1/nothing").code(), "route_not_found");
    let refused = SERVER.get("/v1/models/%ff");
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_value"));
}

#[test]
fn harmless_fields_are_ignored() {
    let mut body = question("Hello", 3);
    for (name, value) in
        [("user", json!("me")), ("store", json!(false)), ("tools", json!([])), ("seed", json!(null))]
    {
        body[name] = value;
    }
    assert_eq!(SERVER.chat(&body).status, 200);
}

/// What the official clients send although it asks for nothing, or what their users write.
#[test]
fn fields_of_the_official_clients_are_taken() {
    let mut body = question("Hello", 3);
    body["temperature"] = json!(1);
    body["top_p"] = json!(0);
    body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    body["tool_choice"] = json!("none");
    let answer = SERVER.chat(&body).content();
    assert_eq!(answer, SERVER.chat(&question("Hello", 3)).content(), "a top_p of 0 leaves the likeliest");
    body["tool_choice"] = json!("auto");
    let refused = SERVER.chat(&body).json();
    assert_eq!(refused["error"]["param"], "tools");

    let answered = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "phase": "final_answer",
        "content": [{"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": null}]});
    let body = json!({"input": [user("Is it?"), answered, user("Sure?")], "max_output_tokens": 3, "stream": true,
        "stream_options": {"include_obfuscation": false}, "truncation": "auto", "max_tool_calls": null,
        "text": {"verbosity": null, "format": {"type": "text"}}});
    let answer = SERVER.post("/v1/responses", &body);
    assert!(
        answer.events().iter().any(|(name, _)| name == "response.completed" || name == "response.incomplete")
    );
    for (field, value, param) in [
        ("text", json!({"verbosity": "low"}), "text.verbosity"),
        ("stream_options", json!({"include_progress": true}), "stream_options.include_progress"),
        ("stream", json!(false), "stream_options"),
    ] {
        let mut body = body.clone();
        body[field] = value;
        assert_eq!(SERVER.post("/v1/responses", &body).json()["error"]["param"], param);
    }
}

#[test]
fn a_picture_s_address_may_stand_by_itself() {
    let url = data_url(&png(64, 48, 3));
    let tokens = |image_url: Value| {
        let content =
            json!([{"type": "image_url", "image_url": image_url}, {"type": "text", "text": "What?"}]);
        SERVER.post("/tokenize", &json!({"messages": [{"role": "user", "content": content}]}))
    };
    assert_eq!(tokens(json!(url)).json()["tokens"], tokens(json!({"url": url})).json()["tokens"]);
    for wrong in [json!(5), json!([url]), json!(null), json!({"address": url}), json!({"url": {"a": 1}})] {
        let refused = tokens(wrong);
        assert_eq!(refused.code(), "invalid_value");
        let message = refused.json()["error"]["message"].to_string();
        for word in ["struct", "enum", "ImageUrl", "ImageFields", "sequence", "map"] {
            assert!(!message.contains(word), "{message}");
        }
    }
}

#[test]
fn every_answer_has_an_id() {
    let ids: Vec<String> =
        (0..2).map(|_| SERVER.get("/health").header("x-request-id").unwrap().to_owned()).collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn tokens_arrive_while_the_answer_is_made() {
    use std::io::Read;
    let server = Running::endless(Limits::default());
    let body = json!({"messages": [user("Tell me a long story")], "max_tokens": ENDLESS, "stream": true,
        "logprobs": true, "top_logprobs": 20});
    let headers = [("content-type", "application/json")];
    let mut stream = server.open("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes());
    let (mut text, mut piece) = (String::new(), [0; 64]);
    while !text.contains("\"content\"") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&piece[..count]);
    }
    // the whole would be some 30 MB, more than all the buffers on the way
    assert_eq!(server.get("/ready").json()["in_flight"], 1);
}

#[test]
fn a_keep_alive_connection_serves_several_requests() {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(SERVER.address).unwrap();
    for last in [false, true] {
        let end = if last { "connection: close\r\n" } else { "" };
        stream.write_all(format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{end}\r\n").as_bytes()).unwrap();
        if last {
            assert_eq!(receive(stream.try_clone().unwrap()).status, 200);
        } else {
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).unwrap() > 0);
        }
    }
}

#[test]
fn the_page_is_ours_and_strict() {
    let page = SERVER.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for file in ["app.js", "answer.js", "client.js", "markdown.js", "style.css"] {
        assert_eq!(SERVER.get(&format!("/{file}")).status, 200, "{file}");
    }
    assert!(!page.text().contains("http://") && !page.text().contains("https://"));
    assert!(events("").is_empty());
}

#[test]
fn of_a_picture_there_is_no_page_but_the_first() {
    let ask = |pages: &str| {
        let file = json!({"file_data": data_url(&png(40, 30, 1)), "pages": pages});
        SERVER.chat_about(json!({"type": "file", "file": file}))
    };
    assert_eq!(ask("1-3").status, 200);
    let refused = ask("2");
    assert_eq!((refused.status, refused.code().as_str()), (400, "document_unusable"));
    assert_eq!(refused.json()["error"]["message"], "there is no page 2, the document has 1");
}
