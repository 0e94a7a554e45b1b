//! Frames of videos and animations, read by ffmpeg if it is on the PATH.

use super::error::DocumentError;
use super::process::{Ending, Stopped, TOOL_MEMORY_MAX, Watched};
use crate::sys::{HandedFile, away_from_ctrl_c};
use phi3v::image::{ImageError, ImageLimits, RgbImage, Size};
use std::io::{self, Read};
use std::process::Command;
use std::time::{Duration, Instant};

/// Time limit for ffmpeg to read a video once.
const TIME_MAX: Duration = Duration::from_secs(300);
/// How long ffmpeg may wait until the next frame is requested.
const IDLE_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Frames per second that are compared to find those that differ.
pub(super) const SAMPLES_PER_SECOND: f64 = 2.0;
/// Side of a frame reduced for comparison.
pub(super) const SAMPLE_SIDE: usize = 32;
/// Maximum number of compared frames: four hours.
pub(super) const SAMPLES_MAX: usize = 4 * 3600 * 2;
/// Scales frames to their displayed width if pixels are not square. Pixels of unknown shape are assumed to be square.
const SQUARE_PIXELS: &str = "scale=iw*sar:ih,setsar=1";
/// Number of histogram bins per colour.
const LEVELS: usize = 16;

/// Which frames of a video are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameChoice {
    /// Frames per second, from the beginning; `None` chooses the frames at which the picture changes most.
    pub fps: Option<f64>,
    /// Maximum number of frames.
    pub frames: usize,
    /// Whether the user asked for frames. If not, an animation that can be read as a picture yields its first frame.
    pub is_asked_for: bool,
}

/// A frame and the time at which it is shown.
pub(super) struct Frame {
    pub(super) time: Duration,
    pub(super) image: RgbImage,
}

/// Frames that are read one after the other on demand.
pub(super) struct Frames {
    /// Maximum number of frames.
    pub(super) most: usize,
    /// The frames in order: at least one, or an error.
    pub(super) frames: Box<dyn Iterator<Item = Result<Frame, DocumentError>> + Send>,
}

/// Returns the chosen frames of a video.
pub(super) fn frames(
    bytes: &[u8],
    choice: FrameChoice,
    limits: &ImageLimits,
) -> Result<Frames, DocumentError> {
    let file = HandedFile::new(bytes).map_err(DocumentError::VideoFile)?;
    let (fps, numbers) = match choice.fps {
        Some(fps) => (fps, (0..choice.frames).collect()),
        None => (SAMPLES_PER_SECOND, changes(&samples(&file)?, choice.frames)),
    };
    let wanted: Vec<String> = numbers.iter().map(|number| format!("eq(n,{number})")).collect();
    // number the frames consecutively at a constant rate, so that ffmpeg neither repeats nor drops any
    let filter = format!("fps={fps},select='{}',setpts=N,{SQUARE_PIXELS}", wanted.join("+"));
    let rate = fps.to_string();
    let process = start(&file, &filter, &["-r", &rate, "-f", "image2pipe", "-c:v", "ppm"])?;
    let most = numbers.len();
    let (numbers, limits) = (numbers.into_iter(), *limits);
    let running = Running { process, _file: file, numbers, fps, limits, left: TIME_MAX, is_first: true };
    Ok(Frames { most, frames: Box::new(running) })
}

/// Reduced frames of the whole video, `[frames, side, side, 3]`.
fn samples(file: &HandedFile) -> Result<Vec<u8>, DocumentError> {
    let filter = format!("fps={SAMPLES_PER_SECOND},scale={SAMPLE_SIDE}:{SAMPLE_SIDE}");
    let mut process = start(file, &filter, &["-f", "rawvideo"])?;
    let bytes_max = SAMPLES_MAX * SAMPLE_SIDE * SAMPLE_SIDE * 3;
    let mut samples = Vec::new();
    let read = (&mut process.stdout).take(bytes_max as u64).read_to_end(&mut samples);
    if read.is_err() || samples.len() < bytes_max {
        ended(&mut process)?;
    }
    Ok(samples)
}

/// Starts ffmpeg, which writes the output of `filter` for the video in `file`.
fn start(file: &HandedFile, filter: &str, output: &[&str]) -> Result<Watched, DocumentError> {
    let mut command = Command::new("ffmpeg");
    let path = file.give_to(&mut command).map_err(DocumentError::VideoFile)?;
    // the whitelist refuses lists of other files or addresses
    command.args(["-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i"]).arg(path);
    command.args(["-an", "-sn", "-dn", "-vf", filter]);
    // for a video of more than 8 bits, ffmpeg would write 16
    command.args(["-pix_fmt", "rgb24"]).args(output).arg("pipe:1");
    away_from_ctrl_c(&mut command);
    Watched::start_tool(&mut command, TIME_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DocumentError::NoFfmpeg,
        _ => DocumentError::FfmpegStart(error),
    })
}

/// Waits for the end of ffmpeg.
///
/// # Errors
/// ffmpeg was stopped, or failed.
fn ended(process: &mut Watched) -> Result<(), DocumentError> {
    // if ffmpeg continues after something unreadable, it would block until its output is read
    let _ = io::copy(&mut process.stdout, &mut io::sink());
    let Ending { stopped, status } = process.wait();
    match (stopped, status) {
        (Some(Stopped::Time), _) => Err(DocumentError::VideoTime { limit: TIME_MAX }),
        (Some(Stopped::Memory), _) => Err(DocumentError::VideoMemory { limit: TOOL_MEMORY_MAX }),
        (None, Some(status)) if !status.success() => {
            let reason = process.words().unwrap_or_else(|| format!("it ended with {status}"));
            Err(DocumentError::Ffmpeg { reason })
        }
        (None, _) => Ok(()),
    }
}

/// A running ffmpeg whose frames are taken one after the other. It waits until the next frame is taken.
struct Running {
    process: Watched,
    /// The video, which ffmpeg reads as long as it runs.
    _file: HandedFile,
    /// Numbers of the remaining frames.
    numbers: std::vec::IntoIter<usize>,
    fps: f64,
    limits: ImageLimits,
    /// The remaining time. It passes only while waiting for a frame.
    left: Duration,
    is_first: bool,
}

impl Iterator for Running {
    type Item = Result<Frame, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.numbers.next()?;
        self.process.give(self.left);
        let begin = Instant::now();
        let read = read_ppm(&mut self.process.stdout, &self.limits);
        self.left = self.left.saturating_sub(begin.elapsed());
        let is_first = std::mem::take(&mut self.is_first);
        let frame = match read {
            Ok(Some(image)) => {
                self.process.give(IDLE_TIME_MAX);
                let time = Duration::from_secs_f64(number as f64 / self.fps);
                return Some(Ok(Frame { time, image }));
            }
            Ok(None) => ended(&mut self.process),
            Err(error) => Err(error.into()),
        };
        // no frames follow
        self.numbers = Vec::new().into_iter();
        match frame {
            Ok(()) if is_first => Some(Err(DocumentError::NoFrames)),
            Ok(()) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Returns the first frame and those whose histogram differs most from that of the previous frame, in order.
pub(super) fn changes(samples: &[u8], frames: usize) -> Vec<usize> {
    let histograms: Vec<[u32; 3 * LEVELS]> =
        samples.chunks_exact(SAMPLE_SIDE * SAMPLE_SIDE * 3).map(histogram).collect();
    let difference = |pair: &[[u32; 3 * LEVELS]]| -> u32 {
        pair[0].iter().zip(&pair[1]).map(|(before, after)| before.abs_diff(*after)).sum()
    };
    let mut changed: Vec<(usize, u32)> =
        histograms.windows(2).map(difference).enumerate().map(|(index, by)| (index + 1, by)).collect();
    // of equal changes, the earlier ones come first
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

/// Reads the next picture of a stream of PPM files, as ffmpeg writes them. Returns `None` at the end, even in the
/// middle of a picture.
fn read_ppm(stream: &mut impl Read, limits: &ImageLimits) -> Result<Option<RgbImage>, ImageError> {
    let Some((width, height)) = read_ppm_head(stream) else { return Ok(None) };
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels > limits.pixels_max {
        let Size { width, height } = Size::of(width, height);
        return Err(ImageError::Pixels { width, height, limit: limits.pixels_max });
    }
    let bytes = width.saturating_mul(height).saturating_mul(3);
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|_| ImageError::OutOfMemory { bytes })?;
    pixels.resize(bytes, 0);
    Ok(stream.read_exact(&mut pixels).ok().map(|()| RgbImage { width, height, pixels }))
}

/// Reads the header of the next PPM in `stream` and returns its width and height.
fn read_ppm_head(stream: &mut impl Read) -> Option<(usize, usize)> {
    const BYTES_MAX: usize = 64;
    let (mut head, mut byte, mut lines) = (Vec::new(), [0], 0);
    while lines < 3 {
        stream.read_exact(&mut byte).ok().filter(|()| head.len() < BYTES_MAX)?;
        head.push(byte[0]);
        lines += usize::from(byte == *b"\n");
    }
    let size = std::str::from_utf8(&head).ok()?.strip_prefix("P6\n")?.strip_suffix("\n255\n")?;
    let (width, height) = size.split_once(' ')?;
    Some((width.parse().ok()?, height.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reduced frame of one colour.
    fn plain(value: u8) -> Vec<u8> {
        vec![value; SAMPLE_SIDE * SAMPLE_SIDE * 3]
    }

    #[test]
    fn frames_are_those_at_which_the_picture_changes_most() {
        // a small change at 2, large ones at 4 and 5
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

    /// The pictures of a stream.
    fn ppm(mut stream: &[u8]) -> Result<Vec<RgbImage>, ImageError> {
        let limits = ImageLimits::default();
        std::iter::from_fn(|| read_ppm(&mut stream, &limits).transpose()).collect()
    }

    #[test]
    fn a_stream_of_pictures_is_taken_apart() {
        let stream = b"P6\n1 2\n255\n\n\n\nabcP6\n2 1\n255\nABCDEF";
        let pictures = ppm(stream).unwrap();
        assert_eq!(pictures.len(), 2);
        assert_eq!((pictures[0].height, pictures[0].pixels.as_slice()), (2, b"\n\n\nabc".as_slice()));
        assert_eq!((pictures[1].width, pictures[1].pixels.as_slice()), (2, b"ABCDEF".as_slice()));
        assert_eq!(ppm(&stream[..stream.len() - 1]).unwrap().len(), 1, "one is cut off");
        // refused before any pixels are read or stored
        let too_large = ppm(b"P6\n99999999999 99999999999\n255\n");
        assert!(too_large.is_err_and(|error| matches!(error, ImageError::Pixels { .. })));
        let any_size = ImageLimits { pixels_max: u64::MAX, ..ImageLimits::default() };
        for sides in ["2147483648 1073741824", "99999999999 99999999999"] {
            let stream = format!("P6\n{sides}\n255\n");
            let refused = read_ppm(&mut stream.as_bytes(), &any_size);
            assert!(matches!(refused, Err(ImageError::OutOfMemory { .. })), "{sides}");
        }
        for other in [&b""[..], b"P5\n1 1\n255\na", b"P6\n1\n255\n", b"no picture", &[b'\n'; 100]] {
            assert!(ppm(other).unwrap().is_empty());
        }
    }
}
