//! Forms made to cost much: each is compiled and followed within the bytes stated here, which measure the work too.
#![no_main]

#[path = "../../crates/phi3v/tests/common/hostile_forms.rs"]
mod hostile_forms;

use std::alloc::System;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use phi3v::constraint::{Constraint, ConstraintFactory, GrammarLimits};
use phi3v::tokenizer::Tokenizer;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated while a form is compiled, given back ones included, or a token chosen.
const BYTES_MAX: usize = 1 << 30;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = include_bytes!("../../testdata/tiny/tokenizer.json");
    Tokenizer::from_json(json).expect("our own fixture")
});
static FACTORY: LazyLock<ConstraintFactory> =
    LazyLock::new(|| ConstraintFactory::new(&TOKENIZER, GrammarLimits::default()).expect("our own fixture"));

fuzz_target!(|data: &[u8]| {
    let form = hostile_forms::form(data);
    LazyLock::force(&FACTORY);
    let region = Region::new(ALLOCATOR);
    let constraint = FACTORY.constraint(&form);
    assert!(region.change().bytes_allocated < BYTES_MAX);
    let Ok(mut constraint) = constraint else { return };
    for step in 0..8 {
        let region = Region::new(ALLOCATOR);
        let mut logits = vec![0.0; TOKENIZER.vocab_size()];
        if constraint.allowed(&mut logits).is_err() {
            return;
        }
        let allowed: Vec<u32> = (0..).zip(&logits).filter(|&(_, &logit)| logit == 0.0).map(|(id, _)| id).collect();
        let Some(&token) = allowed.get(step * 7 % allowed.len().max(1)) else { return };
        let refused = constraint.accept(token).is_err();
        assert!(region.change().bytes_allocated < BYTES_MAX);
        if refused {
            return;
        }
    }
});
