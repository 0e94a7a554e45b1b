//! Text to ids and back against the reference: on our own small tokenizer always, on the hub's where the reference
//! material is present.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::chat_template::{Message, Role, render, render_turns};
use phi3v::processor::{ProcessorError, raw_prompt, reference_ids};
use phi3v::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn testdata(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

/// A tokenizer and the cases made with it: the fixture, and the hub's if it is there.
fn sets() -> Vec<(Tokenizer, Value)> {
    let mut files = vec![(testdata("tiny/tokenizer.json"), testdata("text.json"))];
    let hub = common::shared("reference/golden/tiny/tokenizer.json");
    files.extend(hub.zip(common::shared("reference/golden/text.json")));
    let open = |(tokenizer, cases): (std::path::PathBuf, std::path::PathBuf)| {
        (Tokenizer::from_json(&std::fs::read(tokenizer).unwrap()).unwrap(), read_json(&cases))
    };
    files.into_iter().map(open).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn texts_have_the_reference_ids() {
    for (tokenizer, cases) in sets() {
        for case in cases["tokenizer"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = tokenizer.encode_raw(text);
            assert_eq!(found, ids(&case["ids"]), "{text:?}");
            assert_eq!(tokenizer.decode(&found, false), case["decoded"].as_str().unwrap(), "{text:?}");
            assert_eq!(
                tokenizer.decode(&found, true),
                case["decoded_skip_special"].as_str().unwrap(),
                "{text:?}"
            );
        }
    }
}

#[test]
fn ids_have_the_reference_texts() {
    for (tokenizer, cases) in sets() {
        for case in cases["decode"].as_array().unwrap() {
            let list = ids(&case["ids"]);
            assert_eq!(tokenizer.decode(&list, false), case["decode"].as_str().unwrap(), "{list:?}");
            assert_eq!(tokenizer.decode(&list, true), case["decode_skip"].as_str().unwrap(), "{list:?}");
            let Some(each) = case["each"].as_array() else { continue };
            for (id, text) in list.iter().zip(each) {
                assert_eq!(tokenizer.decode(&[*id], false), text.as_str().unwrap(), "{id}");
            }
        }
    }
}

#[test]
fn fixture_prompts_have_the_reference_ids() {
    let (tokenizer, cases) = sets().swap_remove(0);
    for case in cases["processor"].as_array().unwrap() {
        let (name, text) = (&case["name"], case["text"].as_str().unwrap());
        let num_img_tokens: Vec<usize> =
            case["num_img_tokens"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let found = reference_ids(&tokenizer, text, &num_img_tokens);
        match case["ids"].as_array() {
            Some(expected) => {
                let expected: Vec<i64> = expected.iter().map(|id| id.as_i64().unwrap()).collect();
                assert_eq!(found.as_ref(), Ok(&expected), "{name}");
            }
            None => assert!(found.is_err(), "{name}"),
        }
        check_strict(&tokenizer, text, &num_img_tokens, found);
    }
}

/// [`raw_prompt`] gives the reference's ids, but refuses a picture that stands in two places.
fn check_strict(
    tokenizer: &Tokenizer,
    text: &str,
    num_img_tokens: &[usize],
    reference: Result<Vec<i64>, ProcessorError>,
) {
    let found = raw_prompt(tokenizer, text, num_img_tokens);
    if !num_img_tokens.is_empty() && text.matches("<|image_1|>").count() == 2 {
        assert!(matches!(found, Err(ProcessorError::RepeatedImage { number: 1, times: 2 })), "{text:?}");
    } else {
        assert_eq!(found, reference, "{text:?}");
    }
}

#[test]
fn hub_prompts_have_the_reference_ids() {
    let Some(golden) = common::shared("reference/golden") else { return };
    let tokenizer =
        Tokenizer::from_json(&std::fs::read(golden.join("tiny/tokenizer.json")).unwrap()).unwrap();
    let sizes = read_json(&golden.join("preproc.json"));
    let cases = read_json(&golden.join("text.json"));
    let cases = cases["processor"].as_array().unwrap();
    assert_eq!(cases.len(), 34);
    for case in cases {
        let (name, text) = (&case["name"], case["text"].as_str().unwrap());
        if case["images"].as_array().is_some_and(Vec::is_empty) {
            // An empty list and no list are one thing here; the reference's IndexError has no counterpart.
            assert_eq!(case["error"], "IndexError: list index out of range");
            continue;
        }
        let crops = format!("nc{}", case["num_crops"]);
        let images = case["images"].as_array().into_iter().flatten();
        let num_img_tokens: Vec<usize> = images
            .map(|file| sizes[file.as_str().unwrap()][&crops]["num_img_tokens"].as_u64().unwrap() as usize)
            .collect();
        let found = reference_ids(&tokenizer, text, &num_img_tokens);
        match case["input_ids_rle"].as_array() {
            Some(runs) => {
                assert_eq!(found, Ok(expand(runs)), "{name}");
                assert_eq!(
                    found.as_ref().unwrap().len() as u64,
                    case["n_tokens"].as_u64().unwrap(),
                    "{name}"
                );
            }
            None => check_error(case, &found.clone().unwrap_err()),
        }
        check_strict(&tokenizer, text, &num_img_tokens, found);
    }
}

/// `[[id, count], ..]` to ids.
fn expand(runs: &[Value]) -> Vec<i64> {
    runs.iter()
        .flat_map(|run| std::iter::repeat_n(run[0].as_i64().unwrap(), run[1].as_u64().unwrap() as usize))
        .collect()
}

/// Our error is of the kind that the reference's assertion names.
fn check_error(case: &Value, error: &ProcessorError) {
    let reference = case["error"].as_str().unwrap();
    let same = match error {
        ProcessorError::ImageNumbers { .. } => reference.contains("must start from 1"),
        ProcessorError::ImageCount { .. } => reference.contains("total images must be the same"),
        _ => false,
    };
    assert!(same, "{}: {error} for {reference}", case["name"]);
    assert!(error.hint().is_some());
}

#[test]
fn conversations_render_as_the_hub_template_does() {
    let Some(path) = common::shared("reference/golden/text.json") else { return };
    let cases = read_json(&path);
    for case in cases["chat_template"].as_array().unwrap() {
        let message = |message: &Value| {
            let role = match message["role"].as_str().unwrap() {
                "system" => Role::System,
                "user" => Role::User,
                _ => Role::Assistant,
            };
            Message::text(role, message["content"].as_str().unwrap())
        };
        let messages: Vec<Message> = case["messages"].as_array().unwrap().iter().map(message).collect();
        let with_prompt = case["add_generation_prompt"].as_bool().unwrap();
        let found = if with_prompt { render(&messages) } else { render_turns(&messages) };
        assert_eq!(found, case["prompt"].as_str().unwrap());
    }
}
