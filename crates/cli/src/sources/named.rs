//! Pictures named by a user: files, `-` for stdin, or addresses of hosts that were allowed.

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

/// Pages of a document that are looked at together where nobody chose.
pub const PAGES_UNASKED_MAX: usize = 16;

/// Pictures that are prepared before anybody takes them.
const READ_AHEAD_MAX: usize = 8;

/// What a data URL is called: as it was given it may be as long as a picture.
pub const DATA_URL: &str = "the data URL";

/// Time for a picture that is fetched, redirects included.
const FETCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How pictures are read and cut: mode, tiles, limits, and the hosts that may be asked.
#[derive(Clone)]
pub struct ImageOptions {
    /// As people see it, or as the reference does.
    pub mode: ImageMode,
    /// How many tiles, and how pixels are normalised.
    pub params: ImageParams,
    /// What a picture may cost.
    pub limits: ImageLimits,
    /// Which pages of documents.
    pub pages: Option<PageChoice>,
    /// Which frames of videos; none where videos are refused.
    pub frames: Option<FrameChoice>,
    /// What draws PDF files.
    drawer: Drawer,
    /// Where pictures may be fetched from.
    remote: Option<Arc<Fetcher>>,
}

impl ImageOptions {
    /// Options for files and stdin alone, under these limits: no host is asked.
    #[must_use]
    pub fn of_files(mode: ImageMode, params: ImageParams, limits: ImageLimits) -> Self {
        let drawer = Drawer::default();
        Self { mode, params, limits, pages: None, frames: None, drawer, remote: None }
    }

    /// The same options, and also addresses of `hosts` are fetched, if there are any.
    #[must_use]
    pub fn with_hosts(mut self, hosts: &[AllowedHost]) -> Self {
        self.remote = (!hosts.is_empty()).then(|| Arc::new(Fetcher::new(hosts.to_vec())));
        self
    }

    /// The same options, and of documents these pages.
    #[must_use]
    pub fn with_pages(self, pages: Option<PageChoice>) -> Self {
        Self { pages, ..self }
    }

    /// The same options, and PDF files are drawn by `drawer`.
    #[must_use]
    pub fn drawn_by(self, drawer: Drawer) -> Self {
        Self { drawer, ..self }
    }

    /// The same options, and of videos these frames.
    #[must_use]
    pub fn with_frames(self, frames: FrameChoice) -> Self {
        Self { frames: Some(frames), ..self }
    }

    /// The address in `name`, if addresses are fetched.
    #[must_use]
    pub fn fetched_url<'a>(&self, name: &'a OsStr) -> Option<&'a str> {
        http_url(name).filter(|_| self.remote.is_some())
    }

    /// How a file becomes pictures, of which there may be `pages_unasked_max` where no pages were chosen.
    #[must_use]
    pub fn reading(&self, pages_unasked_max: usize) -> Reading {
        let Self { mode, params, limits, pages, frames, drawer, .. } = self.clone();
        Reading { mode, params, limits, pages, frames, pages_unasked_max, drawer }
    }
}

/// Refuses what can be refused before a model is opened, or even downloaded. Addresses are taken where hosts are
/// `allowed`; which ones, the fetcher will check.
///
/// # Errors
/// A file that is not there, something on the network, or `-` twice.
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

/// Refuses addresses of which none will be fetched, as [`check_names`] does, and no file.
///
/// # Errors
/// The first of them.
pub fn check_addresses(names: &[OsString], allowed: &[AllowedHost]) -> Result<(), NamedImageError> {
    names.iter().filter(|name| !is_fetched(name, allowed)).try_for_each(|name| refuse_url(name))
}

/// Whether the name is an address that the fetcher is asked for, where hosts are `allowed`.
fn is_fetched(name: &OsStr, allowed: &[AllowedHost]) -> bool {
    !allowed.is_empty() && http_url(name).is_some()
}

/// Reads and prepares the pictures `names`, in order, of documents their pages; tells of pages that lack something.
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

/// Takes the pictures `grabbed` from the clipboard or the screen, and reads and prepares them and then the pictures `names`
/// on a thread of its own, in order, of documents their pages, and no further ahead than a few. Nobody waits for its end: it may
/// hang on stdin or a network.
///
/// # Errors
/// [`phi3v::Error::Threads`]: the system gives no thread.
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

/// What `work` sends on a thread of its own, to its first error. Where it panics, that is the last.
fn ahead<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn(Result<T, NamedImageError>) -> Result<(), ()>) -> Result<(), ()> + Send + 'static,
) -> phi3v::Result<Receiver<Result<T, NamedImageError>>> {
    let (prepared, received) = mpsc::sync_channel(READ_AHEAD_MAX);
    let work = move || {
        let send = |result: Result<T, NamedImageError>| {
            let failed = result.is_err();
            // nobody wants the rest
            if prepared.send(result).is_err() || failed { Err(()) } else { Ok(()) }
        };
        // where work ends early the error was sent, or nobody wants it
        if let Err(panicked) = caught(|| Ok(work(&send))) {
            let _ = send(Err(panicked));
        }
    };
    std::thread::Builder::new().spawn(work).map_err(phi3v::Error::Threads)?;
    Ok(received)
}

/// What `work` gives; an error where it panics, so that what is missing does not pass for the end.
///
/// # Errors
/// That of `work`, or [`NamedImageError::Unprepared`].
pub fn caught<T>(work: impl FnOnce() -> Result<T, NamedImageError>) -> Result<T, NamedImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(NamedImageError::Unprepared))
}

/// Takes a picture from the clipboard or the screen, and prepares it.
///
/// # Errors
/// [`NamedImageError`]: there is none, or it cannot be used.
pub fn read_grabbed(grab: Grab, options: &ImageOptions) -> Result<NamedImage, NamedImageError> {
    let bytes = grab.take(options.limits.bytes_max)?;
    let name = grab.to_string();
    only_page(&name, opened(&name, bytes, options, 1, &mut |line| note!("{line}"))?)
}

/// Reads what was named and prepares its picture, or the pages of a document, one after the other.
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the name or the file.
pub fn read_pages(
    source: &OsStr,
    options: &ImageOptions,
) -> Result<impl Iterator<Item = Result<NamedImage, NamedImageError>> + use<>, NamedImageError> {
    let bytes = read_named(source, options)?;
    pages_of(display_name(source), bytes, options, PAGES_UNASKED_MAX, &mut |line| note!("{line}"))
}

/// What is told of a file of this kind that the user calls `name`: flags that were given and choose nothing of it.
#[must_use]
pub fn useless_flags(name: &str, kind: Kind, options: &ImageOptions) -> Vec<String> {
    let frames = options.frames.filter(|choice| choice.is_asked_for && kind != Kind::Video);
    let frames = frames.map(|choice| if choice.fps.is_some() { "--fps" } else { "--frames" });
    // a picture is its own first page
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

/// Reads and prepares one picture: of a document its only page, or the one that was chosen.
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the name, the file or the picture; there are several.
pub fn read_image(source: &OsStr, options: &ImageOptions) -> Result<NamedImage, NamedImageError> {
    let name = display_name(source);
    only_page(&name, opened(&name, read_named(source, options)?, options, 1, &mut |_| ())?)
}

/// Reads and prepares page `page`, from 1, of what was named, or its one picture. A file with pages is taken from those that are
/// `open`, and left among them for the next page.
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the name, the file or the page.
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
        // what it was opened by has ended meanwhile, or it was the page; another process tells
        None | Some(Err(DocumentError::Ended)) => draw(reading.open(read_named(source, options)?)),
        Some(drawn) => drawn,
    };
    drawn.map(|page| NamedImage::of_page(&name, page)).map_err(refused)
}

/// The only page that was chosen.
fn only_page(name: &str, mut pages: Pages) -> Result<NamedImage, NamedImageError> {
    let page = only(&mut pages).map_err(|error| NamedImageError::of_document(name, error))?;
    Ok(NamedImage::of_page(name, page))
}

/// The one page that is left of a file: several would be answered as one.
fn only(pages: &mut Pages) -> Result<Page, DocumentError> {
    match pages.left() {
        0 | 1 => pages.next().unwrap_or(Err(DocumentError::Ended)),
        chosen => Err(DocumentError::ChosenPages { chosen }),
    }
}

/// The pictures of a file that the user calls `name`: one, or the pages of a document, of which there may be
/// `pages_unasked_max` where nobody chose. `tell` hears of [`useless_flags`].
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the file.
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

/// A file, of which `tell` hears [`useless_flags`].
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

/// The bytes of what was named.
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the name or the file.
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

/// The bytes that a data URL holds.
///
/// # Errors
/// [`NamedImageError::Fetch`]: it holds none, or more than `bytes_max`.
pub fn read_data_url(url: &str, bytes_max: usize) -> Result<Vec<u8>, NamedImageError> {
    data_url::decode(url, bytes_max)
        .map_err(|error| NamedImageError::Fetch { url: DATA_URL.to_owned(), error })
}

/// The bytes of a file or of stdin, of which the decoder tells when they are too many.
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

/// The bytes at `url`, at most `bytes_max`. Blocks.
fn fetch(fetcher: &Fetcher, url: &str, bytes_max: usize) -> Result<Vec<u8>, NamedImageError> {
    let limits = SourceLimits { bytes_max, remote_bytes_max: bytes_max, remote_time_max: FETCH_TIME_MAX };
    // a budget counts in units of 1 KiB
    let mut budget = Inputs::new(bytes_max.saturating_add(1 << 10)).budget();
    let fetched = fetcher.fetch(url, &limits, &mut budget, Instant::now() + FETCH_TIME_MAX);
    fetched.map_err(|error| NamedImageError::Fetch { url: url.to_owned(), error })
}

/// The address in `name`, if it is one that can be fetched at all.
#[must_use]
pub fn http_url(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(text)
}

/// The name, if it is a data URL, which holds the picture itself. A question or a file's name may begin like one; what follows
/// is no kind of contents then, or no comma.
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

/// Refuses what is an address of any kind and not a file.
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
