//! Why a picture could not be read or fetched. The words tell nothing of what lies at an address or in a folder: a stranger may read
//! them.

use super::grab::GrabError;
use crate::documents::DocumentError;
use crate::paths::system_words;
use phi3v::error::count;
use phi3v::image::ImageError;
use std::io;
use std::time::Duration;

/// Why the bytes of a picture were not had from its address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The data URL holds no bytes that can be read.
    #[error("the data URL {0}")]
    DataUrl(DataUrlFault),
    /// Pictures do not come from there.
    #[error("pictures from {0} are not allowed")]
    NotAllowed(Unallowed),
    /// The folder has no such file, or one that may not be read; the client is not told which.
    #[error("there is no picture that may be read at this address")]
    NoFile,
    /// The picture's file is too long.
    #[error("the picture has more than {}, the limit", count(*.limit, "byte"))]
    TooLarge {
        /// Bytes that it may have.
        limit: usize,
    },
    /// Another server did not give it.
    #[error(transparent)]
    Fetch(#[from] FetchFault),
    /// There is no memory for it.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

/// What is wrong with a data URL: it has no comma, or its data are not valid base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataUrlFault {
    /// Nothing parts the data from what is said about them.
    #[error("has no comma")]
    NoComma,
    /// Its data are text and not base64.
    #[error("is not in base64")]
    NotBase64,
    /// It announces base64, and its data are not.
    #[error("is not valid base64")]
    InvalidBase64,
}

/// A kind of address that pictures are not taken from, be it by default or in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unallowed {
    /// Any other server: no host was allowed.
    #[error("http addresses")]
    Http,
    /// Files: no folder was allowed.
    #[error("files")]
    Files,
    /// A scheme that is not known here.
    #[error("this kind of address")]
    Scheme,
    /// A host that was not allowed by name.
    #[error("this host")]
    Host,
    /// An address that somebody would log in with.
    #[error("addresses with a user name")]
    UserName,
    /// A host with an address that is not of the public internet.
    #[error("hosts outside the public internet")]
    PrivateHost,
}

/// Why another server did not give a picture, told without its own words: they may be of an internal network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// The address cannot be parsed.
    #[error("the address of the picture is not valid")]
    Address,
    /// The host's name has no address.
    #[error("the picture's server was not found")]
    NotFound,
    /// Too many look-ups of the host are under way.
    #[error("the name is being looked up too often")]
    LookUps,
    /// The look-up was not done in time.
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
    /// The server redirected without saying where to, or to what is no address.
    #[error("the picture's server redirected badly")]
    Redirect,
    /// The server redirected without end.
    #[error("the picture's server redirected more than {limit} times, the limit")]
    Redirects {
        /// Redirects that are followed.
        limit: usize,
    },
    /// The picture was not there in time, the wait for a turn included.
    #[error("the picture was not fetched within {} s, the limit", .limit.as_secs())]
    Time {
        /// The time that it had.
        limit: Duration,
    },
}

/// Why there is no memory for an input: it is too large by itself, or others have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// It would not fit even if there were no other.
    #[error("the body and the pictures of the request take {bytes} bytes or more, the limit is {limit}")]
    TooLarge {
        /// Bytes needed, as far as is known.
        bytes: usize,
        /// Bytes for all inputs together.
        limit: usize,
    },
    /// Other inputs take it.
    #[error("the bodies and pictures of other requests fill the memory set aside for them")]
    Full,
}

/// Why a picture that the user named cannot be used, with the name as it was given.
#[derive(Debug, thiserror::Error)]
pub enum NamedImageError {
    /// What was named is no picture, or one that is refused.
    #[error("{name}: {error}")]
    Image {
        /// As the user named it.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// What was named is a document that cannot be drawn.
    #[error("{name}: {error}")]
    Document {
        /// As the user named it.
        name: String,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// A file that cannot be read at all.
    #[error("cannot read {name}: {}", system_words(.error))]
    File {
        /// As the user named it.
        name: String,
        /// Why the system refuses it.
        error: io::Error,
    },
    /// An address that nothing is fetched from.
    #[error(
        "{url} is not fetched: pictures come from files and stdin, and from hosts that were allowed by name"
    )]
    Url {
        /// As the user gave it.
        url: String,
    },
    /// An address that another server did not give a picture for, or that may not be asked for.
    #[error("{url} is not fetched: {error}")]
    Fetch {
        /// As the user gave it.
        url: String,
        /// Why there is nothing.
        error: SourceError,
    },
    /// Nothing was had from the clipboard or the screen.
    #[error(transparent)]
    Grab(#[from] GrabError),
    /// A bug: a thread that prepares pictures has panicked.
    #[error("a picture could not be prepared, for a fault of phi3v's own")]
    Unprepared,
    /// `-` was given for two pictures.
    #[error("stdin can be one picture only, and - was given twice")]
    StdinTwice,
}

impl NamedImageError {
    /// The error of a document that the user called `name`.
    pub(super) fn of_document(name: &str, error: DocumentError) -> Self {
        let name = name.to_owned();
        match error {
            DocumentError::Image(error) => Self::Image { name, error },
            error => Self::Document { name, error },
        }
    }
}
