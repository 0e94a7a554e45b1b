//! Encrypted connections, with a certificate made for the test.

use super::harness::{Running, load, user};
use phi3v::engine::EngineOptions;
use phi3v_cli::server::limits::Limits;
use phi3v_cli::server::{ServerOptions, tls};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes a certificate for `localhost` and its key, and returns the certificate.
fn certify(dir: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

struct Encrypted {
    server: Running,
    agent: ureq::Agent,
}

impl Encrypted {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificate = certify(dir.path());
        let acceptor = tls::acceptor(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
        let options = ServerOptions { tls: Some(acceptor), limits, ..ServerOptions::default() };
        let server = Running::start_with(options, || load(EngineOptions::default()));
        let root = ureq::tls::Certificate::from_pem(certificate.as_bytes()).unwrap();
        let tls = ureq::tls::TlsConfig::builder().root_certs(vec![root].into()).build();
        let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
        Self { server, agent: config.build().into() }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address.port())
    }

    fn health(&self) -> u16 {
        self.agent.get(self.url("/health")).call().unwrap().status().as_u16()
    }
}

#[test]
fn requests_are_answered_over_tls() {
    let encrypted = Encrypted::start(Limits::default());
    while encrypted.agent.get(encrypted.url("/ready")).call().unwrap().status() == 503 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let body = json!({"messages": [user("Hello")], "max_tokens": 4}).to_string();
    let request = encrypted.agent.post(encrypted.url("/v1/chat/completions"));
    let mut answer = request.header("content-type", "application/json").send(&body).unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
}

#[test]
fn plain_http_and_stalled_handshakes_are_dropped() {
    let limits = Limits { head_time_max: Duration::from_secs(3), connections_max: 2, ..Limits::default() };
    let encrypted = Encrypted::start(limits);
    let connect = || {
        let stream = TcpStream::connect(encrypted.server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let mut plain = connect();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // a reset is as good as an end
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));

    let start = Instant::now();
    let mut stalled = [connect(), connect()];
    for stream in &mut stalled {
        // the beginning of a handshake that never goes on
        stream.write_all(&[22, 3, 1, 2, 0]).unwrap();
    }
    for stream in &mut stalled {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(start.elapsed() < Duration::from_secs(30), "both places are free again");
    assert_eq!(encrypted.health(), 200);
}

#[test]
fn stalled_handshakes_give_way() {
    let for_ever = Duration::from_secs(3600);
    let limits = Limits { head_time_max: for_ever, connections_max: 4, ..Limits::default() };
    let encrypted = Encrypted::start(limits);
    let stalled: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = TcpStream::connect(encrypted.server.address).unwrap();
            let _ = stream.write_all(&[22, 3, 1, 2, 0]);
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(encrypted.health(), 200);
    }
    drop(stalled);
}

#[test]
fn a_connection_that_says_nothing_does_not_delay_the_end() {
    let for_ever = Duration::from_secs(3600);
    let limits = Limits { head_time_max: for_ever, drain_time_max: for_ever, ..Limits::default() };
    let mut encrypted = Encrypted::start(limits);
    let _silent = TcpStream::connect(encrypted.server.address).unwrap();
    assert_eq!(encrypted.health(), 200);
    encrypted.server.shut_down();
    encrypted.server.join().unwrap();
}

#[test]
fn files_without_certificate_or_key_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    assert!(tls::acceptor(&certificate, &key).is_ok());
    let refused = |certificate: &Path, key: &Path| tls::acceptor(certificate, key).err().unwrap().to_string();
    assert!(refused(&key, &key).contains("no certificate in PEM form"));
    assert!(refused(&dir.path().join("absent"), &key).contains("cannot read "));
    assert!(refused(&certificate, &certificate).contains("no private key in PEM form"));
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    assert!(refused(&certificate, &other.path().join("key.pem")).contains("cannot be used"));
}
