//! The certificates that this program's clients trust: those of the system, so that clients work in networks that intercept
//! encrypted connections with their own certificates.

use crate::variables::variable;
use rustls_native_certs::{CertificateResult, load_native_certs};
#[cfg(all(unix, not(target_vendor = "apple")))]
use std::path::PathBuf;
use std::sync::OnceLock;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The advice for a certificate that is not trusted.
pub const HINT: &str = "where the network looks into connections, name its certificates (PEM) in SSL_CERT_FILE, or add them to the \
                        system's; otherwise check this machine's clock";

/// The TLS settings of a client. Certificates are read once per process: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if one
/// is set, or else the system's. If neither is set and the system has none, as in the smallest containers, the built-in list
/// of Mozilla is used.
#[must_use]
pub fn tls_config() -> TlsConfig {
    static ROOTS: OnceLock<RootCerts> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = found();
        found
            .errors
            .iter()
            .for_each(|error| tracing::warn!(%error, "a certificate of the system is left out"));
        let certs = found.certs.iter().map(|der| Certificate::from_der(der).to_owned());
        let certs: Vec<Certificate<'static>> = certs.collect();
        // a user who names unreadable certificates trusts nobody
        if certs.is_empty() && !are_named() { RootCerts::WebPki } else { certs.into() }
    });
    TlsConfig::builder().root_certs(roots.clone()).build()
}

/// The variables that name certificates instead of the system's.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

fn are_named() -> bool {
    VARIABLES.iter().any(|name| variable(name).is_some())
}

/// The named certificates, or else the system's.
fn found() -> CertificateResult {
    // what looks for them takes a blank variable for a path; on other systems the program's own list counts then
    #[cfg(all(unix, not(target_vendor = "apple")))]
    if !are_named() && VARIABLES.iter().any(|name| std::env::var_os(name).is_some()) {
        let system = openssl_probe::probe();
        let folder = system.cert_dir.first().map(PathBuf::as_path);
        return rustls_native_certs::load_certs_from_paths(system.cert_file.as_deref(), folder);
    }
    load_native_certs()
}

/// Whether a connection failed because the other side's certificate is not trusted, or is expired or not yet valid. The crate
/// that detects it reports it only as text.
#[must_use]
pub fn is_certificate(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Variables belong to a process, so the test runs itself again in a process that sets one.
    #[test]
    fn certificates_in_a_blank_variable_are_those_of_none() {
        const NAME: &str = "trust::tests::certificates_in_a_blank_variable_are_those_of_none";
        const CHILD: &str = "PHI3V_TEST_OF_TRUST_CHILD";
        let (count, named) = (found().certs.len(), are_named());
        if std::env::var_os(CHILD).is_some() {
            println!("\nfound {count} certificates, named: {named}");
            return;
        }
        let told = |value: Option<&str>| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1");
            for name in VARIABLES {
                child.env_remove(name);
                if let Some(value) = value {
                    child.env(name, value);
                }
            }
            let told = String::from_utf8(child.output().unwrap().stdout).unwrap();
            told.lines().find(|line| line.contains("certificates, named")).unwrap().to_owned()
        };
        let has_none = |told: &str| told.contains(" 0 certificates");
        let unset = told(None);
        for blank in ["", " "].map(|blank| told(Some(blank))) {
            assert!(blank.ends_with("named: false"), "{blank}");
            let alike = has_none(&blank) == has_none(&unset);
            assert!(alike || cfg!(any(windows, target_vendor = "apple")), "{blank}; unset {unset}");
        }
        assert!(told(Some("/nowhere")).ends_with(" 0 certificates, named: true"));
    }
}
