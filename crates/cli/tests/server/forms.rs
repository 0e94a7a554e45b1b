//! Answers of a form, and how sure the model was of their values.

use super::harness::{Running, user};
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// One server for all tests here.
static SERVER: LazyLock<Running> = LazyLock::new(|| Running::start(ServerOptions::default()));

/// An object with a digit and a constant.
fn schema() -> Value {
    json!({"type": "object", "properties": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}, "unit": {"const": "pieces"}},
        "required": ["digit", "unit"], "additionalProperties": false})
}

fn chunks(events: &[(String, String)]) -> Vec<Value> {
    let data = events.iter().map(|(_, data)| data).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn check_fields(fields: &Value, answer: &str) {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(fields.as_object().unwrap().keys().collect::<Vec<_>>(), ["/digit", "/unit"]);
    assert_eq!((&fields["/digit"]["value"], &fields["/unit"]["value"]), (&answer["digit"], &answer["unit"]));
    for field in ["/digit", "/unit"] {
        let p = fields[field]["p"].as_f64().unwrap();
        assert!(p > 0.0 && p <= 1.0, "{p}");
    }
}

#[test]
fn choices_and_presets_are_forms() {
    let mut body = json!({"messages": [user("Is it?")], "response_format": {"type": "choices", "choices": ["yes", "no"]}});
    assert!(["yes", "no"].contains(&SERVER.chat(&body).content().as_str()));
    body["response_format"]["choices"] = json!(["yes", "yes"]);
    assert_eq!(SERVER.chat(&body).code(), "response_format_unusable");
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "alt", "schema": "@alt"}});
    let answer: Value = serde_json::from_str(&SERVER.chat(&body).content()).unwrap();
    assert!(answer["alt"].is_string());
    body["response_format"]["json_schema"]["schema"] = json!("@letter");
    let refused = SERVER.chat(&body).json();
    assert!(
        refused["error"]["message"].as_str().unwrap().contains("there is no preset \"@letter\""),
        "{refused}"
    );
    for format in
        [json!({"type": "choices", "choices": ["yes", "no"]}), json!({"type": "regex", "pattern": "yes|no"})]
    {
        let body = json!({"input": "Is it?", "text": {"format": format}});
        let answer = SERVER.post("/v1/responses", &body).json();
        let text = answer["output"][0]["content"][0]["text"].as_str().unwrap();
        assert!(["yes", "no"].contains(&text), "{text}");
    }
}

/// Forms that cannot be followed are the client's to change, and are told of in its words.
#[test]
fn unusable_forms_are_no_fault_of_the_server() {
    let ask = |format: Value| {
        SERVER.chat(&json!({"messages": [user("x")], "max_tokens": 40, "response_format": format}))
    };
    let digits = json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
        "minItems": 3, "maxItems": 3, "uniqueItems": 1});
    let choices: Vec<String> = (0..1_001).map(|number| format!("is it {number}??")).collect();
    for (format, words) in [
        (json!({"type": "json_schema", "json_schema": {"name": "a", "schema": digits}}), "uniqueItems is 1"),
        (json!({"type": "grammar", "grammar": "start: \"a\" <|end|>"}), "it names <|end|>"),
        (json!({"type": "choices", "choices": choices}), "the list of choices has 1001 texts"),
        (
            json!({"type": "choices", "choices": ["a".repeat(40_000), "b".repeat(40_000)]}),
            "the list of choices has 80000 bytes",
        ),
    ] {
        let refused = ask(format);
        let error = &refused.json()["error"];
        assert_eq!((refused.status, refused.code().as_str()), (400, "response_format_unusable"), "{error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
    let choices: Vec<String> = (0..600).map(|number| format!("is it {number}?? (a) (b)")).collect();
    assert!(choices.contains(&ask(json!({"type": "choices", "choices": choices})).content()));
}

#[test]
fn fields_come_with_a_chat_completion_whole_and_streamed() {
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema()}});
    let mut body = json!({"messages": [user("How many?")], "response_format": format, "include": ["fields"], "n": 2, "temperature": 1, "seed": 3});
    let whole = SERVER.chat(&body).json();
    for choice in whole["choices"].as_array().unwrap() {
        check_fields(&choice["fields"], choice["message"]["content"].as_str().unwrap());
        assert!(choice["logprobs"].is_null() && choice.get("words").is_none());
    }
    body["stream"] = json!(true);
    let chunks = chunks(&SERVER.chat(&body).events());
    for choice in 0..2_usize {
        let own =
            || chunks.iter().map(|chunk| &chunk["choices"][0]).filter(move |own| own["index"] == choice);
        let text: String = own().filter_map(|own| own["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][choice]["message"]["content"].as_str().unwrap());
        let told: Vec<&Value> = own().filter(|own| own.get("fields").is_some()).collect();
        assert_eq!(told.len(), 1, "they come once");
        assert!(told[0]["finish_reason"].is_string());
        assert_eq!(told[0]["fields"], whole["choices"][choice]["fields"]);
    }
    // with log probabilities of what was forced
    body["logprobs"] = json!(true);
    body["stream"] = json!(false);
    let content = SERVER.chat(&body).json()["choices"][0].clone();
    let tokens = content["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, content["message"]["content"].as_str().unwrap());
    assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() < 0.0));
}

#[test]
fn fields_need_a_form() {
    let body = json!({"messages": [user("How many?")], "include": ["fields"]});
    let refused = SERVER.chat(&body).json();
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["param"]),
        (&json!("invalid_value"), &json!("include"))
    );
    assert_eq!(
        SERVER.post("/v1/responses", &json!({"input": "a", "include": ["fields"]})).code(),
        "invalid_value"
    );
}

#[test]
fn words_and_fields_come_with_a_response_whole_and_streamed() {
    let format = json!({"type": "json_schema", "name": "a", "schema": schema()});
    let mut body = json!({"input": "How many?", "text": {"format": format}, "include": ["words", "fields"]});
    let whole = SERVER.post("/v1/responses", &body).json();
    let part = &whole["output"][0]["content"][0];
    let text = part["text"].as_str().unwrap();
    check_fields(&part["fields"], text);
    let words: Vec<&str> =
        part["words"].as_array().unwrap().iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
    body["stream"] = json!(true);
    let events = chunks(&SERVER.post("/v1/responses", &body).events());
    let of = |name: &str| events.iter().find(|event| event["type"] == name).unwrap();
    assert_eq!(&of("response.content_part.done")["part"], part);
    assert_eq!(&of("response.completed")["response"]["output"][0]["content"][0], part);
    // an answer can be sent back as it came
    let mut message = whole["output"][0].clone();
    message["type"] = json!("message");
    let input = json!([user("How many?"), message, {"role": "user", "content": "And now?"}]);
    let again = SERVER.post("/v1/responses", &json!({"input": input, "max_output_tokens": 3})).json();
    assert_eq!(again["object"], "response", "{again}");
    // without a form words alone
    let plain = json!({"input": "Hello", "include": ["words"], "max_output_tokens": 8});
    let plain = SERVER.post("/v1/responses", &plain).json();
    let part = &plain["output"][0]["content"][0];
    assert!(part["words"].is_array() && part.get("fields").is_none(), "{part}");
    let silent = SERVER.post("/v1/responses", &json!({"input": "Hello", "max_output_tokens": 3})).json();
    assert!(silent["output"][0]["content"][0].get("words").is_none());
}
