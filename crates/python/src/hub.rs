//! The hub that models come from, by the names that programs for transformers have.

use phi3v_cli::hub::{HubOptions, Token};
use pyo3::prelude::*;
use std::path::PathBuf;

/// What is asked for beside a model's name; what is not given is as the environment has it.
#[derive(FromPyObject, Default)]
#[pyo3(from_item_all)]
pub(crate) struct Hub {
    /// Branch, tag or commit of a repository.
    #[pyo3(default)]
    revision: Option<String>,
    /// Access token; an empty one is none.
    #[pyo3(default)]
    token: Option<String>,
    /// The folder with one folder per repository.
    #[pyo3(default)]
    cache_dir: Option<PathBuf>,
    /// Whether nothing is downloaded.
    local_files_only: bool,
}

/// The name of [`Hub::local_files_only`], for errors.
pub(crate) const LOCAL_FILES_ONLY: &str = "local_files_only";

impl Hub {
    /// The command line's words for it.
    pub(crate) fn options(self) -> HubOptions {
        let mut options = HubOptions { revision: self.revision, ..HubOptions::from_env() };
        if let Some(token) = self.token {
            options.token = Token::new(&token, "token");
        }
        if let Some(cache) = self.cache_dir {
            options.cache = cache;
        }
        if self.local_files_only && !options.offline {
            (options.offline, options.offline_by) = (true, LOCAL_FILES_ONLY);
        }
        options
    }
}
