//! Where pictures may come from: data URLs always, other servers and a folder only where the server was told so.

mod address;
mod data_url;
mod folder;
mod remote;

pub use remote::{AllowedHost, Fetcher};

use super::error::ApiError;
use super::limits::Limits;
use super::room::{ReadError, Room};
use folder::Folder;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The sources that are allowed.
#[derive(Clone)]
pub struct Pictures {
    remote: Option<Arc<Fetcher>>,
    folder: Option<Arc<Folder>>,
}

impl Pictures {
    /// Only data URLs.
    pub fn data_urls_only() -> Self {
        Self { remote: None, folder: None }
    }

    /// Also what `fetcher` fetches.
    #[must_use]
    pub fn with_remote(mut self, fetcher: Fetcher) -> Self {
        self.remote = Some(Arc::new(fetcher));
        self
    }

    /// Also files below `dir`.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn with_folder(mut self, dir: &Path) -> std::io::Result<Self> {
        self.folder = Some(Arc::new(Folder::open(dir)?));
        Ok(self)
    }

    /// Whether the picture at `url` came with the request.
    pub fn is_in_request(url: &str) -> bool {
        scheme(url).as_deref() == Some("data")
    }

    /// Turns at reading the picture at `url`, where it lies elsewhere: each host has its own, so that a slow one holds
    /// up its own pictures only. None where it is refused anyway.
    pub fn turns(&self, url: &str) -> Option<Arc<Semaphore>> {
        match (scheme(url).as_deref(), &self.remote, &self.folder) {
            (Some("http" | "https"), Some(fetcher), _) => fetcher.turns(url.trim_start()),
            (Some("file"), _, Some(folder)) => Some(Arc::clone(&folder.turns)),
            _ => None,
        }
    }

    /// The bytes of the picture at `url`, for which `room` grows. Blocks, but no longer than until `deadline` for
    /// another server.
    ///
    /// # Errors
    /// The source is not allowed, or does not have a picture of acceptable size; a lack of room.
    pub fn read(
        &self,
        url: &str,
        limits: &Limits,
        room: &mut Room,
        deadline: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        let url = url.trim_start();
        match (scheme(url).as_deref(), &self.remote, &self.folder) {
            (Some("data"), ..) => {
                let bytes = data_url::decode(url, limits.image.bytes_max)?;
                room.grow(bytes.len())?;
                Ok(bytes)
            }
            (Some("http" | "https"), Some(fetcher), _) => fetcher.fetch(url, limits, room, deadline),
            (Some("http" | "https"), None, _) => Err(not_allowed("http addresses")
                .hint("send the picture as a data URL, or start the server with --allow-image-host")),
            (Some("file"), _, Some(folder)) => folder.read(url, limits.image.bytes_max, room),
            (Some("file"), _, None) => Err(not_allowed("files")
                .hint("send the picture as a data URL, or start the server with --allow-image-dir")),
            _ => Err(not_allowed("this kind of address")),
        }
    }
}

fn scheme(url: &str) -> Option<String> {
    url.trim_start().split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// A picture that was not there in time, its turn waited for.
pub(super) fn too_slow(limit: Duration) -> ApiError {
    let message = format!("the picture was not fetched within {} s, the limit", limit.as_secs());
    ApiError::bad_request("image_fetch_failed", message)
        .hint("try again later, or send the picture as a data URL")
}

fn not_allowed(what: &str) -> ApiError {
    ApiError::bad_request("image_source_not_allowed", format!("pictures from {what} are not allowed"))
        .hint("send the picture as a data URL")
}

/// Why a picture's bytes were not read, in the client's terms; `failed` where their source broke off.
fn unread(error: ReadError, bytes_max: usize, failed: impl FnOnce() -> ApiError) -> ApiError {
    match error {
        ReadError::TooMany => too_large(bytes_max),
        ReadError::Room(error) => error,
        ReadError::Source(_) => failed(),
    }
}

fn too_large(limit: usize) -> ApiError {
    use axum::http::StatusCode;
    let message = format!("the picture has more than {limit} bytes, the limit");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", message)
        .hint("scale the picture down or compress it more")
}
