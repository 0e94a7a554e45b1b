//! Hints about models that cannot be found or downloaded: names to give, variables to set, commands to copy.

use super::library;
use crate::hub::{FileKind, HubError, Proxy};
use crate::paths::{folder_of, quoted};
use crate::trust;
use std::path::Path;

/// How a proxy's user and password are written in its address.
const SIGNS: &str = " (of a user and a password with %40 for @, %3A for :, %2F for / and %25 for %)";

/// Where nothing but time will help.
const LATER: &str = "try again later; a further run continues where this one stopped";

fn not_cached(offline_by: &str) -> String {
    format!("unset {offline_by}, or give a folder with the checkpoint")
}

impl HubError {
    /// What the user can do about it, one sentence with names, variables or commands to copy.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownModel { .. } => {
                "give demo, phi-3-vision, phi-3.5-vision, a repository as owner/name, a folder with a checkpoint, or a file made \
                 by phi3v quantize"
            }
            Self::NotAModel { path, kind } => return Some(kind.hint(path)),
            Self::NotCached { offline_by, .. } => return Some(not_cached(offline_by)),
            Self::NotFound { .. } => "check the name; for a private model set HF_TOKEN to an access token",
            Self::Forbidden { gated: false, reason: Some(_), .. } => {
                "the model's page may tell more; HF_TOKEN names the account that asks"
            }
            Self::Forbidden { .. } => {
                "accept the model's terms on its page, and set HF_TOKEN to an access token of that account"
            }
            Self::Token { .. } => "set HF_TOKEN to a valid access token, or unset it for a public model",
            Self::TokenFile { .. } => {
                "name another file in HF_TOKEN_PATH, or set HF_TOKEN to the token itself"
            }
            Self::NoEndpoint { .. } => "give it as https://HOST or http://HOST:PORT, or unset it",
            Self::NoToken { .. } | Self::TokenSize { .. } => {
                "copy the token again, or unset it for a public model"
            }
            Self::NoProxy { .. } => {
                return Some(format!(
                    "give it as http://HOST:PORT or socks5://HOST:PORT{SIGNS}, or unset it"
                ));
            }
            Self::NotACheckpoint { .. } | Self::FileSize { .. } => {
                "phi3v runs Phi-3-vision and Phi-3.5-vision checkpoints in safetensors files"
            }
            Self::Unreachable { proxy: Some(Proxy { variable, .. }), .. } => {
                return Some(format!(
                    "check the proxy of {variable}, or name the host in NO_PROXY; a further run continues where this \
                     one stopped"
                ));
            }
            Self::Unreachable { .. } => {
                "check the network, or set HF_ENDPOINT to a mirror; a further run continues where this one stopped"
            }
            Self::Certificate { .. } => trust::HINT,
            Self::ProxyRefused { proxy: Proxy { variable, .. }, status: 407, .. } => {
                return Some(format!("give {variable} as http://USER:PASSWORD@HOST:PORT{SIGNS}"));
            }
            Self::ProxyRefused { proxy: Proxy { variable, .. }, .. } => {
                return Some(format!(
                    "let the proxy of {variable} allow CONNECT to this host and port, which http addresses need as well, \
                     or name the host in NO_PROXY"
                ));
            }
            Self::Storage { .. } => {
                "check this machine's clock and whether a firewall lets the host through, or try again later; a \
                 further run continues where this one stopped"
            }
            Self::Status { .. } | Self::GivenUp => LATER,
            Self::Protocol { .. } => {
                "check HF_ENDPOINT, which should be the address of a hub or of its mirror"
            }
            Self::Checksum { .. } => "the damaged part was deleted; run the command again",
            Self::DiskFull { .. } => {
                "free some space, or set HF_HOME to a folder on a larger disk; a further run continues where this one \
                 stopped"
            }
            Self::DiskSpace { .. } => "free some space, or set HF_HOME to a folder on a larger disk",
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge => {
                "raise the limit on the size of files (ulimit -f), or set HF_HOME to a folder on another disk"
            }
            Self::Io { .. } => "check the folder's permissions, or set HF_HOME to another folder",
            Self::Model(error) => return library::hint(error),
        };
        Some(hint.to_owned())
    }
}

impl FileKind {
    /// What would do in place of the file at `path`, one sentence for the hint.
    #[must_use]
    pub fn hint(self, path: &Path) -> String {
        const REAL: &str = "phi3v pull phi-3.5-vision fetches the real model";
        let folder = folder_of(path).display().to_string();
        let file = path.display().to_string();
        match self {
            Self::Part => format!("give its folder: --model {}", quoted(&folder)),
            Self::Picture(_) => {
                format!("pictures stand before the question: phi3v ask {} \"What is this?\"", quoted(&file))
            }
            Self::Archive(_) => "unpack it and give the folder".to_owned(),
            Self::LfsPointer => format!("run git lfs pull in {folder}, and give that folder"),
            Self::Gguf | Self::PyTorch | Self::Weights(_) => {
                format!("phi3v reads safetensors checkpoints and files made by phi3v quantize; {REAL}")
            }
            _ => format!("give a folder with a checkpoint, or a file made by phi3v quantize; {REAL}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_model_is_told_what_would_do() {
        let path = Path::new("models/phi/config.json");
        assert_eq!(FileKind::Part.hint(path), "give its folder: --model models/phi");
        let picture = FileKind::Picture("PNG");
        let told = picture.hint(Path::new("a b.png"));
        assert!(told.ends_with(&format!("phi3v ask {} \"What is this?\"", quoted("a b.png"))), "{told}");
    }

    #[test]
    fn the_library_s_errors_keep_the_command_line_s_words() {
        let context = phi3v::engine::EngineError::ContextLength { prompt: 1, answer: 2, context: 2 };
        let error = HubError::from(phi3v::Error::from(context));
        assert!(error.hint().is_some_and(|hint| hint.contains("--max-new-tokens")));
    }
}
