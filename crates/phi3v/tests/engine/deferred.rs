//! The cases on a backend that runs nothing before a download or a finish, and when it is timed.

use phi3v::engine::{CacheSalt, Engine, EngineOptions, Event, Request};
use phi3v::image::{ImageInputs, ImageParams, RgbImage, process};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v_kernels::testing::Deferred;
use std::sync::Arc;

#[path = "cases.rs"]
mod cases;
#[path = "forced.rs"]
mod forced;

type Device = Deferred<phi3v::device::Device>;

fn device(threads: usize) -> Device {
    Deferred::new(crate::common::device(None, Some(threads)))
}

/// An engine on the tiny checkpoint that cuts prompts into short chunks.
fn engine() -> Engine<Device> {
    let checkpoint = phi3v::checkpoint::Checkpoint::open(&crate::common::repository().join("testdata/tiny"));
    let phi3v::checkpoint::Checkpoint { config, weights, tokenizer, .. } = checkpoint.unwrap();
    let model = Phi3V::load(device(1), &config, &weights, ModelOptions::F32, &mut |_| {}).unwrap();
    let options = EngineOptions { prefill_chunk_alone: Some(32), ..EngineOptions::default() };
    Engine::new(model, tokenizer, Vec::new(), options).unwrap()
}

/// Five tiles, of which two go through the tower at a time.
fn picture() -> Arc<ImageInputs> {
    let (width, height) = (96, 96);
    let pixels = (0..width * height * 3).map(|i| ((i * i) % 251) as u8).collect();
    let params = ImageParams { num_crops: 4, ..ImageParams::default() };
    Arc::new(process(&RgbImage { width, height, pixels }, &params).unwrap())
}

#[test]
fn a_step_s_times_are_taken_when_its_work_is_done() {
    let (mut engine, image) = (engine(), picture());
    let text = (0..100).map(|i| 3 + i % 50);
    let ids = [1].into_iter().chain(vec![-1; image.num_img_tokens()]).chain(text).collect();
    engine.submit(Request::greedy(ids, vec![image], 2)).unwrap();
    let mut silent = 0;
    let finished = loop {
        // the last sign of life that a step without tokens can give is its times
        let outputs = engine.step(&mut ());
        assert_eq!(engine.model().backend().waiting(), 0, "the device has work left after step {silent}");
        silent += usize::from(outputs.is_empty());
        let finished = outputs.into_iter().find_map(|output| match output.event {
            Event::Finished(finished) => Some(finished),
            _ => None,
        });
        if let Some(finished) = finished {
            break finished;
        }
    };
    // two of tiles alone, and all chunks of the prompt but the last
    assert!(silent > 4, "{silent}");
    assert!(!finished.timings.vision.is_zero() && !finished.timings.prefill.is_zero());
}

#[test]
fn an_image_encoded_ahead_is_timed_when_it_is_done() {
    let mut engine = engine();
    let image = picture();
    engine.encode_ahead(&image, &CacheSalt::default());
    while !engine.is_idle() {
        engine.step(&mut ());
        assert_eq!(engine.model().backend().waiting(), 0);
    }
    let ids = [1].into_iter().chain(vec![-1; image.num_img_tokens()]).collect();
    let finished = engine.run(Request::greedy(ids, vec![image], 1), &mut ()).unwrap();
    assert!(!finished.timings.vision.is_zero());
}
