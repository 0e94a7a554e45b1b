//! The hub's address and cache, from the environment variables that its own tools use.

use super::proxy::Proxies;
use super::token::Token;
use crate::paths::{from_home, shared_cache, with_variables};
use crate::variables::is_blank;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The hub's address unless `HF_ENDPOINT` names another.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Variables that forbid asking the hub; the first that is set decides.
pub const OFFLINE_VARIABLES: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/// How to use the hub: its address, the cache, an access token, proxies, and whether to use it at all.
#[derive(Clone)]
pub struct HubOptions {
    /// Base address, without a slash at the end.
    pub endpoint: String,
    /// Access token; sent to `endpoint` only.
    pub token: Option<Token>,
    /// Proxies by address.
    pub proxies: Proxies,
    /// The folder that contains one folder per repository.
    pub cache: PathBuf,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// The setting that asks for `offline`, as the user knows it, for errors about missing files.
    pub offline_by: &'static str,
    /// Branch, tag or commit of the repository; `None` if the model's name determines it.
    pub revision: Option<String>,
    /// Whether to ask the hub for a newer commit even if the cache has the model.
    pub refresh: bool,
    /// Pause before the first retry; doubles with each further one.
    pub retry_pause: Duration,
    /// Time without data after which a connection is replaced by a new one that resumes.
    pub stall_time_max: Duration,
    /// Set by the waiting caller when the model is not wanted any more. Clones share it.
    pub given_up: Arc<AtomicBool>,
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token)
            .field("proxies", &self.proxies)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

impl HubOptions {
    /// Options from this process's `HF_ENDPOINT`, `HF_TOKEN` (or the file that the hub's login command writes), `HF_HOME`,
    /// `HF_HUB_CACHE` and `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`, and the proxy variables.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Options from variables returned by `get`. Empty variables count as unset.
    pub fn from_variables<S: Into<OsString>>(get: impl Fn(&str) -> Option<S>) -> Self {
        let raw = |name: &str| get(name).map(Into::<OsString>::into);
        let get = |name: &str| raw(name).filter(|value| !is_blank(value));
        let place = |path: PathBuf| with_variables(from_home(path), raw);
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        let home = get("HF_HOME").map(|path| place(path.into()));
        let home = home.unwrap_or_else(|| shared_cache(raw).join("huggingface"));
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE"));
        let token_file = get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| place(path.into()));
        let offline_by = OFFLINE_VARIABLES.into_iter().find(|name| get(name).is_some());
        let offline_by = offline_by.unwrap_or(OFFLINE_VARIABLES[0]);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            token: token(get, &token_file),
            proxies: Proxies::from_variables(text),
            cache: cache.map_or_else(|| home.join("hub"), |path| place(path.into())),
            offline: is_true(get(offline_by)),
            offline_by,
            revision: None,
            refresh: false,
            retry_pause: Duration::from_secs(1),
            stall_time_max: Duration::from_secs(60),
            given_up: Arc::default(),
        }
    }
}

fn token(get: impl Fn(&str) -> Option<OsString>, file: &Path) -> Option<Token> {
    let given = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Some((get(name)?, name)));
    if let Some((token, name)) = given {
        return Token::new(&token.to_string_lossy(), name);
    }
    if is_true(get("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        return None;
    }
    Token::from_file(file)
}

fn is_true(value: Option<OsString>) -> bool {
    value.is_some_and(|value| {
        matches!(value.to_string_lossy().trim().to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn token(options: &HubOptions) -> Option<&str> {
        options.token.as_ref().map(|token| token.checked().unwrap())
    }

    #[test]
    fn variables() {
        let none = options(&[("XDG_CACHE_HOME", "/nowhere/cache")]);
        assert_eq!(none.endpoint, DEFAULT_ENDPOINT);
        assert_eq!(none.cache, Path::new("/nowhere/cache/huggingface/hub"));
        assert_eq!((token(&none), none.offline), (None, false));
        if let Some(user) = std::env::home_dir() {
            assert_eq!(options(&[("HF_HUB_CACHE", "~/models")]).cache, user.join("models"));
            assert_eq!(options(&[("HF_HUB_CACHE", "~other")]).cache, Path::new("~other"));
        }
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let all = options(&[
            ("HF_HOME", home_text),
            ("HF_ENDPOINT", "http://mirror:8080/"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        assert_eq!((all.endpoint.as_str(), all.offline), ("http://mirror:8080", true));
        assert_eq!((&all.cache, token(&all)), (&home.path().join("hub"), Some("hf_file")));
        let given =
            options(&[("HF_HOME", home_text), ("HF_TOKEN", " hf_given "), ("HF_HUB_CACHE", "/cache")]);
        assert_eq!((given.cache.as_path(), token(&given)), (Path::new("/cache"), Some("hf_given")));
        let empty = options(&[("HF_HOME", home_text), ("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!((token(&empty), empty.offline), (Some("hf_file"), false));
        assert!(!format!("{given:?}").contains("hf_given"));
    }

    #[test]
    fn places_are_where_the_hubs_tools_have_them() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let scratch = ("SCRATCH", home_text);
        for value in ["$SCRATCH", "${SCRATCH}"] {
            let found = options(&[scratch, ("HF_HOME", value)]);
            assert_eq!((&found.cache, token(&found)), (&home.path().join("hub"), Some("hf_file")));
        }
        let found =
            options(&[scratch, ("HF_HUB_CACHE", "$SCRATCH/a"), ("HF_TOKEN_PATH", "${SCRATCH}/token")]);
        assert_eq!((&found.cache, token(&found)), (&home.path().join("a"), Some("hf_file")));
        let found = options(&[scratch, ("XDG_CACHE_HOME", "${SCRATCH}/cache")]);
        assert_eq!(found.cache, home.path().join("cache/huggingface/hub"));
    }

    #[test]
    fn offline_is_what_says_so() {
        let offline = |variables: &[(&str, &str)]| {
            let options = options(variables);
            (options.offline, options.offline_by)
        };
        assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", "1")]), (true, "TRANSFORMERS_OFFLINE"));
        assert_eq!(
            offline(&[("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "on")]),
            (true, "TRANSFORMERS_OFFLINE")
        );
        // the hub's own variable takes precedence
        assert_eq!(
            offline(&[("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "0")]),
            (true, "HF_HUB_OFFLINE")
        );
        assert!(!offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).0);
    }
}
