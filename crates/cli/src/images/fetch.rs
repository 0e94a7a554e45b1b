//! Pictures by their address, where the user has named the host: fetched as the server fetches, with the same checks
//! and bounds.

use super::display_name;
use crate::error::CliError;
use crate::server::error::ApiError;
use crate::server::images::{AllowedHost, Fetcher, Pictures};
use crate::server::limits::Limits;
use crate::server::room::Inputs;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// Time for a picture, redirects included.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Where pictures may be fetched from.
#[derive(Clone)]
pub(super) struct Remote(Pictures);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    /// From these hosts.
    pub(super) fn new(hosts: &[AllowedHost]) -> Self {
        Self(Pictures::data_urls_only().with_remote(Fetcher::new(hosts.to_vec())))
    }

    /// The bytes at `url`, at most `bytes_max`. Blocks.
    pub(super) fn fetch(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, CliError> {
        let limits = Limits { remote_bytes_max: bytes_max, remote_time_max: TIME_MAX, ..Limits::default() };
        // room is counted in units of 1 KiB
        let mut room = Inputs::new(bytes_max.saturating_add(1 << 10)).room();
        let fetched = self.0.read(url, &limits, &mut room, Instant::now() + TIME_MAX);
        fetched.map_err(|ApiError { code, message, .. }| CliError::Fetch {
            url: url.to_owned(),
            code,
            message,
        })
    }
}

/// The address in `name`, if it is one that can be fetched at all.
pub(super) fn http_url(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(text)
}

/// Refuses what is an address of any kind and not a file.
pub(super) fn refuse_url(name: &OsStr) -> Result<(), CliError> {
    let url = display_name(name);
    match url.split_once("://") {
        Some((scheme, _))
            if ["http", "https", "ftp", "file", "data"].contains(&scheme.to_ascii_lowercase().as_str()) =>
        {
            Err(CliError::Url { url })
        }
        _ => Ok(()),
    }
}
