//! Origins of web pages, as browsers send them and as flags name them.

use url::Url;

/// The origin of a page as browsers and apps send it: `scheme://host`, with the port if it is not the scheme's default.
/// For http and https it is in lower case; for other schemes only the scheme is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The scheme, host and port as browsers send them in `Origin`.
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
        if text.contains('*') {
            return Err(format!(
                "{text} has a *, and origins are compared letter by letter; name each origin, as \
                 https://app.example.org"
            ));
        }
        let origin = match text.split_once("://") {
            Some((scheme, rest)) if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) => {
                of_the_web(text).filter(|_| !rest.is_empty())
            }
            Some((scheme, rest)) => of_an_app(scheme, rest),
            None => None,
        };
        origin.map(Self).ok_or_else(|| {
            format!("{text} is not an origin; write scheme, host and port, as https://example.org:8443")
        })
    }
}

fn of_the_web(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    (bare && nobody).then(|| url.origin().ascii_serialization())
}

/// The origin of a desktop app or a browser extension, such as `app://obsidian.md`. Local files have none and send `null`.
fn of_an_app(scheme: &str, rest: &str) -> Option<String> {
    let scheme = scheme.to_ascii_lowercase();
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_graphic())
        && !host.contains(['/', '\\', '?', '#', '@']);
    (is_scheme && is_host && scheme != "file").then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, origin) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG/", "https://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("APP://Obsidian.md/", "app://Obsidian.md"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("tauri://localhost", "tauri://localhost"),
            ("capacitor-electron://-", "capacitor-electron://-"),
            ("ionic://localhost:8100", "ionic://localhost:8100"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().as_str(), origin, "{text}");
        }
        for text in [
            "",
            "null",
            "example.org",
            "example.org:3000",
            "https://",
            "app://",
            "://host",
            "https://example.org/page",
            "app://host/page",
            "https://example.org?x",
            "https://example.org#x",
            "https://me@example.org",
            "app://a b",
            "1app://host",
            "file:///tmp",
            "file://host",
        ] {
            let refused = text.parse::<Origin>().unwrap_err();
            assert!(refused.contains("is not an origin"), "{text}: {refused}");
        }
        for text in ["*", "https://*.example.org", "app://*", "*://example.org", "http://localhost:*"] {
            assert!(text.parse::<Origin>().unwrap_err().contains("name each origin"), "{text}");
        }
    }
}
