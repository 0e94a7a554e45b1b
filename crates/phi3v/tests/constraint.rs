//! Answers that must have a form have it, whatever is drawn.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::constraint::{Constraint, ConstraintFactory, Grammar, GrammarLimits};
use phi3v::presets::PRESETS;
use phi3v::sampler::{History, Sampler, SamplingParams};
use phi3v::tokenizer::Tokenizer;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use regex::Regex;
use serde_json::{Value, json};
use std::path::Path;

fn fixture() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/tokenizer.json");
    Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap()
}

/// The fixture, and the hub's tokenizer if it is there.
fn tokenizers() -> Vec<Tokenizer> {
    let hub = common::shared("reference/golden/tiny/tokenizer.json");
    let hub = hub.map(|path| Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap());
    [fixture()].into_iter().chain(hub).collect()
}

fn factory(tokenizer: &Tokenizer) -> ConstraintFactory {
    ConstraintFactory::new(tokenizer, GrammarLimits::default()).unwrap()
}

/// Rows of the checkpoint beyond the vocabulary, as the hub's have them.
const ROWS_WITHOUT_TOKEN: usize = 19;

/// A whole answer from random logits. After `calm` tokens whatever closes something becomes likely, so that it ends.
fn random_answer(
    tokenizer: &Tokenizer,
    factory: &ConstraintFactory,
    grammar: &Grammar,
    (seed, calm): (u64, usize),
) -> String {
    let mut random = Pcg64::seed_from_u64(seed);
    let params = SamplingParams { temperature: 1.0, seed: Some(seed), ..SamplingParams::default() };
    let mut sampler = Sampler::new(params).unwrap();
    let mut constraint = factory.constraint(grammar).unwrap();
    let mut output = Vec::new();
    for step in 0..400 {
        let mut logits: Vec<f32> = (0..tokenizer.vocab_size() + ROWS_WITHOUT_TOKEN)
            .map(|id| {
                let closes = match tokenizer.text_bytes(id as u32) {
                    [] => tokenizer.stop_ids().contains(&(id as u32)),
                    text => text.iter().all(|byte| b"\"}]".contains(byte)),
                };
                let noise = random.next_u32() as f32 / u32::MAX as f32;
                if closes && step >= calm { noise + 40.0 } else { noise * 8.0 }
            })
            .collect();
        let history = History { prompt: &[], output: &output };
        let token = sampler
            .sample_with(&mut logits, history, |logits| -> Result<(), phi3v::Error> {
                constraint.allowed(logits)
            })
            .unwrap()
            .token;
        constraint.accept(token).unwrap();
        if tokenizer.stop_ids().contains(&token) {
            assert!(constraint.may_end());
            return tokenizer.decode(&output, true);
        }
        output.push(token);
    }
    panic!("no end in sight: {:?}", tokenizer.decode(&output, true));
}

fn check_answers(grammar: &Grammar, answers: u64, check: impl Fn(&str) -> bool) {
    for tokenizer in tokenizers() {
        let factory = factory(&tokenizer);
        // A row of the hub's vocabulary takes sixty times as long to fill with random logits.
        let answers = if tokenizer.vocab_size() > 1000 { answers.div_ceil(3) } else { answers };
        for seed in 0..answers {
            let answer = random_answer(&tokenizer, &factory, grammar, (seed, [0, 5, 30][seed as usize % 3]));
            assert!(check(&answer), "seed {seed}: {answer:?} for {grammar:?}");
        }
    }
}

/// JSON by its grammar: numbers may be too large for any type, such as 1e999.
fn is_json(answer: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(answer).is_ok()
}

fn check_json(schema: Value, check: impl Fn(&Value) -> bool) {
    check_answers(&Grammar::JsonSchema(schema), 15, |answer| {
        serde_json::from_str(answer).is_ok_and(|value| check(&value))
    });
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map_or(Vec::new(), |object| object.keys().map(String::as_str).collect())
}

#[test]
fn json_objects() {
    check_answers(&Grammar::JsonObject, 15, |answer| is_json(answer) && answer.starts_with('{'));
}

#[test]
fn a_book() {
    let schema = json!({
        "type": "object",
        "properties": {"title": {"type": "string"}, "author": {"type": "string"}},
        "required": ["title", "author"],
        "additionalProperties": false,
    });
    check_json(schema, |book| {
        keys(book) == ["title", "author"] && book["title"].is_string() && book["author"].is_string()
    });
}

#[test]
fn a_chart_with_references_bounds_and_choices() {
    let schema = json!({
        "type": "object",
        "$defs": {"point": {
            "type": "object",
            "properties": {
                "label": {"type": "string", "maxLength": 12},
                "value": {"type": "integer", "minimum": -20, "maximum": 300},
            },
            "required": ["label", "value"],
            "additionalProperties": false,
        }},
        "properties": {
            "kind": {"enum": ["bar", "line", null]},
            "points": {"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 1, "maxItems": 3},
            "rising": {"type": "boolean"},
            "note": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z][a-z]{0,5}$"}]},
        },
        "required": ["kind", "points", "note"],
        "additionalProperties": false,
    });
    let note = Regex::new("^[A-Z][a-z]{0,5}$").unwrap();
    check_json(schema, |chart| {
        let points = chart["points"].as_array().unwrap();
        let point_fits = |point: &Value| {
            let value = point["value"].as_f64().unwrap();
            point["label"].as_str().unwrap().chars().count() <= 12
                && (-20.0..=300.0).contains(&value)
                && value.fract() == 0.0
        };
        [json!("bar"), json!("line"), json!(null)].contains(&chart["kind"])
            && (1..=3).contains(&points.len())
            && points.iter().all(point_fits)
            && (chart.get("rising").is_none_or(Value::is_boolean))
            && chart["note"].as_str().is_none_or(|text| note.is_match(text))
    });
}

#[test]
fn every_preset_can_be_followed() {
    for preset in &PRESETS {
        let schema = preset.schema();
        check_answers(&Grammar::JsonSchema(json!(preset.name)), 3, |answer| {
            serde_json::from_str(answer).is_ok_and(|answer| jsonschema::is_valid(&schema, &answer))
        });
    }
}

#[test]
fn choices_are_texts_and_no_patterns() {
    let choices = ["a.b", "a", "a\n(", " two blanks", "\u{65e5}*"];
    let grammar = Grammar::Choices(choices.map(str::to_owned).to_vec());
    check_answers(&grammar, 30, |answer| choices.contains(&answer));
}

/// Signs of patterns in choices cost nothing.
#[test]
fn many_choices_of_any_signs() {
    let choices: Vec<String> = (0..600).map(|number| format!("is it {number}?? (a) (b)")).collect();
    let known: std::collections::HashSet<&str> = choices.iter().map(String::as_str).collect();
    check_answers(&Grammar::Choices(choices.clone()), 5, |answer| known.contains(answer));
    let long = [" a|b".repeat(8_000), " a|b".repeat(8_000) + "c"];
    let factory = factory(&fixture());
    assert!(factory.constraint(&Grammar::Choices(long.to_vec())).is_ok());
}

#[test]
fn a_tree_that_contains_itself() {
    let schema = json!({
        "type": "array", "maxItems": 2, "items": {"$ref": "#"},
    });
    fn fits(value: &Value) -> bool {
        value.as_array().is_some_and(|items| items.len() <= 2 && items.iter().all(fits))
    }
    check_json(schema, fits);
}

#[test]
fn anything_that_is_json() {
    check_answers(&Grammar::JsonSchema(json!(true)), 15, is_json);
    let number =
        |answer: &str| is_json(answer) && answer.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    check_answers(&Grammar::JsonSchema(json!({"type": "number"})), 15, number);
}

#[test]
fn regular_expressions_of_the_text_that_is_seen() {
    for pattern in
        ["[0-9]{4}-[0-9]{2}-[0-9]{2}", "yes|no", "", " ?", "  two blanks", " *x", "\u{65e5}+\u{1f600}?"]
    {
        let regex = Regex::new(&format!("^(?:{pattern})$")).unwrap();
        check_answers(&Grammar::Regex(pattern.to_owned()), 9, |answer| regex.is_match(answer));
    }
}

#[test]
fn grammars() {
    let lark = r#"
        start: sum
        sum: NUMBER | "(" sum "+" sum ")"
        NUMBER: /[1-9][0-9]{0,2}/
    "#;
    let flat = Regex::new(r"\((\d+)\+(\d+)\)").unwrap();
    check_answers(&Grammar::Lark(lark.to_owned()), 12, |answer| {
        let mut rest = answer.to_owned();
        while flat.is_match(&rest) {
            rest = flat.replace(&rest, "1").into_owned();
        }
        rest.parse::<u32>().is_ok()
    });
}

/// What may come first is exactly what a definition over strings allows.
#[test]
fn first_tokens_are_those_that_can_be_finished() {
    let words = ["yes", "no", " maybe"];
    for tokenizer in tokenizers() {
        let mut constraint =
            factory(&tokenizer).constraint(&Grammar::Regex(format!("({})", words.join("|")))).unwrap();
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        constraint.allowed(&mut logits).unwrap();
        for (id, logit) in logits.iter().enumerate() {
            let bytes = tokenizer.text_bytes(id as u32);
            let seen = bytes.strip_prefix(b" ").unwrap_or(bytes);
            if id as u32 == tokenizer.byte_id(b' ') {
                continue; // a blank has a token of its own, the only one where no longer one can begin with it
            }
            let expected = !bytes.is_empty() && words.iter().any(|word| word.as_bytes().starts_with(seen));
            assert_eq!(*logit == 0.0, expected, "{id}: {:?}", tokenizer.token(id as u32));
        }
    }
}

#[test]
fn a_stop_token_needs_a_complete_answer() {
    let tokenizer = fixture();
    let mut constraint = factory(&tokenizer).constraint(&Grammar::Regex("ab?".to_owned())).unwrap();
    let [end, endoftext] = tokenizer.stop_ids();
    let allowed = |constraint: &mut dyn Constraint| {
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        constraint.allowed(&mut logits).unwrap();
        [logits[end as usize], logits[endoftext as usize]].map(|logit| logit == 0.0)
    };
    let [a, b] = ["a", "b"].map(|text| tokenizer.token_id(text).unwrap());
    let refused = |constraint: &mut dyn Constraint, token| {
        let error = constraint.accept(token).unwrap_err();
        assert_eq!(error.to_string(), format!("token {token} is not allowed by the form of the answer"));
    };
    assert_eq!(allowed(&mut constraint), [false, false]);
    refused(&mut constraint, end);
    assert!(!constraint.may_end() && !constraint.is_complete());
    constraint.accept(a).unwrap();
    assert!(constraint.may_end() && !constraint.is_complete());
    assert_eq!(allowed(&mut constraint), [true, true]);
    constraint.accept(b).unwrap();
    assert!(constraint.may_end() && constraint.is_complete());
    assert_eq!(allowed(&mut constraint), [true, true]);
    assert!(constraint.accept(end).is_ok());
    refused(&mut constraint, b);
    refused(&mut constraint, 9_999_999);
}

#[test]
fn grammars_that_cannot_be_used_say_why() {
    let tokenizer = fixture();
    let factory = factory(&tokenizer);
    let error = |grammar: Grammar| {
        let error = factory.constraint(&grammar).unwrap_err();
        assert!(error.hint().is_some());
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 500, "{text}");
        text
    };
    let deep = (0..40).fold(json!({}), |schema, _| json!({"items": schema}));
    assert_eq!(error(Grammar::JsonSchema(deep)), "the JSON schema has 41 levels, the limit is 32");
    let large = error(Grammar::JsonSchema(json!({"const": "a".repeat(70_000)})));
    assert_eq!(large, "the JSON schema has 70012 bytes, the limit is 65536");
    let reserved = error(Grammar::JsonSchema(json!({"x-guidance": {"lenient": true}})));
    assert_eq!(reserved, "the JSON schema cannot be used: the key \"x-guidance\" is reserved");
    for schema in [
        json!(false),
        json!("object"),
        json!({"type": "picture"}),
        json!({"unevaluatedItems": false}),
        json!({"$ref": "http://example.com/a.json"}),
        json!({"$ref": "#/$defs/none"}),
        json!({"pattern": "("}),
        json!({"type": "integer", "minimum": 5, "maximum": 1}),
    ] {
        let text = error(Grammar::JsonSchema(schema.clone()));
        assert!(text.starts_with("the JSON schema cannot be used: "), "{schema}: {text}");
    }
    for (choices, reason) in [
        (vec![], "there is none"),
        (vec!["a", ""], "one of them is empty"),
        (vec!["a", "b", "a"], "\"a\" stands there twice"),
    ] {
        let choices = Grammar::Choices(choices.into_iter().map(str::to_owned).collect());
        assert_eq!(error(choices), format!("the list of choices cannot be used: {reason}"));
    }
    let many = Grammar::Choices((0..1001).map(|number| number.to_string()).collect());
    assert_eq!(error(many), "the list of choices has 1001 texts, the limit is 1000");
    let long = Grammar::Choices(vec!["a".repeat(40_000), "b".repeat(40_000)]);
    assert_eq!(factory.constraint(&long).unwrap_err().hint().unwrap(), "give fewer choices, or shorter ones");
    assert_eq!(error(long), "the list of choices has 80000 bytes, the limit is 65536");
    let letter = error(Grammar::JsonSchema(json!("@letter")));
    assert!(
        letter.ends_with("there is no preset \"@letter\", there are @receipt, @invoice, @table, @card, @alt"),
        "{letter}"
    );
    assert!(error(Grammar::Regex("(".to_owned())).starts_with("the regex cannot be used: "));
    assert!(error(Grammar::Lark("start: nothing".to_owned())).starts_with("the grammar cannot be used: "));
    assert!(error(Grammar::Lark(String::new())).starts_with("the grammar cannot be used: "));
    for token in ["<|end|>", "<|image|>", "<nothing>", "<[*]>", "<[^0]>", "<[32007]>"] {
        for grammar in [format!("start: \"a\" {token}"), format!("start: a\na: \"b\" | {token}")] {
            let text = error(Grammar::Lark(grammar));
            assert!(text.starts_with(&format!("the grammar cannot be used: it names {token}, ")), "{text}");
        }
    }
    // within a text or a pattern they are letters
    for grammar in ["start: \"<|end|>\"", "start: /<b>/ \"<[*]>\" // <b>"] {
        assert!(factory.constraint(&Grammar::Lark(grammar.to_owned())).is_ok(), "{grammar}");
    }
}

#[test]
fn clones_go_on_independently() {
    let tokenizer = fixture();
    let original = factory(&tokenizer).constraint(&Grammar::Regex("[ab]{2}".to_owned())).unwrap();
    let (a, b) = (tokenizer.byte_id(b'a'), tokenizer.byte_id(b'b'));
    let mut clones = [original.clone(), original.clone()];
    for id in [a, b] {
        clones[0].accept(id).unwrap();
    }
    assert!(clones[0].is_complete() && !clones[1].is_complete());
    let mut later = clones[1].clone();
    later.accept(b).unwrap();
    for constraint in [&mut clones[1], &mut original.clone()] {
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        constraint.allowed(&mut logits).unwrap();
        assert!(logits[a as usize] == 0.0 && logits[tokenizer.stop_ids()[0] as usize] == f32::NEG_INFINITY);
        constraint.accept(a).unwrap();
        assert!(!constraint.is_complete(), "the other clone's token does not count here");
    }
}

#[test]
fn what_the_engine_would_take_as_something_else_is_refused() {
    let factory = factory(&fixture());
    for (regex, ends) in [("a\\", true), ("a\\\\", false), ("a\\\\\\", true)] {
        let constraint = factory.constraint(&Grammar::Regex(regex.to_owned()));
        assert_eq!(
            constraint.is_err_and(|error| error.to_string().ends_with("it ends with a backslash")),
            ends
        );
    }
    for attribute in [
        "lazy",
        "capture",
        "capture=\"a\"",
        "stop_capture=\"a\"",
        "stop=\"x\"",
        "suffix=/x/",
        "max_tokens=3",
        "temperature=0.5",
    ] {
        let name = attribute.split('=').next().unwrap();
        for grammar in
            [format!("start[{attribute}]: /a+/"), format!("start: a \"x\"\na.5 [ {attribute} ] : /a+/")]
        {
            let reason = format!("a rule has the attribute {name}, which cannot be followed");
            let error = factory.constraint(&Grammar::Lark(grammar)).unwrap_err().to_string();
            assert_eq!(error, format!("the grammar cannot be used: {reason}"));
        }
    }
    assert!(factory.constraint(&Grammar::Lark("start: [lazy] \"x]:\"\nlazy: \"a\"".to_owned())).is_ok());
}
