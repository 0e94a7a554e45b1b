//! The cases, for any device: one sequence and several, their ends and refusals; others by subject in files beside.

#[path = "ahead.rs"]
mod ahead;
#[path = "faults.rs"]
mod faults;
#[path = "sharing.rs"]
mod sharing;

use super::{Device, device};
use crate::common::repository;
use phi3v::checkpoint::Checkpoint;
use phi3v::constraint::{Constraint, ConstraintError};
use phi3v::engine::{
    Engine, EngineOptions, Event, FinishReason, Observer, Phase, Request, RequestId, StepProgress,
};
use phi3v::image::{ImageInputs, ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::sampler::SamplingParams;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&repository().join("testdata/tiny")).unwrap()
}

fn engine_with(checkpoint: &Checkpoint, options: EngineOptions, threads: usize) -> Engine<Device> {
    let (config, weights) = (&checkpoint.config, &checkpoint.weights);
    let model = Phi3V::load(device(threads), config, weights, ModelOptions::F32, &mut |_| {}).unwrap();
    // no stop ids: random weights may choose them at any time
    Engine::new(model, Arc::clone(&checkpoint.tokenizer), Vec::new(), options).unwrap()
}

fn engine(options: EngineOptions) -> Engine<Device> {
    engine_with(&checkpoint(), options, 2)
}

/// A picture of one colour gradient per seed; 2 x 1 or 1 x 1 tiles at num_crops 2.
fn picture(seed: usize) -> Arc<ImageInputs> {
    let (width, height) = if seed.is_multiple_of(2) { (64, 40) } else { (40, 64) };
    let pixels = (0..width * height * 3).map(|i| ((i * (seed + 3)) % 251) as u8).collect();
    let params = ImageParams {
        num_crops: 1 + seed % 2,
        image_mean: [0.5; 3],
        image_std: [0.25; 3],
        ..ImageParams::default()
    };
    Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap())
}

/// A prompt of `length` made-up ids after an optional picture.
fn prompt(seed: usize, length: usize, image: Option<&ImageInputs>) -> Vec<i64> {
    let rows = image.map_or(0, ImageInputs::num_img_tokens);
    let text = (0..length).map(|i| 3 + ((i * i + 7 * i * seed + seed) % 250) as i64);
    [1, 5].into_iter().chain(vec![-1; rows]).chain(text).collect()
}

fn request(seed: usize) -> Request {
    let image = seed.is_multiple_of(3).then(|| picture(seed));
    let ids = prompt(seed, 20 + 37 * seed % 150, image.as_deref());
    Request::greedy(ids, image.into_iter().collect(), 12)
}

/// Keeps the tokens of an answer, and counts the steps of the vision tower.
struct Recorder<'a> {
    tokens: &'a mut Vec<u32>,
    vision_steps: &'a mut usize,
}

impl Observer for Recorder<'_> {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        *self.vision_steps += usize::from(progress.phase == Phase::Vision);
        ControlFlow::Continue(())
    }

    fn token(&mut self, token: &phi3v::engine::Token) {
        self.tokens.push(token.id);
    }
}

/// Runs until idle; ids of every request's tokens.
fn drain(engine: &mut Engine<Device>) -> HashMap<RequestId, Vec<u32>> {
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(token) => answers.entry(output.id).or_default().push(token.id),
                Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::Length),
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(engine.load().blocks_in_use, 0);
    answers
}

fn single(request: Request) -> Vec<u32> {
    let mut engine = engine(EngineOptions::default());
    let id = engine.submit(request).unwrap();
    drain(&mut engine).remove(&id).unwrap()
}

#[test]
fn a_batch_equals_its_single_runs() {
    let small_chunks = EngineOptions { prefill_chunk_shared: 32, ..EngineOptions::default() };
    let mut together = engine(small_chunks);
    let ids: Vec<RequestId> = (0..9).map(|seed| together.submit(request(seed)).unwrap()).collect();
    let answers = drain(&mut together);
    for (seed, id) in ids.iter().enumerate() {
        assert_eq!(answers[id], single(request(seed)), "request {seed}");
    }
}

#[test]
fn options_have_no_greatest_values() {
    let all = usize::MAX;
    let options = EngineOptions {
        context_tokens: all,
        running_max: Some(all),
        waiting_max: all,
        image_cache_bytes_max: all,
        prefill_chunk_alone: Some(all),
        ..EngineOptions::default().for_batch()
    };
    let mut engine = engine(options);
    assert_eq!(engine.context_tokens(), engine.model().config().context_max());
    let ids = [3, 4].map(|seed| engine.submit(request(seed)).unwrap());
    let answers = drain(&mut engine);
    for (id, seed) in ids.iter().zip([3, 4]) {
        assert_eq!(answers[id], single(request(seed)), "request {seed}");
    }
}

#[test]
fn late_arrivals_and_a_cache_too_small_for_all_change_nothing() {
    let tight = EngineOptions { context_tokens: 640, running_max: Some(3), ..EngineOptions::default() };
    let mut engine = engine(tight);
    let mut ids = Vec::new();
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    for seed in 0..6 {
        ids.push(engine.submit(request(seed)).unwrap());
        for output in engine.step(&mut ()) {
            if let Event::Token(token) = output.event {
                answers.entry(output.id).or_default().push(token.id);
            }
        }
    }
    for (id, rest) in drain(&mut engine) {
        answers.entry(id).or_default().extend(rest);
    }
    for (seed, id) in ids.iter().enumerate() {
        assert_eq!(answers[id], single(request(seed)), "request {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_text_on_any_thread_count() {
    let checkpoint = checkpoint();
    let answer = |threads, seed| {
        let mut engine = engine_with(&checkpoint, EngineOptions::default(), threads);
        let sampling = SamplingParams { temperature: 1.5, seed: Some(seed), ..SamplingParams::default() };
        let id = engine.submit(Request { sampling, ..request(3) }).unwrap();
        drain(&mut engine).remove(&id).unwrap()
    };
    let first = answer(1, 7);
    assert_eq!(first, answer(2, 7));
    assert_eq!(first, answer(5, 7));
    assert_ne!(first, answer(1, 8), "another seed, another text");
}

#[test]
fn a_cancelled_request_ends_with_the_next_step_and_frees_its_blocks() {
    let mut engine = engine(EngineOptions::default());
    let stays = engine.submit(request(1)).unwrap();
    let leaves = engine.submit(Request { max_new_tokens: 1000, ..request(2) }).unwrap();
    for _ in 0..3 {
        engine.step(&mut ());
    }
    let before = engine.load().blocks_in_use;
    engine.cancel(leaves);
    let outputs = engine.step(&mut ());
    let cancelled = outputs.iter().any(|output| {
        output.id == leaves
            && matches!(&output.event, Event::Finished(finished) if finished.reason == FinishReason::Cancelled)
    });
    assert!(cancelled && engine.load().blocks_in_use < before);
    assert!(drain(&mut engine).contains_key(&stays));
}

#[test]
fn an_observer_can_stop_the_work_for_its_request() {
    struct StopAt(Phase);
    impl Observer for StopAt {
        fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
            if progress.phase == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let mut engine = engine(EngineOptions::default());
    for phase in [Phase::Vision, Phase::Prefill] {
        let finished = engine.run(request(3), &mut StopAt(phase)).unwrap();
        assert_eq!((finished.reason, finished.usage.completion_tokens), (FinishReason::Cancelled, 0));
        assert_eq!(engine.load().blocks_in_use, 0);
    }
    assert_eq!(engine.run(request(3), &mut ()).unwrap().reason, FinishReason::Length);
}

#[test]
fn an_answer_stopped_within_a_character_keeps_those_before_it() {
    /// Allows one token after the other.
    struct Script(Vec<u32>);
    impl Constraint for Script {
        fn allowed(&mut self, logits: &mut [f32]) -> phi3v::Result<()> {
            let next = self.0[0] as usize;
            logits
                .iter_mut()
                .enumerate()
                .filter(|(id, _)| *id != next)
                .for_each(|(_, l)| *l = f32::NEG_INFINITY);
            Ok(())
        }
        fn accept(&mut self, token: u32) -> phi3v::Result<()> {
            assert_eq!(self.0.remove(0), token);
            Ok(())
        }
        fn is_complete(&self) -> bool {
            self.0.is_empty()
        }
    }
    let tokenizer = checkpoint().tokenizer;
    let smiles = "\u{1f600}\u{1f389}\u{1f600}";
    let ids: Vec<u32> = smiles.bytes().map(|byte| tokenizer.byte_id(byte)).collect();
    for (cut, cancels) in (1..=ids.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
        let mut engine = engine(EngineOptions::default());
        let max_new_tokens = if cancels { 40 } else { cut };
        let constraint = Some(Box::new(Script(ids.clone())) as Box<dyn Constraint>);
        let plain = Request::greedy(prompt(1, 20, None), Vec::new(), max_new_tokens);
        let id = engine.submit(Request { constraint, ..plain }).unwrap();
        let (mut text, mut tokens) = (String::new(), 0);
        while !engine.is_idle() {
            for output in engine.step(&mut ()) {
                match output.event {
                    Event::Token(token) => {
                        tokens += 1;
                        assert_eq!(!token.text.is_empty(), tokens % 4 == 0, "with its last byte");
                        text.push_str(&token.text);
                    }
                    Event::Finished(finished) => {
                        assert_eq!(finished.usage.completion_tokens, tokens);
                        text.push_str(&finished.text);
                    }
                    Event::Failed(error) => panic!("{error}"),
                }
            }
            if cancels && tokens >= cut {
                engine.cancel(id);
            }
        }
        // the first step gives two tokens: it runs the prompt and then decodes
        assert!(tokens == cut || (cancels && cut == 1 && tokens == 2), "{tokens} {cut}");
        let unfinished = if tokens % 4 == 0 { "" } else { "\u{fffd}" };
        assert_eq!(text, format!("{}{unfinished}", &smiles[..tokens / 4 * 4]), "cancelled: {cancels}");
    }
}

#[test]
fn an_answer_that_its_constraint_refuses_in_the_end_fails_alone() {
    /// Allows everything, and finds so many tokens to be wrong as a whole.
    struct Refuses(usize);
    impl Constraint for Refuses {
        fn allowed(&mut self, _: &mut [f32]) -> phi3v::Result<()> {
            Ok(())
        }
        fn accept(&mut self, _: u32) -> phi3v::Result<()> {
            self.0 -= 1;
            let reason = "it is wrong".to_owned();
            if self.0 == 0 { Err(ConstraintError::NotValid { reason }.into()) } else { Ok(()) }
        }
        fn is_complete(&self) -> bool {
            false
        }
    }
    let mut engine = engine(EngineOptions::default());
    let constraint = Some(Box::new(Refuses(3)) as Box<dyn Constraint>);
    let refused = engine.submit(Request { constraint, ..request(1) }).unwrap();
    let other = engine.submit(request(4)).unwrap();
    let (mut told, mut failed, mut answer) = (0, Vec::new(), Vec::new());
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(_) if output.id == refused => told += 1,
                Event::Token(token) => answer.push(token.id),
                Event::Failed(error) => failed.push((output.id, error.to_string())),
                Event::Finished(_) => assert_eq!(output.id, other),
            }
        }
    }
    let words = "the answer does not satisfy its JSON schema: it is wrong".to_owned();
    assert_eq!((told, failed), (2, vec![(refused, words)]), "the last token is not told");
    assert_eq!(answer, single(request(4)));
    assert_eq!(engine.load().blocks_in_use, 0);
}

#[test]
fn what_cannot_be_run_is_refused_before_it_is_queued() {
    let mut engine =
        engine(EngineOptions { context_tokens: 128, waiting_max: 1, ..EngineOptions::default() });
    let ask = |ids: &[i64], new| Request::greedy(ids.to_vec(), Vec::new(), new);
    let mut refused = |request, words: &str| {
        let error = engine.submit(request).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(ask(&[], 1), "the prompt is empty");
    refused(ask(&[1], 0), "max_new_tokens is 0");
    refused(ask(&[1, 2], 127), "2 tokens and an answer of up to 127 exceed the context of 128 tokens");
    refused(ask(&[1], usize::MAX), "exceed the context");
    refused(ask(&[1 << 40], 1), "token id 1099511627776 is beyond the vocabulary");
    refused(ask(&[1, -1], 1), "refers to picture 1, but 0 were given");
    refused(ask(&[1, i64::MIN], 1), "refers to picture 9223372036854775808, but 0 were given");
    let image = || vec![picture(0)];
    refused(Request::greedy(vec![1, 2], image(), 1), "picture 1 is not mentioned");
    refused(Request::greedy(vec![1, -1, 2], image(), 1), "picture 1 has 1 row in");
    engine.submit(ask(&[1], 1)).unwrap();
    let error = engine.submit(ask(&[1], 1)).unwrap_err();
    assert!(error.to_string().contains("1 request waiting") && error.hint().is_some());
}
