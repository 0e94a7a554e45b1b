//! Pictures from other servers, whose hosts were allowed by name.
//!
//! A name is resolved once. If any of its addresses is outside the public internet, the picture is refused. The
//! connection goes to one of the checked addresses, since a second look-up could give another answer. Redirects are
//! followed one by one, each checked in the same way. No proxy is used: it would resolve names itself. One deadline
//! covers everything, including look-ups. Each host has its own limit on concurrent fetches, so that a slow one does
//! not delay the others.

use super::budget::{Budget, SourceLimits};
use super::error::{FetchFault, SourceError, Unallowed};
use super::public::is_global;
use super::turns::Turns;
use crate::trust::{is_certificate, tls_config};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

/// Maximum number of redirects that are followed.
const REDIRECTS_MAX: usize = 3;

/// Maximum number of addresses of a host that are tried, which is also the HTTP client's maximum.
const ADDRESSES_MAX: usize = 16;

/// Pictures that are fetched concurrently from all hosts together; below, the minimum and maximum for one host. Each
/// takes a thread, which costs little while it waits.
const FETCHES: usize = 256;
const FETCHES_OF_A_HOST: RangeInclusive<usize> = 4..=64;

/// Maximum number of concurrent look-ups of a host: one per fetch, and as many that hang. A hanging look-up cannot be
/// stopped, only abandoned.
const LOOKUPS_MAX: usize = 2 * *FETCHES_OF_A_HOST.end();

/// A host that pictures may come from, by its name and port. Its other names are not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// As written in addresses: a name in lower-case ASCII, or an IPv6 address in brackets.
    name: String,
    /// A port other than the scheme's default.
    port: Option<u16>,
}

impl std::str::FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") || text.contains('*') {
            return Err(format!(
                "{text} is not the name of a host; write it alone and in full, as images.example.com"
            ));
        }
        let (name, port) = match text.rsplit_once(':') {
            // a colon within the brackets of an IPv6 address does not separate a port
            Some((name, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| format!("the port in {text} is not a number"))?;
                (name, Some(port))
            }
            _ => (text, None),
        };
        let no_host = || format!("{text} is not the name of a host, like images.example.com");
        let host = url::Host::parse(name).map_err(|_| no_host())?;
        let as_addresses_have_it = host.to_string();
        let is_it = match host {
            // an IPv6 address may be written in several ways, and a non-ASCII name is converted to ASCII
            url::Host::Ipv6(_) => true,
            url::Host::Domain(_) if !name.is_ascii() => !name.contains('%'),
            url::Host::Domain(_) | url::Host::Ipv4(_) => as_addresses_have_it.eq_ignore_ascii_case(name),
        };
        if is_it { Ok(Self { name: as_addresses_have_it, port }) } else { Err(no_host()) }
    }
}

/// Looks up a name.
type Lookup = fn(&str, u16) -> std::io::Result<Vec<SocketAddr>>;

/// An allowed host and its current activity.
struct Host {
    allowed: AllowedHost,
    turns: Turns,
    lookups: Arc<AtomicUsize>,
}

/// Fetches pictures from allowed hosts, a few at a time from each, and only from the public internet.
pub struct Fetcher {
    hosts: Vec<Host>,
    lookup: Lookup,
    permitted: fn(IpAddr) -> bool,
}

impl Fetcher {
    /// Creates a fetcher for these hosts, each on its port, and no others.
    pub fn new(hosts: Vec<AllowedHost>) -> Self {
        let lookup: Lookup = |name, port| Ok((name, port).to_socket_addrs()?.collect());
        Self { hosts: with_turns(hosts), lookup, permitted: is_global }
    }

    /// Returns the turns for fetching from the host of `url`, if it is allowed.
    pub(super) fn turns(&self, url: &str) -> Option<Turns> {
        let url = Url::parse(url).ok()?;
        self.host(&url).map(|host| host.turns.clone())
    }

    /// The allowed host that `url` names.
    fn host(&self, url: &Url) -> Option<&Host> {
        let (name, port, default) = (url.host_str()?, url.port_or_known_default()?, default_port(url)?);
        let is_it = |host: &&Host| host.allowed.name == name && host.allowed.port.unwrap_or(default) == port;
        self.hosts.iter().find(is_it)
    }

    /// Reads the bytes at `url` and charges them to `budget`. Blocks until `deadline` at most.
    pub(super) fn fetch(
        &self,
        url: &str,
        limits: &SourceLimits,
        budget: &mut Budget,
        deadline: Instant,
    ) -> Result<Vec<u8>, SourceError> {
        let deadline = deadline.min(Instant::now() + limits.remote_time_max);
        let mut url = Url::parse(url).map_err(|_| FetchFault::Address)?;
        for _ in 0..=REDIRECTS_MAX {
            let addresses = self.check(&url, deadline)?;
            match request(&url, addresses, deadline, limits.remote_bytes_max)? {
                Answer::Image(body) => return read(body, limits.remote_bytes_max, budget),
                Answer::Redirect(location) => {
                    url = url.join(&location).map_err(|_| FetchFault::Redirect)?;
                }
            }
        }
        Err(FetchFault::Redirects { limit: REDIRECTS_MAX }.into())
    }

    /// Returns the addresses of an allowed host after checking all of them.
    fn check(&self, url: &Url, deadline: Instant) -> Result<Vec<SocketAddr>, SourceError> {
        let refused = || SourceError::NotAllowed(Unallowed::Host);
        let default_port = default_port(url).ok_or_else(refused)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SourceError::NotAllowed(Unallowed::UserName));
        }
        let host = self.host(url).ok_or_else(refused)?;
        let addresses = self.look_up(host, url.port().unwrap_or(default_port), deadline)?;
        if addresses.is_empty() || !addresses.iter().all(|address| (self.permitted)(address.ip())) {
            return Err(SourceError::NotAllowed(Unallowed::PrivateHost));
        }
        Ok(addresses)
    }

    /// Looks a name up on a separate thread, since the system's look-up has no time limit.
    fn look_up(&self, host: &Host, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, FetchFault> {
        let place = LookupPlace::take(&host.lookups).ok_or(FetchFault::LookUps)?;
        let (tell, told) = mpsc::sync_channel(1);
        let (lookup, name) = (self.lookup, host.allowed.name.trim_matches(['[', ']']).to_owned());
        let work = move || {
            let _place = place;
            // nobody receives an answer that comes too late
            let _ = tell.send(lookup(&name, port));
        };
        std::thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(work)
            .map_err(|_| FetchFault::NotFound)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let found = told.recv_timeout(left).map_err(|_| FetchFault::LookUpTime)?;
        found.map_err(|_| FetchFault::NotFound)
    }
}

#[cfg(test)]
impl Fetcher {
    /// Creates a fetcher for hosts that are ports of this machine, which count as the public internet, with `turns`
    /// turns each.
    pub(crate) fn of_this_machine(hosts: &[String], turns: usize) -> Self {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let mut hosts = with_turns(hosts);
        hosts.iter_mut().for_each(|host| host.turns = Turns::new(turns));
        let lookup: Lookup = |_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        Self { hosts, lookup, permitted: |_| true }
    }
}

/// Gives the hosts their share of the turns.
fn with_turns(hosts: Vec<AllowedHost>) -> Vec<Host> {
    let turns = (FETCHES / hosts.len().max(1)).clamp(*FETCHES_OF_A_HOST.start(), *FETCHES_OF_A_HOST.end());
    let host = |allowed| Host { allowed, turns: Turns::new(turns), lookups: Arc::default() };
    hosts.into_iter().map(host).collect()
}

fn default_port(url: &Url) -> Option<u16> {
    match url.scheme() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A permit for one of the concurrent look-ups.
struct LookupPlace(Arc<AtomicUsize>);

impl LookupPlace {
    fn take(lookups: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(lookups));
        (lookups.fetch_add(1, Ordering::Relaxed) < LOOKUPS_MAX).then_some(place)
    }
}

impl Drop for LookupPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Answer {
    Image(ureq::Body),
    Redirect(String),
}

/// Returns the checked addresses, which the client tries one after the other.
#[derive(Debug)]
struct Checked(Vec<SocketAddr>);

impl Resolver for Checked {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        self.0.iter().take(ADDRESSES_MAX).for_each(|address| addresses.push(*address));
        Ok(addresses)
    }
}

fn request(
    url: &Url,
    addresses: Vec<SocketAddr>,
    deadline: Instant,
    bytes_max: usize,
) -> Result<Answer, SourceError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let config = ureq::config::Config::builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(left))
        .user_agent(concat!("phi3v/", env!("CARGO_PKG_VERSION")))
        .tls_config(if url.scheme() == "https" { tls_config() } else { TlsConfig::default() })
        .build();
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Checked(addresses));
    let response = agent.get(url.as_str()).call().map_err(|error| {
        let fault = if is_certificate(&error) { FetchFault::Certificate } else { FetchFault::Connection };
        // other errors may contain the address, which is private to the client
        let error = match error {
            ureq::Error::Io(error) => error.kind().to_string(),
            ureq::Error::Timeout(timeout) => format!("timeout: {timeout}"),
            ureq::Error::Rustls(error) => error.to_string(),
            _ => "the server does not speak HTTP".to_owned(),
        };
        tracing::warn!(error, "a picture could not be fetched");
        fault
    })?;
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        return location
            .map(|location| Answer::Redirect(location.to_owned()))
            .ok_or_else(|| FetchFault::Redirect.into());
    }
    if !status.is_success() {
        return Err(FetchFault::Status.into());
    }
    let body = response.into_body();
    if body.content_length().is_some_and(|length| length > bytes_max as u64) {
        return Err(SourceError::TooLarge { limit: bytes_max });
    }
    Ok(Answer::Image(body))
}

fn read(body: ureq::Body, bytes_max: usize, budget: &mut Budget) -> Result<Vec<u8>, SourceError> {
    // the limit of the budget applies instead
    let reader = body.into_with_config().limit(u64::MAX).reader();
    budget.read(reader, bytes_max, FetchFault::Connection.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::budget::Inputs;
    use crate::sources::error::BudgetError;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LIMITS: SourceLimits =
        SourceLimits { bytes_max: 0, remote_bytes_max: 1 << 20, remote_time_max: Duration::from_secs(15) };

    /// Serves the answers in sequence on 127.0.0.1 and returns the port.
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

    fn hosts(names: &[&str]) -> Vec<Host> {
        with_turns(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    /// A fetcher for one host, which is this machine but counts as the public internet.
    fn fetcher(port: u16) -> Fetcher {
        let lookup: Lookup = |_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        let hosts = hosts(&[&format!("pictures.example:{port}")]);
        Fetcher { hosts, lookup, permitted: |_| true }
    }

    fn fetch(fetcher: &Fetcher, url: &str, limits: &SourceLimits) -> Result<Vec<u8>, SourceError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        fetcher.fetch(url, limits, &mut Inputs::new(1 << 20).budget(), deadline)
    }

    #[test]
    fn fetches_from_an_allowed_host_through_redirects() {
        let redirect = |to: &str| response("302 Found", &format!("location: {to}\r\n"), "");
        let port =
            server(vec![redirect("/b"), redirect("c?d"), redirect("/e"), response("200 OK", "", "picture")]);
        let url = format!("http://pictures.example:{port}/a");
        assert_eq!(fetch(&fetcher(port), &url, &LIMITS).unwrap(), b"picture");
    }

    #[test]
    fn a_fourth_redirect_is_refused() {
        let redirect = response("302 Found", "location: /again\r\n", "");
        let port = server(vec![redirect; 5]);
        let url = format!("http://pictures.example:{port}/a");
        let refused = FetchFault::Redirects { limit: REDIRECTS_MAX };
        assert_eq!(fetch(&fetcher(port), &url, &LIMITS), Err(refused.into()));
    }

    #[test]
    fn a_redirect_to_another_host_is_refused() {
        for target in
            ["http://other.example/", "file:///etc/passwd", "http://127.0.0.1/", "//other.example/x"]
        {
            let port = server(vec![response("302 Found", &format!("location: {target}\r\n"), "")]);
            let url = format!("http://pictures.example:{port}/a");
            let fetched = fetch(&fetcher(port), &url, &LIMITS);
            assert_eq!(fetched, Err(SourceError::NotAllowed(Unallowed::Host)), "{target}");
        }
    }

    #[test]
    fn a_name_with_a_private_address_is_refused() {
        let mut fetcher = fetcher(80);
        fetcher.hosts = hosts(&["pictures.example", "127.0.0.1"]);
        fetcher.permitted = is_global;
        for lookup in [
            (|_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])) as Lookup,
            |_, port| Ok(vec![([1, 1, 1, 1], port).into(), ([10, 0, 0, 1], port).into()]),
            |_, _| Ok(Vec::new()),
        ] {
            fetcher.lookup = lookup;
            for url in ["http://pictures.example/a", "http://127.0.0.1/a", "http://0x7f.1/a"] {
                let refused = SourceError::NotAllowed(Unallowed::PrivateHost);
                assert_eq!(fetch(&fetcher, url, &LIMITS), Err(refused), "{url}");
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
            let refused = if url.contains('@') { Unallowed::UserName } else { Unallowed::Host };
            assert_eq!(fetch(&fetcher, url, &LIMITS), Err(SourceError::NotAllowed(refused)), "{url}");
        }
    }

    #[test]
    fn too_many_bytes_and_too_much_time_end_it() {
        let limits = SourceLimits { remote_bytes_max: 4, ..LIMITS };
        let port = server(vec![response("200 OK", "", "pictu")]);
        let fetched = fetch(&fetcher(port), &format!("http://pictures.example:{port}/"), &limits);
        assert_eq!(fetched, Err(SourceError::TooLarge { limit: 4 }));
        let limits = SourceLimits { remote_time_max: Duration::from_millis(300), ..limits };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://pictures.example:{port}/");
        assert_eq!(fetch(&fetcher(port), &url, &limits), Err(FetchFault::Connection.into()));
    }

    #[test]
    fn a_look_up_that_hangs_is_left_behind_and_counted() {
        let mut fetcher = fetcher(80);
        fetcher.lookup = |_, _| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(Vec::new())
        };
        let limits = SourceLimits { remote_time_max: Duration::from_millis(50), ..LIMITS };
        let url = "http://pictures.example:80/a";
        fetcher.hosts = hosts(&["pictures.example", "other.example"]);
        let start = Instant::now();
        assert_eq!(fetch(&fetcher, url, &limits), Err(FetchFault::LookUpTime.into()));
        assert!(start.elapsed() < Duration::from_secs(4));
        let lookups = Arc::clone(&fetcher.hosts[0].lookups);
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
        lookups.store(LOOKUPS_MAX, Ordering::Relaxed);
        assert_eq!(fetch(&fetcher, url, &limits), Err(FetchFault::LookUps.into()));
        assert_eq!(lookups.load(Ordering::Relaxed), LOOKUPS_MAX);
        fetcher.lookup = |_, _| Ok(Vec::new());
        let other = fetch(&fetcher, "http://other.example/a", &limits);
        assert_eq!(other, Err(SourceError::NotAllowed(Unallowed::PrivateHost)), "another host is looked up");
    }

    #[test]
    fn each_host_has_turns_of_its_own() {
        let fetcher = Fetcher::new(vec!["a.example".parse().unwrap(), "b.example:8080".parse().unwrap()]);
        let turns = |url: &str| fetcher.turns(url);
        let a = turns("http://a.example/x").unwrap();
        assert_eq!(a.free(), 64);
        let turn = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(a.take([1; 32]));
        assert_eq!(turns("https://A.example:443/y").unwrap().free(), 63);
        assert_eq!(turns("http://b.example:8080/").unwrap().free(), 64);
        drop(turn);
        for refused in ["http://c.example/", "http://b.example/", "ftp://a.example/", "a.example"] {
            assert!(turns(refused).is_none(), "{refused}");
        }
        let many = (0..1000).map(|number| format!("h{number}.example").parse().unwrap()).collect();
        let turns = Fetcher::new(many).turns("http://h7.example/").unwrap();
        assert_eq!(turns.free(), 4, "however many hosts there are");
    }

    #[test]
    fn the_next_address_is_tried_where_one_refuses() {
        let port = server(vec![response("200 OK", "", "picture")]);
        let mut fetcher = fetcher(port);
        // no server listens at the first address
        fetcher.lookup = |_, port| Ok(vec![([127, 0, 0, 2], port).into(), ([127, 0, 0, 1], port).into()]);
        let url = format!("http://pictures.example:{port}/a");
        assert_eq!(fetch(&fetcher, &url, &LIMITS).unwrap(), b"picture");
    }

    #[test]
    fn a_picture_takes_room_as_it_comes() {
        let port = server(vec![response("200 OK", "", &"x".repeat(5000))]);
        let url = format!("http://pictures.example:{port}/a");
        let (inputs, deadline) = (Inputs::new(4096), Instant::now() + Duration::from_secs(60));
        let fetched = fetcher(port).fetch(&url, &LIMITS, &mut inputs.budget(), deadline);
        let Err(SourceError::Budget(BudgetError::TooLarge { bytes: 4097..=5000, limit: 4096 })) = fetched
        else {
            panic!("{fetched:?}");
        };
    }

    #[test]
    fn an_error_tells_nothing_of_what_lies_there() {
        let port = server(vec![response("403 Forbidden", "", "internal secret")]);
        let fetched = fetch(&fetcher(port), &format!("http://pictures.example:{port}/"), &LIMITS);
        let told = fetched.unwrap_err().to_string();
        assert_eq!(told, "the picture's server did not give it");
    }

    #[test]
    fn hosts_are_names_with_an_optional_port() {
        assert!("images.example.com".parse::<AllowedHost>().is_ok());
        assert!("Images.Example.com:8443".parse::<AllowedHost>().is_ok());
        for text in [
            "",
            "a b",
            "http://a.example/",
            "a.example:x",
            "a.example/x",
            "b\u{fc}.example/x",
            "me@b\u{fc}.example",
            "b\u{fc}%2f.example",
            "0x7f.1",
            "\u{ff11}27.0.0.1",
            "::1",
            "2606:4700::1111",
            "[::1",
            "[::1]:x",
            "[::1]x",
        ] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_may_be_written_as_in_any_address_of_it() {
        for (text, url) in [
            ("[2606:4700::1111]", "https://[2606:4700::1111]/a"),
            ("[2606:4700:0:0::1111]", "https://[2606:4700::1111]/a"),
            ("[2606:4700::1111]:8443", "https://[2606:4700::1111]:8443/a"),
            ("1.1.1.1:80", "http://1.1.1.1/a"),
            ("b\u{fc}cher.example", "https://b\u{fc}cher.example/a"),
            ("B\u{dc}CHER.example:8443", "https://xn--bcher-kva.example:8443/a"),
            ("xn--bcher-kva.example", "https://b\u{fc}cher.example/a"),
        ] {
            let fetcher = Fetcher::new(vec![text.parse().unwrap()]);
            assert!(fetcher.turns(url).is_some(), "{text} {url}");
        }
    }
}
