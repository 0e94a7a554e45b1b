//! What a form may cost: bytes allocated while it is compiled and followed, which is a measure of the work too.
//!
//! One test, since the allocations of all threads are counted.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[path = "common/hostile_forms.rs"]
mod hostile_forms;

use phi3v::constraint::{Constraint, ConstraintFactory, Grammar, GrammarLimits};
use phi3v::tokenizer::Tokenizer;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated while a form is compiled, given back ones included.
const COMPILE_BYTES_MAX: usize = 1 << 30;

/// The same while a token is chosen.
const TOKEN_BYTES_MAX: usize = 256 << 20;

#[test]
fn hostile_forms_cost_no_more_than_is_stated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/tokenizer.json");
    let tokenizer = Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap();
    let factory = ConstraintFactory::new(&tokenizer, GrammarLimits::default()).unwrap();
    let mut random = Pcg64::seed_from_u64(7);
    for schema in hostile_forms::long_lists() {
        let error = factory.constraint(&Grammar::JsonSchema(schema)).unwrap_err().to_string();
        assert!(error.contains("to be brought together") || error.contains("to be kept apart"), "{error}");
    }
    let mut compiled = 0;
    let (mut most_compile, mut most_token) = (0, 0);
    let made = (0..400).map(|_| {
        let bytes: Vec<u8> = (0..1_000).map(|_| random.next_u32() as u8).collect();
        hostile_forms::form(&bytes)
    });
    let forms: Vec<_> = hostile_forms::known().into_iter().chain(made).collect();
    for form in forms {
        let region = Region::new(ALLOCATOR);
        let constraint = factory.constraint(&form);
        let bytes = region.change().bytes_allocated;
        most_compile = most_compile.max(bytes);
        assert!(bytes < COMPILE_BYTES_MAX, "{bytes} bytes to compile {form:?}");
        let Ok(mut constraint) = constraint else { continue };
        compiled += 1;
        for _ in 0..12 {
            let region = Region::new(ALLOCATOR);
            let mut logits = vec![0.0; tokenizer.vocab_size()];
            let refused = constraint.allowed(&mut logits).is_err();
            let allowed: Vec<u32> =
                (0..).zip(&logits).filter(|&(_, &logit)| logit == 0.0).map(|(id, _)| id).collect();
            let token = allowed.get(random.next_u32() as usize % allowed.len().max(1)).copied();
            let stopped = refused || token.is_none_or(|token| constraint.accept(token).is_err());
            let bytes = region.change().bytes_allocated;
            most_token = most_token.max(bytes);
            assert!(bytes < TOKEN_BYTES_MAX, "{bytes} bytes for a token of {form:?}");
            if stopped || token.is_some_and(|token| tokenizer.stop_ids().contains(&token)) {
                break;
            }
        }
    }
    println!("{compiled} compiled; at most {most_compile} bytes to compile, {most_token} for a token");
    assert!(compiled > 40, "{compiled} forms were compiled");
}
