//! Pictures from other servers, of hosts that were allowed by name.
//!
//! A name is resolved once; if any of its addresses is not of the public internet the picture is refused, and the
//! connection goes to an address that was checked (a second look-up could give another answer). Redirects are
//! followed by hand, each checked in the same way. No proxy is used: it would resolve names itself.

use super::address::is_global;
use super::{not_allowed, too_large};
use crate::server::limits::Limits;
use crate::server::openai::errors::ApiError;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 3;

/// A host that pictures may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// Its name, in lower case.
    name: String,
    /// A port other than the scheme's own.
    port: Option<u16>,
}

impl std::str::FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                let port = port.parse().map_err(|_| format!("the port in {text} is not a number"))?;
                (name, Some(port))
            }
            None => (text, None),
        };
        let parsed = Url::parse(&format!("http://{name}/")).ok();
        match parsed.as_ref().and_then(Url::host_str) {
            Some(host) if host.eq_ignore_ascii_case(name) => Ok(Self { name: host.to_owned(), port }),
            _ => Err(format!("{text} is not the name of a host, like images.example.com")),
        }
    }
}

/// Looks up a name.
type Lookup = fn(&str, u16) -> std::io::Result<Vec<SocketAddr>>;

/// Fetches pictures from allowed hosts.
pub struct Fetcher {
    hosts: Vec<AllowedHost>,
    lookup: Lookup,
    permitted: fn(IpAddr) -> bool,
}

impl Fetcher {
    /// For these hosts.
    pub fn new(hosts: Vec<AllowedHost>) -> Self {
        let lookup: Lookup = |name, port| Ok((name, port).to_socket_addrs()?.collect());
        Self { hosts, lookup, permitted: is_global }
    }

    /// The bytes at `url`. Blocks.
    pub(super) fn fetch(&self, url: &str, limits: &Limits) -> Result<Vec<u8>, ApiError> {
        let deadline = Instant::now() + limits.remote_time_max;
        let mut url = Url::parse(url).map_err(|_| failed("the address of the picture is not valid"))?;
        for _ in 0..=REDIRECTS_MAX {
            let address = self.check(&url)?;
            match request(&url, address, deadline, limits.remote_bytes_max)? {
                Answer::Picture(bytes) => return Ok(bytes),
                Answer::Redirect(location) => {
                    url = url.join(&location).map_err(|_| failed("the picture's server redirected badly"))?;
                }
            }
        }
        Err(failed(format!("the picture's server redirected more than {REDIRECTS_MAX} times, the limit")))
    }

    /// A checked address of an allowed host.
    fn check(&self, url: &Url) -> Result<SocketAddr, ApiError> {
        let refused = || not_allowed("this host").hint("name the host with --allow-image-host");
        let default_port = match url.scheme() {
            "http" => 80,
            "https" => 443,
            _ => return Err(refused()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(not_allowed("addresses with a user name"));
        }
        let name = url.host_str().ok_or_else(refused)?;
        let port = url.port().unwrap_or(default_port);
        let allowed = |host: &AllowedHost| host.name == name && host.port.unwrap_or(default_port) == port;
        if !self.hosts.iter().any(allowed) {
            return Err(refused());
        }
        let bare = name.trim_matches(['[', ']']);
        let addresses =
            (self.lookup)(bare, port).map_err(|_| failed("the picture's server was not found"))?;
        if addresses.is_empty() || !addresses.iter().all(|address| (self.permitted)(address.ip())) {
            return Err(not_allowed("hosts outside the public internet"));
        }
        Ok(addresses[0])
    }
}

enum Answer {
    Picture(Vec<u8>),
    Redirect(String),
}

/// Gives the one address that was checked.
#[derive(Debug)]
struct Checked(SocketAddr);

impl Resolver for Checked {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

fn request(url: &Url, address: SocketAddr, deadline: Instant, bytes_max: usize) -> Result<Answer, ApiError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let config = ureq::config::Config::builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(left))
        .user_agent(concat!("phi3v/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Checked(address));
    let response = agent.get(url.as_str()).call().map_err(|error| {
        tracing::warn!(host = url.host_str(), %error, "a picture could not be fetched");
        failed("the picture could not be fetched")
    })?;
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        return location
            .map(|location| Answer::Redirect(location.to_owned()))
            .ok_or_else(|| failed("the picture's server redirected badly"));
    }
    if !status.is_success() {
        return Err(failed("the picture's server did not give it"));
    }
    let bytes = response.into_body().into_with_config().limit(bytes_max as u64 + 1).read_to_vec();
    match bytes {
        Ok(bytes) if bytes.len() > bytes_max => Err(too_large(bytes_max)),
        Ok(bytes) => Ok(Answer::Picture(bytes)),
        Err(ureq::Error::BodyExceedsLimit(_)) => Err(too_large(bytes_max)),
        Err(_) => Err(failed("the picture could not be fetched")),
    }
}

fn failed(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("image_fetch_failed", message)
        .hint("look at the address in a browser, or send the picture as a data URL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Serves the answers in turn on 127.0.0.1 and returns its port.
    fn server(answers: Vec<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).unwrap();
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    fn response(status: &str, headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
            body.len()
        )
    }

    /// A fetcher for one host that is really this machine, as if it were of the public internet.
    fn fetcher(port: u16) -> Fetcher {
        let lookup: Lookup = |_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        let host = format!("pictures.example:{port}").parse().unwrap();
        Fetcher { hosts: vec![host], lookup, permitted: |_| true }
    }

    fn code(result: Result<Vec<u8>, ApiError>) -> &'static str {
        result.unwrap_err().code
    }

    #[test]
    fn fetches_from_an_allowed_host_through_redirects() {
        let redirect = |to: &str| response("302 Found", &format!("location: {to}\r\n"), "");
        let port =
            server(vec![redirect("/b"), redirect("c?d"), redirect("/e"), response("200 OK", "", "picture")]);
        let url = format!("http://pictures.example:{port}/a");
        assert_eq!(fetcher(port).fetch(&url, &Limits::default()).unwrap(), b"picture");
    }

    #[test]
    fn a_fourth_redirect_is_refused() {
        let redirect = response("302 Found", "location: /again\r\n", "");
        let port = server(vec![redirect; 5]);
        let url = format!("http://pictures.example:{port}/a");
        assert_eq!(code(fetcher(port).fetch(&url, &Limits::default())), "image_fetch_failed");
    }

    #[test]
    fn a_redirect_to_another_host_is_refused() {
        for target in
            ["http://other.example/", "file:///etc/passwd", "http://127.0.0.1/", "//other.example/x"]
        {
            let port = server(vec![response("302 Found", &format!("location: {target}\r\n"), "")]);
            let url = format!("http://pictures.example:{port}/a");
            assert_eq!(
                code(fetcher(port).fetch(&url, &Limits::default())),
                "image_source_not_allowed",
                "{target}"
            );
        }
    }

    #[test]
    fn a_name_with_a_private_address_is_refused() {
        let mut fetcher = fetcher(80);
        fetcher.hosts = vec!["pictures.example".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        fetcher.permitted = is_global;
        for lookup in [
            (|_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])) as Lookup,
            |_, port| Ok(vec![([1, 1, 1, 1], port).into(), ([10, 0, 0, 1], port).into()]),
            |_, _| Ok(Vec::new()),
        ] {
            fetcher.lookup = lookup;
            for url in ["http://pictures.example/a", "http://127.0.0.1/a", "http://0x7f.1/a"] {
                assert_eq!(code(fetcher.fetch(url, &Limits::default())), "image_source_not_allowed", "{url}");
            }
        }
    }

    #[test]
    fn other_hosts_ports_and_user_names_are_refused() {
        let fetcher = fetcher(8080);
        for url in [
            "http://pictures.example/a",
            "http://pictures.example:8081/a",
            "http://pictures.example.evil.example:8080/a",
            "http://me:secret@pictures.example:8080/a",
            "http://evil.example:8080/pictures.example",
        ] {
            assert_eq!(code(fetcher.fetch(url, &Limits::default())), "image_source_not_allowed", "{url}");
        }
    }

    #[test]
    fn too_many_bytes_and_too_much_time_end_it() {
        let limits =
            Limits { remote_bytes_max: 4, remote_time_max: Duration::from_millis(300), ..Limits::default() };
        let port = server(vec![response("200 OK", "", "pictu")]);
        assert_eq!(
            code(fetcher(port).fetch(&format!("http://pictures.example:{port}/"), &limits)),
            "image_too_large"
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://pictures.example:{port}/");
        assert_eq!(code(fetcher(port).fetch(&url, &limits)), "image_fetch_failed");
    }

    #[test]
    fn an_error_tells_nothing_of_what_lies_there() {
        let port = server(vec![response("403 Forbidden", "", "internal secret")]);
        let error =
            fetcher(port).fetch(&format!("http://pictures.example:{port}/"), &Limits::default()).unwrap_err();
        assert!(!error.json().contains("secret") && !error.json().contains("403"), "{}", error.json());
    }

    #[test]
    fn hosts_are_names_with_an_optional_port() {
        assert!("images.example.com".parse::<AllowedHost>().is_ok());
        assert!("Images.Example.com:8443".parse::<AllowedHost>().is_ok());
        for text in ["", "a b", "http://a.example/", "a.example:x", "a.example/x"] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }
}
