//! Why a picture could not be read or fetched. The messages reveal nothing about what is at an address or in a folder,
//! since strangers may read them.

use super::grab::GrabError;
use crate::documents::DocumentError;
use crate::paths::system_words;
use phi3v::error::count;
use phi3v::image::ImageError;
use std::io;
use std::time::Duration;

/// Why the bytes of a picture could not be read from its address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The data URL does not contain readable data.
    #[error("the data URL {0}")]
    DataUrl(DataUrlFault),
    /// Pictures from this source are not allowed.
    #[error("pictures from {0} are not allowed")]
    NotAllowed(Unallowed),
    /// The folder has no such file, or the file may not be read; the client does not learn which.
    #[error("there is no picture that may be read at this address")]
    NoFile,
    /// The picture's file is too long.
    #[error("the picture has more than {}, the limit", count(*.limit, "byte"))]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Another server did not return the picture.
    #[error(transparent)]
    Fetch(#[from] FetchFault),
    /// There is no memory for the picture.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

/// What is wrong with a data URL: it has no comma, or its data are not valid base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataUrlFault {
    /// No comma separates the data from their description.
    #[error("has no comma")]
    NoComma,
    /// The data are plain text instead of base64.
    #[error("is not in base64")]
    NotBase64,
    /// The URL announces base64, but the data are not valid base64.
    #[error("is not valid base64")]
    InvalidBase64,
}

/// A kind of address that pictures are not read from, by default or in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unallowed {
    /// An address on another server, when no host was allowed.
    #[error("http addresses")]
    Http,
    /// A file, when no folder was allowed.
    #[error("files")]
    Files,
    /// An unknown scheme.
    #[error("this kind of address")]
    Scheme,
    /// A host that was not allowed by name.
    #[error("this host")]
    Host,
    /// An address that contains login data.
    #[error("addresses with a user name")]
    UserName,
    /// A host with an address outside the public internet.
    #[error("hosts outside the public internet")]
    PrivateHost,
}

/// Why another server did not return a picture. The server's own messages are left out, since they may come from an
/// internal network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// The address cannot be parsed.
    #[error("the address of the picture is not valid")]
    Address,
    /// The host's name has no address.
    #[error("the picture's server was not found")]
    NotFound,
    /// Too many look-ups of the host are in progress.
    #[error("the name is being looked up too often")]
    LookUps,
    /// The look-up exceeded its time limit.
    #[error("looking up the picture's server took too long")]
    LookUpTime,
    /// The connection failed or broke.
    #[error("the picture could not be fetched")]
    Connection,
    /// The server's certificate is not trusted.
    #[error("the picture's server shows a certificate that is not trusted here")]
    Certificate,
    /// The server answered with a failure.
    #[error("the picture's server did not give it")]
    Status,
    /// The server redirected without a target, or to an invalid address.
    #[error("the picture's server redirected badly")]
    Redirect,
    /// The server redirected too often.
    #[error("the picture's server redirected more than {limit} times, the limit")]
    Redirects {
        /// Maximum number of redirects that are followed.
        limit: usize,
    },
    /// The picture did not arrive in time, including the wait for a turn.
    #[error("the picture was not fetched within {} s, the limit", .limit.as_secs())]
    Time {
        /// The time limit.
        limit: Duration,
    },
}

/// Why there is no memory for an input: it is too large by itself, or other inputs take the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// The input would not fit even if it were the only one.
    #[error("the body and the pictures of the request take {bytes} bytes or more, the limit is {limit}")]
    TooLarge {
        /// Bytes needed, as far as known.
        bytes: usize,
        /// Limit for all inputs together, in bytes.
        limit: usize,
    },
    /// Other inputs take the memory.
    #[error("the bodies and pictures of other requests fill the memory set aside for them")]
    Full,
}

/// Why a picture that the user named cannot be used, with the name as given.
#[derive(Debug, thiserror::Error)]
pub enum NamedImageError {
    /// The named file is not a picture, or the picture is refused.
    #[error("{name}: {error}")]
    Image {
        /// As the user named it.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// The named file is a document that cannot be drawn.
    #[error("{name}: {error}")]
    Document {
        /// As the user named it.
        name: String,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// The file cannot be read at all.
    #[error("cannot read {name}: {}", system_words(.error))]
    File {
        /// As the user named it.
        name: String,
        /// The system's error.
        error: io::Error,
    },
    /// Addresses are not fetched.
    #[error(
        "{url} is not fetched: pictures come from files and stdin, and from hosts that were allowed by name"
    )]
    Url {
        /// As the user gave it.
        url: String,
    },
    /// Another server did not return a picture for the address, or the address must not be requested.
    #[error("{url} is not fetched: {error}")]
    Fetch {
        /// As the user gave it.
        url: String,
        /// Why there is no picture.
        error: SourceError,
    },
    /// No picture could be taken from the clipboard or the screen.
    #[error(transparent)]
    Grab(#[from] GrabError),
    /// A bug: a thread that prepares pictures panicked.
    #[error("a picture could not be prepared, for a fault of phi3v's own")]
    Unprepared,
    /// `-` was given for two pictures.
    #[error("stdin can be one picture only, and - was given twice")]
    StdinTwice,
}

impl NamedImageError {
    /// Returns the error of a document that the user named `name`.
    pub(super) fn of_document(name: &str, error: DocumentError) -> Self {
        let name = name.to_owned();
        match error {
            DocumentError::Image(error) => Self::Image { name, error },
            error => Self::Document { name, error },
        }
    }
}
