//! The hub's HTTP interface: a revision's commit and files, a file's size and checksum, and its contents.

use super::name::Repo;
use super::proxy::Proxies;
use super::{HubError, HubOptions};
use crate::trust::{is_certificate, tls_config};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

/// Most redirects followed for one request.
const REDIRECTS_MAX: usize = 10;
/// Most bytes of a repository's file list.
const LIST_BYTES_MAX: u64 = 16 << 20;
/// Most characters of the hub's own message that are shown.
const REASON_CHARS_MAX: usize = 200;
/// Attempts of a request without a body.
const ATTEMPTS: u32 = 3;
/// Time limit for connecting to a host, and then for the start of its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A revision as described by the hub.
pub(super) struct Revision {
    /// The commit's 40 hexadecimal digits.
    pub(super) commit: String,
    /// Names of all files, including folders in the name.
    pub(super) files: BTreeSet<String>,
}

/// A file as described by the hub.
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) url: String,
    /// sha256 of the content (64 hexadecimal digits), or git's sha1 of it (40).
    pub(super) etag: String,
    pub(super) size: u64,
}

/// The answer to `api/models/{id}/revision/{revision}`.
#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    proxies: Proxies,
    repo: Repo,
    pub(super) retry_pause: Duration,
    given_up: Arc<AtomicBool>,
}

impl Client {
    pub(super) fn new(options: &HubOptions, repo: &Repo) -> Result<Self, HubError> {
        let config = Agent::config_builder()
            .user_agent(concat!("phi3v/", env!("CARGO_PKG_VERSION")))
            // redirects are followed here, where it is known which hosts may receive the token
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .tls_config(tls_config())
            // chosen for each address
            .proxy(None)
            .timeout_connect(Some(ANSWER_TIME_MAX))
            .timeout_recv_response(Some(ANSWER_TIME_MAX))
            // slow is fine: without ranges, a new connection would start from zero
            .timeout_per_read(Some(options.stall_time_max))
            .build();
        if !is_web_address(&options.endpoint) {
            return Err(HubError::NoEndpoint { endpoint: options.endpoint.clone() });
        }
        let token = options.token.as_ref().map(|token| token.checked().map(str::to_owned)).transpose()?;
        Ok(Self {
            agent: config.into(),
            endpoint: with_folded_scheme(&options.endpoint),
            token,
            proxies: options.proxies.clone(),
            repo: repo.clone(),
            retry_pause: options.retry_pause,
            given_up: Arc::clone(&options.given_up),
        })
    }

    /// Requests the commit and files of the repository's revision.
    pub(super) fn revision(&self) -> Result<Revision, HubError> {
        let revision = self.repo.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, self.repo.id);
        let bytes = self.with_retries(|| {
            let mut answer = self.follow(Method::Get, &url, 0)?;
            self.check_status(&answer, &Asked::Api)?;
            let body = answer.response.body_mut().with_config().limit(LIST_BYTES_MAX);
            body.read_to_vec().map_err(|error| self.unreachable(&url, &error))
        })?;
        let protocol = |reason: String| HubError::Protocol { url: url.clone(), reason };
        let info: ModelInfo = serde_json::from_slice(&bytes)
            .map_err(|error| protocol(format!("no model information, {error}")))?;
        if !is_commit(&info.sha) {
            return Err(protocol(format!("{:?} is not a commit", info.sha)));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Revision { commit: info.sha, files })
    }

    /// Requests the size and checksum of a file at a commit.
    pub(super) fn head(&self, commit: &str, name: &str) -> Result<RemoteFile, HubError> {
        let url = format!("{}/{}/resolve/{commit}/{name}", self.endpoint, self.repo.id);
        let response = self.with_retries(|| {
            let answer = self.follow(Method::Head, &url, 0)?;
            self.check_status(&answer, &Asked::Description(name)).map(|()| answer.response)
        })?;
        let header =
            |linked, plain| header(response.headers(), linked).or_else(|| header(response.headers(), plain));
        let protocol = |reason: &str| HubError::Protocol { url: url.clone(), reason: reason.to_owned() };
        let etag = header("x-linked-etag", "etag").unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if !matches!(etag.len(), 40 | 64) || !is_hex(etag) {
            return Err(protocol("it gives no checksum for the file"));
        }
        let size = header("x-linked-size", "content-length").and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| protocol("it gives no size for the file"))?;
        Ok(RemoteFile { name: name.to_owned(), etag: etag.to_owned(), size, url })
    }

    /// Requests the bytes of a file from `start` on. The answer may still begin at 0; check its status.
    pub(super) fn open(&self, file: &RemoteFile, start: u64) -> Result<Response<Body>, HubError> {
        let answer = self.follow(Method::Get, &file.url, start)?;
        if answer.response.status() != 416 {
            self.check_status(&answer, &Asked::Bytes(&file.name))?;
        }
        Ok(answer.response)
    }

    /// Sends a request and follows redirects. For a file's description (`Head`), the first response with a checksum is the
    /// answer: the storage host behind it knows less.
    fn follow(&self, method: Method, url: &str, start: u64) -> Result<Answer, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(method, &url, start)?;
            let described =
                matches!(method, Method::Head) && header(response.headers(), "x-linked-etag").is_some();
            if !response.status().is_redirection() || described {
                return Ok(Answer { url, response });
            }
            let protocol = |reason: &str| HubError::Protocol { url: url.clone(), reason: reason.to_owned() };
            let location = header(response.headers(), "location");
            let location = location.ok_or_else(|| protocol("a redirect without a location"))?;
            let next = join(&url, location).ok_or_else(|| protocol("a redirect to no address"))?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(protocol("a redirect to an address without encryption"));
            }
            url = next;
        }
        Err(HubError::Protocol { url, reason: format!("more than {REDIRECTS_MAX} redirects") })
    }

    fn send(&self, method: Method, url: &str, start: u64) -> Result<Response<Body>, HubError> {
        self.check_wanted()?;
        let mut request = match method {
            Method::Get => self.agent.get(url),
            Method::Head => self.agent.head(url),
        };
        // a compressed body would have a different length and different ranges
        request = request.header("accept-encoding", "identity");
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| is_same_host(url, &self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut proxy = None;
        if let Some(named) = url.parse().ok().as_ref().and_then(|uri| self.proxies.proxy_for(uri)) {
            let made = ureq::Proxy::new(&named.address).ok().filter(|_| has_real_port(&named.address));
            proxy = Some(made.ok_or_else(|| HubError::NoProxy { variable: named.variable.clone() })?);
        }
        let request = request.config().proxy(proxy).build();
        request.call().map_err(|error| self.unreachable(url, &error))
    }

    fn unreachable(&self, url: &str, error: &ureq::Error) -> HubError {
        let proxy = url.parse().ok().as_ref().and_then(|uri| self.proxies.proxy_for(uri)).cloned();
        let url = url.to_owned();
        if is_certificate(error) {
            return HubError::Certificate { url, reason: error.to_string() };
        }
        match (proxy, refusal(error)) {
            (Some(proxy), Some(status)) => HubError::ProxyRefused { url, proxy, status },
            (proxy, _) => HubError::Unreachable { url, proxy, reason: error.to_string() },
        }
    }

    /// Refuses an error response.
    fn check_status(&self, answer: &Answer, asked: &Asked<'_>) -> Result<(), HubError> {
        let Answer { url, response } = answer;
        let (endpoint, model) = (self.endpoint.clone(), self.repo.to_string());
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let status = response.status().as_u16();
        let reason = header(response.headers(), "x-error-message").filter(|words| !words.trim().is_empty());
        let reason =
            reason.map(|words| words.trim().trim_end_matches('.').chars().take(REASON_CHARS_MAX).collect());
        let gated = code == "GatedRepo";
        // hubs may redirect to each other, and report an error by a code
        let another = code.is_empty() && !is_same_host(url, &endpoint);
        let storage = match asked {
            Asked::Api => None,
            Asked::Description(file) => another.then_some(file),
            // the hub granted this request, and it is now refused: a signed address has expired, or a clock or a firewall
            // interferes
            Asked::Bytes(file) => (another || code.is_empty() && reason.is_none()).then_some(file),
        };
        if let Some(file) = storage.filter(|_| matches!(status, 400..=428 | 430..=499)) {
            let (host, file) = (origin(url), (*file).to_owned());
            return Err(HubError::Storage { host, endpoint, file, status });
        }
        match status {
            200..=399 => Ok(()),
            401 if gated => Err(HubError::Forbidden { endpoint, model, reason, gated }),
            401 if code != "RepoNotFound" && self.token.is_some() => Err(HubError::Token { endpoint }),
            401 | 404 => Err(HubError::NotFound { endpoint, model }),
            403 => Err(HubError::Forbidden { endpoint, model, reason, gated }),
            status => Err(HubError::Status { url: url.to_owned(), status, reason }),
        }
    }

    /// # Errors
    /// Returns an error if nobody waits for the model any more.
    pub(super) fn check_wanted(&self) -> Result<(), HubError> {
        if self.given_up.load(Ordering::Relaxed) { Err(HubError::GivenUp) } else { Ok(()) }
    }

    /// Waits before a retry.
    ///
    /// # Errors
    /// Nobody waits for the model any more.
    pub(super) fn wait(&self, pause: Duration) -> Result<(), HubError> {
        const SLICE: Duration = Duration::from_millis(20);
        let begun = Instant::now();
        loop {
            self.check_wanted()?;
            let left = pause.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn with_retries<T>(&self, request: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut pause = self.retry_pause;
        for _ in 1..ATTEMPTS {
            match request() {
                Err(error) if error.may_pass() => {
                    self.wait(pause)?;
                    pause *= 2;
                }
                result => return result,
            }
        }
        request()
    }
}

/// The status with which a proxy permanently refuses to connect. ureq provides it only as text.
fn refusal(error: &ureq::Error) -> Option<u16> {
    let ureq::Error::ConnectProxyFailed(words) = error else { return None };
    let status = words.split(|letter: char| !letter.is_ascii_digit()).find_map(|word| word.parse().ok());
    status.filter(|status| (300..500).contains(status))
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

/// The purpose of a request; files are given by name.
enum Asked<'a> {
    Api,
    Description(&'a str),
    /// The contents of a file that the hub has described.
    Bytes(&'a str),
}

/// A response, and the final address that sent it.
struct Answer {
    url: String,
    response: Response<Body>,
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is a full commit hash, which is also safe as a folder name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether `text` begins with http:// or https:// and a host.
fn is_web_address(text: &str) -> bool {
    let is_web = |uri: Uri| {
        let host = uri.host().is_some_and(|host| !host.is_empty());
        host && matches!(uri.scheme_str(), Some("http" | "https"))
    };
    text.parse().is_ok_and(is_web) && has_real_port(text)
}

/// Whether the address has no port or one from 1 to 65535; parsers silently drop an invalid one.
fn has_real_port(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether scheme, host and port are equal; a token is bound to these.
fn is_same_host(url: &str, endpoint: &str) -> bool {
    let parts = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        Some((uri.scheme()?.clone(), uri.authority()?.clone()))
    };
    parts(url).is_some_and(|url| parts(endpoint) == Some(url))
}

/// Scheme, host and port of an address, without credentials.
fn origin(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return String::new() };
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default())
}

/// The address with its scheme, which is case-insensitive (RFC 3986 section 3.1), in lower case.
fn with_folded_scheme(address: &str) -> String {
    address.split_once("://").map_or_else(
        || address.to_owned(),
        |(scheme, rest)| format!("{}://{rest}", scheme.to_ascii_lowercase()),
    )
}

/// Resolves `location` relative to `base` (RFC 3986 section 5, limited to the forms that servers use).
fn join(base: &str, location: &str) -> Option<String> {
    let whole = with_folded_scheme(location);
    if whole.starts_with("http://") || whole.starts_with("https://") {
        return Some(whole);
    }
    let uri: Uri = base.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        let base = "https://hub.example/a/b?c";
        assert_eq!(join(base, "https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        // in any letter case, or a check would miss an unencrypted address
        assert_eq!(join(base, "HTTPS://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(
            join(base, "Http://CDN.example/X?u=A://B").as_deref(),
            Some("http://CDN.example/X?u=A://B")
        );
        assert_eq!(join(base, "/x?u=A://B").as_deref(), Some("https://hub.example/x?u=A://B"));
        assert_eq!(join(base, "//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(join(base, "/x?y").as_deref(), Some("https://hub.example/x?y"));
        assert_eq!(join(base, "x").as_deref(), Some("https://hub.example/a/x"));
    }

    #[test]
    fn addresses_of_hubs_and_proxies() {
        for good in ["http://hub", "HTTPS://hub.example:8443/a", "http://u:p@[::1]:80", "http://[::1]"] {
            assert!(is_web_address(good), "{good}");
        }
        for bad in [
            "127.0.0.1:8080",
            "hub.example",
            "ftp://hub.example",
            "http://",
            "http:hub",
            "https://hub:99999",
            "http://hub:0",
            "http://a b",
            "file:///tmp",
        ] {
            assert!(!is_web_address(bad), "{bad}");
        }
        assert!(has_real_port("proxy.example:3128") && has_real_port("socks5://u:99999@proxy"));
        assert!(!has_real_port("http://127.0.0.1:99999") && !has_real_port("proxy:x"));
    }

    #[test]
    fn the_token_is_bound_to_scheme_host_and_port() {
        let endpoint = "https://hub.example";
        assert!(is_same_host("https://hub.example/x/y", endpoint));
        for other in [
            "http://hub.example/x",
            "https://hub.example:444/x",
            "https://hub.example.org/x",
            "https://hub.example@other.example/x",
            "https://cdn.hub.example/x",
            "not an address",
        ] {
            assert!(!is_same_host(other, endpoint), "{other}");
        }
    }
}
