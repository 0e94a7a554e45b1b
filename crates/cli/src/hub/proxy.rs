//! Proxies from the environment variables that curl and Python's requests use.

use std::net::IpAddr;
use ureq::http::Uri;

/// Selects the proxy for an address, by the variables that other programs use too.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Hosts that `NO_PROXY` names, reached without a proxy.
    exceptions: Vec<Exception>,
}

/// A proxy named by an environment variable, for connections and messages.
#[derive(Clone)]
pub struct Proxy {
    /// Name of the environment variable.
    pub variable: String,
    /// The variable's value, which may contain a password.
    pub address: String,
}

/// Hosts that are reached without a proxy.
#[derive(Clone, Debug)]
struct Exception {
    hosts: Hosts,
    /// The port that the exception applies to; any if `None`.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    All,
    /// A name in lower case, and all names below it.
    Domain(String),
    /// Addresses that share this number of leading bits.
    Network(IpAddr, u32),
}

/// The address stays out of logs: it may contain a password.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("variable", &self.variable).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Reads `https_proxy` for https and `http_proxy` for http, each with `all_proxy` as a fallback, and `no_proxy` for
    /// exceptions. Lower-case variables take precedence over upper-case ones; empty ones count as unset.
    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            [name.to_owned(), name.to_ascii_uppercase()].into_iter().find_map(|variable| {
                let address = get(&variable)?.trim().to_owned();
                (!address.is_empty()).then_some(Proxy { variable, address })
            })
        };
        let exceptions = get("no_proxy").map_or_else(Vec::new, |list| {
            list.address.split([',', ' ', '\t', '\n']).filter_map(Exception::parse).collect()
        });
        let all = || get("all_proxy");
        Self { http: get("http_proxy").or_else(all), https: get("https_proxy").or_else(all), exceptions }
    }

    /// The proxy for the address, if it needs one.
    pub(super) fn proxy_for(&self, uri: &Uri) -> Option<&Proxy> {
        let secure = uri.scheme_str() == Some("https");
        let proxy = if secure { &self.https } else { &self.http }.as_ref()?;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = uri.host()?.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        (!self.exceptions.iter().any(|exception| exception.holds(&host, port))).then_some(proxy)
    }
}

impl Exception {
    /// Parses `*`, a name, `.name` or `*.name`, an address, or a network such as `10.0.0.0/8`; all but the last may have a
    /// `:port`. `None` if `text` is none of these.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if let Some((address, bits)) = text.split_once('/') {
            let address = address.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            return Some(Self { hosts: Hosts::Network(address, bits), port: None });
        }
        let whole = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let (host, port) = match text.rsplit_once(':') {
            // an IPv6 address has a port only after brackets
            Some((host, port)) if whole(&text).is_none() => (host, Some(port.parse().ok()?)),
            _ => (text.as_str(), None),
        };
        let hosts = match whole(host) {
            Some(address) => Hosts::Network(address, width(address)),
            None if host == "*" => Hosts::All,
            None => {
                let name = host.strip_prefix('*').unwrap_or(host).trim_matches('.');
                Hosts::Domain(Some(name).filter(|name| !name.is_empty())?.to_owned())
            }
        };
        Some(Self { hosts, port })
    }

    fn holds(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        let address = host.parse::<IpAddr>();
        match (&self.hosts, address) {
            (Hosts::All, _) => true,
            (Hosts::Network(network, bits), Ok(address)) => same_bits(*network, address, *bits),
            (Hosts::Domain(name), Err(_)) => host
                .strip_suffix(name.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_bits(network: IpAddr, address: IpAddr, bits: u32) -> bool {
    let differ = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.checked_shr(width(network) - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the proxy for `url`.
    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        let proxies = Proxies::from_variables(get);
        proxies.proxy_for(&url.parse().unwrap()).map(|proxy| proxy.address.clone())
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let (http, https) = ("http://hub.example/x", "https://hub.example/x");
        for (variables, of_http, of_https) in [
            (&[("HTTPS_PROXY", "s")][..], None, Some("s")),
            (&[("http_proxy", "p")], Some("p"), None),
            (&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", "s"), ("ALL_PROXY", "a")], Some("p"), Some("s")),
            (&[("all_proxy", "a"), ("HTTPS_PROXY", "s")], Some("a"), Some("s")),
            (&[("https_proxy", "lower"), ("HTTPS_PROXY", "upper")], None, Some("lower")),
            (&[("https_proxy", " "), ("HTTPS_PROXY", ""), ("ALL_PROXY", "a")], Some("a"), Some("a")),
            (&[], None, None),
        ] {
            assert_eq!(proxy(variables, http).as_deref(), of_http, "{variables:?}");
            assert_eq!(proxy(variables, https).as_deref(), of_https, "{variables:?}");
        }
    }

    #[test]
    fn exceptions() {
        let direct = |list: &str, url: &str| proxy(&[("ALL_PROXY", "a"), ("NO_PROXY", list)], url).is_none();
        for (list, url) in [
            ("*", "https://hub.example"),
            ("hub.example", "https://hub.example/x"),
            ("HUB.Example", "https://hub.EXAMPLE./x"),
            ("other, hub.example", "https://hub.example"),
            ("other hub.example", "https://hub.example"),
            ("example", "https://hub.example"),
            (".example", "https://hub.example"),
            ("*.example", "https://a.hub.example"),
            (".hub.example", "https://hub.example"),
            ("hub.example:443", "https://hub.example"),
            ("hub.example:8080", "http://hub.example:8080"),
            ("127.0.0.1", "http://127.0.0.1:9000"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("127.0.0.0/8", "http://127.0.0.1:9000"),
            ("0.0.0.0/0", "http://8.8.8.8"),
            ("10.0.0.0/8,192.168.0.0/16", "http://192.168.3.4"),
            ("192.168.3.4/32", "http://192.168.3.4"),
            ("::1", "http://[::1]:9000"),
            ("[::1]", "http://[::1]"),
            ("[::1]:9000", "http://[::1]:9000"),
            ("fd00::/8", "http://[fd12::1]"),
            ("::/0", "http://[fd12::1]"),
        ] {
            assert!(direct(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://hub.example"),
            ("hub.example", "https://myhub.example"),
            ("hub.example", "https://hub.example.org"),
            ("hub.example:8443", "https://hub.example"),
            ("hub.example:x", "https://hub.example"),
            ("0.0.1", "http://127.0.0.1"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/33", "http://10.0.0.1"),
            ("10.0.0.0/8", "http://10.example"),
            ("0.0.0.0/0", "http://[::1]"),
            ("fd00::/8", "http://[fe12::1]"),
            (".,*.", "https://hub.example"),
        ] {
            assert!(!direct(list, url), "{list} {url}");
        }
    }
}
