//! Images that go through the vision tower before their requests arrive. The caller that prepares a request hands over
//! each image as soon as it is cut, and reads the next one meanwhile.

use super::pictures::{Encoded, encode_tiles};
use super::stopwatch::timed;
use crate::Result;
use crate::image::ImageInputs;
use crate::model::Phi3V;
use phi3v_kernels::Backend;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Images whose requests are still to come or wait in the queue, in order of arrival.
pub(super) struct Ahead<B: Backend> {
    images: Vec<AheadImage<B>>,
    /// Limit for the bytes of embeddings, up to which another image is begun; a single image may be larger.
    bytes_max: usize,
}

/// An image whose request is still to come.
pub(super) struct AheadImage<B: Backend> {
    key: [u8; 32],
    /// Held by the caller that prepares the request. Once it is gone, nobody wants the image any more.
    inputs: Weak<ImageInputs>,
    /// Size of the embedding, known before it is computed.
    bytes: usize,
    /// Its progress; `None` before its first tile.
    pub(super) encoded: Option<Encoded<B>>,
    /// Time in the vision tower and projector.
    pub(super) took: Duration,
}

impl<B: Backend> AheadImage<B> {
    fn has_work(&self) -> bool {
        !matches!(self.encoded, Some(Encoded::All(_))) && self.inputs.strong_count() > 0
    }
}

/// A finished image, with its rows, `[num_img_tokens, hidden_size]`.
pub(super) struct Done<B: Backend> {
    pub(super) key: [u8; 32],
    pub(super) embedding: Arc<B::Tensor>,
}

/// Called with the number of an image's tiles done, with fractions, and of all its tiles; can stop the work.
pub(super) type TilesOf<'a> = &'a mut dyn FnMut(f64, usize) -> ControlFlow<()>;

impl<B: Backend> Ahead<B> {
    /// Begins no further image if the embeddings of the images begun would take more than `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { images: Vec::new(), bytes_max }
    }

    /// Queues an image that is identified by `key`, and whose embedding takes `bytes` bytes.
    pub(super) fn queue(&mut self, key: [u8; 32], inputs: &Arc<ImageInputs>, bytes: usize) {
        self.forget_unwanted();
        if self.images.iter().all(|image| image.key != key) {
            self.images.push(AheadImage {
                key,
                inputs: Arc::downgrade(inputs),
                bytes,
                encoded: None,
                took: Duration::ZERO,
            });
        }
    }

    fn forget_unwanted(&mut self) {
        self.images.retain(|image| image.inputs.strong_count() > 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Whether tiles remain that a caller wants, and there is room for them.
    pub(super) fn has_work(&self) -> bool {
        self.next().is_some()
    }

    /// The first unfinished image, unless there is no room for it. Finished images stay until their requests are
    /// admitted, however many wait.
    fn next(&self) -> Option<usize> {
        let index = self.images.iter().position(AheadImage::has_work)?;
        let image = &self.images[index];
        let begun = self.images.iter().filter(|image| image.encoded.is_some());
        let held: usize = begun.map(|image| image.bytes).sum();
        let fits = held.saturating_add(image.bytes) <= self.bytes_max;
        (fits || held == 0 || image.encoded.is_some()).then_some(index)
    }

    /// Hands over an image to the request that has brought it.
    pub(super) fn take(&mut self, key: &[u8; 32]) -> Option<AheadImage<B>> {
        let index = self.images.iter().position(|image| image.key == *key)?;
        Some(self.images.remove(index))
    }

    /// Sends up to `tiles_max` tiles of the first unfinished image through the vision tower, and returns the image if
    /// that finishes it.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped), or an error of the device; the image is left to its request.
    pub(super) fn encode(
        &mut self,
        model: &Phi3V<B>,
        tiles_max: usize,
        tiles_done: TilesOf<'_>,
    ) -> Result<Option<Done<B>>> {
        self.forget_unwanted();
        let Some(index) = self.next() else { return Ok(None) };
        let mut image = self.images.remove(index);
        let Some(inputs) = image.inputs.upgrade() else { return Ok(None) };
        let tiles = inputs.distinct_tiles();
        let begun = image.encoded.take();
        let (encoded, took) = timed(model.backend(), || {
            let job = match begun {
                Some(Encoded::Part(job)) => job,
                _ => model.begin_image(tiles)?,
            };
            encode_tiles(model, &inputs, job, tiles_max, &mut |done| tiles_done(done, tiles))
        });
        image.took += took;
        let encoded = image.encoded.insert(encoded?);
        let done = match encoded {
            Encoded::Part(_) => None,
            Encoded::All(embedding) => Some(Done { key: image.key, embedding: Arc::clone(embedding) }),
        };
        self.images.insert(index, image);
        Ok(done)
    }
}
