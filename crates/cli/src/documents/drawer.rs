//! Reading files in another process: the caller's side of the pipe.

use super::error::DocumentError;
use super::process::{Stopped, Watched};
use super::worker::{self, Refusal, Reply, Request, Work};
use crate::sys::{away_from_ctrl_c, own_program};
use crate::version;
use phi3v::image::{ImageLimits, ImageMode, RgbImage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a document may stay open without a request for a page.
const IDLE_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Limits on the process that draws a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawLimits {
    /// Time to open a document, and time for each page or picture.
    pub page_time_max: Duration,
    /// Memory of the drawing process, in bytes.
    pub memory_max: u64,
    /// Maximum number of pages of a document that may be chosen.
    pub pages_max: usize,
}

impl Default for DrawLimits {
    /// 30 s, 2 GiB, 10,000 pages.
    fn default() -> Self {
        Self { page_time_max: Duration::from_secs(30), memory_max: 2 << 30, pages_max: 10_000 }
    }
}

/// Draws documents, and decodes pictures that need it, each in a separate process.
#[derive(Clone, Debug, Default)]
pub struct Drawer {
    /// The program to start; `None` is the current program.
    program: Option<PathBuf>,
    /// Limits on drawing.
    limits: DrawLimits,
    /// The time limit for everything drawn together, if there is one.
    together: Option<Together>,
}

/// A time limit shared by several pieces of work.
#[derive(Clone, Copy, Debug)]
struct Together {
    limit: Duration,
    end: Instant,
}

/// The time available for one piece of work.
#[derive(Clone, Copy)]
struct WorkTime {
    page_time_max: Duration,
    together: Option<Together>,
}

impl WorkTime {
    /// The time left now.
    fn left(self) -> Duration {
        let together = self.together.map(|together| together.end.saturating_duration_since(Instant::now()));
        together.map_or(self.page_time_max, |together| together.min(self.page_time_max))
    }

    /// Returns the error for the shared time limit, if it has passed.
    fn over(self) -> Option<DocumentError> {
        let together = self.together.filter(|together| Instant::now() >= together.end)?;
        Some(DocumentError::TimeTogether { limit: together.limit })
    }
}

impl Drawer {
    /// Creates a drawer that starts the program at this path, which must be a `phi3v` of the same version.
    #[must_use]
    pub fn by(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..Self::default() }
    }

    /// The limits on drawing.
    #[must_use]
    pub fn limits(&self) -> DrawLimits {
        self.limits
    }

    /// Returns this drawer with the limits `limits`.
    #[must_use]
    pub fn with_limits(self, limits: DrawLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns this drawer for files that share the time `limit` from now on, in addition to the limit per page.
    #[must_use]
    pub fn together_within(self, limit: Duration) -> Self {
        Self { together: Some(Together { limit, end: Instant::now() + limit }), ..self }
    }

    /// Opens a PDF.
    ///
    /// # Errors
    /// The PDF cannot be read within the limits, or the drawing process cannot be started.
    pub fn open(&self, bytes: &[u8]) -> Result<Document, DocumentError> {
        let limits = self.limits;
        let peer = self.start(Kind::Document)?;
        let mut document = Document { peer, limits, time: self.time(), pages: 0 };
        let sent = document.peer.send_file(&Work::Pdf(bytes.len() as u64), bytes);
        match sent.and_then(|()| document.peer.reply()).map_err(|_| document.end())? {
            Reply::Pages(pages) => {
                // until a page is requested, the process only waits
                document.peer.process.give(IDLE_TIME_MAX);
                Ok(Document { pages, ..document })
            }
            Reply::Failed(error) => Err(error.into()),
            Reply::Ready { .. } | Reply::Page { .. } | Reply::Refused(_) => Err(document.end()),
        }
    }

    /// Decodes a picture in `format`, HEIC or AVIF. The length of `bytes` must be within the limits and not zero.
    ///
    /// # Errors
    /// The picture cannot be decoded within the limits, or the process cannot be started.
    pub fn picture(
        &self,
        format: &'static str,
        bytes: &[u8],
        mode: ImageMode,
        limits: &ImageLimits,
    ) -> Result<RgbImage, DocumentError> {
        let mut peer = self.start(Kind::Picture)?;
        let sent = peer.send_file(&Work::picture(bytes.len(), mode, limits), bytes);
        let reply = sent.and_then(|()| peer.reply()).and_then(|reply| {
            Ok(match reply {
                Reply::Page { width, height, .. } => {
                    let pixels = (width as u64).checked_mul(height as u64);
                    if pixels.is_none_or(|pixels| pixels > limits.pixels_max) {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    Ok(RgbImage { width, height, pixels: peer.pixels(width, height)? })
                }
                Reply::Refused(refusal) => Err(refusal),
                Reply::Ready { .. } | Reply::Pages(_) | Reply::Failed(_) => Err(Refusal::of_end()),
            })
        });
        match reply {
            Ok(Ok(image)) => Ok(image),
            Ok(Err(refusal)) => Err(DocumentError::Image(refusal.of(format))),
            Err(_) => Err(match peer.process.end() {
                Some(stopped) => Kind::Picture.stopped(stopped, self.limits, self.time()),
                None => DocumentError::Image(Refusal::of_end().of(format)),
            }),
        }
    }

    fn time(&self) -> WorkTime {
        WorkTime { page_time_max: self.limits.page_time_max, together: self.together }
    }

    /// Starts a process and waits until it reports that it is ready for a file. If it ends before that, it is not
    /// `phi3v` or cannot be loaded, and no file is to blame.
    fn start(&self, kind: Kind) -> Result<Peer, DocumentError> {
        let time = self.time();
        if let Some(over) = time.over() {
            return Err(over);
        }
        let mut command = self.command().map_err(DocumentError::Start)?;
        let process = Watched::start(&mut command, time.left(), self.limits.memory_max);
        let mut peer = Peer { process: process.map_err(DocumentError::Start)? };
        match peer.reply() {
            Ok(Reply::Ready { version }) if version == version::VERSION => Ok(peer),
            Ok(Reply::Ready { version }) => Err(DocumentError::Replaced { version }),
            _ => Err(match peer.process.end() {
                Some(stopped) => kind.stopped(stopped, self.limits, time),
                None => DocumentError::Start(io::Error::other("it ends without having read anything")),
            }),
        }
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = match (&self.program, HOST.get()) {
            (Some(program), _) => Command::new(program),
            (None, Some(Some(HostProgram { program, words }))) => {
                let mut command = Command::new(program);
                command.args(words);
                command
            }
            (None, Some(None)) => {
                return Err(io::Error::other("no interpreter of Python is known that could"));
            }
            (None, None) => Command::new(own_program()?),
        };
        command.arg(worker::WORD);
        // the answering process decides whether Ctrl-C lets the answer finish
        away_from_ctrl_c(&mut command);
        Ok(command)
    }
}

/// How to start a process of phi3v if the current program is another one that has loaded phi3v as a library.
#[derive(Clone, Debug)]
pub struct HostProgram {
    /// The program, such as a Python interpreter.
    pub program: PathBuf,
    /// Arguments that precede those of phi3v's own program.
    pub words: Vec<OsString>,
}

/// The value passed to [`draw_by_host`], once it was called.
static HOST: OnceLock<Option<HostProgram>> = OnceLock::new();

/// Declares that phi3v runs inside another program, and names the program to start for drawing. `None` forbids
/// starting anything: the host program must not be started a second time.
pub fn draw_by_host(program: Option<HostProgram>) {
    let _ = HOST.set(program);
}

/// The kind of file to read.
#[derive(Clone, Copy)]
enum Kind {
    Document,
    Picture,
}

impl Kind {
    /// The error for a file of this kind whose process was stopped.
    fn stopped(self, stopped: Stopped, limits: DrawLimits, time: WorkTime) -> DocumentError {
        let DrawLimits { page_time_max: limit, memory_max, .. } = limits;
        match (stopped, self) {
            (Stopped::Time, kind) => time.over().unwrap_or(match kind {
                Self::Document => DocumentError::Time { limit },
                Self::Picture => DocumentError::PictureTime { limit },
            }),
            (Stopped::Memory, Self::Document) => DocumentError::Memory { limit: memory_max },
            (Stopped::Memory, Self::Picture) => DocumentError::PictureMemory { limit: memory_max },
        }
    }
}

/// The process at the other side of the pipe.
struct Peer {
    process: Watched,
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stdin = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(bytes)?;
        stdin.flush()
    }

    fn send_line(&mut self, words: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(words)?;
        line.push(b'\n');
        self.send(&line)
    }

    fn send_file(&mut self, work: &Work, bytes: &[u8]) -> io::Result<()> {
        self.send_line(work)?;
        self.send(bytes)
    }

    /// Reads the next reply line. Lines are short and are read byte by byte, since pixels may follow.
    fn reply(&mut self) -> io::Result<Reply> {
        line(&mut self.process.stdout)
    }

    /// Reads the pixels of a picture whose size is within the limits.
    fn pixels(&mut self, width: usize, height: usize) -> io::Result<Vec<u8>> {
        let mut pixels = vec![0; width * height * 3];
        self.process.stdout.read_exact(&mut pixels)?;
        Ok(pixels)
    }
}

/// A PDF that another process has open.
pub struct Document {
    peer: Peer,
    limits: DrawLimits,
    time: WorkTime,
    pages: usize,
}

impl Document {
    /// Number of pages of the document.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Whether pages can be drawn. After an error of the process, they cannot.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.peer.process.is_wanted()
    }

    /// Draws page `page`, counted from 1, for at most `num_crops` tiles. Also returns whether a part is missing, such
    /// as an unsupported font or picture.
    ///
    /// # Errors
    /// The page cannot be drawn within the limits. After any error except [`DocumentError::Pdf`], no other page can be
    /// drawn either.
    pub fn draw(&mut self, page: usize, num_crops: usize) -> Result<(RgbImage, bool), DocumentError> {
        if let Some(over) = self.time.over() {
            self.peer.process.end();
            return Err(over);
        }
        self.peer.process.give(self.time.left());
        let request = Request { page, num_crops };
        let reply = self.peer.send_line(&request).and_then(|()| self.peer.reply());
        match reply.map_err(|_| self.end())? {
            Reply::Page { width, height, is_incomplete } => {
                let pixels = self.pixels(width, height, num_crops).map_err(|_| self.end())?;
                self.peer.process.give(IDLE_TIME_MAX);
                Ok((RgbImage { width, height, pixels }, is_incomplete))
            }
            Reply::Failed(error) => {
                self.peer.process.give(IDLE_TIME_MAX);
                Err(error.into())
            }
            Reply::Ready { .. } | Reply::Pages(_) | Reply::Refused(_) => Err(self.end()),
        }
    }

    /// Reads the pixels of a page, if the size is possible for a page of `num_crops` tiles.
    fn pixels(&mut self, width: usize, height: usize, num_crops: usize) -> io::Result<Vec<u8>> {
        let fits = phi3v::document::page_size(width as f64, height as f64, num_crops)
            .is_ok_and(|most| width <= most.width as usize + 1 && height <= most.height as usize + 1);
        if !fits {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.peer.pixels(width, height)
    }

    /// Ends the process and returns why there is no reply.
    fn end(&mut self) -> DocumentError {
        match self.peer.process.end() {
            Some(stopped) => Kind::Document.stopped(stopped, self.limits, self.time),
            None => DocumentError::Ended,
        }
    }
}

/// Reads a line of JSON of at most 4 KiB.
fn line<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    const BYTES_MAX: usize = 4 << 10;
    let (mut line, mut letter) = (Vec::new(), [0]);
    while letter != *b"\n" && line.len() < BYTES_MAX {
        from.read_exact(&mut letter)?;
        line.push(letter[0]);
    }
    Ok(serde_json::from_slice(&line)?)
}
