//! Images on their way from tiles to embeddings, and the embeddings that requests need or that are cached.

use super::ahead::{Ahead, AheadImage, Done, TilesOf};
use super::image_cache::ImageCache;
use super::request::{CacheSalt, RequestId};
use super::sequence::{Sequence, image_key};
use super::stopwatch::timed;
use crate::Result;
use crate::image::{ImageInputs, TILE_VALUES};
use crate::model::{ImageJob, Phi3V, Progress, Segment};
use phi3v_kernels::Backend;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// The images of all requests.
pub(super) struct Images<B: Backend> {
    requests: HashMap<RequestId, RequestImages<B>>,
    cache: ImageCache<B::Tensor>,
    ahead: Ahead<B>,
}

/// The images of one request.
struct RequestImages<B: Backend> {
    /// `[num_img_tokens, hidden_size]` of each image that has been needed so far.
    embeddings: Vec<Option<Arc<B::Tensor>>>,
    /// The image that is going through the vision tower.
    job: Option<(usize, ImageJob<B>)>,
}

/// The progress of an image.
pub(super) enum Encoded<B: Backend> {
    /// Some of its tiles remain.
    Part(ImageJob<B>),
    /// Its rows, `[num_img_tokens, hidden_size]`.
    All(Arc<B::Tensor>),
}

impl<B: Backend> Encoded<B> {
    /// Distinct tiles that have not been through the tower yet.
    fn remaining(&self) -> usize {
        match self {
            Self::Part(job) => job.remaining(),
            Self::All(_) => 0,
        }
    }
}

/// Called with the number of tiles done, with fractions; can stop the work.
pub(super) type TilesDone<'a> = &'a mut dyn FnMut(f64) -> ControlFlow<()>;

impl<B: Backend> Images<B> {
    /// Caches at most `cache_bytes_max` bytes of embeddings for later requests, and as many bytes of images that were
    /// encoded ahead of their requests.
    pub(super) fn new(cache_bytes_max: usize) -> Self {
        let (cache, ahead) = (ImageCache::new(cache_bytes_max), Ahead::new(cache_bytes_max));
        Self { requests: HashMap::new(), cache, ahead }
    }

    /// Takes over the images of a sequence that were encoded ahead of it, reporting the progress of each. Then takes the
    /// images that it needs from the cache, up to the first that is missing.
    pub(super) fn take_kept(&mut self, sequence: &mut Sequence, tiles_done: TilesOf<'_>) {
        if !self.ahead.is_empty() {
            self.take_ahead(sequence, tiles_done);
        }
        while let Some(image) = sequence.image_needed() {
            let Some(embedding) = self.cache.get(&sequence.image_key(image)) else { return };
            self.set(sequence, image, embedding);
        }
    }

    /// Sends up to `tiles_max` tiles of the image that a sequence needs through the vision tower. Caches the image once
    /// the device has finished it. Returns whether an image is finished.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped), or an error of the device; the image is then begun anew.
    pub(super) fn encode(
        &mut self,
        model: &Phi3V<B>,
        sequence: &mut Sequence,
        tiles_max: usize,
        tiles_done: TilesOf<'_>,
    ) -> Result<bool> {
        let Some(image) = sequence.image_needed() else { return Ok(false) };
        let Some(inputs) = sequence.images[image].inputs.clone() else { return Ok(false) };
        let tiles = inputs.distinct_tiles();
        let begun = self.of(sequence).job.take();
        let (encoded, took) = timed(model.backend(), || {
            let job = match begun {
                Some((of, job)) if of == image => job,
                _ => model.begin_image(tiles)?,
            };
            encode_tiles(model, &inputs, job, tiles_max, &mut |done| tiles_done(done, tiles))
        });
        sequence.timings.vision += took;
        match encoded? {
            Encoded::Part(job) => {
                self.of(sequence).job = Some((image, job));
                Ok(false)
            }
            Encoded::All(embedding) => {
                self.keep(model, sequence.image_key(image), &embedding);
                self.set(sequence, image, embedding);
                Ok(true)
            }
        }
    }

    /// Takes over the work done for the images of a sequence before it arrived. Images that were not begun are left to
    /// the sequence.
    fn take_ahead(&mut self, sequence: &mut Sequence, tiles_done: TilesOf<'_>) {
        for image in 0..sequence.images.len() {
            let Some(inputs) = &sequence.images[image].inputs else { continue };
            let tiles = inputs.distinct_tiles();
            let Some(AheadImage { encoded, took, .. }) = self.ahead.take(&sequence.image_key(image)) else {
                continue;
            };
            let Some(encoded) = encoded else { continue };
            sequence.timings.vision += took;
            // an observer that wants to stop is asked again at the next layer
            let _ = tiles_done((tiles - encoded.remaining()) as f64, tiles);
            match encoded {
                Encoded::All(embedding) => self.set(sequence, image, embedding),
                // an image that the sequence has begun itself goes on
                Encoded::Part(job) => _ = self.of(sequence).job.get_or_insert((image, job)),
            }
        }
    }

    /// Queues an image whose request is still to come, unless the image is cached. A row of its embedding takes
    /// `row_bytes`.
    pub(super) fn queue_ahead(
        &mut self,
        inputs: &Arc<ImageInputs>,
        cache_salt: &CacheSalt,
        row_bytes: usize,
    ) {
        let key = image_key(&inputs.hash, cache_salt);
        if self.cache.get(&key).is_none() {
            self.ahead.queue(key, inputs, inputs.num_img_tokens() * row_bytes);
        }
    }

    /// Whether images whose requests are still to come have tiles to be encoded.
    pub(super) fn has_work_ahead(&self) -> bool {
        self.ahead.has_work()
    }

    /// Sends up to `tiles_max` tiles of an image whose request is still to come through the vision tower. Caches the
    /// image once it is finished.
    ///
    /// # Errors
    /// See [`Ahead::encode`].
    pub(super) fn encode_ahead(
        &mut self,
        model: &Phi3V<B>,
        tiles_max: usize,
        tiles_done: TilesOf<'_>,
    ) -> Result<()> {
        if let Some(Done { key, embedding }) = self.ahead.encode(model, tiles_max, tiles_done)? {
            self.keep(model, key, &embedding);
        }
        Ok(())
    }

    /// The input of a sequence's positions `rows`: tokens and rows of images.
    ///
    /// # Panics
    /// If an image among them is not encoded.
    pub(super) fn segments<'a>(
        &'a self,
        sequence: &'a Sequence,
        rows: Range<usize>,
    ) -> Vec<Segment<'a, B::Tensor>> {
        let embedding = |image: usize| self.requests.get(&sequence.id)?.embeddings[image].as_deref();
        let mut segments = Vec::new();
        let mut next = rows.start;
        for run in &sequence.image_runs {
            let (start, end) = (run.rows.start.max(next), run.rows.end.min(rows.end));
            if start >= end {
                continue;
            }
            if next < start {
                segments.push(Segment::Tokens(&sequence.tokens[next..start]));
            }
            let embedding =
                embedding(run.image).expect("a chunk is run only when the images in it are encoded");
            segments.push(Segment::Image(embedding, start - run.rows.start..end - run.rows.start));
            next = end;
        }
        if next < rows.end {
            segments.push(Segment::Tokens(&sequence.tokens[next..rows.end]));
        }
        segments
    }

    /// Drops the images of a request that needs none any more; cached embeddings stay.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    fn of(&mut self, sequence: &Sequence) -> &mut RequestImages<B> {
        let none = || RequestImages { embeddings: vec![None; sequence.images.len()], job: None };
        self.requests.entry(sequence.id).or_insert_with(none)
    }

    fn set(&mut self, sequence: &mut Sequence, image: usize, embedding: Arc<B::Tensor>) {
        self.of(sequence).embeddings[image] = Some(embedding);
        sequence.images[image].inputs = None;
    }

    fn keep(&mut self, model: &Phi3V<B>, key: [u8; 32], embedding: &Arc<B::Tensor>) {
        let (rows, cols) = model.backend().shape(embedding);
        self.cache.insert(key, Arc::clone(embedding), rows * cols * size_of::<f32>());
    }
}

/// Sends up to `tiles_max` of the remaining tiles through the vision tower.
pub(super) fn encode_tiles<B: Backend>(
    model: &Phi3V<B>,
    inputs: &ImageInputs,
    mut job: ImageJob<B>,
    tiles_max: usize,
    tiles_done: TilesDone<'_>,
) -> Result<Encoded<B>> {
    let first = inputs.distinct_tiles() - job.remaining();
    let count = job.remaining().min(tiles_max);
    let tiles = &inputs.distinct[first * TILE_VALUES..(first + count) * TILE_VALUES];
    let mut observe = |progress: Progress| tiles_done(first as f64 + count as f64 * progress.fraction());
    model.vision_tower(&mut job, tiles, &mut observe)?;
    if job.remaining() > 0 {
        return Ok(Encoded::Part(job));
    }
    Ok(Encoded::All(Arc::new(model.finish_image(job, &inputs.grid, &inputs.tile_of)?)))
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Checkpoint;
    use crate::device::{Device, test_device};
    use crate::engine::{Engine, EngineOptions, Event, Request};
    use crate::image::{ImageInputs, ImageParams, RgbImage, process};
    use crate::model::{ModelOptions, Phi3V};
    use std::path::Path;
    use std::sync::Arc;

    fn engine() -> Engine<Device> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny");
        let Checkpoint { config, weights, tokenizer, .. } = Checkpoint::open(&folder).unwrap();
        let model = Phi3V::load(test_device(), &config, &weights, ModelOptions::F32, &mut |_| {}).unwrap();
        Engine::new(model, tokenizer, Vec::new(), EngineOptions::default()).unwrap()
    }

    fn image(shade: u8) -> ImageInputs {
        let params = ImageParams { num_crops: 1, ..ImageParams::default() };
        process(&RgbImage { width: 20, height: 20, pixels: vec![shade; 20 * 20 * 3] }, &params).unwrap()
    }

    #[test]
    fn a_request_holds_its_images_while_they_may_be_needed() {
        let mut engine = engine();
        // an answer of 5,000 tokens may outgrow the short factors; the rows of an image seen before are in the cache
        for (shade, answer, held) in [
            (9, 8, [false, false]),
            (9, 8, [false, false]),
            (9, 5_000, [true, false]),
            (1, 5_000, [false, true]),
        ] {
            let image = Arc::new(image(shade));
            let pixels = Arc::downgrade(&image);
            let rows = vec![-1; image.num_img_tokens()];
            let ids = [1, 5].into_iter().chain(rows).chain(3..30).collect();
            let id = engine.submit(Request::greedy(ids, vec![image], answer)).unwrap();
            let is_token = |event: &Event| matches!(event, Event::Token(_));
            while !engine.step(&mut ()).iter().any(|output| output.id == id && is_token(&output.event)) {}
            let [pixels_held, embedding_held] = held;
            assert_eq!(pixels.upgrade().is_some(), pixels_held, "an answer of up to {answer} tokens");
            assert_eq!(engine.images.requests.contains_key(&id), embedding_held);
            engine.cancel(id);
            engine.step(&mut ());
            assert!(engine.images.requests.is_empty() && pixels.upgrade().is_none());
        }
    }
}
