//! `phi3v health`: whether a server lives, for containers and service managers that have no other program to ask
//! with.

use crate::args::HealthArgs;
use crate::error::CliError;
use crate::terminal::print;
use crate::trust::tls_config;
use std::time::Duration;
use ureq::http::Uri;
use ureq::tls::TlsConfig;

/// Asks the server at `args.url` for `/health`, which needs no key, and prints `healthy`.
///
/// # Errors
/// It does not answer within the time, or something else does.
pub(super) fn run(args: &HealthArgs) -> Result<(), CliError> {
    // a bare address is one of http, as browsers have it
    let scheme = if args.url.contains("://") { "" } else { "http://" };
    let url = format!("{scheme}{}/health", args.url.trim_end_matches('/'));
    let config = ureq::config::Config::builder()
        .proxy(None) // it is asked about this machine's own server
        .http_status_as_error(false)
        .tls_config(if is_encrypted(&url) { tls_config() } else { TlsConfig::default() })
        .timeout_global(Some(Duration::from_secs(args.timeout)))
        .build();
    let unhealthy = |reason| CliError::Unhealthy { url: url.clone(), reason };
    let answer = ureq::Agent::new_with_config(config).get(&url).call();
    let status = answer.map_err(|error| unhealthy(error.to_string()))?.status();
    if !status.is_success() {
        return Err(unhealthy(format!("it answered {}", status.as_u16())));
    }
    print("healthy\n").map_err(CliError::Output)
}

/// Whether the address is one of https, however its scheme is written.
fn is_encrypted(url: &str) -> bool {
    url.parse().is_ok_and(|uri: Uri| uri.scheme_str() == Some("https"))
}
