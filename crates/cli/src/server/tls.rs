//! TLS with a certificate and a key from PEM files.

use crate::bounded;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Why a certificate or its key cannot be used: a file cannot be read, its contents are wrong, or the two do not match.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Why the system refuses it.
        error: std::io::Error,
    },
    /// A file without the expected contents.
    #[error("there is no {what} in PEM form in {}", .path.display())]
    Pem {
        /// What the file should hold.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
    },
    /// The certificate and the key do not match.
    #[error("the certificate and its key cannot be used: {0}")]
    Refused(rustls::Error),
}

/// Largest file with certificates or a key; a chain has some 10 KB.
const PEM_BYTES_MAX: usize = 1 << 20;

/// Returns an acceptor for the certificate chain and key in these files.
///
/// # Errors
/// The files do not hold them, or they do not match.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let missing = |what, path: &Path| TlsError::Pem { what, path: path.to_owned() };
    let read = |path: &Path| {
        bounded::read(path, PEM_BYTES_MAX).map_err(|error| TlsError::Read { path: path.to_owned(), error })
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| missing("certificate", certificate))?;
    if chain.is_empty() {
        return Err(missing("certificate", certificate));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| missing("private key", key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Refused)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
