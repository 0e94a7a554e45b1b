//! `POST /v1/decisions`.

use super::harness::{Running, data_url, png, request};
use phi3v_cli::server::limits::Limits;
use serde_json::{Value, json};
use std::path::Path;

fn decide(server: &Running, input: &Value, questions: &Value) -> Value {
    let response = server.post("/v1/decisions", &json!({"input": input, "questions": questions}));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn picture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    json!({"type": "input_image", "image_url": data_url(&std::fs::read(path).unwrap())})
}

fn about(parts: &[Value]) -> Value {
    json!([{"role": "user", "content": parts}])
}

#[test]
fn each_kind_of_question_has_its_answer() {
    let server = Running::demo();
    let input = about(&[picture("text.png")]);
    let questions = json!([
        {"type": "choice", "name": "sign", "instructions": "What is written here?",
         "choices": [{"value": "No Entry"}, {"value": "Fresh Bread", "description": "a bakery"}]},
        {"type": "predicate", "instructions": "It is a sign."},
        {"type": "choice", "instructions": "Is it red?", "choices": [{"value": true}, {"value": false}]},
        {"type": "score", "name": "worn", "instructions": [{"type": "input_text", "text": "How worn is it?"}],
         "levels": [{"label": "new"}, {"label": "used"}, {"label": "worn", "description": "letters are missing"}]},
    ]);
    let decided = decide(&server, &input, &questions);
    assert_eq!(decided["model"], "tiny", "as the harness calls it");
    let answers = decided["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 4);
    let sign = &answers[0];
    assert_eq!(
        (&sign["type"], &sign["name"], &sign["choice"]),
        (&json!("choice"), &json!("sign"), &json!("Fresh Bread"))
    );
    assert_eq!(sign["confidence"], sign["probabilities"][1]["probability"]);
    assert!(sign["confidence"].as_f64().unwrap() > 0.9, "{sign}");
    let names = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&answers[1]), ["type", "name", "probability"]);
    assert!(
        answers[1]["name"].is_null() && (0.0..=1.0).contains(&answers[1]["probability"].as_f64().unwrap())
    );
    assert!(answers[2]["choice"].is_boolean(), "{}", answers[2]);
    assert_eq!(answers[2]["probabilities"][0]["value"], true);
    let worn = &answers[3];
    let levels = worn["probabilities"].as_array().unwrap();
    assert_eq!(
        levels.iter().map(|level| level["value"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    let mean = |level: &Value| level["value"].as_f64().unwrap() * level["probability"].as_f64().unwrap();
    let score: f64 = levels.iter().map(mean).sum();
    assert!((worn["score"].as_f64().unwrap() - score).abs() < 1e-12, "{worn}");
    let total: f64 = levels.iter().map(|level| level["probability"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-12);

    // the picture and what stands before the questions are computed once
    let usage = &decided["usage"];
    let number = |field: &str| usage[field].as_u64().unwrap();
    let cached = usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(number("input_tokens") - cached < number("input_tokens") / 4 + 300, "{usage}");
    assert_eq!(number("total_tokens"), number("input_tokens") + number("output_tokens"));
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
    assert_eq!(usage["input_tokens_details"]["cache_write_tokens"], 0);

    // each is answered as alone
    for (question, answer) in questions.as_array().unwrap().iter().zip(answers) {
        assert_eq!(&decide(&server, &input, &json!([question]))["answers"][0], answer);
    }
}

#[test]
fn input_comes_in_every_form_of_the_api() {
    let server = Running::start(Default::default());
    let picture = json!({"type": "input_image", "image_url": data_url(&png(30, 40, 7)), "detail": "original",
                         "prompt_cache_breakpoint": {"mode": "explicit"}});
    let questions = json!([
        {"type": "predicate", "instructions": "It is about a cat.", "name": null},
        {"type": "predicate", "name": "alike", "instructions": [
            picture, {"type": "input_text", "text": "It is like this picture."}, {"type": "input_json", "data": [{"a": null}]}]},
    ]);
    for input in [
        json!("A cat sat on a mat."),
        json!([{"role": "user", "content": "A cat sat on a mat.", "type": "message"}]),
        json!([{"role": "developer", "content": [{"type": "input_text", "text": "Be strict."}]},
               {"role": "user", "content": [{"type": "input_text", "text": "Look:"}, picture, {"type": "input_json", "data": {"a": 1}}]}]),
        json!([{"role": "user", "content": "Hello"},
               {"role": "assistant", "type": "message", "phase": null, "content": [{"type": "output_text", "text": "Hi."}, {"type": "refusal", "refusal": "No."}]}]),
        json!([{"role": "user", "content": "How warm is it?"},
               {"type": "function_call", "call_id": "1", "name": "measure", "arguments": "{}", "id": "f", "namespace": null, "status": "completed"},
               {"type": "custom_tool_call", "call_id": "1", "name": "look", "input": "window", "status": "completed"},
               {"type": "function_call_output", "call_id": "1", "output": "21", "id": null},
               {"type": "custom_tool_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "Look:"}, picture]}]),
    ] {
        let body = json!({"input": input, "questions": questions, "model": "tiny", "prompt_cache_key": "x",
                          "prompt_cache_options": {"mode": "implicit", "ttl": "30m"}, "safety_identifier": "y"});
        let response = server.post("/v1/decisions", &body);
        assert_eq!(response.status, 200, "{input}: {}", response.text());
        assert_eq!(response.json()["answers"][1]["name"], "alike");
    }
    // a truth value and its text are two choices
    let choices = json!([{"value": true}, {"value": "true"}, {"value": false}]);
    let truth = json!([{"type": "choice", "instructions": "Is it?", "choices": choices}]);
    let probabilities = decide(&server, &json!("x"), &truth)["answers"][0]["probabilities"].clone();
    assert_eq!((&probabilities[0]["value"], &probabilities[1]["value"]), (&json!(true), &json!("true")));
    assert_ne!(probabilities[0]["probability"], probabilities[1]["probability"]);
    // what is null within JSON is the client's own
    let with = |data: Value| {
        let input = json!([{"role": "user", "content": [{"type": "input_json", "data": data}]}]);
        decide(&server, &input, &json!([{"type": "predicate", "instructions": "It is."}]))["usage"]["input_tokens"].clone()
    };
    assert_ne!(with(json!({"a": null, "b": 1})), with(json!({"b": 1})));
}

#[test]
fn calls_and_their_outputs_are_read_as_texts() {
    let server = Running::demo();
    let questions = json!([{"type": "predicate", "instructions": "It is warm."}]);
    let calls = json!([
        {"type": "function_call", "call_id": "a", "name": "measure", "arguments": "{\"at\": 1}"},
        {"type": "custom_tool_call", "call_id": "a", "name": "look", "input": "out"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "Sun."},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "21"}]},
    ]);
    let texts = json!([
        {"role": "assistant", "content": "Call of measure: {\"at\": 1}"},
        {"role": "assistant", "content": "Call of look: out"},
        {"role": "user", "content": "Output of look:\nSun."},
        {"role": "user", "content": "Output of measure:\n21"},
    ]);
    let (calls, texts) = (decide(&server, &calls, &questions), decide(&server, &texts, &questions));
    assert_eq!(calls["answers"], texts["answers"]);
    assert_eq!(calls["usage"]["input_tokens"], texts["usage"]["input_tokens"]);
}

/// Code and field of the error that a request is refused with.
fn refused(server: &Running, input: &Value, questions: &Value) -> (String, String) {
    let response = server.post("/v1/decisions", &json!({"input": input, "questions": questions}));
    let error = &response.json()["error"];
    assert_eq!(response.status / 100, 4, "{error}");
    assert!(error["hint"].is_string(), "{error}");
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    (text("code"), text("param"))
}

fn predicate(instructions: &Value) -> Value {
    json!([{"type": "predicate", "instructions": instructions}])
}

#[test]
fn what_is_wrong_with_the_input_is_said_with_its_place() {
    let server = Running::with_limits(Limits { messages_max: 3, ..Limits::default() });
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let with = |field: &str, value: Value| {
        let mut call = call.clone();
        call[field] = value;
        json!([call])
    };
    let output = |kind: &str, id: &str| json!([call, {"type": kind, "call_id": id, "output": "x"}]);
    let message = |role: &str, part: Value| json!([{"role": role, "content": [part]}]);
    let picture = |url: &str| json!({"type": "input_image", "image_url": url});
    let many = json!(vec![json!({"role": "user", "content": "x"}); 4]);
    for (input, code, param) in [
        (json!([]), "invalid_value", "input"),
        (json!(7), "invalid_value", "input"),
        (many, "invalid_value", "input"),
        (json!([{"role": "user", "content": []}]), "invalid_value", "input[0].content"),
        (with("type", json!("computer_call")), "invalid_value", "input[0].type"),
        (with("arguments", Value::Null), "invalid_value", "input[0]"),
        (with("arguments", json!({})), "invalid_value", "input[0].arguments"),
        (with("role", json!("user")), "invalid_value", "input[0]"),
        (with("input", json!("x")), "invalid_value", "input[0]"),
        (json!([{"role": "user", "content": "x", "call_id": "c"}]), "invalid_value", "input[0]"),
        (json!([{"content": "x"}]), "invalid_value", "input[0]"),
        (json!([{"role": "user"}]), "invalid_value", "input[0]"),
        (output("function_call_output", "d"), "invalid_value", "input[1].call_id"),
        (output("custom_tool_call_output", "c"), "invalid_value", "input[1].call_id"),
        (
            message("assistant", picture(&data_url(&png(8, 8, 1)))),
            "invalid_value",
            "input[0].content[0].image_url",
        ),
        (
            message("user", picture("https://example.org/a.png")),
            "image_source_not_allowed",
            "input[0].content[0].image_url",
        ),
        (
            message("user", json!({"type": "input_json", "data": [1]})),
            "invalid_value",
            "input[0].content[0].data",
        ),
        (
            message("system", json!({"type": "refusal", "refusal": "No."})),
            "invalid_value",
            "input[0].content[0]",
        ),
    ] {
        let found = refused(&server, &input, &predicate(&json!("It is.")));
        assert_eq!(found, (code.to_owned(), param.to_owned()), "{input}");
    }
}

#[test]
fn what_is_wrong_with_a_question_is_said_with_its_place() {
    let server = Running::start(Default::default());
    let choice = |choices: Value| json!([{"type": "choice", "instructions": "Is it?", "choices": choices}]);
    let many: Vec<Value> = (0..256).map(|value| json!({"value": value.to_string()})).collect();
    let second = json!([predicate(&json!("It is."))[0], predicate(&json!(" "))[0]]);
    let no_picture = json!([{"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}]);
    for (questions, code, param) in [
        (json!([]), "invalid_value", "questions"),
        (json!(vec![predicate(&json!("x"))[0].clone(); 401]), "invalid_value", "questions"),
        (json!([{"type": "box", "instructions": "x"}]), "invalid_value", "questions[0].type"),
        (json!([{"type": "predicate"}]), "invalid_value", "questions[0]"),
        (json!([{"type": "predicate", "instructions": "x", "levels": []}]), "invalid_value", "questions[0]"),
        (second, "invalid_value", "questions[1].instructions"),
        (choice(json!([{"value": "a"}])), "invalid_value", "questions[0].choices"),
        (choice(json!(many)), "invalid_value", "questions[0].choices"),
        (choice(json!([{"value": "a"}, {"value": "a "}])), "invalid_value", "questions[0].choices"),
        (
            choice(json!([{"value": true}, {"value": false}, {"value": true}])),
            "invalid_value",
            "questions[0].choices",
        ),
        (choice(json!([{"value": 1}, {"value": 2}])), "invalid_value", "questions[0]"),
        (
            json!([{"type": "score", "instructions": "x", "levels": [{"label": "a"}]}]),
            "invalid_value",
            "questions[0].levels",
        ),
        (predicate(&no_picture), "image_invalid", "questions[0].instructions[0].image_url"),
    ] {
        let found = refused(&server, &json!("x"), &questions);
        assert_eq!(found, (code.to_owned(), param.to_owned()), "{questions}");
    }
    let body = json!({"input": "x", "questions": predicate(&json!("It is.")), "temperature": 0.5});
    assert_eq!(server.post("/v1/decisions", &body).code(), "unsupported_field");
    let body = json!({"input": "x", "questions": predicate(&json!("It is.")), "model": "gpt-6-luna"});
    assert_eq!(server.post("/v1/decisions", &body).code(), "model_not_found");
    server.wait_idle();
}

#[test]
fn input_and_questions_count_together() {
    let limits = Limits { images_max: 2, text_bytes_max: 10_000, ..Limits::default() };
    let server = Running::with_limits(limits);
    let picture = json!({"type": "input_image", "image_url": data_url(&png(8, 8, 1))});
    let two = about(&[picture.clone(), picture.clone()]);
    let long = |letter: &str| json!({"value": letter.repeat(6000)});
    let choice = json!([{"type": "choice", "instructions": "Is it?", "choices": [long("a"), long("b")]}]);
    for (input, questions, code) in [
        (two, predicate(&json!([picture])), "too_many_images"),
        (json!("x".repeat(10_001)), predicate(&json!("It is.")), "text_too_long"),
        (json!("x"), choice, "text_too_long"),
    ] {
        assert_eq!(refused(&server, &input, &questions), (code.to_owned(), "input".to_owned()));
    }
    // each question is read with all of the input before it
    let many = json!(vec![predicate(&json!("It is."))[0].clone(); 70]);
    let found = refused(&server, &json!("x".repeat(6400)), &many);
    assert_eq!(found, ("text_too_long".to_owned(), "questions".to_owned()));
}

#[test]
fn bounds_of_the_context_and_the_queue_hold() {
    let server = Running::start(Default::default());
    let long = json!({"input": "word ".repeat(4000), "questions": [{"type": "predicate", "instructions": "It is."}]});
    let refused = server.post("/v1/decisions", &long);
    assert_eq!(
        (refused.code().as_str(), &refused.json()["error"]["param"]),
        ("context_length_exceeded", &json!("questions[0].instructions"))
    );

    // one place in the queue for all questions, and none is taken by what is refused
    let server = Running::with_limits(Limits { queue_max: 1, ..Limits::default() });
    let question = json!({"type": "predicate", "instructions": "It is."});
    let decided = decide(&server, &json!("x"), &json!(vec![question; 400]));
    assert_eq!(decided["answers"].as_array().unwrap().len(), 400);
    server.wait_idle();

    let endless = Running::endless(Limits { queue_max: 1, ..Limits::default() });
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10_000});
    let busy = endless.open(
        "POST",
        "/v1/chat/completions",
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    );
    while endless.get("/ready").json()["in_flight"] == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let full = endless.post(
        "/v1/decisions",
        &json!({"input": "x", "questions": [{"type": "predicate", "instructions": "It is."}]}),
    );
    assert_eq!((full.status, full.code().as_str()), (429, "queue_full"));
    assert!(full.header("retry-after").is_some());
    drop(busy);
    endless.wait_idle();
}

/// The route is guarded as all others.
#[test]
fn a_client_that_leaves_is_noticed_and_keys_are_asked_for() {
    let server = Running::start(Default::default());
    let questions = vec![json!({"type": "predicate", "instructions": "It is."}); 400];
    let body = json!({"input": "word ".repeat(500), "questions": questions}).to_string();
    let leaver =
        server.open("POST", "/v1/decisions", &[("content-type", "application/json")], body.as_bytes());
    while server.get("/ready").json()["in_flight"] == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(leaver);
    server.wait_idle();
    let foreign = [("content-type", "application/json"), ("origin", "https://evil.example")];
    let refused = request(server.address, "POST", "/v1/decisions", &foreign, body.as_bytes());
    assert_eq!(refused.code(), "origin_not_allowed");
    let plain =
        request(server.address, "POST", "/v1/decisions", &[("content-type", "text/plain")], body.as_bytes());
    assert_eq!(plain.code(), "content_type");
}
