//! Pictures named on the command line: files, `-` for stdin, or addresses of hosts that were allowed.

mod fetch;

use crate::args::{PictureArgs, PictureLimitArgs};
use crate::error::CliError;
use crate::paths::{check_named, open_named};
use crate::server::images::AllowedHost;
use crate::terminal::{count, printable};
use fetch::{Remote, http_url, refuse_url};
use phi3v::image::{self, ImageInputs, ImageLimits, ImageMode, ImageParams};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

/// How pictures are read and cut.
#[derive(Clone, Debug)]
pub struct PictureOptions {
    /// As people see it, or as the reference does.
    pub mode: ImageMode,
    /// Tiles and normalisation.
    pub params: ImageParams,
    /// What a picture may cost.
    pub limits: ImageLimits,
    /// Where pictures may be fetched from.
    remote: Option<Remote>,
}

impl PictureOptions {
    /// What the flags ask for, of a checkpoint with these settings.
    #[must_use]
    pub fn new(args: &PictureArgs, own: &ImageParams) -> Self {
        let options = Self::of_files(args.mode(), Some(args.num_crops(own.num_crops)), &args.limits, own);
        let remote = (!args.allow_url.is_empty()).then(|| Remote::new(&args.allow_url));
        Self { remote, ..options }
    }

    /// For files and stdin alone; `num_crops` is the checkpoint's own where none is given.
    #[must_use]
    pub fn of_files(
        mode: ImageMode,
        num_crops: Option<usize>,
        limits: &PictureLimitArgs,
        own: &ImageParams,
    ) -> Self {
        let params = own.with_num_crops(num_crops.unwrap_or(own.num_crops));
        Self { mode, params, limits: limits.limits(), remote: None }
    }
}

/// A picture ready for the model.
#[derive(Clone, Debug)]
pub struct Picture {
    /// As the user named it.
    pub name: String,
    /// What the model sees.
    pub inputs: Arc<ImageInputs>,
}

/// What is told about a picture.
#[derive(Debug, Serialize)]
pub struct PictureReport {
    /// As the user named it.
    pub name: String,
    /// Pixels, as decoded.
    pub width: usize,
    /// Pixels, as decoded.
    pub height: usize,
    /// `[rows, columns]` of tiles.
    pub grid: [usize; 2],
    /// Tiles, the global view included.
    pub tiles: usize,
    /// Tiles that differ from each other; only these are computed.
    pub distinct_tiles: usize,
    /// Tokens of the prompt that stand for the picture.
    pub tokens: usize,
}

impl Picture {
    /// Its numbers.
    #[must_use]
    pub fn report(&self) -> PictureReport {
        let grid = self.inputs.grid;
        let (width, height) = self.inputs.original_size;
        PictureReport {
            name: self.name.clone(),
            width,
            height,
            grid: [grid.h_crop, grid.w_crop],
            tiles: 1 + grid.tiles(),
            distinct_tiles: self.inputs.distinct_tiles(),
            tokens: self.inputs.num_img_tokens(),
        }
    }
}

impl std::fmt::Display for PictureReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, width, height, grid: [rows, columns], tiles, distinct_tiles, tokens } = self;
        write!(
            f,
            "{}: {width}x{height} pixels, {} ({} of {columns}, and the whole; {distinct_tiles} computed), {}",
            printable(name),
            count(*tiles, "tile"),
            count(*rows, "row"),
            count(*tokens, "token"),
        )
    }
}

/// Refuses what can be refused before a model is opened, or even downloaded. Addresses are taken where hosts are
/// `allowed`; which ones, the fetcher will check.
///
/// # Errors
/// A file that is not there, something on the network, or `-` twice.
pub fn check_names(names: &[OsString], allowed: &[AllowedHost]) -> Result<(), CliError> {
    if names.iter().filter(|name| *name == "-").count() > 1 {
        return Err(CliError::StdinTwice);
    }
    let fetched = |name: &OsStr| !allowed.is_empty() && http_url(name).is_some();
    for name in names.iter().filter(|name| *name != "-" && !fetched(name)) {
        refuse_url(name)?;
        if let Err(error) = check_named(Path::new(name)) {
            return Err(CliError::PictureFile { name: display_name(name), error });
        }
    }
    Ok(())
}

/// Reads and prepares the pictures `names`, in order.
///
/// # Errors
/// [`CliError`], naming the first picture that cannot be read.
pub fn read_pictures(names: &[OsString], options: &PictureOptions) -> Result<Vec<Picture>, CliError> {
    names.iter().map(|name| read_picture(name, options)).collect()
}

/// Reads and prepares the pictures `names` on a thread of its own, in order. Nobody waits for its end: it may hang on
/// stdin or a network.
pub fn read_ahead(names: Vec<OsString>, options: PictureOptions) -> Receiver<Result<Picture, CliError>> {
    let (prepared, pictures) = mpsc::channel();
    std::thread::spawn(move || {
        for name in names {
            let picture = read_picture(&name, &options);
            let failed = picture.is_err();
            if prepared.send(picture).is_err() || failed {
                return; // nobody wants the rest
            }
        }
    });
    pictures
}

/// Reads and prepares one picture.
///
/// # Errors
/// [`CliError`]: what is wrong with the name, the file or the picture.
pub fn read_picture(source: &OsStr, options: &PictureOptions) -> Result<Picture, CliError> {
    let PictureOptions { mode, params, limits, remote } = options;
    let name = display_name(source);
    let bytes = match (http_url(source), remote) {
        (Some(url), Some(remote)) => remote.fetch(url, limits.bytes_max)?,
        _ => {
            refuse_url(source)?;
            let read = read_bytes(source, limits.bytes_max);
            read.map_err(|error| CliError::PictureFile { name: name.clone(), error })?
        }
    };
    match image::decode(&bytes, *mode, limits).and_then(|rgb| image::process(&rgb, params)) {
        Ok(inputs) => Ok(Picture { name, inputs: Arc::new(inputs) }),
        Err(error) => Err(CliError::Picture { name, error }),
    }
}

/// One byte more than the limit is read, so that the decoder can tell of the excess.
fn read_bytes(source: &OsStr, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    if source == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        open_named(Path::new(source))?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn display_name(source: &OsStr) -> String {
    if source == "-" { "stdin".to_owned() } else { source.to_string_lossy().into_owned() }
}
