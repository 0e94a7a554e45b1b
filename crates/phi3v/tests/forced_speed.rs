//! What it brings to compute what a form forces in one pass. It measures and asserts no time, so it runs when it is asked for:
//! `cargo test --release -p phi3v --test forced_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::forms::Unforeseen;
use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::constraint::{Constraint, ConstraintFactory, Grammar, GrammarConstraint, GrammarLimits};
use phi3v::device::Device;
use phi3v::engine::{Engine, EngineOptions, Event, Request};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::tokenizer::Tokenizer;
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// A receipt with short values, so that a model of random weights comes to its end too.
fn form() -> Grammar {
    let item = json!({"type": "object", "properties": {"description": {"type": "string", "maxLength": 12},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 9}, "amount": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["description", "quantity", "amount"], "additionalProperties": false});
    Grammar::JsonSchema(
        json!({"type": "object", "properties": {"merchant": {"type": "string", "maxLength": 16},
        "date": {"type": "string", "format": "date"}, "currency": {"enum": ["EUR", "USD", "GBP"]},
        "payment_method": {"enum": ["cash", "credit card", "debit card"]},
        "items": {"type": "array", "items": item, "minItems": 3, "maxItems": 3},
        "total": {"type": "integer", "minimum": 0, "maximum": 9999}},
        "required": ["merchant", "date", "currency", "payment_method", "items", "total"], "additionalProperties": false}),
    )
}

/// Tokens, passes of the decoder and seconds of `answers` answers that are made together.
fn measure(
    engine: &mut Engine<Device>,
    constraint: &GrammarConstraint,
    answers: usize,
    foreseen: bool,
) -> (usize, usize, f64) {
    for _ in 0..answers {
        let own = constraint.clone();
        let constraint: Box<dyn Constraint> =
            if foreseen { Box::new(own) } else { Box::new(Unforeseen(own)) };
        let request = Request::greedy((1..40).collect(), Vec::new(), 400);
        engine.submit(Request { constraint: Some(constraint), ..request }).unwrap();
    }
    let (mut tokens, mut passes, start) = (0, 0, Instant::now());
    while !engine.is_idle() {
        passes += 1;
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(_) => tokens += 1,
                Event::Finished(_) => {}
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    (tokens, passes, start.elapsed().as_secs_f64())
}

fn compare(name: &str, config: &ModelConfig, weights: &Weights, tokenizer: &Arc<Tokenizer>) {
    let model =
        Phi3V::load(common::device(None, None), config, weights, ModelOptions::of(weights), &mut |_| {})
            .unwrap();
    let options = EngineOptions { context_tokens: 512, cache_tokens: 8192, ..EngineOptions::default() };
    let mut engine = Engine::new(model, Arc::clone(tokenizer), tokenizer.stop_ids().into(), options).unwrap();
    let factory = ConstraintFactory::new(tokenizer, GrammarLimits::default()).unwrap();
    let constraint = factory.constraint(&form()).unwrap();
    measure(&mut engine, &constraint, 1, true); // what is first used later is made now
    for answers in [1, 4, 16] {
        let (tokens, passes, seconds) = measure(&mut engine, &constraint, answers, true);
        let (same, all_passes, all_seconds) = measure(&mut engine, &constraint, answers, false);
        assert_eq!(tokens, same);
        println!(
            "{name}, {answers} at a time: {tokens} tokens in {passes} instead of {all_passes} steps, {:.1} a step; {seconds:.2} s instead of {all_seconds:.2} s, {:.2} times as fast",
            tokens as f64 / answers as f64 / passes as f64,
            all_seconds / seconds
        );
    }
}

#[test]
#[ignore = "it measures, and takes minutes and 3 GB"]
fn forced_tokens_cost_hardly_anything() {
    let Checkpoint { config, weights, tokenizer, .. } =
        &Checkpoint::from_files(&phi3v::demo::files()).unwrap();
    compare("the demo model", config, weights, tokenizer);
    let Some(path) = common::shared("reference/golden/tiny/tokenizer.json") else { return };
    let tokenizer = Arc::new(Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap());
    let json = std::fs::read(common::repository().join("testdata/phi-3-vision/config.json")).unwrap();
    let config = ModelConfig::from_json(&json).unwrap();
    let weights = Weights::random(&config, Some(Quant::Q4));
    compare("random weights of real size, q4", &config, &weights, &tokenizer);
}
