//! Errors as exceptions: the words of the command line, the few classes of `phi3v._errors`, and hints that name no flag.

use crate::hub::LOCAL_FILES_ONLY;
use phi3v::document::PdfError;
use phi3v::image::ImageError;
use phi3v_cli::documents::DocumentError;
use phi3v_cli::error::{CliError, ExitCode, Unfit};
use phi3v_cli::hub::{FileKind, HubError};
use phi3v_cli::paths::folder_of;
use phi3v_cli::sources::{NamedImageError, SourceError, Unallowed};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::io;

/// A class of `phi3v._errors`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class {
    Picture,
    Model,
    Room,
    Option,
    GivenUp,
    Other,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Picture => "PictureError",
            Self::Model => "ModelError",
            Self::Room => "RoomError",
            Self::Option => "OptionError",
            Self::GivenUp => "GivenUp",
            Self::Other => "Phi3VError",
        }
    }
}

/// The exception for an error of the command line's or the library's.
pub(crate) fn exception(py: Python<'_>, error: &CliError) -> PyErr {
    let class = match error.exit_code() {
        // the command line has no forms, and no number for them
        _ if is_about_a_form(error) => Class::Option,
        ExitCode::Interrupted => return PyKeyboardInterrupt::new_err(()),
        ExitCode::Picture => Class::Picture,
        ExitCode::Model => Class::Model,
        ExitCode::Memory => Class::Room,
        ExitCode::Usage => Class::Option,
        ExitCode::Failure | ExitCode::SomeFailed => Class::Other,
    };
    let raised = raise(py, class, &error.to_string(), hint(error).as_deref());
    if is_undecoded(error) {
        // where it cannot be noted, nobody else tries
        let _ = raised.value(py).setattr("_is_undecoded", true);
    }
    raised
}

/// Whether a picture's file is one that the decoders here make nothing of, and others might; and not one that is refused.
fn is_undecoded(error: &CliError) -> bool {
    // nothing here has looked at the file
    if let CliError::Picture(NamedImageError::Document {
        error: DocumentError::Start(_) | DocumentError::Replaced { .. },
        ..
    }) = error
    {
        return true;
    }
    let CliError::Picture(NamedImageError::Image { error, .. }) = error else { return false };
    matches!(
        error,
        ImageError::NotAnImage { .. }
            | ImageError::UnsupportedFormat { .. }
            | ImageError::UnsupportedKind { .. }
            | ImageError::Truncated { .. }
            | ImageError::Damaged { .. }
    )
}

fn is_about_a_form(error: &CliError) -> bool {
    matches!(error, CliError::Phi3V(error) if matches!(error.root(), phi3v::Error::Constraint(_)))
}

/// An exception of one of the classes.
pub(crate) fn raise(py: Python<'_>, class: Class, message: &str, hint: Option<&str>) -> PyErr {
    let made = || py.import("phi3v._errors")?.getattr(class.name())?.call1((message, hint));
    made().map_or_else(|error| error, PyErr::from_value)
}

/// What can be done about an error in Python, where the command line would name a flag.
fn hint(error: &CliError) -> Option<String> {
    match error {
        CliError::Phi3V(error) | CliError::Fixed(error) | CliError::Hub(HubError::Model(error)) => {
            error.hint()
        }
        CliError::Unfit(unfit) => unfit_hint(unfit),
        CliError::Picture(NamedImageError::Image { error, .. }) => error.hint(),
        CliError::Picture(
            NamedImageError::Url { .. }
            | NamedImageError::Fetch {
                error: SourceError::NotAllowed(Unallowed::Host | Unallowed::Http), ..
            },
        ) => Some("name its host in allow_hosts, as well as one that it redirects to".to_owned()),
        CliError::Picture(NamedImageError::Document { error: DocumentError::Start(_), .. }) => Some(
            "set sys.executable to an interpreter of Python before phi3v is imported, or draw and decode it elsewhere"
                .to_owned(),
        ),
        CliError::Picture(NamedImageError::Document {
            error:
                error @ (DocumentError::ManyPages { .. }
                | DocumentError::ChosenPages { .. }
                | DocumentError::Pdf(PdfError::NoPage { .. } | PdfError::Empty)
                | DocumentError::PictureTime { .. }
                | DocumentError::PictureMemory { .. }
                | DocumentError::Replaced { .. }),
            ..
        }) => error.hint(),
        CliError::Picture(NamedImageError::Document { .. }) => {
            Some("draw its pages to pictures first, with pypdfium2 for example".to_owned())
        }
        CliError::Picture(NamedImageError::Fetch { error: SourceError::DataUrl(_), .. }) => {
            Some("write it as data:image/png;base64,..., or give the bytes of the file".to_owned())
        }
        CliError::Picture(NamedImageError::Fetch { error: SourceError::TooLarge { .. }, .. }) => {
            Some("scale the picture down, or raise max_image_bytes if you trust where it comes from".to_owned())
        }
        CliError::Picture(NamedImageError::Fetch { .. }) => {
            Some("fetch it yourself, and give its bytes".to_owned())
        }
        CliError::Picture(NamedImageError::File { error, .. }) => file(error),
        CliError::Hub(HubError::NotCached { offline_by: LOCAL_FILES_ONLY, .. }) => {
            Some("leave local_files_only out, or give a folder with the checkpoint".to_owned())
        }
        CliError::Hub(HubError::NotAModel { path, kind: FileKind::Part }) => {
            Some(format!("give its folder, {}", folder_of(path).display()))
        }
        CliError::Hub(HubError::NotAModel { kind: FileKind::Picture(_), .. }) => {
            Some("load a model by its name, and give it the picture with a question".to_owned())
        }
        CliError::Disk { .. } => Some(
            "free some space, or name a folder on another disk in PHI3V_CACHE; q4 takes three fifths of q8"
                .to_owned(),
        ),
        CliError::Quantized { .. } => Some("give the original checkpoint, or leave quant out".to_owned()),
        other => other.hint(),
    }
}

/// What can be done about a model that does not fit: first what is known to fit.
fn unfit_hint(unfit: &Unfit) -> Option<String> {
    let q4 = unfit.q4_context.map(|context| format!("take quant=\"q4\", with which context={context} fits"));
    let elsewhere = unfit.on_processor.then(|| "run it on the processor with device=\"cpu\"".to_owned());
    let ways: Vec<String> = [q4, elsewhere].into_iter().chain([unfit.error.hint()]).flatten().collect();
    (!ways.is_empty()).then(|| ways.join(", or "))
}

/// What can be done about a picture's file that cannot be read.
fn file(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("check the path".to_owned()),
        io::ErrorKind::IsADirectory => {
            Some("give its pictures; Model.batch asks about many, each by itself".to_owned())
        }
        _ => None,
    }
}
