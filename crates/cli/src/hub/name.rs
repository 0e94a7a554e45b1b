//! Names of models, as users give them.

use super::{FileKind, HubError};
use crate::paths::from_home;
use std::fmt;
use std::path::{Path, PathBuf};

/// Short names of the most requested models.
const ALIASES: [(&str, &str); 2] = [
    ("phi-3-vision", "microsoft/Phi-3-vision-128k-instruct"),
    ("phi-3.5-vision", "microsoft/Phi-3.5-vision-instruct"),
];

/// Most characters of a part of a repository's name, as on the hub.
const NAME_CHARS_MAX: usize = 96;

/// A parsed model name: the demo, a path, or a repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// The checkpoint that is part of the program.
    Demo,
    /// A folder that exists, or a file made by `phi3v quantize`.
    Folder(PathBuf),
    /// A repository on a hub.
    Repo(Repo),
}

/// A repository of the hub at a revision: a branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// Name of the repository, `owner/name`.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

impl Repo {
    /// The same repository at another revision, if one is given.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`] if it cannot be a branch, tag or commit.
    pub(super) fn at(self, revision: Option<&str>) -> Result<Self, HubError> {
        match revision {
            None => Ok(self),
            Some(revision) if is_revision(revision) => Ok(Self { revision: revision.to_owned(), ..self }),
            Some(revision) => Err(HubError::UnknownModel { model: format!("{}@{revision}", self.id) }),
        }
    }
}

/// Whether `model` is one of the most requested models, whose shapes are known before the download.
#[must_use]
pub fn is_known(model: &str) -> bool {
    let id = model.split_once('@').map_or(model, |(id, _)| id);
    ALIASES.iter().any(|(alias, repo)| *alias == model || *repo == id)
}

impl ModelName {
    /// Parses `demo`, `phi-3-vision`, `phi-3.5-vision`, a folder or a quantized file (also below `~`), `owner/name` or
    /// `owner/name@revision`; the first interpretation that fits is used.
    ///
    /// # Errors
    /// [`HubError::NotAModel`] for another kind of file, [`HubError::UnknownModel`] for anything else.
    pub fn parse(model: &str) -> Result<Self, HubError> {
        if model == phi3v::demo::NAME {
            return Ok(Self::Demo);
        }
        if let Some((_, id)) = ALIASES.iter().find(|(alias, _)| *alias == model) {
            return Ok(Self::Repo(Repo { id: (*id).to_owned(), revision: "main".to_owned() }));
        }
        let path = from_home(model);
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        if path.exists() {
            return file(&path);
        }
        let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
        let known = id.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
        if known && is_revision(revision) {
            return Ok(Self::Repo(Repo { id: id.to_owned(), revision: revision.to_owned() }));
        }
        Err(HubError::UnknownModel { model: model.to_owned() })
    }
}

/// Interprets an existing file as a model.
fn file(path: &Path) -> Result<ModelName, HubError> {
    match FileKind::of(path).map_err(|source| HubError::io(path, source))? {
        FileKind::Safetensors => Ok(ModelName::Folder(path.to_owned())),
        kind => Err(HubError::NotAModel { path: path.to_owned(), kind }),
    }
}

/// The hub's rule for owners and repositories. Excludes all characters with a meaning in a path or a URL.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && !name.contains("--")
}

/// Whether this is a git reference that cannot lead out of the cache's `refs` folder.
fn is_revision(revision: &str) -> bool {
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
    };
    revision.len() <= 255 && revision.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(model: &str) -> Option<(String, String)> {
        match ModelName::parse(model) {
            Ok(ModelName::Repo(Repo { id, revision })) => Some((id, revision)),
            _ => None,
        }
    }

    #[test]
    fn names() {
        assert_eq!(ModelName::parse("demo").unwrap(), ModelName::Demo);
        assert_eq!(ModelName::parse(".").unwrap(), ModelName::Folder(PathBuf::from(".")));
        let pair = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(repo("phi-3-vision"), pair("microsoft/Phi-3-vision-128k-instruct", "main"));
        assert_eq!(repo("phi-3.5-vision"), pair("microsoft/Phi-3.5-vision-instruct", "main"));
        assert_eq!(repo("some/model"), pair("some/model", "main"));
        assert_eq!(repo("some/model@refs/pr/1"), pair("some/model", "refs/pr/1"));
        let refused = [
            "",
            "gpt2",
            "a/b/c",
            "../models",
            "./no/such",
            "/no/such",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
            "a/b@/x",
            "a b/c",
            "a/b?c",
            "a/b%2e",
            "a--b/c",
            "http://example.org/a",
            "a\\b/c",
        ];
        // Windows resolves it to this folder, whatever `a` is
        let up = Some("a/..").filter(|_| !cfg!(windows));
        for model in refused.into_iter().chain(up) {
            let error = ModelName::parse(model).expect_err(model);
            assert!(matches!(error, HubError::UnknownModel { .. }) && error.hint().is_some());
        }
    }
}
