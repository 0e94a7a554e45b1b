//! Whose certificates the clients of this program trust: those that the system trusts, so that they work where the network
//! looks into encrypted connections and shows certificates of its own.

use crate::variables::variable;
use rustls_native_certs::{CertificateResult, load_native_certs};
#[cfg(all(unix, not(target_vendor = "apple")))]
use std::path::PathBuf;
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
        let found = found();
        found
            .errors
            .iter()
            .for_each(|error| tracing::warn!(%error, "a certificate of the system is left out"));
        let certs = found.certs.iter().map(|der| Certificate::from_der(der).to_owned());
        let certs: Vec<Certificate<'static>> = certs.collect();
        // who names certificates that cannot be read trusts nobody
        if certs.is_empty() && !are_named() { RootCerts::WebPki } else { certs.into() }
    });
    TlsConfig::builder().root_certs(roots.clone()).build()
}

/// The variables that name certificates instead of the system's.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

fn are_named() -> bool {
    VARIABLES.iter().any(|name| variable(name).is_some())
}

/// The certificates that are named, or else the system's.
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

/// Whether a connection has failed because the other side's certificate is not trusted, or no longer or not yet valid. The
/// crate that finds it is known by its words alone.
#[must_use]
pub fn is_certificate(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A variable is a process's: the test runs itself again in one that has it.
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
