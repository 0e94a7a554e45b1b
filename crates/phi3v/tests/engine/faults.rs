//! What goes wrong on a device, and whom it touches.

use super::{Device, Recorder, checkpoint, device, engine, picture, prompt, request, single};
use phi3v::checkpoint::Checkpoint;
use phi3v::engine::{
    Engine, EngineError, EngineOptions, Event, FinishReason, Observer, Request, RequestId, Token,
};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::sampler::SamplerError;
use phi3v_kernels::{
    Backend, BackendError, DeviceMemory, Epilogue, FullAttention, Heads, KvLayout, MatrixSource, Norm, Sizes,
    Span,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// What can go wrong on a device.
#[derive(Clone)]
struct Faults {
    /// Blocks of the cache for which there is memory.
    blocks_max: Arc<AtomicUsize>,
    /// Nothing comes back from the device: every forward pass fails.
    silent: Arc<AtomicBool>,
    /// A token whose embedding is beyond all numbers.
    overflowing: Arc<AtomicU32>,
    /// Products are refused: nothing is written, and the next download or finish tells why.
    refusing: Arc<AtomicBool>,
    /// Whether one was, and nobody was told.
    refused: Arc<AtomicBool>,
}

impl Faults {
    fn none() -> Self {
        let off = || Arc::new(AtomicBool::new(false));
        let overflowing = Arc::new(AtomicU32::new(u32::MAX));
        let blocks_max = Arc::new(AtomicUsize::new(usize::MAX));
        Self { blocks_max, silent: off(), overflowing, refusing: off(), refused: off() }
    }

    /// What went wrong since this was last asked.
    fn check(&self) -> Result<(), BackendError> {
        match self.refused.swap(false, Ordering::Relaxed) {
            true => Err(BackendError::OutOfMemory { bytes: 5 }),
            false => Ok(()),
        }
    }
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
        if blocks > self.faults.blocks_max.load(Ordering::Relaxed) {
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
        self.inner.download(tensor, rows, out)?;
        self.faults.check()
    }
    fn finish(&self) -> Result<(), BackendError> {
        self.inner.finish()?;
        self.faults.check()
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
        if self.faults.refusing.load(Ordering::Relaxed) {
            return self.faults.refused.store(true, Ordering::Relaxed);
        }
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

/// The model on a device with these faults.
fn load(faults: &Faults) -> phi3v::Result<Phi3V<Faulty>> {
    let Checkpoint { config, weights, .. } = checkpoint();
    let backend = Faulty { inner: device(1), faults: faults.clone() };
    Phi3V::load(backend, &config, &weights, ModelOptions::F32, &mut |_| {})
}

/// An engine on such a device, which has none of the faults yet.
fn faulty() -> (Engine<Faulty>, Faults) {
    let faults = Faults::none();
    let (model, tokenizer) = (load(&faults).unwrap(), checkpoint().tokenizer);
    (Engine::new(model, tokenizer, Vec::new(), EngineOptions::default()).unwrap(), faults)
}

fn is_refusal(error: &phi3v::Error) -> bool {
    matches!(error.root(), phi3v::Error::Backend(BackendError::OutOfMemory { bytes: 5 }))
}

#[test]
fn a_picture_that_failed_is_computed_anew() {
    // all of it in one step, and what fails is the last of it
    for (seed, steps) in [(6, 0), (3, 1)] {
        for ahead in [false, true] {
            let (mut engine, faults) = faulty();
            let (asked, picture) = (request(seed), picture(seed));
            if ahead {
                engine.encode_ahead(&picture, &asked.cache_salt);
            } else {
                engine.submit(request(seed)).unwrap();
            }
            for step in 0..=steps {
                faults.refusing.store(step == steps, Ordering::Relaxed);
                let outputs = engine.step(&mut ());
                let failed = outputs
                    .iter()
                    .any(|output| matches!(&output.event, Event::Failed(error) if is_refusal(error)));
                assert_eq!(failed, step == steps && !ahead, "step {step} of picture {seed}");
            }
            faults.refusing.store(false, Ordering::Relaxed);
            let mut told = Told::default();
            engine.run(asked, &mut told).unwrap();
            assert_eq!(told.0, single(request(seed)), "picture {seed}, ahead: {ahead}");
        }
    }
}

#[test]
fn a_model_that_the_device_did_not_compute_is_not_loaded() {
    let faults = Faults::none();
    faults.refusing.store(true, Ordering::Relaxed);
    assert!(is_refusal(&load(&faults).unwrap_err()));
}

/// The tokens of the request that is run.
#[derive(Default)]
struct Told(Vec<u32>);

impl Observer for Told {
    fn token(&mut self, token: &Token) {
        self.0.push(token.id);
    }
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
fn a_request_whose_memory_is_refused_fails_alone_and_gives_its_blocks_back() {
    let (mut engine, Faults { blocks_max, .. }) = faulty();
    let stays = engine.submit(request(1)).unwrap();
    engine.step(&mut ());
    let in_use = engine.load().blocks_in_use;

    blocks_max.store(0, Ordering::Relaxed);
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

    blocks_max.store(usize::MAX, Ordering::Relaxed);
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

#[test]
fn a_request_that_is_too_large_for_the_memory_takes_none_from_those_behind_it() {
    let (mut engine, Faults { blocks_max, .. }) = faulty();
    blocks_max.store(8, Ordering::Relaxed);
    let of = |seed, tokens| Request::greedy(prompt(seed, tokens, None), Vec::new(), 4);
    let first = engine.submit(of(1, 100)).unwrap();
    let large = [2, 3].map(|seed| engine.submit(of(seed, 900)).unwrap());
    let last = engine.submit(of(4, 300)).unwrap();
    let (mut failed, mut finished) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            match output.event {
                Event::Failed(_) => failed.push(output.id),
                Event::Finished(_) => finished.push(output.id),
                Event::Token(_) => {}
            }
        }
    }
    finished.sort();
    assert_eq!((failed, finished), (large.to_vec(), vec![first, last]));
    assert_eq!(engine.load().blocks_in_use, 0);
}
