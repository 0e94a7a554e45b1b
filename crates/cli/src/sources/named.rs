//! Pictures named by a user: files, `-` for stdin, or addresses of hosts that were allowed.

use super::budget::{Inputs, SourceLimits};
use super::error::NamedImageError;
use super::hosts::{AllowedHost, Fetcher};
use super::image::NamedImage;
use crate::paths::{check_named, open_named};
use phi3v::files::read_to_limit;
use phi3v::image::{self, ImageLimits, ImageMode, ImageParams};
use std::ffi::{OsStr, OsString};

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

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
    /// Where pictures may be fetched from.
    remote: Option<Arc<Fetcher>>,
}

impl ImageOptions {
    /// Options for files and stdin alone, under these limits: no host is asked.
    #[must_use]
    pub fn of_files(mode: ImageMode, params: ImageParams, limits: ImageLimits) -> Self {
        Self { mode, params, limits, remote: None }
    }

    /// The same options, and also addresses of `hosts` are fetched, if there are any.
    #[must_use]
    pub fn with_hosts(mut self, hosts: &[AllowedHost]) -> Self {
        self.remote = (!hosts.is_empty()).then(|| Arc::new(Fetcher::new(hosts.to_vec())));
        self
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
    let fetched = |name: &OsStr| !allowed.is_empty() && http_url(name).is_some();
    for name in names.iter().filter(|name| *name != "-" && !fetched(name)) {
        refuse_url(name)?;
        if let Err(error) = check_named(Path::new(name)) {
            return Err(NamedImageError::File { name: display_name(name), error });
        }
    }
    Ok(())
}

/// Reads and prepares the pictures `names`, in order.
///
/// # Errors
/// [`NamedImageError`], naming the first picture that cannot be read.
pub fn read_images(names: &[OsString], options: &ImageOptions) -> Result<Vec<NamedImage>, NamedImageError> {
    names.iter().map(|name| read_image(name, options)).collect()
}

/// Reads and prepares the pictures `names` on a thread of its own, in order. Nobody waits for its end: it may hang on
/// stdin or a network.
pub fn read_ahead(
    names: Vec<OsString>,
    options: ImageOptions,
) -> Receiver<Result<NamedImage, NamedImageError>> {
    let (prepared, images) = mpsc::channel();
    std::thread::spawn(move || {
        for name in names {
            let image = read_image(&name, &options);
            let failed = image.is_err();
            if prepared.send(image).is_err() || failed {
                return; // nobody wants the rest
            }
        }
    });
    images
}

/// Reads and prepares one picture.
///
/// # Errors
/// [`NamedImageError`]: what is wrong with the name, the file or the picture.
pub fn read_image(source: &OsStr, options: &ImageOptions) -> Result<NamedImage, NamedImageError> {
    let ImageOptions { mode, params, limits, remote } = options;
    let name = display_name(source);
    let bytes = match (http_url(source), remote) {
        (Some(url), Some(remote)) => fetch(remote, url, limits.bytes_max)?,
        _ => {
            refuse_url(source)?;
            let read = read_bytes(source, limits.bytes_max);
            read.map_err(|error| NamedImageError::File { name: name.clone(), error })?
        }
    };
    match image::decode(&bytes, *mode, limits).and_then(|rgb| image::process(&rgb, params)) {
        Ok(inputs) => Ok(NamedImage { name, inputs: Arc::new(inputs) }),
        Err(error) => Err(NamedImageError::Image { name, error }),
    }
}

/// The bytes of a file or of stdin, of which the decoder tells when they are too many.
fn read_bytes(source: &OsStr, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    if source == "-" {
        return read_to_limit(std::io::stdin().lock(), bytes_max);
    }
    read_to_limit(open_named(Path::new(source))?, bytes_max)
}

fn display_name(source: &OsStr) -> String {
    if source == "-" { "stdin".to_owned() } else { source.to_string_lossy().into_owned() }
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
