//! The three tasks of the cookbook page on the built-in model, over HTTP.

use super::harness::{Running, data_url};
use serde_json::{Value, json};
use std::path::PathBuf;

#[test]
fn the_demo_says_what_it_is_and_looks_at_no_more_than_it_can_use() {
    let server = Running::demo();
    let model = server.get("/v1/models").json()["data"][0].clone();
    let description = model["description"].as_str().unwrap();
    assert!(
        description.starts_with("demo model: reads simple covers, charts, large text and shapes"),
        "{description}"
    );
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let bytes = std::fs::read(examples.join("cover.png")).unwrap();
    let url = data_url(&bytes);
    let picture = json!({"type": "image_url", "image_url": {"url": url, "detail": "high"}});
    let content = [picture, json!({"type": "text", "text": "What are the title and the author?"})];
    let request = json!({"messages": [{"role": "user", "content": content}]});
    let measured = server.post("/tokenize", &request).json();
    assert_eq!(measured["images"][0]["tiles"], 5);
}

#[test]
fn the_page_offers_the_pictures_of_the_folder() {
    let server = Running::demo();
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let told = std::fs::read_to_string(examples.join("answers.json")).unwrap();
    assert_eq!(server.get("/examples/answers.json").body, told.as_bytes());
    for case in serde_json::from_str::<Vec<Value>>(&told).unwrap() {
        for name in case["pictures"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            let bytes = std::fs::read(examples.join(name)).unwrap();
            assert!(
                server.get(&format!("/examples/{name}")).body == bytes,
                "cp examples/{name} crates/cli/src/server/ui/examples"
            );
        }
    }
}

/// One for each number of pictures: the library's own test has all of them.
#[test]
fn examples_are_answered_to_the_letter() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let told = std::fs::read_to_string(examples.join("answers.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&told).unwrap();
    let (server, mut counts) = (Running::demo(), Vec::new());
    for case in &cases {
        let count = case["pictures"].as_array().unwrap().len();
        if counts.contains(&count) {
            continue;
        }
        counts.push(count);
        let mut content = Vec::new();
        for name in case["pictures"].as_array().unwrap() {
            let bytes = std::fs::read(examples.join(name.as_str().unwrap())).unwrap();
            let url = data_url(&bytes);
            content.push(json!({"type": "image_url", "image_url": {"url": url}}));
        }
        content.push(json!({"type": "text", "text": case["question"]}));
        let mut question_first = content.clone();
        question_first.rotate_right(1);
        for content in [content, question_first] {
            let answer = server.chat(&json!({"messages": [{"role": "user", "content": content}]})).json();
            assert_eq!(answer["choices"][0]["message"]["content"], case["answer"]);
        }
    }
    assert_eq!(counts, [1, 2, 0]);
}
