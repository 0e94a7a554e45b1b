//! The flags of `phi3v serve`.
#![allow(rustdoc::bare_urls, reason = "help names addresses as people type them")]

use super::{ContextArgs, ModelArgs};
use crate::origin::Origin;
use crate::sources::AllowedHost;
use clap::{Args, ValueEnum};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// `phi3v serve`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v serve
  phi3v serve --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem
  curl -s http://127.0.0.1:8000/v1/models")]
pub struct ServeArgs {
    /// Address to listen at, or localhost; anything but 127.0.0.1 can be reached from other machines
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = listen_address)]
    pub host: IpAddr,
    /// Port to listen at; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
    /// Most tiles that a picture is cut into where a request does not say [default: the model's own]
    #[arg(long, value_name = "N", value_parser = super::picture::num_crops(), help_heading = "Model")]
    pub num_crops: Option<usize>,
    /// Who may ask
    #[command(flatten)]
    pub access: AccessArgs,
    /// What a client may ask for
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How the log on stderr is written; RUST_LOG is its level, as info or debug
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// An address of this machine to listen at.
fn listen_address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(text) => text.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| match text.parse::<SocketAddr>() {
        Ok(address) => format!(
            "the port goes into a flag of its own; write --host {} --port {}",
            address.ip(),
            address.port()
        ),
        Err(_) => {
            "write an address of this machine, as 127.0.0.1 or ::1, 0.0.0.0 for all of them, or localhost"
                .to_owned()
        }
    })
}

/// A name as the Host header has it, without a port.
fn host_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', ':', '*', ' ']) {
        return Err(
            "write the name alone and in full, without scheme and port, as phi3v.example.org".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Who may ask, and where pictures may come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// File of API keys, one a line, # before comments; each request but /health must bring one
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Let all keys use the same caches: faster, but each key's holder can find out what the others have asked
    #[arg(long, requires = "api_key_file")]
    pub share_cache: bool,
    /// A name that the server is reached by, beside localhost and addresses; repeat it for several
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    pub allow_host: Vec<String>,
    /// An origin whose pages may use the server, as https://example.org or app://obsidian.md; repeat it
    /// for several
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<Origin>,
    /// Certificate chain in PEM form, for https
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A host that pictures may be fetched from, as images.example.org; repeat it for several
    #[arg(long, value_name = "HOST")]
    pub allow_image_host: Vec<AllowedHost>,
    /// A folder that pictures may be read from by file:// addresses
    #[arg(long, value_name = "DIR")]
    pub allow_image_dir: Option<PathBuf>,
}

/// What a client may ask for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Answers that run or wait at one time; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queue: u16,
    /// Connections at one time; the idlest give way to new ones
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Size of a request's body, pictures included
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub body_mib: u16,
    /// Pictures in a request
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub images: u16,
    /// Tokens an answer may have
    #[arg(long, value_name = "TOKENS", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Time from a request's arrival to the end of its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..))]
    pub request_seconds: u32,
    /// Time for running requests to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub drain_seconds: u32,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_and_addresses_of_both_kinds_are_listened_at() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "127.0.0.1"),
            ("LocalHost", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::]", "::"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in
            ["", "example.org", "[::1", "::1]", "[127.0.0.1]", "http://localhost", "*", "localhost:8000"]
        {
            assert!(listen_address(text).unwrap_err().contains("or localhost"), "{text}");
        }
        assert!(listen_address("127.0.0.1:8001").unwrap_err().contains("--host 127.0.0.1 --port 8001"));
        assert!(listen_address("[::1]:8001").unwrap_err().contains("--host ::1 --port 8001"));
    }
}
