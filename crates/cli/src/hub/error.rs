//! Errors between a model's name and its folder.

use super::FileKind;
use super::proxy::Proxy;
use crate::disk;
use phi3v::files::is_full;
use phi3v::memory::size;
use std::path::{Path, PathBuf};

/// Why a model could not be found or downloaded, with the user's input and the hub's message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Nobody waits for the model any more.
    #[error("the download was given up")]
    GivenUp,
    /// A name that is neither a folder nor a repository.
    #[error("there is no model or folder {model:?}")]
    UnknownModel {
        /// As the user gave it.
        model: String,
    },
    /// A file that is not a model.
    #[error("{} is {}, {}", path.display(), kind.words(), kind.verdict())]
    NotAModel {
        /// Path of the file.
        path: PathBuf,
        /// What the file is instead.
        kind: FileKind,
    },
    /// Offline, and the model is not in the cache.
    #[error("{model} is not in the cache, and {offline_by} forbids to download it")]
    NotCached {
        /// Name of the model, `owner/name`.
        model: String,
        /// The setting that forbids the download, as the user knows it.
        offline_by: &'static str,
    },
    /// The hub does not know the repository, or hides it.
    #[error("{endpoint} has no model {model}, or it is private", endpoint = shown(endpoint))]
    NotFound {
        /// Address of the hub.
        endpoint: String,
        /// Name of the model, `owner/name`.
        model: String,
    },
    /// The hub knows the repository and refuses access.
    #[error("{endpoint} does not let you download {model}{}", said(reason), endpoint = shown(endpoint))]
    Forbidden {
        /// Address of the hub.
        endpoint: String,
        /// Name of the model, `owner/name`.
        model: String,
        /// The hub's message, if any.
        reason: Option<String>,
        /// Whether the hub says that the model's terms must be accepted.
        gated: bool,
    },
    /// The token is not valid.
    #[error("{endpoint} refuses the access token", endpoint = shown(endpoint))]
    Token {
        /// Address of the hub.
        endpoint: String,
    },
    /// The token contains an invalid character.
    #[error("{origin} holds no access token: character {position} of it is {}", named(*letter))]
    NoToken {
        /// A variable's name, or a file's path.
        origin: String,
        /// Position of the character, from 1.
        position: usize,
        /// The invalid character.
        letter: char,
    },
    /// The token is too long.
    #[error("{origin} holds no access token: it is longer than {limit} characters")]
    TokenSize {
        /// A variable's name, or a file's path.
        origin: String,
        /// Most characters of a token.
        limit: usize,
    },
    /// The token's file exists but cannot be read.
    #[error("the access token in {path} cannot be read: {reason}")]
    TokenFile {
        /// Path of the file.
        path: String,
        /// The system's message, or ours if it is not a regular file.
        reason: String,
    },
    /// The hub's address is invalid.
    #[error("HF_ENDPOINT is {:?}, which is no http:// or https:// address", shown(endpoint))]
    NoEndpoint {
        /// The value of the variable.
        endpoint: String,
    },
    /// A proxy's address is invalid.
    #[error("{variable} is not the address of a proxy")]
    NoProxy {
        /// Name of the environment variable.
        variable: String,
    },
    /// The repository does not hold a checkpoint that phi3v can run.
    #[error("{model} is not a checkpoint that phi3v can run: it has no {file}")]
    NotACheckpoint {
        /// Name of the model, `owner/name`.
        model: String,
        /// The file that is missing.
        file: String,
    },
    /// A file other than weights is longer than any real one.
    #[error("{file} has {bytes} bytes on the hub, more than the {limit} allowed")]
    FileSize {
        /// Name of the file in the repository.
        file: String,
        /// Its length according to the hub.
        bytes: u64,
        /// Size limit of such a file.
        limit: u64,
    },
    /// The hub cannot be reached, or the connection keeps breaking.
    #[error("{url} cannot be reached{}: {reason}", through(proxy), url = shown(url))]
    Unreachable {
        /// Address that was asked.
        url: String,
        /// The proxy in use, if any.
        proxy: Option<Proxy>,
        /// What happened, in the system's words.
        reason: String,
    },
    /// The certificate of the hub, of a host of its files, or of an intermediary is not trusted.
    #[error("{url} shows a certificate that is not trusted here: {reason}", url = shown(url))]
    Certificate {
        /// Address that was asked.
        url: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// The proxy refuses to connect to the host.
    #[error(
        "the proxy {} of {} does not let {} through: it answered CONNECT with status {status}",
        shown(&proxy.address),
        proxy.variable,
        shown(url)
    )]
    ProxyRefused {
        /// The requested address.
        url: String,
        /// Address of the proxy, and the variable that names it.
        proxy: Proxy,
        /// The HTTP status of its answer.
        status: u16,
    },
    /// A response with an unexpected status.
    #[error("{url} answered with status {status}{}", said(reason), url = shown(url))]
    Status {
        /// Address that was asked.
        url: String,
        /// HTTP status of the answer.
        status: u16,
        /// The hub's message, if any.
        reason: Option<String>,
    },
    /// The hub's storage host refuses a request that the hub has granted.
    #[error(
        "{host} does not give {file}, which {endpoint} has described: it answered with status {status}",
        endpoint = shown(endpoint)
    )]
    Storage {
        /// Scheme, host and port of the storage host.
        host: String,
        /// Address of the hub.
        endpoint: String,
        /// Name of the file in the repository.
        file: String,
        /// HTTP status of the answer.
        status: u16,
    },
    /// A response that does not come from a hub.
    #[error("{url} does not answer like a hub: {reason}", url = shown(url))]
    Protocol {
        /// Address that was asked.
        url: String,
        /// What is wrong with the response.
        reason: String,
    },
    /// A file does not match the hub's checksum.
    #[error("{file} is damaged: its checksum is {found}, expected {expected}")]
    Checksum {
        /// Name of the file in the repository.
        file: String,
        /// Checksum of the received file.
        found: String,
        /// Checksum according to the hub.
        expected: String,
    },
    /// The disk is too small.
    #[error(
        "the download needs {} and {} that stay free, and {} has {} free",
        size(*needed),
        size(disk::RESERVE_BYTES),
        path.display(),
        size(*available)
    )]
    DiskSpace {
        /// Folder of the cache.
        path: PathBuf,
        /// Bytes that are still to be downloaded.
        needed: u64,
        /// Bytes that are free on the disk.
        available: u64,
    },
    /// The disk became full during the download.
    #[error("{} cannot be written: {}", path.display(), disk::shortage(*needed, *available))]
    DiskFull {
        /// Path of the file.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes that are free on the disk.
        available: u64,
    },
    /// The cache cannot be read or written.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A downloaded file that the library refuses.
    #[error(transparent)]
    Model(#[from] phi3v::Error),
}

impl HubError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::writing(path, 0, source)
    }

    /// The error for a failed write to `path`, with `needed` bytes still to be written.
    pub(super) fn writing(path: &Path, needed: u64, source: std::io::Error) -> Self {
        let path = path.to_owned();
        if !is_full(&source) {
            return Self::Io { path, source };
        }
        let available = disk::available(&path).unwrap_or(0);
        Self::DiskFull { path, needed, available }
    }

    /// Whether the network is at fault, so that a cached copy may be used instead.
    pub(super) fn is_unreachable(&self) -> bool {
        self.may_pass() || matches!(self, Self::Certificate { .. })
    }

    /// Whether the network is at fault and a retry may succeed.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Storage { .. } | Self::Status { status: 429 | 500..=599, .. }
        )
    }
}

/// The hub's message, to be appended to ours.
fn said(reason: &Option<String>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"))
}

/// The proxy, as part of a message.
fn through(proxy: &Option<Proxy>) -> String {
    proxy.as_ref().map_or_else(String::new, |Proxy { address, variable }| {
        format!(" through the proxy {} of {variable}", shown(address))
    })
}

/// Names a character that may be invisible.
fn named(letter: char) -> String {
    match letter {
        '\n' | '\r' => "a line break".to_owned(),
        ' ' => "a space".to_owned(),
        '"' | '\'' => "a quotation mark".to_owned(),
        other => format!("U+{:04X}", u32::from(other)),
    }
}

/// An address for messages, without credentials: user name, password, and the signature of a storage host.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    // a proxy's address may have no scheme
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |end| end + "://".len()));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_gives_access() {
        let storage = "https://user:secret@cdn.example:8443/bucket/x?X-Amz-Signature=deadbeef#y";
        assert_eq!(shown(storage), "https://cdn.example:8443/bucket/x");
        assert_eq!(shown("https://hub.example"), "https://hub.example");
        assert_eq!(shown("user:secret@proxy.example:8080"), "proxy.example:8080");
    }
}
