//! Schemas, regular expressions, grammars and choices from requests: refused, or followed to answers of that form.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use phi3v::constraint::{Constraint, ConstraintFactory, Grammar, GrammarLimits};
use phi3v::tokenizer::Tokenizer;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = include_bytes!("../../testdata/tiny/tokenizer.json");
    Tokenizer::from_json(json).expect("our own fixture")
});
static FACTORY: LazyLock<ConstraintFactory> =
    LazyLock::new(|| ConstraintFactory::new(&TOKENIZER, GrammarLimits::default()).expect("our own fixture"));

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let grammar = match kind % 4 {
        0 => match serde_json::from_str(text) {
            Ok(schema) => Grammar::JsonSchema(schema),
            Err(_) => return,
        },
        1 => Grammar::Regex(text.to_owned()),
        2 => Grammar::Lark(text.to_owned()),
        _ => Grammar::Choices(text.split(',').map(str::to_owned).collect()),
    };
    let Ok(mut constraint) = FACTORY.constraint(&grammar) else { return };
    let mut output = Vec::new();
    for step in 0..12 {
        let mut logits = vec![0.0; TOKENIZER.vocab_size()];
        if constraint.allowed(&mut logits).is_err() {
            return;
        }
        let allowed: Vec<u32> =
            (0..).zip(&logits).filter(|&(_, &logit)| logit == 0.0).map(|(id, _)| id).collect();
        if let Some(forced) = constraint.forced().expect("it was followed a moment ago") {
            assert_eq!(allowed, [forced], "what is forced is what is allowed");
        }
        let stops = TOKENIZER.stop_ids().iter().all(|id| allowed.contains(id));
        assert_eq!(stops, constraint.may_end());
        let Some(&token) = allowed.get(step * 7 % allowed.len().max(1)) else { return };
        constraint.accept(token).expect("it was allowed");
        if TOKENIZER.stop_ids().contains(&token) {
            break;
        }
        output.push(token);
    }
    if kind % 4 == 0 && constraint.may_end() {
        let answer = TOKENIZER.decode(&output, true);
        serde_json::from_str::<serde::de::IgnoredAny>(&answer).expect("a schema gives JSON");
    }
});
