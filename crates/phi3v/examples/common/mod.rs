//! What all examples need: an engine, and the ids of a question about pictures.

use phi3v::chat_template::{Message, Part};
use phi3v::checkpoint::Checkpoint;
use phi3v::engine::{Engine, EngineOptions, Request};
use phi3v::image::{self, ImageInputs, ImageLimits, ImageMode};
use phi3v::kernels::{Cpu, CpuOptions};
use phi3v::model::{ModelOptions, Phi3V};
use phi3v::processor;
use std::path::Path;
use std::sync::Arc;

/// Any error, to be shown.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A checkpoint: that of the folder, or the built-in demo model.
pub(crate) fn checkpoint(dir: Option<&str>) -> Result<Checkpoint, Failure> {
    Ok(match dir {
        Some(dir) => Checkpoint::open(Path::new(dir))?,
        None => Checkpoint::from_files(&phi3v::demo::files())?,
    })
}

/// An engine that runs the checkpoint on this machine's processor.
pub(crate) fn engine(checkpoint: &Checkpoint) -> Result<Engine<Cpu>, Failure> {
    let cpu = Cpu::new(&CpuOptions { threads: None, level: None })?;
    let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
    let model = Phi3V::load(cpu, config, weights, ModelOptions::BF16, &mut |_| ())?;
    Ok(Engine::new(model, Arc::clone(tokenizer), checkpoint.stop_ids(), EngineOptions::default())?)
}

/// A greedy request: a question about pictures, which come before it.
pub(crate) fn request(
    checkpoint: &Checkpoint,
    pictures: &[&str],
    question: &str,
) -> Result<Request, Failure> {
    let params = &checkpoint.preprocessor;
    let read = |path: &&str| -> Result<Arc<ImageInputs>, Failure> {
        let rgb = image::decode(&std::fs::read(path)?, ImageMode::AsSeen, &ImageLimits::default())?;
        Ok(Arc::new(image::process(&rgb, params)?))
    };
    let images = pictures.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<usize> = images.iter().map(|image| image.num_img_tokens()).collect();
    let parts = (1..=images.len()).map(Part::Image).chain([Part::Text(question.to_owned())]);
    let input_ids = processor::chat_prompt(&checkpoint.tokenizer, &[Message::user(parts)], &rows)?;
    Ok(Request::greedy(input_ids, images, 200))
}
