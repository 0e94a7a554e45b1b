//! Many requests: what is answered does not depend on how many run together, where each comes in, or what fails beside it.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::repository;
use phi3v::batch::{Asked, Batch, read_ahead};
use phi3v::chat_template::{Message, Role};
use phi3v::checkpoint::Checkpoint;
use phi3v::device::{Device, DeviceOptions};
use phi3v::engine::{Engine, EngineOptions, Event, FinishReason, Request};
use phi3v::image::{ImageInputs, ImageMode, ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::{Session, SessionOptions};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The tiny checkpoint as its dense weights are, where rows that decode together could show in the last bits.
fn engine(running_max: usize, threads: usize) -> Engine<Device> {
    let running_max = Some(running_max);
    engine_of(EngineOptions { running_max, cache_tokens: 32_768, ..EngineOptions::default() }, threads)
}

fn engine_of(options: EngineOptions, threads: usize) -> Engine<Device> {
    let checkpoint = Checkpoint::open(&repository().join("testdata/tiny")).unwrap();
    let Checkpoint { config, weights, tokenizer, .. } = &checkpoint;
    let device = common::device(None, Some(threads));
    let model = Phi3V::load(device, config, weights, ModelOptions::of(weights), &mut |_| ()).unwrap();
    Engine::new(model, Arc::clone(tokenizer), Vec::new(), options.for_batch()).unwrap()
}

fn image(seed: usize) -> Arc<ImageInputs> {
    let (width, height) = (40 + seed, 64);
    let pixels = (0..width * height * 3).map(|i| (i * (seed + 3) % 251) as u8).collect();
    let params = ImageParams { num_crops: 1, ..ImageParams::default() };
    Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap())
}

/// Question `question` about image `seed`.
fn request(seed: usize, question: usize) -> Request {
    let image = image(seed);
    let rows = vec![-1; image.num_img_tokens()];
    let text = (0..10 + question * 7).map(|i| 3 + ((i * i + 7 * i * question + seed) % 250) as i64);
    let input_ids = [1, 5].into_iter().chain(rows).chain(text).collect();
    Request::greedy(input_ids, vec![image], 5 + (seed + question) % 9)
}

type Key = (usize, usize);

/// Three questions about each of ten images; the request of one group is beyond the context.
fn ask(seed: usize) -> Vec<Asked<Key>> {
    let asked = |question| {
        let mut request = request(seed, question);
        if (seed, question) == (4, 0) {
            request.max_new_tokens = 1 << 20;
        }
        Asked { key: (seed, question), request: Ok(request) }
    };
    (0..3).map(asked).collect()
}

fn answers(width: usize, threads: usize, readers: usize) -> BTreeMap<Key, Result<Vec<u32>, String>> {
    let mut engine = engine(width, threads);
    let batch = Batch::new(&mut engine, read_ahead(0..10, readers, ask).unwrap());
    let ids = |answer: phi3v::batch::Answer| answer.tokens.iter().map(|token| token.id).collect();
    let answers: Vec<_> =
        batch.map(|ended| (ended.key, ended.result.map(ids).map_err(|error| error.to_string()))).collect();
    assert_eq!(answers.len(), 30, "nothing is lost and nothing comes twice");
    answers.into_iter().collect()
}

#[test]
fn answers_are_those_of_requests_that_run_alone() {
    let mut alone = engine(1, 1);
    let mut expected = BTreeMap::new();
    for (seed, question) in (0..10).flat_map(|seed| (0..3).map(move |question| (seed, question))) {
        alone.submit(request(seed, question)).unwrap();
        let mut ids = Vec::new();
        while !alone.is_idle() {
            for output in alone.step(&mut ()) {
                if let Event::Token(token) = output.event {
                    ids.push(token.id);
                }
            }
        }
        expected.insert((seed, question), Ok(ids));
    }
    for (width, threads, readers) in [(1, 1, 1), (3, 2, 2), (16, 2, 4)] {
        let mut answers = answers(width, threads, readers);
        let failed = answers.insert((4, 0), expected[&(4, 0)].clone());
        assert!(failed.unwrap().unwrap_err().contains("exceed the context"), "{width}");
        assert_eq!(answers, expected, "{width} at a time, {threads} threads, {readers} readers");
    }
}

#[test]
fn what_a_group_shares_is_computed_once() {
    let mut engine = engine(16, 1);
    let batch = Batch::new(&mut engine, read_ahead(0..4, 1, ask).unwrap());
    let cached = batch.map(|ended| (ended.key.1, ended.result.unwrap().finished.usage.cached_tokens));
    for (question, cached) in cached.collect::<Vec<_>>() {
        // 313 rows of the image begin at the third token
        assert_eq!(cached, if question == 0 { 0 } else { 256 }, "question {question}");
    }
}

#[test]
fn short_prompts_that_are_there_together_are_computed_together() {
    let mut engine = engine(8, 1);
    let prompt = |key: i64| (0..60).map(|i| 3 + (i * i + key * i + key) % 250).collect();
    let asked = move |key| Asked::<i64> { key, request: Ok(Request::greedy(prompt(key), Vec::new(), 1)) };
    let source = read_ahead([10], 1, move |count| (0..count).map(asked).collect()).unwrap();
    let mut batch = Batch::new(&mut engine, source);
    let mut in_steps = Vec::new();
    while !batch.is_done() {
        let ended = batch.step().len();
        in_steps.extend((ended > 0).then_some(ended));
    }
    assert_eq!(in_steps, [8, 2], "one pass for each eight");
}

#[test]
fn a_batch_that_is_stopped_ends_what_runs_and_begins_nothing() {
    let mut engine = engine(2, 1);
    let mut batch = Batch::new(&mut engine, read_ahead(0.., 1, |seed| ask(seed % 4)).unwrap());
    while batch.step().is_empty() {}
    batch.stop();
    let rest = batch.count();
    assert!(rest <= 2, "{rest} came after the stop, where two run");
    assert!(engine.is_idle());
}

#[test]
fn requests_that_all_fail_come_out_before_the_last_of_them_is_taken() {
    const REFUSED: usize = 10_000;
    let refused = |key: usize| {
        let request = Err(phi3v::engine::EngineError::EmptyPrompt.into());
        vec![Asked::<usize> { key, request }]
    };
    let source = read_ahead(0..REFUSED, 1, refused).unwrap();
    let mut engine = engine(2, 1);
    let mut batch = Batch::new(&mut engine, source);
    let first: Vec<usize> = batch.step().into_iter().map(|ended| ended.key).collect();
    assert!((1..100).contains(&first.len()), "{} in one step", first.len());
    let more = batch.step().len();
    assert!(!batch.is_done() && more > 0);
    let rest: Vec<usize> = batch.map(|ended| ended.key).collect();
    assert_eq!(first.len() + more + rest.len(), REFUSED, "none is lost");
}

#[test]
fn a_batch_that_is_dropped_leaves_the_engine_to_others() {
    let expected = engine(2, 1).run(request(0, 1), &mut ()).unwrap().usage.completion_tokens;
    let mut engine = engine(2, 1);
    let mut batch = Batch::new(&mut engine, read_ahead(0.., 1, |seed| ask(seed % 4)).unwrap());
    while batch.step().is_empty() {}
    drop(batch);
    assert!(engine.is_idle(), "{:?}", engine.load());
    assert_eq!((engine.load().running, engine.load().blocks_in_use), (0, 0));
    let id = engine.submit(request(0, 1)).unwrap();
    let mut tokens = 0;
    while !engine.is_idle() {
        for output in engine.step(&mut ()) {
            assert_eq!(output.id, id);
            tokens += usize::from(matches!(output.event, Event::Token(_)));
        }
    }
    assert_eq!(tokens, expected);
}

#[test]
fn a_session_answers_the_same_after_a_batch_that_was_dropped() {
    let mut session = common::demo();
    session.generation.max_new_tokens = Some(12);
    let ask = |session: &mut phi3v::Session| session.ask([], "Who are you?", |_| ()).unwrap().text;
    let expected = ask(&mut session);
    let preparer = session.preparer();
    let source = read_ahead(0..9, 1, move |key| {
        vec![Asked { key, request: preparer.ask([], "What is the capital of France?") }]
    });
    let mut batch = session.batch::<_, phi3v::Error>(source.unwrap());
    assert!(batch.next().is_some());
    drop(batch);
    assert_eq!(ask(&mut session), expected);
}

#[test]
fn a_thread_that_panics_does_not_pass_for_the_end_of_the_batch() {
    for threads in [1, 3] {
        let mut engine = engine(2, 1);
        let source = read_ahead(0..9, threads, |seed| {
            assert_ne!(seed, 4, "a bug of whoever prepares");
            ask(seed % 4)
        });
        let batch = Batch::new(&mut engine, source.unwrap());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batch.count()));
        let reason = ended.unwrap_err().downcast::<String>().unwrap();
        assert!(reason.contains("a bug of whoever prepares"), "{reason}");
        assert!(engine.is_idle(), "what ran is cancelled");
    }
}

#[test]
fn what_happens_to_others_during_a_batch_is_told_behind_it() {
    let told = |engine: &mut Engine<Device>| {
        let mut ids = Vec::new();
        while !engine.is_idle() {
            for output in engine.step(&mut ()) {
                match output.event {
                    Event::Token(token) => ids.push((output.id, token.id)),
                    Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::Length),
                    Event::Failed(error) => panic!("{error}"),
                }
            }
        }
        ids
    };
    let mut engine = engine(8, 1);
    let early = engine.submit(request(0, 0)).unwrap();
    let late = engine.submit(Request { max_new_tokens: 60, ..request(1, 0) }).unwrap();
    // this one ends meanwhile, and is told of later
    engine.run(request(2, 1), &mut ()).unwrap();
    let source = read_ahead(3..5, 1, ask).unwrap();
    assert_eq!(Batch::new(&mut engine, source).filter(|ended| ended.result.is_ok()).count(), 5);
    let behind = told(&mut engine);
    for (id, request) in [(early, request(0, 0)), (late, Request { max_new_tokens: 60, ..request(1, 0) })] {
        let mut alone = self::engine(1, 1);
        let own = alone.submit(request).unwrap();
        let expected: Vec<u32> = told(&mut alone).into_iter().map(|(_, token)| token).collect();
        assert_eq!(own.0, 0);
        let found: Vec<u32> = behind.iter().filter(|told| told.0 == id).map(|told| told.1).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_session_runs_as_many_together_as_suit_the_device() {
    let device =
        DeviceOptions { choice: common::test_device(), threads: Some(1), ..DeviceOptions::default() };
    let options = SessionOptions { device, context_tokens: Some(256), model: None };
    let session = Session::load("demo", &options).unwrap();
    let mut engine = session.into_engine();
    let prompt = |seed: i64| (0..100).map(|i| 3 + (i * i + seed * i) % 250).collect();
    (0..8).for_each(|seed| {
        engine.submit(Request::greedy(prompt(seed), Vec::new(), 100)).unwrap();
    });
    engine.step(&mut ());
    // one may have ended with its first token
    assert!(engine.load().waiting == 0 && engine.load().running > 4, "{:?}", engine.load());
    assert_eq!(engine.context_tokens(), 256, "of each");
}

#[test]
fn no_more_requests_are_submitted_than_may_wait() {
    let answered = |waiting_max| {
        let options = EngineOptions { running_max: Some(1), waiting_max, ..EngineOptions::default() };
        let mut engine = engine_of(options, 1);
        // one group, so that all are there at once
        let asked = |key| Asked::<usize> { key, request: Ok(Request::greedy(vec![1, 5, 9], Vec::new(), 3)) };
        let source = read_ahead([5], 1, move |count| (0..count).map(asked).collect());
        let batch = Batch::new(&mut engine, source.unwrap());
        let mut ended: Vec<_> = batch.map(|ended| (ended.key, ended.result.is_ok())).collect();
        ended.sort_unstable();
        ended
    };
    let all = |answered| (0..5).map(|key| (key, answered)).collect::<Vec<_>>();
    assert_eq!(answered(1), all(true));
    assert_eq!(answered(0), all(false), "where none may wait each is refused, and the batch ends");
}

#[test]
fn a_request_that_was_not_made_comes_out_beside_the_others() {
    let mut engine = engine(4, 1);
    let source = read_ahead(0..3, 1, |seed| {
        let failure = || phi3v::Error::from(phi3v::engine::EngineError::EmptyPrompt);
        let request = if seed == 1 { Err(failure()) } else { Ok(request(seed, 0)) };
        vec![Asked { key: seed, request }]
    })
    .unwrap();
    let mut told: Vec<_> =
        Batch::new(&mut engine, source).map(|ended| (ended.key, ended.result.is_ok())).collect();
    told.sort_unstable();
    assert_eq!(told, [(0, true), (1, false), (2, true)]);
}

#[test]
fn a_caller_that_stops_an_answer_hears_no_more_of_it() {
    let mut session = common::demo();
    // of every word the last letter may begin one of these, so that it is held back
    session.generation.stop = ('a'..='z').chain('A'..='Z').map(|letter| format!("{letter}\u{1}")).collect();
    for max_new_tokens in [1, 12] {
        session.generation.max_new_tokens = Some(max_new_tokens);
        let whole = session.ask([], "Who are you?", |_| ()).unwrap().text;
        let mut conversation = phi3v::Conversation::new(None);
        conversation.ask([], "Who are you?");
        let mut heard = Vec::new();
        let reply = session.reply(&mut conversation, &mut |text| {
            heard.push(text.to_owned());
            ControlFlow::Break(())
        });
        let reply = reply.unwrap();
        assert_eq!(heard, [reply.text.as_str()], "once, up to {max_new_tokens} tokens");
        assert!(whole.starts_with(&reply.text), "{}", reply.text);
        assert_eq!(reply.reason, FinishReason::Cancelled);
        let said = Message::text(Role::Assistant, reply.text);
        assert_eq!(conversation.messages().last(), Some(&said));
    }
}

#[test]
fn a_request_runs_to_its_end_or_to_where_it_is_stopped() {
    let mut session = common::demo();
    session.generation.max_new_tokens = Some(12);
    session.generation.sampling.logprobs = Some(1);
    let whole = session.ask([], "Who are you?", |_| ()).unwrap().text;
    let asked = || session.preparer().ask([], "Who are you?").unwrap();
    let (first, second) = (asked(), asked());
    let mut heard = Vec::new();
    let mut hear = |token: &phi3v::engine::Token| {
        heard.push(token.id);
        ControlFlow::Continue(())
    };
    let answer = session.run(first, &mut hear).unwrap();
    assert_eq!(answer.text, whole);
    assert_eq!(heard, answer.tokens.iter().map(|token| token.id).collect::<Vec<_>>());
    assert!(answer.tokens.iter().all(|token| token.logprob.is_some() && token.top.len() == 1));
    let cut = session.run(second, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((cut.tokens.len(), cut.finished.reason), (1, FinishReason::Cancelled));
    assert_eq!((cut.tokens[0].id, &cut.text), (heard[0], &cut.tokens[0].text));
    assert_eq!(session.ask([], "Who are you?", |_| ()).unwrap().text, whole);
}

#[test]
fn a_session_reads_images_as_it_is_told() {
    let mut session = common::demo();
    let path = repository().join("testdata/images/rgba.png");
    let read = |session: &phi3v::Session| session.image(&path).unwrap();
    let as_seen = read(&session);
    session.image_mode = ImageMode::Reference;
    assert_ne!(read(&session).distinct, as_seen.distinct);
    let preparer = session.preparer();
    assert_eq!(preparer.image(&path).unwrap().distinct, read(&session).distinct);
    let rgb = phi3v::image::decode(&std::fs::read(&path).unwrap(), ImageMode::AsSeen, &session.image_limits);
    let rgb = rgb.unwrap();
    assert_eq!(session.image_from_rgb(&rgb).unwrap().distinct, as_seen.distinct);
    session.image_limits.side_max = 5;
    let refused = session.image_from_rgb(&rgb).unwrap_err().to_string();
    assert!(refused.contains("the limit of a side is 5"), "{refused}");
}

#[test]
fn what_cannot_be_loaded_is_shown_and_what_can_too() {
    let error = phi3v::load("no such folder").unwrap_err().to_string();
    assert!(error.contains("no such folder"), "{error}");
    let session = common::demo();
    let shown = format!("{session:?} {:?}", session.preparer().ask([], "Who are you?").unwrap());
    assert!(shown.contains("demo") && shown.contains("max_new_tokens"), "{shown}");
    assert!(format!("{:?}", session.into_engine()).contains("options"));
}
