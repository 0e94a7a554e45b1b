//! Pictures by address: data URLs always, other servers and a folder only if they were allowed.

use super::budget::{Budget, SourceLimits};
use super::data_url;
use super::error::{SourceError, Unallowed};
use super::folder::Folder;
use super::hosts::Fetcher;
use super::turns::Turns;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The addresses that pictures may be read from: data URLs always, hosts and a folder if they were allowed.
#[derive(Clone)]
pub struct Sources {
    remote: Option<Arc<Fetcher>>,
    folder: Option<Arc<Folder>>,
}

impl Sources {
    /// Creates sources that read data URLs only: nothing is fetched, and no file is opened.
    pub fn data_urls_only() -> Self {
        Self { remote: None, folder: None }
    }

    /// Returns these sources with the addition of pictures that `fetcher` fetches from its allowed hosts.
    #[must_use]
    pub fn with_remote(mut self, fetcher: Fetcher) -> Self {
        self.remote = Some(Arc::new(fetcher));
        self
    }

    /// Returns these sources with the addition of files below `dir`, by `file:` addresses.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn with_folder(mut self, dir: &Path) -> std::io::Result<Self> {
        self.folder = Some(Arc::new(Folder::open(dir)?));
        Ok(self)
    }

    /// Whether the request itself contains the picture at `url`.
    pub fn is_in_request(url: &str) -> bool {
        scheme(url).as_deref() == Some("data")
    }

    /// Returns the turns for reading the picture at `url`, or `None` if the request contains it or it is refused
    /// anyway. Each host has its own turns, so that a slow host delays only its own pictures.
    pub fn turns(&self, url: &str) -> Option<Turns> {
        match (scheme(url).as_deref(), &self.remote, &self.folder) {
            (Some("http" | "https"), Some(fetcher), _) => fetcher.turns(url.trim_start()),
            (Some("file"), _, Some(folder)) => Some(folder.turns.clone()),
            _ => None,
        }
    }

    /// Reads the bytes of the picture at `url` and charges them to `budget`. Blocks; for another server, until
    /// `deadline` at most.
    ///
    /// # Errors
    /// The source is not allowed, has no picture of acceptable size, or the budget is used up.
    pub fn read(
        &self,
        url: &str,
        limits: &SourceLimits,
        budget: &mut Budget,
        deadline: Instant,
    ) -> Result<Vec<u8>, SourceError> {
        let url = url.trim_start();
        match (scheme(url).as_deref(), &self.remote, &self.folder) {
            (Some("data"), ..) => {
                let bytes = data_url::decode(url, limits.bytes_max)?;
                budget.charge(bytes.len())?;
                Ok(bytes)
            }
            (Some("http" | "https"), Some(fetcher), _) => fetcher.fetch(url, limits, budget, deadline),
            (Some("http" | "https"), None, _) => Err(SourceError::NotAllowed(Unallowed::Http)),
            (Some("file"), _, Some(folder)) => folder.read(url, limits.bytes_max, budget),
            (Some("file"), _, None) => Err(SourceError::NotAllowed(Unallowed::Files)),
            _ => Err(SourceError::NotAllowed(Unallowed::Scheme)),
        }
    }
}

fn scheme(url: &str) -> Option<String> {
    url.trim_start().split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase())
}
