//! Pictures that go through the vision tower before their requests.

use super::{Device, checkpoint, drain, engine, picture, prompt, request, single};
use phi3v::engine::{
    CacheSalt, Engine, EngineOptions, Event, Observer, Phase, Request, RequestId, StepProgress,
};
use phi3v::image::{ImageInputs, ImageParams, RgbImage, process};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

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
