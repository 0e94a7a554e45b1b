//! A PDF drawn by another process: this side of the pipe.

use super::error::DocumentError;
use super::process::{Stopped, Watched};
use super::worker::{self, Reply, Request};
use phi3v::image::RgbImage;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Time that a document may stay open without being asked for a page.
const IDLE_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// What drawing may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawLimits {
    /// Time to open a document, and time for each page.
    pub page_time_max: Duration,
    /// Memory of the process that draws.
    pub memory_max: u64,
    /// Pages of a document, of which some or all may be drawn.
    pub pages_max: usize,
}

impl Default for DrawLimits {
    /// 30 s, 2 GiB, 10,000 pages.
    fn default() -> Self {
        Self { page_time_max: Duration::from_secs(30), memory_max: 2 << 30, pages_max: 10_000 }
    }
}

/// Draws documents, each by a process of its own.
#[derive(Clone, Debug, Default)]
pub struct Drawer {
    /// The program; this one where none is named.
    program: Option<PathBuf>,
    /// What drawing may cost.
    limits: DrawLimits,
}

impl Drawer {
    /// Draws by the program at this path, which must be a `phi3v` of the same version.
    #[must_use]
    pub fn by(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..Self::default() }
    }

    /// The same within `limits`.
    #[must_use]
    pub fn with_limits(self, limits: DrawLimits) -> Self {
        Self { limits, ..self }
    }

    /// Opens a PDF.
    ///
    /// # Errors
    /// It cannot be read within the limits, or the process for it cannot be started.
    pub fn open(&self, bytes: &[u8]) -> Result<Document, DocumentError> {
        let limits = self.limits;
        let mut command = self.command().map_err(DocumentError::Start)?;
        let process = Watched::start(&mut command, limits.page_time_max, limits.memory_max);
        let mut document = Document { process: process.map_err(DocumentError::Start)?, limits, pages: 0 };
        let sent = document.send(&(bytes.len() as u64).to_le_bytes()).and_then(|()| document.send(bytes));
        let pages = sent.and_then(|()| document.reply());
        match pages.map_err(|_| document.end())? {
            Reply::Pages(pages) if pages > limits.pages_max => {
                Err(DocumentError::ManyPages { pages, limit: limits.pages_max })
            }
            Reply::Pages(pages) => {
                // until it is asked for a page it only waits
                document.process.give(IDLE_TIME_MAX);
                Ok(Document { pages, ..document })
            }
            Reply::Failed(error) => Err(error.into()),
            Reply::Page { .. } => Err(document.end()),
        }
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = match (&self.program, PYTHON.get()) {
            (Some(program), _) => Command::new(program),
            (None, Some(python)) => {
                let mut command = Command::new(python);
                // without the folder it is started in, where another phi3v may lie
                command.args(["-P", "-m", "phi3v"]);
                command
            }
            (None, None) => Command::new(std::env::current_exe()?),
        };
        command.arg(worker::WORD);
        Ok(command)
    }
}

/// The interpreter whose process this is, if it is one.
static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Draws by the interpreter `python` from here on, where phi3v is a package of Python: the program of the process would be
/// the interpreter behind all virtual environments, which knows no package of theirs.
pub fn draw_by_python(python: PathBuf) {
    let _ = PYTHON.set(python);
}

/// A PDF that is open in another process.
pub struct Document {
    process: Watched,
    limits: DrawLimits,
    pages: usize,
}

impl Document {
    /// Number of its pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Whether its pages can be drawn: not after an error of its process.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.process.is_wanted()
    }

    /// Draws page `page`, from 1, for at most `num_crops` tiles; and whether something of it is missing, such as a font or a
    /// picture that is not understood.
    ///
    /// # Errors
    /// It cannot be drawn within the limits. After all but a [`DocumentError::Pdf`] no other can be drawn either.
    pub fn draw(&mut self, page: usize, num_crops: usize) -> Result<(RgbImage, bool), DocumentError> {
        self.process.give(self.limits.page_time_max);
        let request = Request { page, num_crops };
        let reply = serde_json::to_vec(&request).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.send(&line)?;
            self.reply()
        });
        match reply.map_err(|_| self.end())? {
            Reply::Page { width, height, is_incomplete } => {
                let pixels = self.pixels(width, height, num_crops).map_err(|_| self.end())?;
                self.process.give(IDLE_TIME_MAX);
                Ok((RgbImage { width, height, pixels }, is_incomplete))
            }
            Reply::Failed(error) => Err(error.into()),
            Reply::Pages(_) => Err(self.end()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stdin = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(bytes)?;
        stdin.flush()
    }

    /// The next line of the other side. A line is short, so that it is read letter by letter: what follows are pixels.
    fn reply(&mut self) -> io::Result<Reply> {
        line(&mut self.process.stdout)
    }

    /// The pixels of a page, if they are as many as a page of so many tiles can have.
    fn pixels(&mut self, width: usize, height: usize, num_crops: usize) -> io::Result<Vec<u8>> {
        let fits = phi3v::document::page_size(width as f64, height as f64, num_crops)
            .is_ok_and(|most| width <= most.width as usize + 1 && height <= most.height as usize + 1);
        if !fits {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut pixels = vec![0; width * height * 3];
        self.process.stdout.read_exact(&mut pixels)?;
        Ok(pixels)
    }

    /// Why there is nothing to read.
    fn end(&mut self) -> DocumentError {
        match self.process.end() {
            Some(Stopped::Time) => DocumentError::Time { limit: self.limits.page_time_max },
            Some(Stopped::Memory) => DocumentError::Memory { limit: self.limits.memory_max },
            None => DocumentError::Ended,
        }
    }
}

/// A line of JSON, of at most 4 KiB.
fn line<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    const BYTES_MAX: usize = 4 << 10;
    let (mut line, mut letter) = (Vec::new(), [0]);
    while letter != *b"\n" && line.len() < BYTES_MAX {
        from.read_exact(&mut letter)?;
        line.push(letter[0]);
    }
    Ok(serde_json::from_slice(&line)?)
}
