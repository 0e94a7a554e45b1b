//! Frames of videos and animations, by ffmpeg where it is on the PATH.

use super::error::DocumentError;
use super::process::{output_of, private_folder};
use phi3v::image::{ImageError, ImageLimits, RgbImage};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time for ffmpeg to read a video once.
const TIME_MAX: Duration = Duration::from_secs(300);
/// Frames in a second that are compared to find those that differ.
pub(super) const SAMPLES_PER_SECOND: f64 = 2.0;
/// Side of a frame that is compared.
pub(super) const SAMPLE_SIDE: usize = 32;
/// Frames that are compared: four hours.
pub(super) const SAMPLES_MAX: usize = 4 * 3600 * 2;
/// Steps of each colour in a histogram.
const LEVELS: usize = 16;

/// Which frames of a video are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameChoice {
    /// So many in a second, from the beginning; none for those at which the picture changes most.
    pub fps: Option<f64>,
    /// At most so many.
    pub frames: usize,
    /// Whether somebody chose them: of an animation that is read as a picture the first frame is taken otherwise.
    pub is_asked_for: bool,
}

/// A frame, and when it is shown.
pub(super) struct Frame {
    pub(super) time: Duration,
    pub(super) image: RgbImage,
}

/// The chosen frames of a video, in order.
pub(super) fn frames(
    bytes: &[u8],
    choice: FrameChoice,
    limits: &ImageLimits,
) -> Result<Vec<Frame>, DocumentError> {
    let folder = private_folder().map_err(DocumentError::Start)?;
    let file = folder.path().join("video");
    std::fs::write(&file, bytes).map_err(DocumentError::Start)?;
    let (fps, numbers) = match choice.fps {
        Some(fps) => (fps, (0..choice.frames).collect()),
        None => (SAMPLES_PER_SECOND, changes(&samples(&file)?, choice.frames)),
    };
    let wanted: Vec<String> = numbers.iter().map(|number| format!("eq(n,{number})")).collect();
    let filter = format!("fps={fps},select='{}'", wanted.join("+"));
    let output = ["-vsync", "0", "-f", "image2pipe", "-c:v", "ppm"];
    let bytes_max = limits.bytes_max.saturating_mul(choice.frames);
    let pictures = ppm(&run(&file, &filter, &output, bytes_max)?, limits)?;
    let time = |number: usize| Duration::from_secs_f64(number as f64 / fps);
    let frames: Vec<Frame> = numbers
        .into_iter()
        .zip(pictures)
        .map(|(number, image)| Frame { time: time(number), image })
        .collect();
    if frames.is_empty() { Err(DocumentError::NoFrames) } else { Ok(frames) }
}

/// Small frames of the whole video, `[frames, side, side, 3]`.
fn samples(file: &Path) -> Result<Vec<u8>, DocumentError> {
    let filter = format!("fps={SAMPLES_PER_SECOND},scale={SAMPLE_SIDE}:{SAMPLE_SIDE}");
    let frame = SAMPLE_SIDE * SAMPLE_SIDE * 3;
    run(file, &filter, &["-f", "rawvideo", "-pix_fmt", "rgb24"], SAMPLES_MAX * frame)
}

/// What ffmpeg writes of the video in `file`.
fn run(file: &Path, filter: &str, output: &[&str], bytes_max: usize) -> Result<Vec<u8>, DocumentError> {
    let mut command = Command::new("ffmpeg");
    // a list of other files or addresses is no video
    command.args(["-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i"]).arg(file);
    command.args(["-an", "-sn", "-dn", "-vf", filter]).args(output).arg("pipe:1");
    output_of(&mut command, TIME_MAX, bytes_max).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DocumentError::NoFfmpeg,
        io::ErrorKind::TimedOut => DocumentError::Time { limit: TIME_MAX },
        _ => DocumentError::Start(error),
    })
}

/// The first frame, and those at which the histogram differs most from that of the frame before, in order.
pub(super) fn changes(samples: &[u8], frames: usize) -> Vec<usize> {
    let histograms: Vec<[u32; 3 * LEVELS]> =
        samples.chunks_exact(SAMPLE_SIDE * SAMPLE_SIDE * 3).map(histogram).collect();
    let difference = |pair: &[[u32; 3 * LEVELS]]| -> u32 {
        pair[0].iter().zip(&pair[1]).map(|(before, after)| before.abs_diff(*after)).sum()
    };
    let mut changed: Vec<(usize, u32)> =
        histograms.windows(2).map(difference).enumerate().map(|(index, by)| (index + 1, by)).collect();
    // of equal changes the earlier ones
    changed.sort_by_key(|&(index, by)| (std::cmp::Reverse(by), index));
    let changed = changed.into_iter().filter(|&(_, by)| by > 0).map(|(index, _)| index);
    let mut numbers: Vec<usize> = [0].into_iter().chain(changed).take(frames.max(1)).collect();
    numbers.sort_unstable();
    numbers
}

fn histogram(frame: &[u8]) -> [u32; 3 * LEVELS] {
    let mut counts = [0; 3 * LEVELS];
    for pixel in frame.chunks_exact(3) {
        for (channel, value) in pixel.iter().enumerate() {
            counts[channel * LEVELS + usize::from(*value) * LEVELS / 256] += 1;
        }
    }
    counts
}

/// The pictures of a stream of PPM files, as ffmpeg writes them; one that is cut off is left out.
fn ppm(mut stream: &[u8], limits: &ImageLimits) -> Result<Vec<RgbImage>, ImageError> {
    let mut pictures = Vec::new();
    while let Some((width, height, rest)) = ppm_head(stream) {
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels > limits.pixels_max {
            let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
            return Err(ImageError::Pixels {
                width: side(width),
                height: side(height),
                limit: limits.pixels_max,
            });
        }
        let Some((picture, rest)) = rest.split_at_checked(width * height * 3) else { break };
        pictures.push(RgbImage { width, height, pixels: picture.to_vec() });
        stream = rest;
    }
    Ok(pictures)
}

/// Width and height of the PPM that `stream` begins with, and what follows its head.
fn ppm_head(stream: &[u8]) -> Option<(usize, usize, &[u8])> {
    let mut lines = stream.splitn(4, |byte| *byte == b'\n');
    let (mark, size, depth, rest) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (mark == b"P6" && depth == b"255").then_some((width, height, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small frame of one colour.
    fn plain(value: u8) -> Vec<u8> {
        vec![value; SAMPLE_SIDE * SAMPLE_SIDE * 3]
    }

    #[test]
    fn frames_are_those_at_which_the_picture_changes_most() {
        // by little at 2, by much at 4 and 5
        let mut partly = plain(10);
        partly[..300].fill(200);
        let video =
            [plain(10), plain(10), partly.clone(), partly, plain(100), plain(250), plain(250)].concat();
        assert_eq!(changes(&video, 3), [0, 4, 5]);
        assert_eq!(changes(&video, 4), [0, 2, 4, 5]);
        assert_eq!(changes(&video, 1), [0]);
        assert_eq!(changes(&video, 9), [0, 2, 3, 4, 5].into_iter().filter(|n| *n != 3).collect::<Vec<_>>());
        assert_eq!(changes(&[plain(3), plain(3)].concat(), 8), [0], "nothing changes");
    }

    #[test]
    fn a_stream_of_pictures_is_taken_apart() {
        let limits = ImageLimits::default();
        let stream = b"P6\n1 2\n255\n\n\n\nabcP6\n2 1\n255\nABCDEF";
        let pictures = ppm(stream, &limits).unwrap();
        assert_eq!(pictures.len(), 2);
        assert_eq!((pictures[0].height, pictures[0].pixels.as_slice()), (2, b"\n\n\nabc".as_slice()));
        assert_eq!((pictures[1].width, pictures[1].pixels.as_slice()), (2, b"ABCDEF".as_slice()));
        assert_eq!(ppm(&stream[..stream.len() - 1], &limits).unwrap().len(), 1, "one is cut off");
        assert!(
            ppm(b"P6\n99999999999 99999999999\n255\n", &limits)
                .is_err_and(|error| matches!(error, ImageError::Pixels { .. }))
        );
        for other in [&b""[..], b"P5\n1 1\n255\na", b"P6\n1\n255\n", b"no picture"] {
            assert!(ppm(other, &limits).unwrap().is_empty());
        }
    }
}
