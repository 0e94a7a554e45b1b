//! Access control: the Host header, the Origin header and the API key.
//!
//! - A page on the internet can let a name of its own point to this machine (DNS rebinding); its requests then carry
//!   that name. Addresses and `localhost` cannot be rebound; other names must be listed.
//! - A page of another site can send requests here without being able to read the answers; browsers then name that site
//!   as the origin.
//! - HTTP/1.0 allows requests without a Host header, as health checks of load balancers send; browsers send none such.

pub use super::keys::KeyFileError;

use super::connections::Connection;
use super::error::{ApiError, Code};
use super::hints;
use super::keys::{Claim, Keys};
use super::limits;
use crate::origin::Origin;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use phi3v::engine::CacheSalt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

/// Who may use the server: by which host names, from which pages, and with which keys.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// If empty, no key is needed.
    keys: Keys,
    /// Whether keys share the prompt caches.
    shared_cache: bool,
    /// Host names of this server.
    hosts: Vec<String>,
    /// Origins whose pages may send requests.
    origins: Vec<Origin>,
}

/// The sender of a request, with the salt that keeps its caches apart. An extension of every admitted request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Keeps the caches of one key apart from those of others; the same for all keys if the caches are shared.
    pub cache_salt: CacheSalt,
    /// Whether a valid key came with the request.
    has_key: bool,
}

impl Guard {
    /// Admits requests that address the server by an IP address, by `localhost`, or by one of `hosts`. Admits pages of
    /// `origins` and of the server itself.
    pub fn new(hosts: &[String], origins: &[Origin]) -> Self {
        let hosts = hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { hosts, origins: origins.to_vec(), ..Self::default() }
    }

    /// Requires one of the keys in a file, one key per line; lines that begin with # are comments.
    ///
    /// # Errors
    /// The file cannot be read, or has no usable keys.
    pub fn with_key_file(mut self, path: &Path) -> Result<Self, KeyFileError> {
        self.keys = Keys::read(path)?;
        Ok(self)
    }

    /// Lets all keys use the same caches. This is faster, but `cached_tokens` and the time to the first token then
    /// reveal to the holder of one key what holders of others have asked.
    #[must_use]
    pub fn with_shared_cache(self) -> Self {
        Self { shared_cache: true, ..self }
    }

    /// Returns whether a key is required, other than for `/health`.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    fn check(&self, request: &Parts) -> Result<Caller, ApiError> {
        let (uri, headers) = (&request.uri, &request.headers);
        let host = host(uri, headers);
        match &host {
            Some(host) if !self.knows_host(host) => {
                let message = "the server is not known by the name in the Host header";
                return Err(ApiError::new(Code::HostNotAllowed, message).hint(hints::access::HOST));
            }
            None if !may_lack_host(request) => {
                let message = match headers.get_all(header::HOST).iter().count() {
                    1 => "the Host header is no valid host",
                    _ => "the request has no Host header, or more than one",
                };
                return Err(ApiError::new(Code::HostMissing, message).hint(hints::access::ONE_HOST));
            }
            _ => {}
        }
        if !self.knows_origin(headers, host.as_deref()) {
            let message = "pages of this origin may not use the server";
            return Err(ApiError::new(Code::OriginNotAllowed, message).hint(hints::access::ORIGIN));
        }
        self.check_key(uri, headers)
    }

    fn check_key(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.keys.is_empty() {
            return Ok(Caller::default());
        }
        let (message, hint) = match self.keys.claim(headers) {
            Claim::Valid(salt) => {
                let cache_salt = if self.shared_cache { CacheSalt::default() } else { salt };
                return Ok(Caller { cache_salt, has_key: true });
            }
            _ if uri.path() == "/health" => return Ok(Caller::default()),
            Claim::Invalid => ("the request has no valid API key", hints::access::KEY),
            Claim::Several => ("the request has more than one Authorization header", hints::access::ONE_KEY),
        };
        Err(ApiError::new(Code::InvalidApiKey, message).hint(hint))
    }

    fn knows_host(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = name.to_ascii_lowercase();
        let literal = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        literal || name == "localhost" || self.hosts.contains(&name)
    }

    /// Returns whether the origin may use the server. The server's own page has the request's host as its origin; a
    /// request that no page sent has no origin.
    fn knows_origin(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        origins.all(|origin| {
            let origin = origin.to_str().unwrap_or("");
            let own = origin.split_once("://").is_some_and(|(scheme, rest)| {
                matches!(scheme, "http" | "https") && host.is_some_and(|host| rest.eq_ignore_ascii_case(host))
            });
            own || self.origins.iter().any(|known| known.as_str() == origin)
        })
    }
}

/// Returns whether a request may omit the host. HTTP/1.0 requests may: only browsers can be attacked by rebinding.
fn may_lack_host(request: &Parts) -> bool {
    request.version < Version::HTTP_11 && !request.headers.contains_key(header::HOST)
}

fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next(), uri.authority()) {
        (Some(host), None, None) => Some(host.to_str().ok()?.to_owned()),
        // an absolute request target takes precedence over the header
        (_, None, Some(authority)) => Some(authority.as_str().to_owned()),
        _ => None,
    }
}

/// Returns the name or address of a Host header without its port. IPv6 addresses keep their brackets. `None` if it is
/// neither.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            address.len() + 2
        }
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        port.is_empty() || (digits && port.parse::<u16>().is_ok())
    };
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// Passes an allowed request on, or answers it with the reason for the refusal.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    let checked = guard.check(&parts).and_then(|caller| {
        connection.map_or(Ok(()), |connection| admit(&connection, caller, &parts.uri))?;
        Ok(caller)
    });
    match checked {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => {
            let unauthorised = error.code == Code::InvalidApiKey;
            let full = error.code == Code::ConnectionsFull;
            let mut response = error.into_response();
            if unauthorised {
                // a browser asks its user for a password, and sends it with everything the page requests
                let page = parts.uri.path() == "/";
                let challenge = if page { "Basic realm=\"phi3v API key as password\"" } else { "Bearer" };
                let challenge = axum::http::HeaderValue::from_static(challenge);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            if full {
                // the next attempt is a new connection, for which another gives way
                let close = axum::http::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        }
    }
}

/// Records that the caller has a key, and refuses the request if all places are taken. `/health` and `/ready` are
/// always admitted.
fn admit(connection: &Connection, caller: Caller, uri: &Uri) -> Result<(), ApiError> {
    if caller.has_key {
        connection.has_key();
    }
    let asks_how_it_is = matches!(uri.path(), "/health" | "/ready");
    if asks_how_it_is || connection.has_place() { Ok(()) } else { Err(limits::connections_full()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> &'static str {
        versioned(guard, Version::HTTP_11, path, headers)
    }

    fn versioned(guard: &Guard, version: Version, path: &str, headers: &[(&str, &str)]) -> &'static str {
        let request = axum::http::Request::builder().version(version).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard.check(&parts).map_or_else(|error| error.code.name(), |_| "ok")
    }

    #[test]
    fn a_host_that_no_host_can_have_is_told_from_none() {
        let guard = Guard::default();
        let message = |value: &[u8]| {
            let value = axum::http::HeaderValue::from_bytes(value).unwrap();
            let request = axum::http::Request::builder().version(Version::HTTP_11).header("host", value);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            guard.check(&parts).err().unwrap().message
        };
        assert_eq!(message(b"m\xe4x"), "the Host header is no valid host");
    }

    #[test]
    fn hosts_that_cannot_be_rebound_are_known() {
        let guard = Guard::new(&["Phi.Example".to_owned()], &[]);
        for host in
            ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5", "phi.example:1"]
        {
            assert_eq!(code(&guard, "/", &[("host", host)]), "ok", "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "phi.example.",
            "a:b:c",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]8000",
            "::1",
            "[127.0.0.1]",
            "[localhost]",
            "[[::1]]",
            "[]",
            "localhost:x",
            "localhost:+80",
            "localhost:65536",
            "me@localhost",
            "0x7f.1",
        ] {
            assert_eq!(code(&guard, "/", &[("host", host)]), "host_not_allowed", "{host}");
        }
        for host in ["[::1]", "[::1]:", "localhost:", "[2001:DB8::1]:65535"] {
            assert_eq!(code(&guard, "/", &[("host", host)]), "ok", "{host}");
        }
        assert_eq!(code(&guard, "/", &[]), "host_missing");
        assert_eq!(code(&guard, "/", &[("host", "localhost"), ("host", "evil.example")]), "host_missing");
        assert_eq!(code(&guard, "http://evil.example/", &[("host", "localhost")]), "host_not_allowed");
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let guard = Guard::new(&[], &["https://OK.example/".parse().unwrap()]);
        for (origin, expected) in [
            ("http://localhost:8000", "ok"),
            ("https://localhost:8000", "ok"),
            ("https://ok.example", "ok"),
            ("http://ok.example", "origin_not_allowed"),
            ("http://localhost:8001", "origin_not_allowed"),
            ("null", "origin_not_allowed"),
        ] {
            assert_eq!(
                code(&guard, "/", &[("host", "localhost:8000"), ("origin", origin)]),
                expected,
                "{origin}"
            );
        }
    }

    #[test]
    fn only_http_1_0_may_lack_a_host() {
        let guard = Guard::new(&[], &["https://ok.example".parse().unwrap()]);
        for path in ["/health", "/ready", "/v1/models"] {
            assert_eq!(versioned(&guard, Version::HTTP_10, path, &[]), "ok", "{path}");
            assert_eq!(code(&guard, path, &[]), "host_missing", "{path}");
        }
        for (headers, expected) in [
            (vec![("host", "evil.example")], "host_not_allowed"),
            (vec![("host", "localhost"), ("host", "localhost")], "host_missing"),
            (vec![("origin", "https://evil.example")], "origin_not_allowed"),
            (vec![("origin", "http://")], "origin_not_allowed"),
            (vec![("origin", "https://ok.example")], "ok"),
            (vec![("host", "localhost")], "ok"),
        ] {
            assert_eq!(versioned(&guard, Version::HTTP_10, "/health", &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn origins_of_apps_are_compared_to_the_letter() {
        let guard = Guard::new(&[], &["app://Obsidian.md".parse().unwrap()]);
        for (origin, expected) in [
            ("app://Obsidian.md", "ok"),
            ("app://obsidian.md", "origin_not_allowed"),
            ("apps://Obsidian.md", "origin_not_allowed"),
            ("app://localhost", "origin_not_allowed"),
        ] {
            assert_eq!(code(&guard, "/", &[("host", "localhost"), ("origin", origin)]), expected, "{origin}");
        }
    }

    #[test]
    fn a_key_is_needed_everywhere_but_for_health() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "0123456789abcdef\n\nfedcba9876543210\n").unwrap();
        let guard = Guard::new(&[], &[]).with_key_file(&path).unwrap();
        let (host, key) = (("host", "localhost"), ("authorization", "Bearer 0123456789abcdef"));
        assert_eq!(code(&guard, "/health", &[host]), "ok");
        for path in ["/", "/ready", "/v1/models"] {
            assert_eq!(code(&guard, path, &[host]), "invalid_api_key", "{path}");
            assert_eq!(code(&guard, path, &[host, key]), "ok", "{path}");
            assert_eq!(code(&guard, path, &[host, key, key]), "invalid_api_key", "{path}");
        }
    }

    #[test]
    fn each_key_has_its_own_caches_unless_they_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "0123456789abcdef\nfedcba9876543210\n").unwrap();
        let guard = Guard::new(&[], &[]).with_key_file(&path).unwrap();
        let salt = |guard: &Guard, key: &str| {
            let request = axum::http::Request::builder().header("host", "localhost");
            let request = request.header("authorization", format!("Bearer {key}"));
            guard.check(&request.body(()).unwrap().into_parts().0).unwrap().cache_salt
        };
        let (alice, bob) = ("0123456789abcdef", "fedcba9876543210");
        assert_ne!(salt(&guard, alice), salt(&guard, bob));
        assert_eq!(salt(&guard, alice), salt(&guard, alice));
        let shared = guard.with_shared_cache();
        assert_eq!(salt(&shared, alice), salt(&shared, bob));
    }
}
