//! Files read by another process: the other side of the pipe.
//!
//! Every [`Reply`] is a line of JSON. First [`Reply::Ready`] goes out, so that a process that cannot even begin is told from one
//! that a file has ended. In comes a [`Work`], a line of JSON too, and the file. Of a picture a reply goes out with its pixels,
//! `[height, width, 3]`, and that is the end. Of a document goes out how many pages it has; then a [`Request`] comes in for
//! every page, and out goes a reply with its pixels. The end of the input is the end, in the middle of a page too: nobody is
//! there who wants it.

use crate::sys::{end_with_parent, give_way_for_memory};
use crate::version::VERSION;
use phi3v::document::PdfError;
use phi3v::image::{ImageError, ImageLimits, ImageMode};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The word of the command line that makes a process one that draws. It is no command for people, and in no help.
pub const WORD: &str = "__draw-pages";

/// A file that is to be read.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// A PDF of so many bytes.
    Pdf(u64),
    /// A picture, and what decides how it is read.
    Picture {
        /// How many bytes it has.
        bytes: u64,
        /// Whether it is read as people see it, and not as the reference would.
        is_as_seen: bool,
        /// Pixels that it may have.
        pixels_max: u64,
        /// Pixels that a side may have.
        side_max: u32,
    },
}

impl Work {
    /// A picture of so many bytes, which are within the limits.
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

/// A page that is to be drawn.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its number, from 1.
    pub page: usize,
    /// Tiles that it is for.
    pub num_crops: usize,
}

/// What is told of a document, a page or a picture.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The process has been started and waits for a file.
    Ready {
        /// Version of the program that it runs.
        version: String,
    },
    /// The document is open and has so many pages.
    Pages(usize),
    /// The page is drawn or the picture decoded; its pixels follow.
    Page {
        /// Pixels in each row.
        width: usize,
        /// Rows of the page.
        height: usize,
        /// Whether something of it is missing.
        is_incomplete: bool,
    },
    /// Why there are no pages.
    Failed(PdfError),
    /// Why there is no picture.
    Refused(Refusal),
}

/// What can be wrong with a picture, of what [`ImageError`] tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// It has no pixels.
    Empty(u32, u32),
    /// A side is too long: width, height and limit.
    Side(u32, u32, u32),
    /// It has too many pixels: width, height and limit.
    Pixels(u32, u32, u64),
    /// There is no memory for so many bytes of it.
    Memory(usize),
    /// It is in a form that is not decoded.
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
            // what else there is was looked at before the picture was sent
            _ => Self::of_end(),
        }
    }
}

impl Refusal {
    /// The error of a picture in this format.
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

    /// What is said of a picture whose decoder has ended the process.
    #[must_use]
    pub fn of_end() -> Self {
        Self::Damaged("the decoder gave up".to_owned())
    }
}

/// Whether the command line `words` asks for a process that draws.
#[must_use]
pub fn is_asked_for(words: &[OsString]) -> bool {
    words.get(1).is_some_and(|word| word == WORD)
}

/// Draws what comes on stdin until it ends, and returns the number to exit with.
#[must_use]
pub fn main() -> u8 {
    give_way_for_memory();
    end_with_parent();
    let draw = |input| on_a_deep_stack(|| serve(&mut io::BufReader::new(input), &mut io::stdout().lock()));
    u8::from(Input::of_stdin().and_then(draw).is_err())
}

/// What comes on stdin. A thread of its own reads it, so that its end is seen while a page is drawn.
struct Input {
    coming: Receiver<Vec<u8>>,
    /// What has come and is not read.
    here: io::Cursor<Vec<u8>>,
}

impl Input {
    /// Reads from here on, and ends the process when nothing more can come.
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

/// Passes on what comes from `from` until its end.
fn pass_on(from: &mut impl Read, to: &Sender<Vec<u8>>) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            // nobody reads once all is drawn
            Ok(read) => drop(to.send(bytes[..read].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Documents nest as deep as they like, within the reader's own limits. Memory that is not used costs nothing.
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
        // without the features nobody asks
        #[allow(unreachable_patterns, reason = "a build with all features")]
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The next `length` bytes.
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

    // a panic on one of the decoder's threads would let the others wait for it forever, and one in a function of C
    // would leave a core behind
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
        // no sentence within a sentence
        let other = Refusal::from(ImageError::Frames { format: "HEIC", frames: 2, limit: 1 });
        assert_eq!(other.of("AVIF").to_string(), "the AVIF picture is damaged: the decoder gave up");
    }
}
