//! What the user of a command can do about an error, in the words of the command line: its flags, and commands to copy.

mod hub;
mod library;

use crate::documents::{DocumentError, DrawLimits};
use crate::error::{CliError, ExitCode};
use crate::paths::{quoted, unwritable};
use crate::sources::{FetchFault, NamedImageError, SourceError, Unallowed, as_data_url, http_url};
use crate::tell;
use crate::trust;
use phi3v::engine::EngineError;
use phi3v::files::is_full;
use phi3v::presets::Preset;
use std::ffi::OsStr;
use std::io;

impl CliError {
    /// Prints the error, and the hint on a line of its own.
    pub fn print(&self) {
        // who pressed Ctrl-C knows
        if self.exit_code() == ExitCode::Interrupted {
            return;
        }
        tell!("error: {self}");
        if let Some(hint) = self.hint() {
            tell!("hint: {hint}");
        }
    }

    /// What the user can do about it, one sentence, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Phi3V(error) => return library::hint(error),
            Self::Unfit(unfit) => return unfit.hint(),
            Self::Hub(error) => return error.hint(),
            Self::Picture(error) => return picture(error),
            Self::Batch(error) => return error.hint(),
            Self::Decide(error) => return Some(error.hint()),
            Self::Server { hint, .. } => return hint.clone(),
            Self::Bench(error) => return library::hint_of_bench(error),
            Self::Fixed(error) => library::hint_of_fixed(error),
            Self::DemoIsBuiltIn => "write its files to a folder with phi3v export-demo DIR".to_owned(),
            Self::NoQuestion { names } => no_question(names),
            Self::InChat(error) => return in_chat(error).or_else(|| error.hint()),
            Self::Unreadable { hint: Some(hint), .. } => hint.clone(),
            Self::Unreadable { error, .. } => unreadable(error).to_owned(),
            Self::Unusable { hint, .. } => return hint.clone(),
            Self::File { action: "read", error, .. } if error.kind() == io::ErrorKind::FileTooLarge => {
                unreadable(error).to_owned()
            }
            Self::File { action: "write", error, .. } => unwritable(error).to_owned(),
            Self::Output(error) if is_full(error) || error.kind() == io::ErrorKind::FileTooLarge => {
                unwritable(error).to_owned()
            }
            Self::NoPreset { .. } => format!("there are {}; phi3v schemas shows them", Preset::names()),
            Self::Schema { .. } => "correct the JSON at that place".to_owned(),
            Self::NoTable { hint, .. } => (*hint).to_owned(),
            Self::Pictures { of_pages, of_frames, .. } => {
                let pages = if *of_pages { ", fewer pages with --pages" } else { "" };
                let frames = if *of_frames { ", fewer frames with --frames" } else { "" };
                format!("use --detail low or fewer pictures{pages}{frames}, or raise --context")
            }
            Self::EmptyQuestion => "put a question last, in quotes: \"What is in this picture?\"".to_owned(),
            Self::EmptyPrompt => "give one, in quotes: --prompt \"What is in this picture?\"".to_owned(),
            Self::LooseQuestion(loose) => format!("put the question in quotes: {}", quoted(&loose.question)),
            Self::ChatCommand { .. } => "/help lists the commands".to_owned(),
            Self::Quantized { .. } => "give the original checkpoint, or leave --quant out".to_owned(),
            Self::QuantizedReference { .. } => "give the original checkpoint".to_owned(),
            Self::Exists { .. } => "give another name, or replace it with --force".to_owned(),
            Self::Busy { .. } => "wait until the other run has finished".to_owned(),
            Self::DiskFull { .. } => "free some space, or write to another disk".to_owned(),
            Self::OverwritesModel { .. } => "give another name with --out".to_owned(),
            Self::Unhealthy { .. } => {
                "start one with phi3v serve, or name its address: phi3v health http://HOST:PORT".to_owned()
            }
            Self::Disk { .. } => {
                "free some space, or use another disk (--out, or PHI3V_CACHE); q4 takes three fifths of q8"
                    .to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}

/// What can be done about a file or folder that a flag names and that cannot be read.
fn unreadable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "check who may read it, or give another path",
        io::ErrorKind::FileTooLarge => "check that it is the text you mean, or shorten it",
        io::ErrorKind::InvalidData => "check that it is the text you mean, and save it as UTF-8",
        _ => "check the path",
    }
}

/// What can be done about a data URL that holds no bytes.
const DATA_URL: &str = "write it as data:image/png;base64,iVBORw0K..., or give the path of a file";

/// What can be done about a bug.
const REPORT: &str = "report it, with the picture where others may see it";

impl NamedImageError {
    /// What the user of a batch can do about it, for the picture's row: other flags of the same command.
    #[must_use]
    pub fn hint_in_batch(&self) -> Option<String> {
        let hint = match self {
            Self::Image { error, .. } => return library::image(error),
            Self::Document { error: DocumentError::ManyPages { pages, .. }, .. }
                if *pages > DrawLimits::default().pages_max =>
            {
                let most = DrawLimits::default().pages_max;
                return Some(format!("choose some with another --out, as --pages 1-{most}"));
            }
            // its pages could not be counted, or it is at an address that does not look like a document's
            Self::Document {
                error: DocumentError::ChosenPages { .. } | DocumentError::ManyPages { .. },
                ..
            } => {
                "run the same command again with --retry-errors, and --pages 1- for documents at addresses that do not end in .pdf"
            }
            Self::Document { error, .. } => return error.hint(),
            Self::File { .. } | Self::Grab(_) | Self::StdinTwice => "check that the file can be read",
            Self::Unprepared => REPORT,
            Self::Url { url } => match http_host(url) {
                Some(host) => return Some(format!("allow its host with --allow-url {}", quoted(&host))),
                None => "fetch it yourself, and give the path of the file",
            },
            Self::Fetch { error: SourceError::NotAllowed(Unallowed::Host), .. } => {
                "allow its host with --allow-url, as well as one that it redirects to"
            }
            Self::Fetch { error: SourceError::DataUrl(_), .. } => DATA_URL,
            Self::Fetch { error: SourceError::TooLarge { .. }, .. } => {
                "raise the limit with --max-image-bytes if you trust the host"
            }
            Self::Fetch { error: SourceError::Fetch(FetchFault::Certificate), .. } => trust::HINT,
            Self::Fetch { error: SourceError::Fetch(_), .. } => {
                "try it again with --retry-errors, or fetch it yourself and give the path of the file"
            }
            Self::Fetch { .. } => "fetch it yourself, and give the path of the file",
        };
        Some(hint.to_owned())
    }
}

/// A command that would have worked; of `ask`'s words the pictures that are there, and the question if there was one.
fn no_question(names: &[String]) -> String {
    let is_address = |name: &String| http_url(OsStr::new(name)).is_some();
    let holds_it = |name: &String| as_data_url(OsStr::new(name)).is_some();
    let is_there = |name: &&String| {
        *name == "-" || is_address(name) || holds_it(name) || std::path::Path::new(name).is_file()
    };
    let (pictures, words): (Vec<&String>, Vec<&String>) = names.iter().partition(is_there);
    let question = match words[..] {
        [] if pictures.is_empty() => return "put it last, in quotes: \"What is this?\"".to_owned(),
        [] => "What is this?",
        [question] if question.contains(char::is_whitespace) => question,
        _ => return "put the question last, in quotes: \"What is this?\"".to_owned(),
    };
    let mut command = "phi3v ask".to_owned();
    for host in pictures.iter().filter_map(|name| http_host(name)) {
        command += &format!(" --allow-url {}", quoted(&host));
    }
    for picture in pictures {
        // which may be as long as a picture
        let picture = if holds_it(picture) { "data:..." } else { picture };
        command += &format!(" {}", quoted(picture));
    }
    let question = if words.is_empty() { format!("\"{question}\"") } else { quoted(question) };
    format!("put the question last: {command} {question}")
}

/// What can be done within `chat`, where it is something else than elsewhere.
fn in_chat(error: &CliError) -> Option<String> {
    Some(match error {
        CliError::Picture(NamedImageError::File { name, error })
            if error.kind() == io::ErrorKind::NotFound && name.contains(char::is_whitespace) =>
        {
            "check the path; a question is a line of its own, not behind a picture".to_owned()
        }
        CliError::Picture(NamedImageError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            "check the path; within chat, Tab completes it after /image".to_owned()
        }
        CliError::Picture(NamedImageError::Document {
            error: DocumentError::ManyPages { limit, .. },
            ..
        }) => format!(
            "begin with phi3v chat --pages 1-{limit}, or others; phi3v batch asks about each page by itself"
        ),
        CliError::Picture(
            NamedImageError::Url { url }
            | NamedImageError::Fetch { url, error: SourceError::NotAllowed(_) | SourceError::NoFile },
        ) if http_host(url).is_some() => {
            let host = http_host(url)?;
            format!("begin with phi3v chat --allow-url {}; or {}", quoted(&host), download(url))
        }
        CliError::Picture(NamedImageError::Fetch {
            error: SourceError::Fetch(FetchFault::Certificate),
            ..
        }) => trust::HINT.to_owned(),
        CliError::Picture(NamedImageError::Fetch { url, .. }) if http_host(url).is_some() => download(url),
        CliError::Pictures { .. } => "add fewer pictures; chat --context gives more room".to_owned(),
        CliError::Phi3V(phi3v::Error::Engine(EngineError::ContextLength { .. })) => {
            "/reset makes room; chat --context gives more of it".to_owned()
        }
        _ => return None,
    })
}

/// How a picture of an address comes into `chat`.
fn download(url: &str) -> String {
    format!("fetch it yourself: curl -sL -o picture {}, then /image picture", quoted(url))
}

/// What can be done about a picture.
fn picture(error: &NamedImageError) -> Option<String> {
    Some(match error {
        NamedImageError::Image { error, .. } => return library::image(error),
        NamedImageError::Document { error: DocumentError::ManyPages { limit, .. }, .. } => {
            format!("choose some, as --pages 1-{limit}; phi3v batch asks about each page by itself")
        }
        NamedImageError::Document { error, .. } => return error.hint(),
        NamedImageError::Grab(error) => error.hint(),
        NamedImageError::File { name, error } if error.kind() == io::ErrorKind::NotFound => {
            // of several words it is rather a question than a path
            if name.contains(char::is_whitespace) {
                "check the path; the question of ask comes last and in quotes".to_owned()
            } else {
                "check the path".to_owned()
            }
        }
        NamedImageError::File { error, .. } if error.kind() == io::ErrorKind::IsADirectory => {
            "phi3v batch FOLDER --prompt \"...\" asks about every picture in a folder".to_owned()
        }
        NamedImageError::File { .. } | NamedImageError::StdinTwice => return None,
        NamedImageError::Unprepared => REPORT.to_owned(),
        NamedImageError::Url { url } => address(url),
        NamedImageError::Fetch { url, error: SourceError::NotAllowed(Unallowed::Host) } => format!(
            "name its host with --allow-url, as well as one that it redirects to; or {}",
            fetch_yourself(url)
        ),
        NamedImageError::Fetch { error: SourceError::DataUrl(_), .. } => DATA_URL.to_owned(),
        NamedImageError::Fetch { url, error: SourceError::TooLarge { .. } } => {
            let source = if http_host(url).is_some() { "the host" } else { "it" };
            format!("raise the limit with --max-image-bytes if you trust {source}")
        }
        NamedImageError::Fetch { error: SourceError::Fetch(FetchFault::Certificate), .. } => {
            trust::HINT.to_owned()
        }
        NamedImageError::Fetch { url, .. } => fetch_yourself(url),
    })
}

/// How a picture comes from an address without phi3v fetching it.
fn fetch_yourself(url: &str) -> String {
    format!("fetch it yourself: curl -sL {} | phi3v ask - \"...\"", quoted(url))
}

/// The host of an http address, with its port where it has one.
fn http_host(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn address(url: &str) -> String {
    match http_host(url) {
        Some(host) => {
            let (host, address) = (quoted(&host), quoted(url));
            format!(
                "allow its host: phi3v ask --allow-url {host} {address} \"...\"; or {}",
                fetch_yourself(url)
            )
        }
        None if url::Url::parse(url).is_ok_and(|url| url.scheme() == "file") => {
            "give the path of the file".to_owned()
        }
        None => fetch_yourself(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_chat_are_given_when_it_begins() {
        let error = DocumentError::ManyPages { pages: 20, limit: 16 };
        let error = NamedImageError::Document { name: "a.pdf".to_owned(), error };
        let hint = CliError::from(error).in_chat().hint().unwrap_or_default();
        assert!(hint.starts_with("begin with phi3v chat --pages 1-16, "), "{hint}");
    }

    #[test]
    fn of_documents_and_videos_less_can_be_asked_for() {
        let hint = |of_pages, of_frames| {
            CliError::Pictures { rows: 9, context: 8, of_pages, of_frames }.hint().unwrap()
        };
        assert_eq!(hint(false, false), "use --detail low or fewer pictures, or raise --context");
        let all = "use --detail low or fewer pictures, fewer pages with --pages, fewer frames with --frames, or raise --context";
        assert_eq!(hint(true, true), all);
    }

    #[test]
    fn a_batch_is_told_to_choose_where_no_page_is_asked_about() {
        let hint = |pages, limit| {
            let error = DocumentError::ManyPages { pages, limit };
            NamedImageError::Document { name: "a.pdf".to_owned(), error }.hint_in_batch().unwrap()
        };
        for limit in [1, 10_000] {
            assert_eq!(hint(10_001, limit), "choose some with another --out, as --pages 1-10000");
        }
        assert!(hint(10_000, 1).contains("--pages 1- for documents at addresses"));
    }

    #[test]
    fn an_address_is_one_however_its_scheme_is_written() {
        let names = ["HTTPS://example.org/a.png", "What is this?"].map(str::to_owned);
        let told = no_question(&names);
        assert!(told.contains("phi3v ask --allow-url example.org HTTPS://example.org/a.png "), "{told}");
        assert_eq!(address("FILE:///a.png"), "give the path of the file");
    }
}
