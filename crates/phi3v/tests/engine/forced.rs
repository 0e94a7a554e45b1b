//! What forms force is computed in one pass, and every answer is the one that choosing token by token gives.

use super::{Device, device};
use crate::common::forms::Unforeseen;
use crate::common::repository;
use phi3v::checkpoint::Checkpoint;
use phi3v::constraint::{Constraint, ConstraintFactory, Grammar, GrammarLimits};
use phi3v::engine::{Engine, EngineOptions, Event, FinishReason, Request, RequestId};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::sampler::SamplingParams;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&repository().join("testdata/tiny")).unwrap()
}

fn engine_of(checkpoint: &Checkpoint, options: EngineOptions) -> Engine<Device> {
    let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
    let model = Phi3V::load(device(2), config, weights, ModelOptions::F32, &mut |_| {}).unwrap();
    Engine::new(model, Arc::clone(tokenizer), checkpoint.stop_ids(), options).unwrap()
}

fn forms() -> Vec<Grammar> {
    let receipt = json!({
        "type": "object",
        "properties": {
            "merchant name": {"type": "string", "maxLength": 5},
            "currency": {"const": "Euro and Cent \u{20ac}"},
            "kind": {"enum": ["receipt of a purchase", "receipt of a return", "r\u{e9}sum\u{e9}"]},
            "items": {"type": "array", "minItems": 1, "maxItems": 2, "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 3}, "price": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["name", "price"], "additionalProperties": false}},
            "paid": {"type": "boolean"},
        },
        "required": ["merchant name", "currency", "kind", "items", "paid"],
        "additionalProperties": false,
    });
    let unique = json!({"type": "array", "items": {"enum": ["first", "second", {"third": [1, 2]}]}, "uniqueItems": true, "minItems": 3});
    // its items can be told apart at their end only
    let read = json!({"type": "array", "items": {"type": "object", "properties": {"a constant": {"const": 1}, "digit": {"type": "integer", "minimum": 0, "maximum": 2}},
        "required": ["a constant", "digit"], "additionalProperties": false}, "uniqueItems": true, "minItems": 2, "maxItems": 3});
    vec![
        Grammar::JsonSchema(receipt),
        Grammar::JsonSchema(unique),
        Grammar::JsonSchema(read),
        Grammar::JsonSchema(json!({"const": "all of it is known before anything is asked"})),
        Grammar::Regex("(yes, it is so|no, that is not so|\u{1f600}{2}) and [0-9]{2}-[0-9]{2} is the date".to_owned()),
        Grammar::Lark("start: \"begin \" (\"one and only \" | \"two\") \" \"* NUMBER \" end of the answer\"\nNUMBER: /[1-9][0-9]?/".to_owned()),
    ]
}

/// A token with its text and the bits of its log probabilities.
#[derive(Debug, PartialEq)]
struct ToldToken {
    id: u32,
    text: String,
    logprob: Option<u32>,
    top: Vec<(u32, u32)>,
}

/// What is told of an answer: its tokens, and its end.
#[derive(Debug, PartialEq, Default)]
struct Told {
    tokens: Vec<ToldToken>,
    end: Option<Result<(FinishReason, String, usize), String>>,
}

/// Runs the engine until it is idle, and counts its steps.
fn told(engine: &mut Engine<Device>) -> (BTreeMap<RequestId, Told>, usize) {
    let (mut told, mut steps) = (BTreeMap::<RequestId, Told>::new(), 0);
    while !engine.is_idle() {
        steps += 1;
        for output in engine.step(&mut ()) {
            let told = told.entry(output.id).or_default();
            assert!(told.end.is_none(), "nothing follows the end");
            match output.event {
                Event::Token(token) => {
                    let top = token.top.iter().map(|&(id, logprob)| (id, logprob.to_bits())).collect();
                    let (id, text, logprob) = (token.id, token.text, token.logprob.map(f32::to_bits));
                    told.tokens.push(ToldToken { id, text, logprob, top });
                }
                Event::Finished(finished) => {
                    told.end = Some(Ok((finished.reason, finished.text, finished.usage.completion_tokens)));
                }
                Event::Failed(error) => told.end = Some(Err(error.to_string())),
            }
        }
    }
    assert_eq!(engine.load().blocks_in_use, 0);
    (told, steps)
}

/// One way to ask: greedy or drawn, with log probabilities or without, cut by tokens or by a stop string.
fn request(seed: usize) -> Request {
    let ids = (0..20 + seed % 7).map(|i| 3 + ((i * i + 7 * i * seed + seed) % 250) as i64).collect();
    let sampling = SamplingParams {
        temperature: [0.0, 1.0, 2.0][seed % 3],
        repetition_penalty: [1.0, 1.3][seed / 3 % 2],
        frequency_penalty: 0.1,
        seed: Some(seed as u64),
        logprobs: [None, Some(0), Some(3)][seed / 2 % 3],
        ..SamplingParams::default()
    };
    let max_new_tokens = [200, 40, 9, 200][seed % 4];
    let stop = ["is the", "digit\":", "d b", "\",\""];
    let stop = if seed.is_multiple_of(5) { vec![stop[seed / 5 % 4].to_owned()] } else { Vec::new() };
    Request { sampling, stop, ..Request::greedy(ids, Vec::new(), max_new_tokens) }
}

const SEEDS: usize = 24;

#[test]
fn answers_are_those_of_choosing_token_by_token_alone_and_together() {
    let checkpoint = checkpoint();
    let factory = ConstraintFactory::new(&checkpoint.tokenizer, GrammarLimits::default()).unwrap();
    let (mut steps_forced, mut steps_singly) = (0, 0);
    for (number, form) in forms().iter().enumerate() {
        let constraint = factory.constraint(form).unwrap();
        let mut singles = Vec::new();
        for seed in 0..SEEDS {
            let run = |constraint: Box<dyn Constraint>| {
                let mut engine = engine_of(&checkpoint, EngineOptions::default());
                let id = engine.submit(Request { constraint: Some(constraint), ..request(seed) }).unwrap();
                let (mut told, steps) = told(&mut engine);
                (told.remove(&id).unwrap(), steps)
            };
            let (forced, steps) = run(Box::new(constraint.clone()));
            let (singly, all_steps) = run(Box::new(Unforeseen(constraint.clone())));
            assert_eq!(forced, singly, "form {number}, seed {seed}");
            steps_forced += steps;
            steps_singly += all_steps;
            singles.push(forced);
        }
        // more of them than the kernels for few rows take with all that is forced
        let mut together = engine_of(&checkpoint, EngineOptions::default());
        let ids: Vec<RequestId> = (0..SEEDS)
            .map(|seed| {
                let constraint = Some(Box::new(constraint.clone()) as Box<dyn Constraint>);
                together.submit(Request { constraint, ..request(seed) }).unwrap()
            })
            .collect();
        let (mut answers, _) = told(&mut together);
        for (seed, id) in ids.iter().enumerate() {
            assert_eq!(answers.remove(id).unwrap(), singles[seed], "form {number}, seed {seed} in a batch");
        }
    }
    assert!(steps_forced * 3 < steps_singly * 2, "{steps_forced} steps instead of {steps_singly}");
}

#[test]
fn nothing_is_forced_across_the_short_factors_reach() {
    let mut checkpoint = checkpoint();
    let factory = ConstraintFactory::new(&checkpoint.tokenizer, GrammarLimits::default()).unwrap();
    let form =
        Grammar::JsonSchema(json!({"const": "a text that takes more tokens than are left to the limit"}));
    let constraint = factory.constraint(&form).unwrap();
    for (reach, logprobs) in (21..45).flat_map(|reach| [(reach, None), (reach, Some(2))]) {
        checkpoint.config.original_max_position_embeddings = reach;
        let run = |constraint: Box<dyn Constraint>| {
            let mut engine = engine_of(&checkpoint, EngineOptions::default());
            let plain = request(0);
            let sampling = SamplingParams { logprobs, ..plain.sampling.clone() };
            let request = Request { constraint: Some(constraint), sampling, stop: Vec::new(), ..plain };
            engine.submit(request).unwrap();
            told(&mut engine).0
        };
        let singly = run(Box::new(Unforeseen(constraint.clone())));
        assert_eq!(run(Box::new(constraint.clone())), singly, "reach {reach}, logprobs {logprobs:?}");
    }
}
