//! `phi3v health`: checks that a server is alive, for containers and service managers that have no HTTP client.

use crate::args::HealthArgs;
use crate::error::CliError;
use crate::terminal::print;
use crate::trust::tls_config;
use std::time::Duration;
use ureq::http::Uri;
use ureq::tls::TlsConfig;

/// Requests `/health` from the server at `args.url`, which needs no key, and prints `healthy`.
///
/// # Errors
/// The server does not answer in time, or something else answers.
pub(super) fn run(args: &HealthArgs) -> Result<(), CliError> {
    // an address without a scheme is http, as in browsers
    let scheme = if args.url.contains("://") { "" } else { "http://" };
    let url = format!("{scheme}{}/health", args.url.trim_end_matches('/'));
    let config = ureq::config::Config::builder()
        .proxy(None) // the server is usually on this machine
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

/// Whether the address is https, in any letter case.
fn is_encrypted(url: &str) -> bool {
    url.parse().is_ok_and(|uri: Uri| uri.scheme_str() == Some("https"))
}
