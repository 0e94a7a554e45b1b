//! Who may ask: the Host header, the Origin header and the API key.
//!
//! - A page on the internet can let a name of its own point to this machine (DNS rebinding); its requests then carry
//!   that name. Addresses and `localhost` cannot be rebound, other names must be listed.
//! - A page of another site can send requests here without being able to read the answers; browsers then name that
//!   site as the origin.

use super::openai::errors::ApiError;
use crate::paths::open_named;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use url::Url;

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Hashes of the API keys; none means that no key is needed.
    keys: Vec<blake3::Hash>,
    /// Names that this server is known by.
    hosts: Vec<String>,
    /// Origins whose pages may ask.
    origins: Vec<Origin>,
}

/// The origin of a page as browsers send it: `scheme://host` in lower case, with the port where it is not the
/// scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// As browsers send it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("* would let the pages of every site use the server; name each origin, as \
                        https://example.org"
                .to_owned());
        }
        let refused =
            || format!("{text} is not an origin; write scheme, host and port, as https://example.org:8443");
        let url = Url::parse(text).map_err(|_| refused())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        if !bare || !nobody || !matches!(url.scheme(), "http" | "https") {
            return Err(refused());
        }
        Ok(Self(url.origin().ascii_serialization()))
    }
}

/// Fewer characters can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// Why a file of keys is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system's refusal.
    #[error("the file of API keys cannot be read")]
    Read(#[source] std::io::Error),
    /// Nothing in it.
    #[error("the file of API keys is empty")]
    Empty,
    /// A key that can be guessed.
    #[error("line {line} of the file of API keys has {bytes} bytes, at least {KEY_BYTES_MIN} are needed")]
    Short {
        /// Number of the line, from 1.
        line: usize,
        /// Its length.
        bytes: usize,
    },
}

impl Guard {
    /// Everybody who comes by an address, by `localhost`, or by one of `hosts`; pages of `origins` and of our own.
    pub fn new(hosts: &[String], origins: &[Origin]) -> Self {
        let hosts = hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { keys: Vec::new(), hosts, origins: origins.to_vec() }
    }

    /// Asks for one of the keys in a file, one a line.
    ///
    /// # Errors
    /// The file cannot be read, or has no good keys.
    pub fn with_key_file(mut self, path: &Path) -> Result<Self, KeyFileError> {
        let text = open_named(path).and_then(std::io::read_to_string).map_err(KeyFileError::Read)?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let key = line.trim();
            if key.len() < KEY_BYTES_MIN {
                return Err(KeyFileError::Short { line: index + 1, bytes: key.len() });
            }
            self.keys.push(blake3::hash(key.as_bytes()));
        }
        if self.keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(self) }
    }

    /// Whether a key is asked for.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = host(uri, headers).ok_or_else(|| {
            ApiError::bad_request("host_missing", "the request has no Host header, or more than one")
                .hint("send one Host header")
        })?;
        if !self.knows_host(&host) {
            let message = "the server is not known by the name in the Host header";
            return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", message)
                .hint("use the address, or start the server with --allow-host NAME"));
        }
        if !self.knows_origin(headers, &host) {
            let message = "pages of this origin may not use the server";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
                .hint("start the server with --cors-origin ORIGIN"));
        }
        if uri.path() == "/health" || self.keys.is_empty() || self.knows_key(headers) {
            return Ok(());
        }
        let message = "the request has no valid API key";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
            .hint("send the header authorization: Bearer KEY with a key of --api-key-file"))
    }

    fn knows_host(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let literal = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        literal || name == "localhost" || self.hosts.contains(&name)
    }

    /// A request of our own page has our own host as its origin; one that is no page's has none.
    fn knows_origin(&self, headers: &HeaderMap, host: &str) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        origins.all(|origin| {
            let origin = origin.to_str().unwrap_or("").to_ascii_lowercase();
            let own = origin.split_once("://").is_some_and(|(_, rest)| rest == host.to_ascii_lowercase());
            own || self.origins.iter().any(|known| known.as_str() == origin)
        })
    }

    fn knows_key(&self, headers: &HeaderMap) -> bool {
        let Some(key) = headers.get(header::AUTHORIZATION).and_then(|value| key_in(value.to_str().ok()?))
        else {
            return false;
        };
        let hash = blake3::hash(key.as_bytes());
        // equality of hashes takes the same time whatever they are; so does going through all of them
        self.keys.iter().fold(false, |found, key| found | (*key == hash))
    }
}

/// The key of `Bearer KEY`, or of `Basic` with the key as the password, which is what browsers can ask their user for.
fn key_in(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next(), uri.authority()) {
        (Some(host), None, None) => Some(host.to_str().ok()?.to_owned()),
        // an absolute request target counts more than the header
        (_, None, Some(authority)) => Some(authority.as_str().to_owned()),
        _ => None,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Lets a request through, or answers it with the reason why not.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let unauthorised = error.status == StatusCode::UNAUTHORIZED;
            let page = request.uri().path() == "/";
            let mut response = error.into_response();
            if unauthorised {
                // browsers ask their user for a password, and send it with everything the page asks for
                let challenge = if page { "Basic realm=\"phi3v API key as password\"" } else { "Bearer" };
                let challenge = axum::http::HeaderValue::from_static(challenge);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, value.parse().unwrap());
        }
        guard.check(&path.parse().unwrap(), &map).map_or_else(|error| error.code, |()| "ok")
    }

    #[test]
    fn hosts_that_cannot_be_rebound_are_known() {
        let guard = Guard::new(&["Phi.Example".to_owned()], &[]);
        for host in
            ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5", "phi.example:1"]
        {
            assert_eq!(code(&guard, "/", &[("host", host)]), "ok", "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "phi.example.", "a:b:c"]
        {
            assert_eq!(code(&guard, "/", &[("host", host)]), "host_not_allowed", "{host}");
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
    fn origins_are_written_as_browsers_send_them() {
        for (text, origin) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG/", "https://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().as_str(), origin, "{text}");
        }
        for text in [
            "",
            "null",
            "example.org",
            "example.org:3000",
            "https://",
            "https://example.org/page",
            "https://example.org?x",
            "https://example.org#x",
            "https://me@example.org",
            "file:///tmp",
        ] {
            assert!(text.parse::<Origin>().unwrap_err().contains("is not an origin"), "{text}");
        }
        assert!("*".parse::<Origin>().unwrap_err().contains("name each origin"));
    }

    #[test]
    fn a_key_is_needed_everywhere_but_for_health() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "0123456789abcdef\n\nfedcba9876543210\n").unwrap();
        let guard = Guard::new(&[], &[]).with_key_file(&path).unwrap();
        let with =
            |value: &str| code(&guard, "/v1/models", &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(code(&guard, "/health", &[("host", "localhost")]), "ok");
        assert_eq!(code(&guard, "/", &[("host", "localhost")]), "invalid_api_key");
        assert_eq!(with("Bearer 0123456789abcdef"), "ok");
        assert_eq!(with("bearer fedcba9876543210"), "ok");
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(with(&basic("me:0123456789abcdef")), "ok");
        for wrong in
            ["Bearer 0123456789abcde", "Bearer", "0123456789abcdef", "Basic ???", &basic("0123456789abcdef:")]
        {
            assert_eq!(with(wrong), "invalid_api_key", "{wrong}");
        }
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(
            Guard::new(&[], &[]).with_key_file(&path),
            Err(KeyFileError::Short { line: 1, bytes: 5 })
        ));
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(Guard::new(&[], &[]).with_key_file(&path), Err(KeyFileError::Empty)));
    }
}
