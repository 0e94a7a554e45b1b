//! Pictures named by a user: files, `-` for stdin, or addresses on allowed hosts.

use super::budget::{Inputs, SourceLimits};
use super::data_url;
use super::error::NamedImageError;
use super::grab::Grab;
use super::hosts::{AllowedHost, Fetcher};
use super::image::NamedImage;
use crate::documents::{
    DocumentError, Drawer, FrameChoice, Kind, OpenFiles, Page, PageChoice, Pages, Reading,
};
use crate::note;
use crate::paths::{check_named, open_named};
use crate::terminal::printable;
use phi3v::files::read_to_limit;
use phi3v::image::{ImageLimits, ImageMode, ImageParams};
use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Maximum number of pages of a document that are read together if none were chosen.
pub const PAGES_UNASKED_MAX: usize = 16;

/// Maximum number of pictures that are prepared ahead of their use.
const READ_AHEAD_MAX: usize = 8;

/// The name of a data URL in messages, since the URL itself may be as long as a picture.
pub const DATA_URL: &str = "the data URL";

/// Time limit for fetching a picture, redirects included.
const FETCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How pictures are read and cut: mode, tiles, limits, and the hosts that may be contacted.
#[derive(Clone)]
pub struct ImageOptions {
    /// As people see them, or as the reference does.
    pub mode: ImageMode,
    /// Number of tiles, and normalisation of pixels.
    pub params: ImageParams,
    /// Limits on a picture.
    pub limits: ImageLimits,
    /// The chosen pages of documents.
    pub pages: Option<PageChoice>,
    /// The frames of videos; `None` refuses videos.
    pub frames: Option<FrameChoice>,
    /// Draws PDF files and decodes HEIC and AVIF.
    drawer: Drawer,
    /// Fetches pictures from allowed hosts.
    remote: Option<Arc<Fetcher>>,
}

impl ImageOptions {
    /// Creates options for files and stdin only, with these limits. No host is contacted.
    #[must_use]
    pub fn of_files(mode: ImageMode, params: ImageParams, limits: ImageLimits) -> Self {
        let drawer = Drawer::default();
        Self { mode, params, limits, pages: None, frames: None, drawer, remote: None }
    }

    /// Returns these options with fetching from `hosts`, if there are any.
    #[must_use]
    pub fn with_hosts(mut self, hosts: &[AllowedHost]) -> Self {
        self.remote = (!hosts.is_empty()).then(|| Arc::new(Fetcher::new(hosts.to_vec())));
        self
    }

    /// Returns these options with the chosen pages of documents.
    #[must_use]
    pub fn with_pages(self, pages: Option<PageChoice>) -> Self {
        Self { pages, ..self }
    }

    /// Returns these options with `drawer` for drawing PDF files.
    #[must_use]
    pub fn drawn_by(self, drawer: Drawer) -> Self {
        Self { drawer, ..self }
    }

    /// Returns these options with the chosen frames of videos.
    #[must_use]
    pub fn with_frames(self, frames: FrameChoice) -> Self {
        Self { frames: Some(frames), ..self }
    }

    /// The address in `name`, if addresses are fetched.
    #[must_use]
    pub fn fetched_url<'a>(&self, name: &'a OsStr) -> Option<&'a str> {
        http_url(name).filter(|_| self.remote.is_some())
    }

    /// Returns how files are converted to pictures. If no pages were chosen, a document may have up to
    /// `pages_unasked_max` pages.
    #[must_use]
    pub fn reading(&self, pages_unasked_max: usize) -> Reading {
        let Self { mode, params, limits, pages, frames, drawer, .. } = self.clone();
        Reading { mode, params, limits, pages, frames, pages_unasked_max, drawer }
    }
}

/// Refuses what can be refused before a model is opened or even downloaded. If any hosts are `allowed`, addresses are
/// accepted; the fetcher checks their hosts later.
///
/// # Errors
/// A file does not exist, an address is not fetched, or `-` occurs twice.
pub fn check_names(names: &[OsString], allowed: &[AllowedHost]) -> Result<(), NamedImageError> {
    if names.iter().filter(|name| *name == "-").count() > 1 {
        return Err(NamedImageError::StdinTwice);
    }
    let is_file =
        |name: &&OsString| *name != "-" && !is_fetched(name, allowed) && as_data_url(name).is_none();
    for name in names.iter().filter(is_file) {
        refuse_url(name)?;
        if let Err(error) = check_named(Path::new(name)) {
            return Err(NamedImageError::File { name: display_name(name), error });
        }
    }
    Ok(())
}

/// Refuses addresses that are not fetched, as [`check_names`] does, but does not check files.
///
/// # Errors
/// The first such address.
pub fn check_addresses(names: &[OsString], allowed: &[AllowedHost]) -> Result<(), NamedImageError> {
    names.iter().filter(|name| !is_fetched(name, allowed)).try_for_each(|name| refuse_url(name))
}

/// Whether the name is an address that the fetcher handles, if hosts are `allowed`.
fn is_fetched(name: &OsStr, allowed: &[AllowedHost]) -> bool {
    !allowed.is_empty() && http_url(name).is_some()
}

/// Reads and prepares the pictures `names` in order, and all pages of documents. Warns about incomplete pages.
///
/// # Errors
/// [`NamedImageError`], naming the first picture that cannot be read.
pub fn read_images(names: &[OsString], options: &ImageOptions) -> Result<Vec<NamedImage>, NamedImageError> {
    let mut pictures = Vec::with_capacity(names.len());
    for name in names {
        for picture in read_pages(name, options)? {
            let picture = picture?;
            picture.tell_incomplete();
            pictures.push(picture);
        }
    }
    Ok(pictures)
}

/// Takes the pictures `grabbed` from the clipboard or the screen, then reads and prepares the pictures `names` and all
/// pages of documents, in order. This happens on a separate thread, which works only a few pictures ahead. Nobody
/// waits for the thread to end, since it may hang on stdin or a network.
///
/// # Errors
/// [`phi3v::Error::Threads`] if the system cannot start a thread.
pub fn read_ahead(
    grabbed: Vec<Grab>,
    names: Vec<OsString>,
    options: ImageOptions,
) -> phi3v::Result<Receiver<Result<NamedImage, NamedImageError>>> {
    ahead(move |send| {
        grabbed.into_iter().try_for_each(|grab| send(read_grabbed(grab, &options)))?;
        names.iter().try_for_each(|name| match read_pages(name, &options) {
            Ok(mut pages) => pages.try_for_each(send),
            Err(error) => send(Err(error)),
        })
    })
}

/// Runs `work` on a separate thread and returns what it sends, up to the first error. If `work` panics, an error is
/// the last item.
fn ahead<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn(Result<T, NamedImageError>) -> Result<(), ()>) -> Result<(), ()> + Send + 'static,
) -> phi3v::Result<Receiver<Result<T, NamedImageError>>> {
    let (prepared, received) = mpsc::sync_channel(READ_AHEAD_MAX);
    let work = move || {
        let send = |result: Result<T, NamedImageError>| {
            let failed = result.is_err();
            // the receiver is gone and does not need the rest
            if prepared.send(result).is_err() || failed { Err(()) } else { Ok(()) }
        };
        // if `work` ended early, the error was sent or the receiver is gone
        if let Err(panicked) = caught(|| Ok(work(&send))) {
            let _ = send(Err(panicked));
        }
    };
    std::thread::Builder::new().spawn(work).map_err(phi3v::Error::Threads)?;
    Ok(received)
}

/// Runs `work` and turns a panic into an error, so that missing pictures are not mistaken for the end.
///
/// # Errors
/// That of `work`, or [`NamedImageError::Unprepared`].
pub fn caught<T>(work: impl FnOnce() -> Result<T, NamedImageError>) -> Result<T, NamedImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(NamedImageError::Unprepared))
}

/// Takes a picture from the clipboard or the screen, and prepares it.
///
/// # Errors
/// [`NamedImageError`] if there is no picture or it cannot be used.
pub fn read_grabbed(grab: Grab, options: &ImageOptions) -> Result<NamedImage, NamedImageError> {
    let bytes = grab.take(options.limits.bytes_max)?;
    let name = grab.to_string();
    only_page(&name, opened(&name, bytes, options, 1, &mut |line| note!("{line}"))?)
}

/// Reads the named file and prepares its picture, or the pages of a document one after the other.
///
/// # Errors
/// [`NamedImageError`] for a fault of the name or the file.
pub fn read_pages(
    source: &OsStr,
    options: &ImageOptions,
) -> Result<impl Iterator<Item = Result<NamedImage, NamedImageError>> + use<>, NamedImageError> {
    let bytes = read_named(source, options)?;
    pages_of(display_name(source), bytes, options, PAGES_UNASKED_MAX, &mut |line| note!("{line}"))
}

/// Returns notices about flags that have no effect on a file of this kind, which the user named `name`.
#[must_use]
pub fn useless_flags(name: &str, kind: Kind, options: &ImageOptions) -> Vec<String> {
    let frames = options.frames.filter(|choice| choice.is_asked_for && kind != Kind::Video);
    let frames = frames.map(|choice| if choice.fps.is_some() { "--fps" } else { "--frames" });
    // a picture counts as its own first page
    let is_beyond = |choice: &PageChoice| kind != Kind::Document && choice.of_document(1, 1).is_err();
    let pages = options.pages.as_ref().is_some_and(is_beyond).then_some("--pages");
    let what = match kind {
        Kind::Picture => "one picture",
        Kind::Document => "a document",
        Kind::Video => "a video",
    };
    let told = |flag| format!("{} is {what}, of which {flag} chooses nothing", printable(name));
    pages.into_iter().chain(frames).map(told).collect()
}

/// Reads and prepares one picture: of a document, its only page or the one that was chosen.
///
/// # Errors
/// [`NamedImageError`] for a fault of the name, the file or the picture, or if there are several pages.
pub fn read_image(source: &OsStr, options: &ImageOptions) -> Result<NamedImage, NamedImageError> {
    let name = display_name(source);
    only_page(&name, opened(&name, read_named(source, options)?, options, 1, &mut |_| ())?)
}

/// Reads and prepares page `page`, counted from 1, of the named file, or its only picture. If the file is among
/// `open`, it is taken from there. A file with pages is left there for the next page.
///
/// # Errors
/// [`NamedImageError`] for a fault of the name, the file or the page.
pub fn read_page(
    source: &OsStr,
    page: Option<usize>,
    options: &ImageOptions,
    open: &OpenFiles,
) -> Result<NamedImage, NamedImageError> {
    let name = display_name(source);
    let refused = |error| NamedImageError::of_document(&name, error);
    let mut reading = options.reading(1);
    reading.pages = page.map(PageChoice::of).or(reading.pages);
    let draw = |pages: Result<Pages, DocumentError>| {
        let mut pages = pages?;
        let drawn = only(&mut pages);
        if let Some(file) = pages.into_open() {
            open.keep(source, file);
        }
        drawn
    };
    let drawn = match open.take(source).map(|file| draw(reading.pages_of(file))) {
        // the process of the open file has ended, perhaps because of this page; a new process finds out
        None | Some(Err(DocumentError::Ended)) => draw(reading.open(read_named(source, options)?)),
        Some(drawn) => drawn,
    };
    drawn.map(|page| NamedImage::of_page(&name, page)).map_err(refused)
}

/// Reads the only chosen page.
fn only_page(name: &str, mut pages: Pages) -> Result<NamedImage, NamedImageError> {
    let page = only(&mut pages).map_err(|error| NamedImageError::of_document(name, error))?;
    Ok(NamedImage::of_page(name, page))
}

/// Reads the only page that is left of a file. Several pages would be answered as one picture, so they are an error.
fn only(pages: &mut Pages) -> Result<Page, DocumentError> {
    match pages.left() {
        0 | 1 => pages.next().unwrap_or(Err(DocumentError::Ended)),
        chosen => Err(DocumentError::ChosenPages { chosen }),
    }
}

/// Returns the pictures of a file that the user named `name`: one picture or the pages of a document. If no pages were
/// chosen, up to `pages_unasked_max` are allowed. [`useless_flags`] are passed to `tell`.
///
/// # Errors
/// [`NamedImageError`] for a fault of the file.
pub fn pages_of(
    name: String,
    bytes: Vec<u8>,
    options: &ImageOptions,
    pages_unasked_max: usize,
    tell: &mut dyn FnMut(String),
) -> Result<impl Iterator<Item = Result<NamedImage, NamedImageError>> + use<>, NamedImageError> {
    let pages = opened(&name, bytes, options, pages_unasked_max, tell)?;
    Ok(pages.map(move |page| match page {
        Ok(page) => Ok(NamedImage::of_page(&name, page)),
        Err(error) => Err(NamedImageError::of_document(&name, error)),
    }))
}

/// Opens a file and passes [`useless_flags`] to `tell`.
fn opened(
    name: &str,
    bytes: Vec<u8>,
    options: &ImageOptions,
    pages_unasked_max: usize,
    tell: &mut dyn FnMut(String),
) -> Result<Pages, NamedImageError> {
    let opened = options.reading(pages_unasked_max).open(bytes);
    let pages = opened.map_err(|error| NamedImageError::of_document(name, error))?;
    useless_flags(name, pages.kind(), options).into_iter().for_each(tell);
    Ok(pages)
}

/// Reads the bytes of the named file.
///
/// # Errors
/// [`NamedImageError`] for a fault of the name or the file.
pub fn read_named(source: &OsStr, options: &ImageOptions) -> Result<Vec<u8>, NamedImageError> {
    let ImageOptions { limits, remote, .. } = options;
    if let Some(url) = as_data_url(source) {
        return read_data_url(url, limits.bytes_max);
    }
    match (http_url(source), remote) {
        (Some(url), Some(remote)) => fetch(remote, url, limits.bytes_max),
        _ => {
            refuse_url(source)?;
            let read = read_bytes(source, limits.bytes_max);
            read.map_err(|error| NamedImageError::File { name: display_name(source), error })
        }
    }
}

/// Decodes the bytes in a data URL.
///
/// # Errors
/// [`NamedImageError::Fetch`] if the URL has no valid data, or more than `bytes_max` bytes.
pub fn read_data_url(url: &str, bytes_max: usize) -> Result<Vec<u8>, NamedImageError> {
    data_url::decode(url, bytes_max)
        .map_err(|error| NamedImageError::Fetch { url: DATA_URL.to_owned(), error })
}

/// Reads the bytes of a file or of stdin, cut shortly after `bytes_max`; the decoder reports the excess.
fn read_bytes(source: &OsStr, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    if source == "-" {
        return read_to_limit(std::io::stdin().lock(), bytes_max);
    }
    read_to_limit(open_named(Path::new(source))?, bytes_max)
}

fn display_name(source: &OsStr) -> String {
    match source {
        _ if source == "-" => "stdin".to_owned(),
        _ if as_data_url(source).is_some() => DATA_URL.to_owned(),
        _ => source.to_string_lossy().into_owned(),
    }
}

/// Fetches at most `bytes_max` bytes from `url`. Blocks.
fn fetch(fetcher: &Fetcher, url: &str, bytes_max: usize) -> Result<Vec<u8>, NamedImageError> {
    let limits = SourceLimits { bytes_max, remote_bytes_max: bytes_max, remote_time_max: FETCH_TIME_MAX };
    // a budget counts in units of 1 KiB
    let mut budget = Inputs::new(bytes_max.saturating_add(1 << 10)).budget();
    let fetched = fetcher.fetch(url, &limits, &mut budget, Instant::now() + FETCH_TIME_MAX);
    fetched.map_err(|error| NamedImageError::Fetch { url: url.to_owned(), error })
}

/// The address in `name`, if it has a scheme that can be fetched.
#[must_use]
pub fn http_url(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(text)
}

/// The name, if it is a data URL, which contains the picture itself. A question or a file name may also begin with
/// `data:`, but then no media type and comma follow.
#[must_use]
pub fn as_data_url(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let (scheme, rest) = text.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let (kind, _) = rest.split_once(',')?;
    let is_kind = kind.contains('/') || kind.to_ascii_lowercase().ends_with(";base64");
    (is_kind && !kind.contains(char::is_whitespace)).then_some(text)
}

/// Returns `name` if it is an address or a data URL, and not the name of a file.
#[must_use]
pub fn as_url(name: &OsStr) -> Option<&str> {
    http_url(name).or_else(|| as_data_url(name))
}

/// Refuses addresses of any kind.
fn refuse_url(name: &OsStr) -> Result<(), NamedImageError> {
    let url = display_name(name);
    match url.split_once("://") {
        Some((scheme, _))
            if ["http", "https", "ftp", "file", "data"].contains(&scheme.to_ascii_lowercase().as_str()) =>
        {
            Err(NamedImageError::Url { url })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_no_question_and_no_file() {
        for url in
            ["data:image/png;base64,AAEC", "DATA:;BASE64,", "data:image/png,%00", "data:;base64,AA\nEC"]
        {
            assert_eq!(as_data_url(OsStr::new(url)), Some(url));
            assert_eq!(display_name(OsStr::new(url)), "the data URL");
        }
        for other in
            ["data:red,green?", "data: a/b, or c?", "data:image/png", "data", "dat\u{e4}:a/b,", "a/b,", ""]
        {
            assert_eq!(as_data_url(OsStr::new(other)), None, "{other}");
            assert_eq!(display_name(OsStr::new(other)), other);
        }
    }

    #[test]
    fn a_thread_that_panics_ends_with_an_error() {
        let received = |received: Receiver<Result<i32, NamedImageError>>| {
            received.iter().map(|result| result.map_err(|error| error.to_string())).collect::<Vec<_>>()
        };
        let panicking = ahead(|send| {
            send(Ok(1))?;
            panic!("a bug")
        });
        assert_eq!(received(panicking.unwrap()), [Ok(1), Err(NamedImageError::Unprepared.to_string())]);
        let refused =
            ahead(|send| [Ok(1), Err(NamedImageError::StdinTwice), Ok(2)].into_iter().try_for_each(send));
        assert_eq!(received(refused.unwrap()), [Ok(1), Err(NamedImageError::StdinTwice.to_string())]);
    }
}
