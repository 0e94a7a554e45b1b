//! The cases, for any device.

use super::{Device, device};
use crate::common::repository;
use phi3v::checkpoint::Checkpoint;
use phi3v::constraint::{Constraint, ConstraintError};
use phi3v::engine::{
    CacheSalt, Engine, EngineError, EngineOptions, Event, FinishReason, Observer, Phase, Request, RequestId,
    StepProgress,
};
use phi3v::image::{ImageInputs, ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::sampler::{SamplerError, SamplingParams};
use phi3v_kernels::{
    Backend, BackendError, DeviceMemory, Epilogue, FullAttention, Heads, KvLayout, MatrixSource, Norm, Sizes,
    Span,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

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

/// What can go wrong on a device.
#[derive(Clone)]
struct Faults {
    /// The memory for the cache has run out.
    full: Arc<AtomicBool>,
    /// Nothing comes back from the device: every forward pass fails.
    silent: Arc<AtomicBool>,
    /// A token whose embedding is beyond all numbers.
    overflowing: Arc<AtomicU32>,
}

/// A device with faults.
struct Faulty {
    inner: Device,
    faults: Faults,
}

type Tensor = <Device as Backend>::Tensor;
type Linear = <Device as Backend>::Linear;
type Table = <Device as Backend>::Table;
type Vector = <Device as Backend>::Vector;
type Batch = <Device as Backend>::Batch;
type KvPool = <Device as Backend>::KvPool;

impl Backend for Faulty {
    type Tensor = Tensor;
    type Linear = Linear;
    type Table = Table;
    type Vector = Vector;
    type Batch = Batch;
    type KvPool = KvPool;

    fn kv_grow(&self, pool: &mut KvPool, blocks: usize) -> Result<(), BackendError> {
        if self.faults.full.load(Ordering::Relaxed) {
            return Err(BackendError::OutOfMemory { bytes: 1 << 40 });
        }
        self.inner.kv_grow(pool, blocks)
    }

    fn sizes(&self) -> Sizes {
        self.inner.sizes()
    }
    fn memory(&self) -> DeviceMemory {
        self.inner.memory()
    }
    fn tensor(&self, rows: usize, cols: usize) -> Result<Tensor, BackendError> {
        self.inner.tensor(rows, cols)
    }
    fn reshape(&self, tensor: &mut Tensor, rows: usize, cols: usize) -> Result<(), BackendError> {
        self.inner.reshape(tensor, rows, cols)
    }
    fn shape(&self, tensor: &Tensor) -> (usize, usize) {
        self.inner.shape(tensor)
    }
    fn upload(&self, values: &[f32], first_row: usize, out: &mut Tensor) {
        self.inner.upload(values, first_row, out);
    }
    fn download(&self, tensor: &Tensor, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), BackendError> {
        if self.faults.silent.load(Ordering::Relaxed) {
            return Err(BackendError::OutOfMemory { bytes: 7 });
        }
        self.inner.download(tensor, rows, out)
    }
    fn finish(&self) -> Result<(), BackendError> {
        self.inner.finish()
    }
    fn linear_weight(&self, source: MatrixSource) -> Result<Linear, BackendError> {
        self.inner.linear_weight(source)
    }
    fn embedding(&self, source: MatrixSource) -> Result<Table, BackendError> {
        self.inner.embedding(source)
    }
    fn vector(&self, values: &[f32]) -> Result<Vector, BackendError> {
        self.inner.vector(values)
    }
    fn kv_pool(&self, layout: KvLayout, blocks: usize) -> Result<KvPool, BackendError> {
        self.inner.kv_pool(layout, blocks)
    }
    fn batch(&self) -> Batch {
        self.inner.batch()
    }
    fn set_batch(&self, spans: &[Span<'_>], batch: &mut Batch) -> Result<(), BackendError> {
        self.inner.set_batch(spans, batch)
    }
    fn embed(&self, table: &Table, ids: &[u32], out_row: usize, out: &mut Tensor) {
        self.inner.embed(table, ids, out_row, out);
        let overflowing = self.faults.overflowing.load(Ordering::Relaxed);
        let (_, cols) = self.inner.shape(out);
        for (row, _) in ids.iter().enumerate().filter(|(_, id)| **id == overflowing) {
            self.inner.upload(&vec![f32::INFINITY; cols], out_row + row, out);
        }
    }
    fn gather(&self, src: &Tensor, rows: &[u32], out_row: usize, out: &mut Tensor) {
        self.inner.gather(src, rows, out_row, out);
    }
    fn linear(&self, x: &Tensor, weight: &Linear, epilogue: Epilogue, out: &mut Tensor) {
        self.inner.linear(x, weight, epilogue, out);
    }
    fn norm(&self, x: &Tensor, norm: Norm<'_, Vector>, out: &mut Tensor) {
        self.inner.norm(x, norm, out);
    }
    fn add(&self, addend: &Tensor, x: &mut Tensor) {
        self.inner.add(addend, x);
    }
    fn rope(&self, cos_sin: &Tensor, heads: Heads, qkv: &mut Tensor) {
        self.inner.rope(cos_sin, heads, qkv);
    }
    fn copy_kv(&self, qkv: &Tensor, layer: usize, batch: &Batch, pool: &mut KvPool) {
        self.inner.copy_kv(qkv, layer, batch, pool);
    }
    fn attention_causal(&self, qkv: &Tensor, layer: usize, batch: &Batch, pool: &KvPool, out: &mut Tensor) {
        self.inner.attention_causal(qkv, layer, batch, pool, out);
    }
    fn attention_full(&self, qkv: [&Tensor; 3], shape: FullAttention, out: &mut Tensor) {
        self.inner.attention_full(qkv, shape, out);
    }
}

/// An engine on such a device, which has none of the faults yet.
fn faulty() -> (Engine<Faulty>, Faults) {
    let off = || Arc::new(AtomicBool::new(false));
    let faults = Faults { full: off(), silent: off(), overflowing: Arc::new(AtomicU32::new(u32::MAX)) };
    let checkpoint = checkpoint();
    let backend = Faulty { inner: device(1), faults: faults.clone() };
    let (config, weights) = (&checkpoint.config, &checkpoint.weights);
    let model = Phi3V::load(backend, config, weights, ModelOptions::F32, &mut |_| {}).unwrap();
    let tokenizer = Arc::clone(&checkpoint.tokenizer);
    (Engine::new(model, tokenizer, Vec::new(), EngineOptions::default()).unwrap(), faults)
}

#[test]
fn a_request_that_overflows_leaves_nothing_in_the_prefix_cache() {
    const OVERFLOWING: i64 = 2;
    let healthy = |length| Request::greedy(prompt(1, length, None), Vec::new(), 4);
    let answer = single(healthy(100));
    // in one chunk, in several, and while others decode
    for length in [100, 2_100] {
        for beside in [false, true] {
            let (mut engine, faults) = faulty();
            faults.overflowing.store(OVERFLOWING as u32, Ordering::Relaxed);
            if beside {
                engine.submit(Request { max_new_tokens: 1000, ..request(2) }).unwrap();
                engine.step(&mut ());
            }
            let mut broken = healthy(length);
            // behind the first block of the cache, and in one block of attention with its last rows
            broken.input_ids[70] = OVERFLOWING;
            let refused = engine.run(broken, &mut ()).unwrap_err();
            let is_bad_logit = matches!(refused.root(), phi3v::Error::Sampler(SamplerError::BadLogit { .. }));
            assert!(is_bad_logit, "{refused}");
            let id = engine.submit(healthy(100)).unwrap();
            let mut told = Vec::new();
            while told.len() < answer.len() {
                for output in engine.step(&mut ()).into_iter().filter(|output| output.id == id) {
                    match output.event {
                        Event::Token(token) => told.push(token.id),
                        Event::Finished(_) => assert_eq!(told, answer),
                        Event::Failed(error) => panic!("{error}"),
                    }
                }
            }
            assert_eq!(told, answer);
        }
    }
}

#[test]
fn a_failed_step_gives_each_request_the_device_s_own_error() {
    for requests in [1, 2, 3] {
        let (mut engine, Faults { silent, .. }) = faulty();
        let ids: Vec<RequestId> = (0..requests).map(|i| engine.submit(request(1 + 3 * i)).unwrap()).collect();
        let mut spoken = BTreeSet::new();
        while spoken.len() < requests {
            let outputs = engine.step(&mut ()).into_iter();
            spoken.extend(outputs.filter(|o| matches!(o.event, Event::Token(_))).map(|output| output.id));
        }
        silent.store(true, Ordering::Relaxed);
        let outputs = engine.step(&mut ());
        assert_eq!(outputs.len(), requests);
        for output in outputs {
            assert!(ids.contains(&output.id));
            let Event::Failed(error) = output.event else { panic!("{output:?}") };
            assert_eq!(error.to_string(), "the device has no room for another 7 bytes");
            assert!(error.hint().is_some_and(|hint| hint.contains("smaller context")));
            let own = BackendError::OutOfMemory { bytes: 7 };
            assert!(
                matches!(error.root(), phi3v::Error::Backend(found) if found.to_string() == own.to_string())
            );
            let is_shared = matches!(error, phi3v::Error::Shared(_));
            assert_eq!(is_shared, requests > 1, "a request alone gets the error as it is");
        }
        silent.store(false, Ordering::Relaxed);
        assert!(engine.is_idle() && engine.load().blocks_in_use == 0);
        assert_eq!(engine.run(request(1), &mut ()).unwrap().reason, FinishReason::Length);
    }
}

#[test]
fn a_request_run_to_its_end_keeps_what_others_are_told() {
    let mut engine = engine(EngineOptions::default());
    let short = engine.submit(request(1)).unwrap();
    let long = engine.submit(Request { max_new_tokens: 40, ..request(2) }).unwrap();
    let cancelled = engine.submit(request(4)).unwrap();
    engine.cancel(cancelled);
    let mut tokens = Vec::new();
    let mut vision_steps = 0;
    let mut recorder = Recorder { tokens: &mut tokens, vision_steps: &mut vision_steps };
    engine.run(request(5), &mut recorder).unwrap();
    assert_eq!(tokens, single(request(5)), "the observer hears of its own tokens only");
    assert!(!engine.is_idle());
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    let mut ended = Vec::new();
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Token(token) => answers.entry(output.id).or_default().push(token.id),
                Event::Finished(finished) => ended.push((output.id, finished.reason)),
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(answers[&short], single(request(1)));
    assert_eq!(answers[&long], single(Request { max_new_tokens: 40, ..request(2) }));
    let length = FinishReason::Length;
    assert_eq!(ended, [(cancelled, FinishReason::Cancelled), (short, length), (long, length)]);
    // all of them may end before the request that is run
    let early = engine.submit(request(1)).unwrap();
    engine.run(Request { max_new_tokens: 40, ..request(2) }, &mut ()).unwrap();
    assert!(!engine.is_idle(), "there is something to report");
    assert!(engine.step(&mut ()).iter().all(|output| output.id == early) && engine.is_idle());
}

#[test]
fn a_damaged_table_of_blocks_fails_whom_it_touches_and_the_engine_goes_on() {
    #[derive(Default)]
    struct Heard(Vec<String>);
    impl Observer for Heard {
        fn damage(&mut self, found: &str) {
            self.0.push(found.to_owned());
        }
    }
    let mut heard = Heard::default();
    let mut engine = engine(EngineOptions::default());
    let touched = [1, 2].map(|seed| engine.submit(request(seed)).unwrap());
    for _ in 0..3 {
        engine.step(&mut heard);
    }
    engine.damage_blocks();
    let later = engine.submit(request(4)).unwrap();
    let (mut failed, mut answer) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        for output in engine.step(&mut heard) {
            match output.event {
                Event::Failed(error) => {
                    assert!(matches!(error, phi3v::Error::Engine(EngineError::DamagedCache)), "{error}");
                    failed.push(output.id);
                }
                Event::Token(token) if output.id == later => answer.push(token.id),
                _ => {}
            }
        }
    }
    assert_eq!((&failed[..], answer), (&touched[..], single(request(4))));
    assert_eq!(heard.0, ["block 0 is in two states or in none"]);
    assert_eq!(engine.load().blocks_in_use, 0);
    engine.run(request(1), &mut heard).unwrap();
    assert_eq!(heard.0.len(), 1, "the table is whole again");
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
fn a_request_whose_memory_is_refused_fails_alone_and_gives_its_blocks_back() {
    let (mut engine, Faults { full, .. }) = faulty();
    let stays = engine.submit(request(1)).unwrap();
    engine.step(&mut ());
    let in_use = engine.load().blocks_in_use;

    full.store(true, Ordering::Relaxed);
    let cancelled = engine.submit(request(4)).unwrap();
    engine.cancel(cancelled);
    let refused = [engine.submit(request(2)).unwrap(), engine.submit(request(5)).unwrap()];
    let outputs = engine.step(&mut ());
    let of = |id| outputs.iter().filter(move |output| output.id == id).map(|output| &output.event);
    for id in refused {
        let events: Vec<&Event> = of(id).collect();
        assert!(
            matches!(events[..], [Event::Failed(phi3v::Error::Backend(BackendError::OutOfMemory { .. }))]),
            "{events:?}"
        );
    }
    assert!(of(cancelled).any(|event| matches!(event, Event::Finished(_))), "outputs before it are kept");
    assert!(of(stays).any(|event| matches!(event, Event::Token(_))), "others go on in the same step");
    assert_eq!(engine.load().blocks_in_use, in_use);

    full.store(false, Ordering::Relaxed);
    let later = engine.submit(request(2)).unwrap();
    let mut finished = Vec::new();
    while !engine.is_idle() {
        let outputs = engine.step(&mut ()).into_iter();
        finished.extend(
            outputs.filter(|output| matches!(output.event, Event::Finished(_))).map(|output| output.id),
        );
    }
    finished.sort();
    assert_eq!(finished, [stays, later]);
    assert_eq!(engine.load().blocks_in_use, 0);
}

/// Whether tiles went through the vision tower.
#[derive(Default)]
struct Tower(bool);

impl Observer for Tower {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        // all of an image is told, too, when its request takes over what was done ahead
        self.0 |= progress.phase == Phase::Vision && progress.done < progress.total as f64;
        ControlFlow::Continue(())
    }
}

/// Five distinct tiles, and a request about it.
fn large_picture() -> (Arc<ImageInputs>, Request) {
    let (width, height) = (96, 96);
    let pixels = (0..width * height * 3).map(|i| ((i * i) % 251) as u8).collect();
    let params = ImageParams { num_crops: 4, ..ImageParams::default() };
    let picture = Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap());
    assert_eq!(picture.distinct_tiles(), 5);
    let request = Request::greedy(prompt(1, 9, Some(&picture)), vec![Arc::clone(&picture)], 6);
    (picture, request)
}

/// The same request once more.
fn again(request: &Request) -> Request {
    Request::greedy(request.input_ids.clone(), request.images.clone(), request.max_new_tokens)
}

#[test]
fn a_picture_encoded_ahead_gives_the_same_answer_and_is_not_encoded_again() {
    let (picture, request) = large_picture();
    let mut plain = engine(EngineOptions::default());
    let id = plain.submit(again(&request)).unwrap();
    let expected = drain(&mut plain).remove(&id).unwrap();
    // two tiles a step: three steps are all of it
    for ahead in 0..=4 {
        // kept or not, it is there for its request
        for image_cache_bytes_max in [1, 256 << 20] {
            let mut engine = engine(EngineOptions { image_cache_bytes_max, ..EngineOptions::default() });
            engine.encode_ahead(&picture, &CacheSalt::default());
            engine.encode_ahead(&picture, &CacheSalt::default());
            let mut steps = 0;
            for _ in 0..ahead {
                let mut tower = Tower::default();
                assert!(engine.step(&mut tower).is_empty());
                steps += usize::from(tower.0);
            }
            assert_eq!(steps, ahead.min(3));
            engine.submit(again(&request)).unwrap();
            let mut tokens = Vec::new();
            while !engine.is_idle() {
                let mut tower = Tower::default();
                for output in engine.step(&mut tower) {
                    match output.event {
                        Event::Token(token) => tokens.push(token.id),
                        Event::Finished(finished) => assert!(finished.timings.vision > Duration::ZERO),
                        Event::Failed(error) => panic!("{error}"),
                    }
                }
                steps += usize::from(tower.0);
            }
            assert_eq!((tokens, steps), (expected.clone(), 3), "after {ahead} steps");
        }
    }
}

/// Tiles that are done, and requests they are told to.
#[derive(Default)]
struct TilesTold(Vec<(RequestId, f64, usize)>);

impl Observer for TilesTold {
    fn progress(&mut self, progress: StepProgress) -> ControlFlow<()> {
        if progress.phase == Phase::Vision {
            self.0.push((progress.id, progress.done, progress.total));
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_request_is_told_how_far_its_picture_was_encoded_ahead() {
    let (picture, request) = large_picture();
    for (steps, done) in [(0, 0.0), (1, 2.0), (2, 4.0), (3, 5.0), (4, 5.0)] {
        let mut engine = engine(EngineOptions::default());
        engine.encode_ahead(&picture, &CacheSalt::default());
        for _ in 0..steps {
            engine.step(&mut ());
        }
        let id = engine.submit(again(&request)).unwrap();
        let mut told = TilesTold::default();
        engine.step(&mut told);
        assert_eq!(told.0.first(), Some(&(id, done, 5)), "after {steps} steps");
        assert!(told.0.is_sorted_by(|(_, a, _), (_, b, _)| a <= b), "{:?}", told.0);
    }
}

#[test]
fn pictures_ahead_of_their_requests_take_no_more_memory_than_they_may() {
    let pictures: Vec<_> = (0..6).map(|number| picture(2 * number)).collect();
    let row_bytes = checkpoint().config.hidden_size * size_of::<f32>();
    let image_cache_bytes_max = 2 * pictures[0].num_img_tokens() * row_bytes;
    let mut engine = engine(EngineOptions { image_cache_bytes_max, ..EngineOptions::default() });
    /// Steps that encode pictures ahead.
    fn steps(engine: &mut Engine<Device>, pictures: &[Arc<ImageInputs>]) -> usize {
        pictures.iter().for_each(|picture| engine.encode_ahead(picture, &CacheSalt::default()));
        let mut count = 0;
        while !engine.is_idle() {
            assert!(engine.step(&mut ()).is_empty());
            count += 1;
        }
        count
    }
    let one = steps(&mut engine, &pictures[..1]);
    assert!(one > 0);
    assert_eq!(steps(&mut engine, &pictures), one, "one more, and there is room for no third");
    // their requests have come: they begin in the tower where nothing was done for them
    let asked: Vec<_> = (0..6)
        .map(|number| {
            let picture = &pictures[number];
            let request = Request::greedy(prompt(number, 20, Some(picture)), vec![Arc::clone(picture)], 12);
            engine.submit(request).unwrap()
        })
        .collect();
    let answers = drain(&mut engine);
    for (number, id) in asked.iter().enumerate() {
        let picture = picture(2 * number);
        let request = Request::greedy(prompt(number, 20, Some(&picture)), vec![picture], 12);
        assert_eq!(answers[id], single(request), "picture {number}");
    }
    let more: Vec<_> = (6..8).map(|number| picture(2 * number)).collect();
    assert_eq!(steps(&mut engine, &more), 2 * one, "what requests have taken over makes room");
}

#[test]
fn a_picture_that_nobody_brings_any_more_is_forgotten() {
    let (picture, request) = large_picture();
    drop(request);
    let mut engine = engine(EngineOptions::default());
    engine.encode_ahead(&picture, &CacheSalt::default());
    let mut tower = Tower::default();
    engine.step(&mut tower);
    assert!(tower.0 && !engine.is_idle());
    drop(picture);
    assert!(engine.is_idle());
    let mut tower = Tower::default();
    engine.step(&mut tower);
    assert!(!tower.0);
}

#[test]
fn a_picture_encoded_ahead_for_one_secret_is_not_another_s() {
    let (picture, request) = large_picture();
    let mut engine = engine(EngineOptions::default());
    engine.encode_ahead(&picture, &[1; 32]);
    while !engine.is_idle() {
        engine.step(&mut ());
    }
    for (cache_salt, encoded) in [([2; 32], true), ([1; 32], false)] {
        let mut tower = Tower::default();
        engine.run(Request { cache_salt, ..again(&request) }, &mut tower).unwrap();
        assert_eq!(tower.0, encoded, "{cache_salt:?}");
    }
}

#[test]
fn others_go_on_while_a_picture_is_encoded_ahead() {
    let (picture, _) = large_picture();
    let mut engine = engine(EngineOptions::default());
    let id = engine.submit(request(4)).unwrap();
    while engine.step(&mut ()).is_empty() {}
    engine.encode_ahead(&picture, &CacheSalt::default());
    for tile in 0..5 {
        let mut tower = Tower::default();
        let outputs = engine.step(&mut tower);
        assert!(tower.0, "tile {tile}, one a step");
        assert!(outputs.iter().any(|output| output.id == id && matches!(output.event, Event::Token(_))));
    }
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
