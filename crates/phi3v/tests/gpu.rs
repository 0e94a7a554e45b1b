//! The model on a graphics card: what a decode step costs, counted, and that the demo answers as it should.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use phi3v::checkpoint::Checkpoint;
use phi3v::config::{ModelConfig, VisionConfig};
use phi3v::device::DeviceOptions;
use phi3v::files::Existing;
use phi3v::memory::{Capacity, MemoryPlan, MemoryRequest};
use phi3v::model::{Chunk, ModelOptions, Phi3V, RopeFactors, Segment};
use phi3v::weights::Weights;
use phi3v::weights::convert::{self, Target};
use phi3v::weights::quantized::Quant;
use phi3v::{Session, SessionOptions};
use phi3v_gpu::testing::{card, card_with};
use phi3v_gpu::{Counts, Gpu, GpuOptions};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Format, KV_BLOCK_TOKENS, KvFormat};
use std::ops::ControlFlow;
use std::path::Path;

const LAYERS: usize = 3;
const HIDDEN: usize = 256;
const INTERMEDIATE: usize = 512;
const VOCAB: usize = 640;

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: HIDDEN,
        intermediate_size: INTERMEDIATE,
        num_hidden_layers: LAYERS,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        vocab_size: VOCAB,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        max_position_embeddings: 4096,
        original_max_position_embeddings: 4096,
        rope_scaling: None,
        sliding_window: None,
        eos_token_id: vec![2],
        img_processor: VisionConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 128,
            image_size: 336,
            patch_size: 14,
            layer_norm_eps: 1e-5,
        },
    }
}

/// Counts of a decode step after `past` tokens, and of the step after it.
fn decode_counts(gpu: Gpu, quant: Quant, past: usize) -> [Counts; 2] {
    let config = config();
    let weights = Weights::random(&config, Some(quant));
    let options = ModelOptions { kv_format: KvFormat::Q8, ..ModelOptions::BF16 };
    let model = Phi3V::load(gpu, &config, &weights, options, &mut |_| {}).unwrap();
    let blocks: Vec<u32> = (0..(past + 2).div_ceil(KV_BLOCK_TOKENS) as u32).collect();
    let mut cache = model.cache(blocks.len()).unwrap();
    model.grow_cache(&mut cache, blocks.len()).unwrap();
    let (ids, mut logits) = (vec![7; past], Vec::new());
    let mut step = |ids: &[u32], past| {
        let before = model.backend().counts();
        let segments = [Segment::Tokens(ids)];
        let chunk =
            Chunk { segments: &segments, past, blocks: &blocks, factors: RopeFactors::Short, logits: 1 };
        model.forward(&[chunk], &mut cache, &mut logits, &mut |_| ControlFlow::Continue(())).unwrap();
        let after = model.backend().counts();
        Counts {
            dispatches: after.dispatches - before.dispatches,
            submissions: after.submissions - before.submissions,
            barriers: after.barriers - before.barriers,
            bytes_read: after.bytes_read - before.bytes_read,
            bytes_copied: after.bytes_copied - before.bytes_copied,
            work_largest: after.work_largest,
        }
    };
    step(&ids, 0);
    [step(&[8], past), step(&[9], past + 1)]
}

/// By what the dispatches say that they read: `traffic_tests.rs` of crates/gpu counts on the card that it is so.
#[test]
fn a_decode_step_reads_the_weights_and_the_cache_once() {
    for (quant, format) in [(Quant::Q8, Format::Q8), (Quant::Q4, Format::Q4)] {
        let Some(gpu) = card() else { return };
        let past = 2 * KV_BLOCK_TOKENS - 1;
        let [counts, next] = decode_counts(gpu, quant, past);
        // the head stays in q8
        let size = |format, n, k| PackedShape::new(format, n, k).unwrap().bytes();
        let layer = size(format, 3 * HIDDEN, HIDDEN)
            + size(format, HIDDEN, HIDDEN)
            + size(format, 2 * INTERMEDIATE, HIDDEN)
            + size(format, HIDDEN, INTERMEDIATE);
        let head = size(Format::Q8, VOCAB, HIDDEN);
        let kv = |tokens: usize| tokens * 2 * (HIDDEN + 4 * 4);
        let expected = (LAYERS * (layer + kv(past + 1)) + head) as f64;
        let share = counts.bytes_read as f64 / expected;
        assert!((0.97..1.03).contains(&share), "{quant:?}: {} bytes of {expected}", counts.bytes_read);
        // a block of the cache more
        let block = (LAYERS * kv(KV_BLOCK_TOKENS)) as u64;
        assert_eq!(next.bytes_read, counts.bytes_read + block);
        // an embedding, a row of rotations, an entry and a table of blocks
        assert!(
            counts.bytes_copied <= 4 * (HIDDEN + HIDDEN / 4 + 16) as u64,
            "{} bytes copied",
            counts.bytes_copied
        );
    }
}

/// What docs/internals/gpu.md says of a step.
#[test]
fn a_decode_step_is_eleven_dispatches_a_layer_of_which_the_first_are_not_waited_for() {
    // up to 256 tokens there is nothing to join
    for (past, each) in [(70, 10), (254, 10), (256, 11)] {
        let options = GpuOptions { count_barriers: true, ..GpuOptions::default() };
        let Some(gpu) = card_with(&options) else { return };
        let [counts, next] = decode_counts(gpu, Quant::Q8, past);
        assert_eq!(counts.dispatches, each * LAYERS as u64 + 3, "after {past} tokens");
        // the first 32, and the rest
        assert_eq!(counts.submissions, 2);
        // every kernel needs what the one before it wrote
        assert_eq!(counts.barriers, counts.dispatches);
        assert_eq!(
            (next.submissions, next.dispatches, next.barriers),
            (counts.submissions, counts.dispatches, counts.barriers)
        );
    }
}

/// A driver that lets a kernel see little at a time: what the plan promises can be had, and no token more.
#[test]
fn no_context_is_promised_that_the_buffers_do_not_hold() {
    let options = GpuOptions { binding_bytes_max: Some(4 << 20), ..GpuOptions::default() };
    let Some(gpu) = card_with(&options) else { return };
    let config = config();
    let request = MemoryRequest {
        weights_bytes: 0,
        kv_format: KvFormat::F32,
        num_crops: 1,
        prefill_chunk: None,
        image_cache_bytes: 0,
        kept_bytes: 0,
        context: None,
    };
    let plan = MemoryPlan::new(&config, &request, Capacity::of(&gpu)).unwrap();
    // 2 KiB a token in a layer
    assert_eq!(plan.context_tokens, 2048);
    let weights = Weights::random(&config, Some(Quant::Q8));
    let model = Phi3V::load(gpu, &config, &weights, ModelOptions::F32, &mut |_| {}).unwrap();
    assert!(model.cache(plan.context_tokens / KV_BLOCK_TOKENS).is_ok());
    assert!(model.cache(plan.context_tokens / KV_BLOCK_TOKENS + 1).is_err());
}

/// A question of `examples/answers.json`.
#[derive(serde::Deserialize)]
struct Example {
    pictures: Vec<String>,
    question: String,
    answer: String,
}

/// The demo model in q8, as a file in `folder`.
fn quantized_demo(folder: &Path) -> String {
    let files = phi3v::demo::files();
    let checkpoint = Checkpoint::from_files(&files).unwrap();
    let out = folder.join("demo-q8.safetensors");
    let target = Target { quant: Quant::Q8, out: &out, existing: Existing::Keep };
    let go_on = &mut |_| ControlFlow::Continue(());
    convert::quantize(&files, &checkpoint.weights, &checkpoint.config, target, go_on).unwrap();
    out.to_str().unwrap().to_owned()
}

#[test]
fn the_demo_answers_word_for_word_in_bf16_and_in_q8() {
    let Some(choice) = common::named_device().map(|_| common::test_device()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let examples = common::repository().join("examples");
    let questions = std::fs::read(examples.join("answers.json")).unwrap();
    let questions: Vec<Example> = serde_json::from_slice(&questions).unwrap();
    for model in [phi3v::demo::NAME.to_owned(), quantized_demo(folder.path())] {
        let device = DeviceOptions { choice: choice.clone(), ..DeviceOptions::default() };
        let options = SessionOptions { device, context_tokens: Some(2048), model: None };
        let mut session = Session::load(&model, &options).unwrap();
        for Example { pictures, question, answer } in &questions {
            let pictures: Vec<_> =
                pictures.iter().map(|name| session.image(examples.join(name)).unwrap()).collect();
            let reply = session.ask(pictures, question, |_| ()).unwrap();
            assert_eq!(reply.text, *answer, "{model}: {question}");
        }
    }
}
