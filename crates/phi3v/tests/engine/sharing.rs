//! What sequences share: beginnings in the prefix cache, and what is computed once for several.

use super::{Device, Recorder, checkpoint, drain, engine, engine_with, picture, prompt, request, single};
use phi3v::engine::{Engine, EngineOptions, Event, Observer, Phase, Request, RequestId, StepProgress};
use phi3v::sampler::SamplingParams;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

#[test]
fn the_next_question_about_a_picture_pays_only_for_its_own_tokens() {
    let image = picture(0);
    let ask = |seed| Request::greedy(prompt(seed, 30, Some(&image)), vec![Arc::clone(&image)], 8);
    let mut engine = engine(EngineOptions::default());
    for (seed, cached) in [(1, 0), (2, 256)] {
        let mut tokens = Vec::new();
        let mut vision_steps = 0;
        let finished =
            engine.run(ask(seed), &mut Recorder { tokens: &mut tokens, vision_steps: &mut vision_steps });
        // 2 + 313 rows are common to both: four whole blocks of 64
        assert_eq!(finished.unwrap().usage.cached_tokens, cached);
        assert_eq!(vision_steps > 0, seed == 1, "the picture goes through the tower once");
        assert_eq!(tokens, single(ask(seed)), "question {seed}");
    }
}

/// Ids and the bits of their logarithms: every token of an answer, followed by the likeliest in its place.
fn logprobs(engine: &mut Engine<Device>, request: Request) -> Vec<(u32, u32)> {
    let sampling = SamplingParams { logprobs: Some(5), ..SamplingParams::default() };
    engine.submit(Request { sampling, ..request }).unwrap();
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            let Event::Token(token) = output.event else { continue };
            tokens.push((token.id, token.logprob.unwrap().to_bits()));
            tokens.extend(token.top.iter().map(|&(id, logprob)| (id, logprob.to_bits())));
        }
    }
    tokens
}

#[test]
fn what_the_prefix_cache_knows_changes_no_bit_whatever_is_left_to_compute() {
    // whole blocks and then 1 to 18 tokens: few rows would take the kernels for decoding
    for length in (129..=146).chain([65, 66, 80]) {
        let ask = || Request::greedy(prompt(length, length - 2, None), Vec::new(), 3);
        let mut engine = engine(EngineOptions::default());
        let fresh = logprobs(&mut engine, ask());
        assert_eq!(logprobs(&mut engine, ask()), fresh, "{length} tokens");
    }
}

#[test]
fn without_scaling_nothing_is_computed_again_at_the_limit() {
    let mut checkpoint = checkpoint();
    checkpoint.config.rope_scaling = None;
    checkpoint.config.original_max_position_embeddings = 40;
    let mut engine = engine_with(&checkpoint, EngineOptions::default(), 1);
    let mut prefill_steps = 0;
    struct Count<'a>(&'a mut usize);
    impl Observer for Count<'_> {
        fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
            *self.0 += usize::from(progress.phase == Phase::Prefill && progress.total > 39);
            ControlFlow::Continue(())
        }
    }
    // a prompt of 39 tokens, which the answer takes beyond the limit
    let request = Request::greedy(prompt(1, 37, None), Vec::new(), 8);
    engine.run(request, &mut Count(&mut prefill_steps)).unwrap();
    assert_eq!(prefill_steps, 0, "a restart shows as a longer prompt");
}

#[test]
fn a_different_picture_of_the_same_size_is_not_taken_from_the_cache() {
    let mut engine = engine(EngineOptions::default());
    for seed in [0, 2, 4] {
        let image = picture(seed);
        let ask = || Request::greedy(prompt(1, 30, Some(&image)), vec![Arc::clone(&image)], 8);
        let id = engine.submit(ask()).unwrap();
        assert_eq!(drain(&mut engine)[&id], single(ask()), "picture {seed}");
    }
}

#[test]
fn requests_of_different_salts_share_nothing_and_answer_alike() {
    let mut engine = engine(EngineOptions::default());
    let image = picture(0);
    let mut ask = |salt: u8| {
        let images = vec![Arc::clone(&image)];
        let request = Request::greedy(prompt(1, 200, Some(&image)), images, 4);
        let (mut tokens, mut vision_steps) = (Vec::new(), 0);
        let mut recorder = Recorder { tokens: &mut tokens, vision_steps: &mut vision_steps };
        let finished = engine.run(Request { cache_salt: [salt; 32], ..request }, &mut recorder).unwrap();
        (finished.usage.cached_tokens > 0, vision_steps > 0, tokens)
    };
    let (_, _, answer) = ask(0);
    // (salt, prefix found, picture computed)
    for (salt, cached, computed) in [(1, false, true), (2, false, true), (1, true, false), (0, true, false)] {
        assert_eq!(ask(salt), (cached, computed, answer.clone()), "salt {salt}");
    }
}

#[test]
fn crossing_the_short_factors_reach_equals_computing_everything_again() {
    let mut checkpoint = checkpoint();
    checkpoint.config.original_max_position_embeddings = 340;
    let image = picture(0);
    let ids = prompt(3, 20, Some(&image)); // 335 tokens: the seventh new one needs the long factors
    let images = vec![Arc::clone(&image)];
    let mut engine = engine_with(&checkpoint, EngineOptions::default(), 2);
    let id = engine.submit(Request::greedy(ids.clone(), images.clone(), 12)).unwrap();
    let answer = drain(&mut engine).remove(&id).unwrap();

    let mut grown = ids;
    for (step, token) in answer.iter().enumerate() {
        let mut fresh = engine_with(&checkpoint, EngineOptions::default(), 2);
        let id = fresh.submit(Request::greedy(grown.clone(), images.clone(), 1)).unwrap();
        assert_eq!(drain(&mut fresh)[&id], [*token], "token {step}");
        grown.push(i64::from(*token));
    }
}

/// Question `number` about one picture: 315 rows are common to all, four whole blocks of 64.
fn about_one_picture(number: usize) -> Request {
    let image = picture(0);
    Request::greedy(prompt(number, 30, Some(&image)), vec![image], 8)
}

/// Steps until idle; what each request took, and its tokens.
fn finish(engine: &mut Engine<Device>, observer: &mut dyn Observer) -> HashMap<RequestId, (usize, Vec<u32>)> {
    let mut told: HashMap<RequestId, (usize, Vec<u32>)> = HashMap::new();
    while !engine.is_idle() {
        for output in engine.step(observer) {
            let (cached, tokens) = told.entry(output.id).or_default();
            match output.event {
                Event::Token(token) => tokens.push(token.id),
                Event::Finished(finished) => *cached = finished.usage.cached_tokens,
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    told
}

#[test]
fn requests_that_come_together_compute_what_they_begin_with_once() {
    let options = EngineOptions { prefill_chunk_alone: Some(32), ..EngineOptions::default() };
    let mut engine = engine(options);
    let ids: Vec<_> = (0..4).map(|number| engine.submit(about_one_picture(number)).unwrap()).collect();
    let other = engine.submit(request(1)).unwrap();
    let told = finish(&mut engine, &mut ());
    for (number, id) in ids.iter().enumerate() {
        let expected = (if number == 0 { 0 } else { 256 }, single(about_one_picture(number)));
        assert_eq!(told[id], expected, "question {number}");
    }
    assert_eq!(told[&other], (0, single(request(1))));
}

#[test]
fn those_that_wait_for_what_another_computes_go_on_without_it() {
    let options = EngineOptions { prefill_chunk_alone: Some(32), ..EngineOptions::default() };
    let mut engine = engine(options);
    let ids: Vec<_> = (1..4).map(|number| engine.submit(about_one_picture(number)).unwrap()).collect();
    (0..4).for_each(|_| assert!(engine.step(&mut ()).is_empty(), "the first prompt has some ten chunks"));
    engine.cancel(ids[0]);
    let told = finish(&mut engine, &mut ());
    assert_eq!(told[&ids[1]], (0, single(about_one_picture(2))));
    assert_eq!(told[&ids[2]], (256, single(about_one_picture(3))));
    assert_eq!(engine.load().blocks_in_use, 0);
}

#[test]
fn answers_that_cross_the_reach_together_compute_their_prompt_once_more() {
    /// How far those are that were begun again, each time that is told.
    #[derive(Default)]
    struct Prefill(Vec<(RequestId, f64)>);
    impl Observer for Prefill {
        fn progress(&mut self, StepProgress { id, phase, done, total }: StepProgress) -> ControlFlow<()> {
            self.0.extend((phase == Phase::Prefill && total > 345).then_some((id, done)));
            ControlFlow::Continue(())
        }
    }
    let mut checkpoint = checkpoint();
    checkpoint.config.original_max_position_embeddings = 350;
    let answer = |seed| {
        let sampling = SamplingParams { temperature: 1.5, seed: Some(seed), ..SamplingParams::default() };
        Request { sampling, max_new_tokens: 12, ..about_one_picture(3) } // 345 tokens
    };
    let alone = |seed| {
        let mut engine = engine_with(&checkpoint, EngineOptions::default(), 2);
        engine.submit(answer(seed)).unwrap();
        finish(&mut engine, &mut ()).into_values().next().unwrap().1
    };
    let mut engine = engine_with(&checkpoint, EngineOptions::default(), 2);
    let ids: Vec<_> = (0..3).map(|seed| engine.submit(answer(seed)).unwrap()).collect();
    let mut prefill = Prefill::default();
    let told = finish(&mut engine, &mut prefill);
    for (seed, id) in (0..).zip(&ids) {
        assert_eq!(told[id], (if seed == 0 { 0 } else { 320 }, alone(seed)), "answer {seed}");
        let (_, begins) = prefill.0.iter().find(|(told, _)| told == id).unwrap();
        assert_eq!(*begins < 320.0, seed == 0, "answer {seed} begins again at {begins}");
    }
}
