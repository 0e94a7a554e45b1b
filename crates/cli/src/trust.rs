//! Whose certificates the clients of this program trust: those that the system trusts, so that they work where the network
//! looks into encrypted connections and shows certificates of its own.

use std::sync::OnceLock;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// What a user can do about a certificate that nobody here trusts.
pub const HINT: &str = "where the network looks into connections, name its certificates (PEM) in SSL_CERT_FILE, or add them to the \
                        system's; otherwise check this machine's clock";

/// The settings of a client's connections. Certificates of the system are read once in a process: those of `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` where one is set. Where neither is set and the system has none, as in the smallest containers, the program's own
/// list counts, which is Mozilla's.
#[must_use]
pub fn tls_config() -> TlsConfig {
    static ROOTS: OnceLock<RootCerts> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        found
            .errors
            .iter()
            .for_each(|error| tracing::warn!(%error, "a certificate of the system is left out"));
        let certs = found.certs.iter().map(|der| Certificate::from_der(der).to_owned());
        let certs: Vec<Certificate<'static>> = certs.collect();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let named = is_set("SSL_CERT_FILE") || is_set("SSL_CERT_DIR");
        // who names certificates that cannot be read trusts nobody
        if certs.is_empty() && !named { RootCerts::WebPki } else { certs.into() }
    });
    TlsConfig::builder().root_certs(roots.clone()).build()
}

/// Whether a connection has failed because the other side's certificate is not trusted, or no longer or not yet valid. The
/// crate that finds it is known by its words alone.
#[must_use]
pub fn is_certificate(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}
