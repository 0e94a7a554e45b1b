//! Frames of animated WebP files, which few versions of ffmpeg can read. They are chosen as ffmpeg chooses those of a video.

use super::error::DocumentError;
use super::video::{self, Frame, FrameChoice, Frames};
use phi3v::image::{self, AnimationFrame, ImageError, ImageLimits, ImageMode, RgbImage};
use std::time::{Duration, Instant};

/// Maximum time to read an animation once.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Bytes of a frame that is reduced for comparison.
const SAMPLE_BYTES: usize = video::SAMPLE_SIDE * video::SAMPLE_SIDE * 3;

/// The chosen frames, or `None` if `bytes` is not an animated WebP. The file is decoded twice: once to choose, then
/// frame by frame on demand.
pub(super) fn frames(
    bytes: &[u8],
    choice: FrameChoice,
    mode: ImageMode,
    limits: &ImageLimits,
) -> Result<Option<Frames>, DocumentError> {
    let mut slots = Slots::new(choice.fps.unwrap_or(video::SAMPLES_PER_SECOND));
    let Some(all) = image::frames(bytes, mode, limits)? else { return Ok(None) };
    let mut samples = Vec::new();
    for frame in in_time(all) {
        let AnimationFrame { image, duration } = frame?;
        let moments = slots.add(duration);
        if choice.fps.is_none() {
            let room = video::SAMPLES_MAX - samples.len() / SAMPLE_BYTES;
            samples.extend(sample(&image).repeat(moments.min(room)));
        }
    }
    let Some(&end) = slots.ends.last() else { return Err(DocumentError::NoFrames) };
    let numbers: Vec<usize> = match choice.fps {
        Some(_) => (0..choice.frames.min(end)).collect(),
        None => video::changes(&samples, choice.frames),
    };
    let Some(again) = image::frames(bytes, mode, limits)? else { return Ok(None) };
    let Slots { per_second, ends, .. } = slots;
    let mut shown = in_time(again).zip(ends);
    let most = numbers.len();
    let mut now = None;
    let chosen = numbers.into_iter().map_while(move |number| {
        // decode up to the frame that is visible at that moment
        while !matches!(&now, Some((_, end)) if number < *end) {
            match shown.next()? {
                (Ok(frame), end) => now = Some((frame.image, end)),
                (Err(error), _) => return Some(Err(error)),
            }
        }
        let (image, _) = now.as_ref()?;
        let time = Duration::from_secs_f64(number as f64 / per_second);
        Some(Ok(Frame { time, image: image.clone() }))
    });
    Ok(Some(Frames { most, frames: Box::new(chosen) }))
}

/// Limits the total time of reading frames. Only the time spent reading a frame counts.
fn in_time(
    mut frames: impl Iterator<Item = Result<AnimationFrame, ImageError>>,
) -> impl Iterator<Item = Result<AnimationFrame, DocumentError>> {
    let mut left = TIME_MAX;
    std::iter::from_fn(move || {
        let begin = Instant::now();
        let frame = frames.next()?;
        left = left.saturating_sub(begin.elapsed());
        let late = DocumentError::VideoTime { limit: TIME_MAX };
        Some(if left.is_zero() { Err(late) } else { frame.map_err(DocumentError::from) })
    })
}

/// The moments, at a rate of `per_second`, for which a frame is looked up.
struct Slots {
    per_second: f64,
    /// When the next frame is shown.
    time: Duration,
    /// For each frame, one past the last moment at which it is visible.
    ends: Vec<usize>,
}

impl Slots {
    fn new(per_second: f64) -> Self {
        Self { per_second, time: Duration::ZERO, ends: Vec::new() }
    }

    /// Adds a frame and returns at how many moments it is visible: from the moment nearest to its start to the one
    /// nearest to its end. The first frame is visible at one moment at least.
    fn add(&mut self, duration: Duration) -> usize {
        self.time += duration;
        let begin = self.ends.last().copied().unwrap_or(0);
        let end = (self.time.as_secs_f64() * self.per_second).round() as usize;
        let end = if begin == 0 { end.max(1) } else { end.max(begin) };
        self.ends.push(end);
        end - begin
    }
}

/// A frame reduced to the size at which video frames are compared, `[side, side, 3]`.
fn sample(image: &RgbImage) -> Vec<u8> {
    const SIDE: usize = video::SAMPLE_SIDE;
    let pixel = |x: usize, y: usize| {
        let (x, y) = (x * image.width / SIDE, y * image.height / SIDE);
        let at = (y * image.width + x) * 3;
        [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
    };
    (0..SIDE * SIDE).flat_map(|index| pixel(index % SIDE, index / SIDE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_sees_the_frame_that_is_shown() {
        let ends = |per_second, milliseconds: &[u64]| {
            let mut slots = Slots::new(per_second);
            for &milliseconds in milliseconds {
                slots.add(Duration::from_millis(milliseconds));
            }
            slots.ends
        };
        assert_eq!(ends(2.0, &[1000, 1000, 500]), [2, 4, 5]);
        assert_eq!(ends(2.0, &[40, 40]), [1, 1], "a short animation is its first frame");
        assert_eq!(ends(10.0, &[0, 100, 100]), [1, 1, 2]);
    }

    #[test]
    fn a_sample_is_the_picture_in_small() {
        let (width, height) = (64, 32);
        let row = [[255, 0, 0].repeat(32), [0, 0, 255].repeat(32)].concat();
        let small = sample(&RgbImage { width, height, pixels: row.repeat(32) });
        assert_eq!(small.len(), 32 * 32 * 3);
        assert_eq!((&small[..3], &small[small.len() - 3..]), (&[255, 0, 0][..], &[0, 0, 255][..]));
    }
}
