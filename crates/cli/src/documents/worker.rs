//! A PDF drawn by another process: the other side of the pipe.
//!
//! In comes the length of the document in 8 bytes, the lowest first, and the document; then a [`Request`] for every page, a
//! line of JSON. Out goes a [`Reply`] to each of them, a line of JSON, and after that of a page its pixels,
//! `[height, width, 3]`. The end of the input is the end.

use phi3v::document::PdfError;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;

/// The word of the command line that makes a process one that draws. It is no command for people, and in no help.
pub const WORD: &str = "__draw-pages";

/// A page that is to be drawn.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its number, from 1.
    pub page: usize,
    /// Tiles that it is for.
    pub num_crops: usize,
}

/// What is told of a document or a page.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The document is open and has so many pages.
    Pages(usize),
    /// The page is drawn; its pixels follow.
    Page {
        /// Pixels in each row.
        width: usize,
        /// Rows of the page.
        height: usize,
        /// Whether something of it is missing.
        is_incomplete: bool,
    },
    /// Why there are none.
    Failed(PdfError),
}

/// Whether the command line `words` asks for a process that draws.
#[must_use]
pub fn is_asked_for(words: &[OsString]) -> bool {
    words.get(1).is_some_and(|word| word == WORD)
}

/// Draws what comes on stdin until it ends, and returns the number to exit with.
#[must_use]
pub fn main() -> u8 {
    end_with_parent();
    u8::from(on_a_deep_stack(|| serve(&mut io::stdin().lock(), &mut io::stdout().lock())).is_err())
}

/// Ends this process soon after the one that started it, also where that was killed while a page is never done.
fn end_with_parent() {
    #[cfg(unix)]
    {
        let parent = std::os::unix::process::parent_id();
        std::thread::spawn(move || {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            std::process::exit(1);
        });
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

#[cfg(feature = "pdf")]
fn serve(input: &mut impl io::BufRead, output: &mut impl io::Write) -> io::Result<()> {
    use io::Read;
    use phi3v::document::Pdf;

    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
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

#[cfg(feature = "pdf")]
fn reply(output: &mut impl io::Write, reply: &Reply, pixels: &[u8]) -> io::Result<()> {
    serde_json::to_writer(&mut *output, reply)?;
    output.write_all(b"\n")?;
    output.write_all(pixels)?;
    output.flush()
}

/// Without the feature nobody asks.
#[cfg(not(feature = "pdf"))]
fn serve(_: &mut impl io::BufRead, _: &mut impl io::Write) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
