//! Reading files in another process: the worker's side of the pipe.
//!
//! Every [`Reply`] is a line of JSON, and so are [`Work`] and [`Request`]. The protocol:
//! 1. The worker sends [`Reply::Ready`]. This distinguishes a process that cannot start from one that a file has
//!    ended.
//! 2. The worker reads a [`Work`] line and the file.
//! 3. For a picture, it replies with the pixels, `[height, width, 3]`, and ends.
//! 4. For a document, it replies with the number of pages, and then with pixels for each [`Request`].
//!
//! When its input closes, the worker exits, even in the middle of a page: nobody is waiting for the result.

use crate::sys::{end_with_parent, give_way_for_memory};
use crate::version::VERSION;
use phi3v::document::PdfError;
use phi3v::image::{ImageError, ImageLimits, ImageMode};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The argument that makes a process a worker. It is not a command for users and appears in no help.
pub const WORD: &str = "__draw-pages";

/// A file to read.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// A PDF, with its length in bytes.
    Pdf(u64),
    /// A picture and the settings for reading it.
    Picture {
        /// Length in bytes.
        bytes: u64,
        /// Whether the picture is read as people see it, rather than as the reference would.
        is_as_seen: bool,
        /// Maximum number of pixels.
        pixels_max: u64,
        /// Maximum pixels of a side.
        side_max: u32,
    },
}

impl Work {
    /// Work for a picture of `bytes` bytes, which are within the limits.
    #[must_use]
    pub fn picture(bytes: usize, mode: ImageMode, limits: &ImageLimits) -> Self {
        Self::Picture {
            bytes: bytes as u64,
            is_as_seen: mode == ImageMode::AsSeen,
            pixels_max: limits.pixels_max,
            side_max: limits.side_max,
        }
    }
}

/// A page to draw.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The page number, counted from 1.
    pub page: usize,
    /// Maximum number of tiles of the page.
    pub num_crops: usize,
}

/// What the worker reports about a document, a page or a picture.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The process has started and waits for a file.
    Ready {
        /// Version of the program that the process runs.
        version: String,
    },
    /// The document is open and has this number of pages.
    Pages(usize),
    /// The page is drawn or the picture decoded; its pixels follow.
    Page {
        /// Pixels in each row.
        width: usize,
        /// Rows of the page.
        height: usize,
        /// Whether a part of the page is missing.
        is_incomplete: bool,
    },
    /// Why there are no pages.
    Failed(PdfError),
    /// Why there is no picture.
    Refused(Refusal),
}

/// What can be wrong with a picture: the subset of [`ImageError`] that a worker reports.
#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// It has no pixels.
    Empty(u32, u32),
    /// A side is too long: width, height and limit.
    Side(u32, u32, u32),
    /// It has too many pixels: width, height and limit.
    Pixels(u32, u32, u64),
    /// The system could not allocate this number of bytes.
    Memory(usize),
    /// It uses a form of the format that is not decoded.
    Kind(String),
    /// It ends too early.
    Truncated,
    /// It contradicts its format.
    Damaged(String),
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Empty { width, height } => Self::Empty(width, height),
            ImageError::Side { width, height, limit } => Self::Side(width, height, limit),
            ImageError::Pixels { width, height, limit } => Self::Pixels(width, height, limit),
            ImageError::OutOfMemory { bytes } => Self::Memory(bytes),
            ImageError::UnsupportedKind { kind, .. } => Self::Kind(kind),
            ImageError::Truncated { .. } => Self::Truncated,
            ImageError::Damaged { reason, .. } => Self::Damaged(reason),
            // all other errors were ruled out before the picture was sent
            _ => Self::of_end(),
        }
    }
}

impl Refusal {
    /// Returns the error of a picture in this format.
    #[must_use]
    pub fn of(self, format: &'static str) -> ImageError {
        match self {
            Self::Empty(width, height) => ImageError::Empty { width, height },
            Self::Side(width, height, limit) => ImageError::Side { width, height, limit },
            Self::Pixels(width, height, limit) => ImageError::Pixels { width, height, limit },
            Self::Memory(bytes) => ImageError::OutOfMemory { bytes },
            Self::Kind(kind) => ImageError::UnsupportedKind { format, kind },
            Self::Truncated => ImageError::Truncated { format },
            Self::Damaged(reason) => ImageError::Damaged { format, reason },
        }
    }

    /// The refusal of a picture whose decoder has ended the process.
    #[must_use]
    pub fn of_end() -> Self {
        Self::Damaged("the decoder gave up".to_owned())
    }
}

/// Whether the command line `words` asks for a worker.
#[must_use]
pub fn is_asked_for(words: &[OsString]) -> bool {
    words.get(1).is_some_and(|word| word == WORD)
}

/// Runs the worker on stdin until it ends, and returns the exit code.
#[must_use]
pub fn main() -> u8 {
    give_way_for_memory();
    end_with_parent();
    let draw = |input| on_a_deep_stack(|| serve(&mut io::BufReader::new(input), &mut io::stdout().lock()));
    u8::from(Input::of_stdin().and_then(draw).is_err())
}

/// Reads stdin on a separate thread, so that its end is noticed while a page is drawn.
struct Input {
    coming: Receiver<Vec<u8>>,
    /// Bytes received but not read yet.
    here: io::Cursor<Vec<u8>>,
}

impl Input {
    /// Starts reading stdin, and ends the process at its end.
    fn of_stdin() -> io::Result<Self> {
        let (sender, coming) = channel();
        let read = move || {
            let _ = pass_on(&mut io::stdin().lock(), &sender);
            std::process::exit(1);
        };
        std::thread::Builder::new().name("input".to_owned()).spawn(read)?;
        Ok(Self { coming, here: io::Cursor::default() })
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.here.read(bytes)?;
        if read > 0 || bytes.is_empty() {
            return Ok(read);
        }
        let Ok(here) = self.coming.recv() else { return Ok(0) };
        self.here = io::Cursor::new(here);
        self.here.read(bytes)
    }
}

/// Forwards everything from `from` until its end.
fn pass_on(from: &mut impl Read, to: &Sender<Vec<u8>>) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            // after the last reply, nobody receives
            Ok(read) => drop(to.send(bytes[..read].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs `work` on a large stack: documents may nest deeply, within the reader's own limits. Unused stack takes no memory.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    const STACK_BYTES: usize = 256 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

fn serve(input: &mut impl io::BufRead, output: &mut impl io::Write) -> io::Result<()> {
    reply(output, &Reply::Ready { version: VERSION.to_owned() }, &[])?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    match serde_json::from_str::<Work>(&line)? {
        #[cfg(feature = "pdf")]
        Work::Pdf(length) => pdf(file(input, length)?, input, output),
        #[cfg(any(feature = "avif", feature = "heic"))]
        Work::Picture { bytes, is_as_seen, pixels_max, side_max } => {
            let bytes = file(input, bytes)?;
            let limits = ImageLimits { bytes_max: bytes.len(), pixels_max, side_max, ..Default::default() };
            picture(
                &bytes,
                if is_as_seen { ImageMode::AsSeen } else { ImageMode::Reference },
                &limits,
                output,
            )
        }
        // without these features, no caller sends such work
        #[allow(unreachable_patterns, reason = "a build with all features")]
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Reads the next `length` bytes.
#[cfg(any(feature = "avif", feature = "heic", feature = "pdf"))]
fn file(input: &mut impl io::BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(any(feature = "avif", feature = "heic"))]
fn picture(
    bytes: &[u8],
    mode: ImageMode,
    limits: &ImageLimits,
    output: &mut impl io::Write,
) -> io::Result<()> {
    #[cfg(not(feature = "avif"))]
    use phi3v::image::decode;
    #[cfg(feature = "avif")]
    use phi3v::image::decode_avif as decode;

    // a panic on one of the decoder's threads would make the others wait forever, and one in a C function would leave
    // a core dump
    std::panic::set_hook(Box::new(|_| std::process::exit(1)));
    match decode(bytes, mode, limits) {
        Ok(image) => {
            let page = Reply::Page { width: image.width, height: image.height, is_incomplete: false };
            reply(output, &page, &image.pixels)
        }
        Err(error) => reply(output, &Reply::Refused(error.into()), &[]),
    }
}

#[cfg(feature = "pdf")]
fn pdf(bytes: Vec<u8>, input: &mut impl io::BufRead, output: &mut impl io::Write) -> io::Result<()> {
    use phi3v::document::Pdf;

    let pdf = match Pdf::open(bytes) {
        Ok(pdf) => pdf,
        Err(error) => return reply(output, &Reply::Failed(error), &[]),
    };
    reply(output, &Reply::Pages(pdf.pages()), &[])?;
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let Request { page, num_crops } = serde_json::from_str(&line)?;
        line.clear();
        match pdf.draw(page, num_crops) {
            Ok(drawn) => {
                let (width, height) = (drawn.image.width, drawn.image.height);
                let page = Reply::Page { width, height, is_incomplete: drawn.is_incomplete };
                reply(output, &page, &drawn.image.pixels)?;
            }
            Err(error) => reply(output, &Reply::Failed(error), &[])?,
        }
    }
    Ok(())
}

fn reply(output: &mut impl io::Write, reply: &Reply, pixels: &[u8]) -> io::Result<()> {
    serde_json::to_writer(&mut *output, reply)?;
    output.write_all(b"\n")?;
    output.write_all(pixels)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_picture_is_told_on_the_other_side() {
        let limits = (3, 4);
        for error in [
            ImageError::Empty { width: 0, height: 3 },
            ImageError::Side { width: 9, height: 3, limit: limits.0 },
            ImageError::Pixels { width: 9, height: 3, limit: limits.1 },
            ImageError::OutOfMemory { bytes: 1 << 40 },
            ImageError::UnsupportedKind { format: "HEIC", kind: "coded as `x`".to_owned() },
            ImageError::Truncated { format: "HEIC" },
            ImageError::Damaged { format: "HEIC", reason: "it has no colours".to_owned() },
        ] {
            let told = serde_json::to_string(&Refusal::from(error.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Refusal>(&told).unwrap().of("HEIC"), error);
        }
        // the message must not contain another message
        let other = Refusal::from(ImageError::Frames { format: "HEIC", frames: 2, limit: 1 });
        assert_eq!(other.of("AVIF").to_string(), "the AVIF picture is damaged: the decoder gave up");
    }
}
