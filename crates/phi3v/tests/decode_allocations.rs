//! A decode step allocates nothing in the model, nor does a prompt like one before, and nothing as large as its logits in the engine. The allocator counts
//! for the whole process, so that worker threads count too; hence a `main`, with no other test or harness beside it.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::repository;
use phi3v::checkpoint::Checkpoint;
use phi3v::device::Device;
use phi3v::engine::{Engine, EngineOptions, Event, Request};
use phi3v::model::{Cache, Chunk, ModelOptions, Phi3V, SEQUENCES_ON_STACK, Segment};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::cpu::CpuLevel;
use phi3v_kernels::{KvFormat, Precision};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Most sequences of a step that allocates nothing.
const SEQUENCES: usize = SEQUENCES_ON_STACK;
/// Tokens before those that are decoded, which go on into the second block of 64.
const PAST: usize = 60;
const STEPS: usize = 8;
/// Steps in which buffers may grow.
const WARM_UP: usize = 1;

/// What was allocated, on all threads, while `work` ran.
fn allocations(work: impl FnOnce()) -> Stats {
    let region = Region::new(ALLOCATOR);
    work();
    region.change()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&repository().join("testdata/tiny")).unwrap()
}

fn device(level: CpuLevel, threads: usize) -> Device {
    common::device(Some(level), Some(threads))
}

/// Decodes token `past` of the first `sequences` sequences.
fn decode(
    model: &Phi3V<Device>,
    (cache, logits): (&mut Cache<Device>, &mut Vec<f32>),
    past: usize,
    sequences: usize,
) {
    let factors = model.rope().factors_for(past + 1);
    let segments = &[Segment::Tokens(&[7])];
    let blocks: [[u32; 2]; SEQUENCES] = std::array::from_fn(|i| [2 * i as u32, 2 * i as u32 + 1]);
    let batch = blocks.each_ref().map(|blocks| Chunk { segments, past, blocks, factors, logits: 1 });
    model.forward(&batch[..sequences], cache, logits, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(logits.len(), sequences * model.config().vocab_size);
}

/// Runs a prompt of [`PAST`] tokens, whose next token is wanted.
fn prefill(model: &Phi3V<Device>, cache: &mut Cache<Device>, logits: &mut Vec<f32>) {
    let segments = &[Segment::Tokens(&[7; PAST])];
    let factors = model.rope().factors_for(PAST);
    let chunk = Chunk { segments, past: 0, blocks: &[0], factors, logits: 1 };
    model.forward(&[chunk], cache, logits, &mut |_| ControlFlow::Continue(())).unwrap();
}

/// On one thread: another may have had no part in the first prompt, and makes room for its own later.
fn check_prompts(model: &Phi3V<Device>, name: &str) {
    let mut cache = model.cache(1).unwrap();
    model.grow_cache(&mut cache, 1).unwrap();
    for prompt in 0..3 {
        let mut logits = Vec::with_capacity(model.config().vocab_size);
        let found = allocations(|| prefill(model, &mut cache, &mut logits));
        assert_eq!(found == Stats::default(), prompt > 0, "{name}: prompt {prompt}: {found:?}");
    }
}

fn check_steps(model: &Phi3V<Device>, name: &str) {
    let mut cache = model.cache(2 * SEQUENCES).unwrap();
    model.grow_cache(&mut cache, 2 * SEQUENCES).unwrap();
    let mut logits = Vec::new();
    for sequences in [1, 3, SEQUENCES] {
        for step in 0..STEPS {
            let past = PAST + step;
            let found = allocations(|| decode(model, (&mut cache, &mut logits), past, sequences));
            if step == 0 {
                assert_ne!(found, Stats::default(), "{name}: the first step's buffers are seen");
            } else if step >= WARM_UP {
                assert_eq!(found, Stats::default(), "{name}: token {past} of {sequences} sequences");
            }
        }
    }
}

/// An engine's step makes small lists, but none that grows with the vocabulary.
fn check_engine() {
    let Checkpoint { mut config, tokenizer, .. } = checkpoint();
    config.vocab_size = 32_064;
    let weights = Weights::random(&config, None);
    let model =
        Phi3V::load(device(CpuLevel::detect(), 3), &config, &weights, ModelOptions::BF16, &mut |_| {})
            .unwrap();
    let mut engine =
        Engine::new(model, Arc::clone(&tokenizer), Vec::new(), EngineOptions::default()).unwrap();
    for token in [5, 6] {
        engine.submit(Request::greedy(vec![token; PAST], Vec::new(), 2 * STEPS)).unwrap();
    }
    for step in 0..STEPS {
        let mut tokens = 0;
        let found = allocations(|| {
            let outputs = engine.step(&mut ());
            tokens = outputs.iter().filter(|output| matches!(output.event, Event::Token(_))).count();
        });
        if step >= 2 + WARM_UP {
            assert_eq!(tokens, 2, "both sequences decode");
            assert!(found.bytes_allocated < config.vocab_size, "step {step}: {found:?}");
        }
    }
}

fn main() {
    let elsewhere = allocations(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| drop(black_box(Vec::<u8>::with_capacity(1 << 20))));
        });
    });
    assert!(elsewhere.bytes_allocated >= 1 << 20, "other threads count");

    let config = checkpoint().config;
    for level in CpuLevel::ALL {
        if !CpuLevel::detect().includes(level) {
            continue;
        }
        let (bf16, f32) = (Precision::Bf16, Precision::F32);
        let weights = [(None, f32), (None, bf16), (Some(Quant::Q8), bf16), (Some(Quant::Q4), bf16)];
        for (quant, precision) in weights {
            let weights = Weights::random(&config, quant);
            for kv_format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
                let options = ModelOptions { precision, kv_format };
                let name = format!("{level}, weights {quant:?} {precision:?}, keys {kv_format:?}");
                let load = |threads| {
                    Phi3V::load(device(level, threads), &config, &weights, options, &mut |_| {}).unwrap()
                };
                check_prompts(&load(1), &name);
                check_steps(&load(3), &name);
            }
        }
    }
    check_engine();
    println!("a decode step allocates nothing: ok");
}
