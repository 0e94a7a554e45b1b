//! `phi3v serve`: starts a server as the flags describe.

use crate::args::{AccessArgs, LimitArgs, LogFormat, ServeArgs};
use crate::documents::Drawer;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::runtime::{self, Beside, Runtime};
use crate::server::guard::{Guard, KeyFileError};
use crate::server::limits::{BODIES_MIN, Limits};
use crate::server::log_writer::{self, LogThread};
use crate::server::state::ServedModel;
use crate::server::{Loaded, ServeError, Server, ServerOptions, tls};
use crate::sources::{Fetcher, Sources};
use crate::sys::termination;
use crate::terminal::has_colours;
use crate::variables::variable;
use crate::{note, tell};
use phi3v::constraint::{ConstraintFactory, GrammarLimits};
use phi3v::device::Device;
use phi3v::image::{ImageParams, NUM_CROPS_HIGH};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing_subscriber::filter::LevelFilter;

impl From<ServeError<CliError>> for CliError {
    fn from(error: ServeError<Self>) -> Self {
        match error {
            ServeError::Load(error) => error,
            other => Self::Server { message: other.to_string(), hint: other.hint() },
        }
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// The flags contradict each other, the address is in use, or the model cannot be loaded.
pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let _log = start_log(args.log_format);
    let mut options = options(args)?;
    // before a download, as for a wrong flag
    Server::<CliError>::check(&options)?;
    let num_crops = args.num_crops;
    // requests may ask for high detail
    let tiles_max = move |own| num_crops.unwrap_or(own).max(NUM_CROPS_HIGH);
    let opened = runtime::open(&args.model, &args.context, tiles_max)?.fitting()?;
    opened.tell_demo();
    options.limits.bound_input(opened.input_bytes_left());
    let model = args.model.clone();
    let beside = Beside {
        input_bytes: options.limits.input_bytes_max as u64,
        decoder_bytes: options.limits.decoders_bytes_max(),
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let open_to_all = !options.guard.has_keys() && !args.host.is_loopback();
    let mut context = args.context.clone();
    let mut first = Some(opened);
    let server = Server::start(options, move || {
        let opened = match first.take() {
            Some(opened) => opened,
            // after a device failure, the device is opened anew, and the model with it
            None => runtime::open(&model, &context, tiles_max)?.fitting()?,
        };
        // the context that was promised to requests
        context.context = opened.plan.as_ref().ok().map(|plan| plan.context_tokens);
        let own = opened.checkpoint.preprocessor;
        let image_params = own.with_num_crops(num_crops.unwrap_or(own.num_crops));
        let description = opened.is_demo.then(runtime::demo_notice);
        loaded(opened.load_for_server(&model, beside)?, image_params, description)
    })?;
    note!("phi3v listens at {scheme}://{} (the page; the API is below /v1)", from_here(server.address));
    if server.address.ip().is_unspecified() {
        let port = server.address.port();
        note!(
            "other machines reach it at this one's address, port {port}; at a name where --allow-host has it"
        );
    }
    if open_to_all {
        tell!("warning: other machines can use this server without a key");
        tell!("hint: start it with --api-key-file, or without --host");
    }
    let hurry = Arc::new(Notify::new());
    Ok(server.run(first_signal(Arc::clone(&hurry)), hurry.notified())?)
}

/// The address to reach `address` from this machine: an unspecified address cannot be called.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn loaded(
    runtime: Runtime,
    image_params: ImageParams,
    description: Option<String>,
) -> Result<Loaded<Device>, CliError> {
    let Runtime { engine, tokenizer, name } = runtime;
    let constraints =
        ConstraintFactory::new(&tokenizer, GrammarLimits::default()).map_err(phi3v::Error::from)?;
    let context_tokens = engine.context_tokens();
    let constraints = Arc::new(constraints);
    Ok(Loaded {
        engine,
        model: ServedModel { name, description, tokenizer, constraints, image_params, context_tokens },
    })
}

fn options(args: &ServeArgs) -> Result<ServerOptions, CliError> {
    let AccessArgs { api_key_file, share_cache, allow_host, cors_origin, tls_cert, tls_key, .. } =
        &args.access;
    let mut guard = Guard::new(allow_host, cors_origin);
    if let Some(path) = api_key_file {
        guard = guard.with_key_file(path).map_err(|error| match error {
            KeyFileError::Read(error) => CliError::unreadable(path, error),
            error => CliError::Unusable { message: error.to_string(), hint: error.hint().map(str::to_owned) },
        })?;
    }
    if *share_cache {
        guard = guard.with_shared_cache();
    }
    let tls = match (tls_cert, tls_key) {
        (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key).map_err(tls_error)?),
        _ => None,
    };
    Ok(ServerOptions {
        address: SocketAddr::new(args.host, args.port),
        guard,
        cors_origins: cors_origin.clone(),
        tls,
        sources: sources(&args.access)?,
        drawer: Drawer::default(),
        limits: limits(&args.limits),
    })
}

fn tls_error(error: tls::TlsError) -> CliError {
    let hint = match error {
        tls::TlsError::Read { path, error } => return CliError::unreadable(&path, error),
        tls::TlsError::Pem { .. } => {
            "give a file that begins with -----BEGIN, as --tls-cert and --tls-key take it"
        }
        tls::TlsError::Refused(_) => "give a chain with --tls-cert whose first certificate is of the key",
    };
    CliError::Unusable { message: error.to_string(), hint: Some(hint.to_owned()) }
}

fn sources(access: &AccessArgs) -> Result<Sources, CliError> {
    let mut sources = Sources::data_urls_only();
    if !access.allow_image_host.is_empty() {
        sources = sources.with_remote(Fetcher::new(access.allow_image_host.clone()));
    }
    if let Some(dir) = &access.allow_image_dir {
        sources = sources.with_folder(dir).map_err(|error| CliError::unreadable(dir, error))?;
    }
    Ok(sources)
}

fn limits(args: &LimitArgs) -> Limits {
    let body_bytes_max = usize::from(args.body_mib) << 20;
    let default = Limits::default();
    Limits {
        queue_max: usize::from(args.queue),
        connections_max: usize::from(args.connections),
        body_bytes_max,
        input_bytes_max: default.input_bytes_max.max(BODIES_MIN * body_bytes_max),
        images_max: usize::from(args.images),
        max_tokens_max: args.max_tokens as usize,
        max_tokens_default: default.max_tokens_default.min(args.max_tokens as usize),
        request_time_max: Duration::from_secs(args.request_seconds.into()),
        drain_time_max: Duration::from_secs(args.drain_seconds.into()),
        ..default
    }
}

/// Starts the log; dropping the returned value flushes its last lines.
fn start_log(format: LogFormat) -> Option<LogThread> {
    let (writer, thread) = log_writer::to_stderr().ok()?;
    let level = variable("RUST_LOG").and_then(|level| level.to_str()?.trim().parse().ok());
    let level = level.unwrap_or(LevelFilter::INFO);
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(writer).with_target(false);
    let log = log.log_internal_errors(false);
    let log = log.with_ansi(has_colours(&io::stderr()));
    // a host program may have installed a log already
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Some(thread)
}

/// Resolves at the first SIGTERM or Ctrl-C; a second one notifies `hurry`.
async fn first_signal(hurry: Arc<Notify>) {
    // quantizing at startup installs a handler that ends the program at once
    Interrupt::leave_to_others();
    if let Err(error) = termination().await {
        tracing::warn!(%error, "signals cannot be received");
        std::future::pending::<()>().await;
    }
    tokio::spawn(async move {
        // without a second signal, the drain time limit applies
        if termination().await.is_ok() {
            hurry.notify_one();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_is_told_can_be_opened() {
        for (listens, told) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:80", "[::1]:80"),
            ("192.168.1.5:8000", "192.168.1.5:8000"),
        ] {
            assert_eq!(from_here(listens.parse().unwrap()).to_string(), told);
        }
    }
}
