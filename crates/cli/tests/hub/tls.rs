//! Whose certificates are trusted: as behind a firewall that looks into connections.

use phi3v_cli::hub::OFFLINE_VARIABLES;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// A server on this machine that answers every request with status 404, over TLS with a certificate that only `dir` has, as
/// `cert.pem`; its address.
fn encrypted(dir: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let acceptor = phi3v_cli::server::tls::acceptor(&dir.join("cert.pem"), &dir.join("key.pem")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = tokio_rustls::rustls::ServerConnection::new(acceptor.config().clone()).unwrap();
            let mut stream = tokio_rustls::rustls::StreamOwned::new(connection, stream);
            let mut line = String::new();
            let mut reader = BufReader::new(&mut stream);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {}
            // a client that does not trust it has gone
            let _ =
                stream.write_all(b"HTTP/1.1 404 Status\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    url
}

fn run(dir: &Path, url: &str, trusted: bool, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
    command.args(words).env("HF_ENDPOINT", url).env("HF_HUB_CACHE", dir.join("hub"));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_DIR", "SSL_CERT_FILE"]
        .into_iter()
        .chain(OFFLINE_VARIABLES)
    {
        command.env_remove(name);
    }
    if trusted {
        command.env("SSL_CERT_FILE", dir.join("cert.pem"));
    }
    command.output().unwrap()
}

#[test]
fn a_certificate_of_ssl_cert_file_is_trusted_and_another_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let url = encrypted(dir.path());
    let told = |output: Output| String::from_utf8(output.stderr).unwrap();
    let refused = run(dir.path(), &url, false, &["pull", "org/tiny"]);
    assert_eq!(refused.status.code(), Some(4));
    let refused = told(refused);
    assert!(refused.contains("shows a certificate that is not trusted here: "), "{refused}");
    assert!(
        refused.contains(
            "hint: where the network looks into connections, name its certificates (PEM) in SSL_CERT_FILE"
        ),
        "{refused}"
    );
    let found = told(run(dir.path(), &url, true, &["pull", "org/tiny"]));
    assert!(found.contains("org/tiny") && !found.contains("certificate"), "the hub has answered: {found}");
    for address in [&url, &url.replace("https", "HTTPS")] {
        for (trusted, words) in [(false, "certificate"), (true, "it answered 404")] {
            let told = told(run(dir.path(), &url, trusted, &["health", address]));
            assert!(told.contains(words), "{address}: {told}");
        }
    }
}
