//! The real program: its signals, its exit code, and what its log holds.

use super::harness::{data_url, events, png, receive, request, send, tiny, user, user_with_picture};
use super::signals;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// `phi3v serve` of the tiny checkpoint on the device that tests run on, with quantized weights in `cache`.
fn serve(port: u16, args: &[&str], cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
    command.args(["serve", "--port", &port.to_string(), "--model"]).arg(tiny()).args(args);
    command.env("PHI3V_CACHE", cache).env("PHI3V_DEVICE", phi3v_kernels::testing::test_device());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    signals::hear(&mut command);
    command
}

/// A running `phi3v serve`; killed when this is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// Where quantized weights are kept.
    _cache: tempfile::TempDir,
}

impl Process {
    fn start(args: &[&str], level: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let mut command = serve(0, args, cache.path());
        let mut child = command.env("RUST_LOG", level).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let line = lines.next().expect("the address is told").unwrap();
            *log.lock().unwrap() += &format!("{line}\n");
            let address = line.split_once("http://").and_then(|(_, rest)| rest.split(' ').next());
            if let Some(address) = address {
                break address.parse().unwrap();
            }
        };
        let copy = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *copy.lock().unwrap() += &format!("{line}\n");
            }
        });
        Self { child, address, log, reader: Some(reader), _cache: cache }
    }

    fn until_ready(self, headers: &[(&str, &str)]) -> Self {
        while request(self.address, "GET", "/ready", headers, b"").status == 503 {
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// Exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log.lock().unwrap().clone();
        (code, log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended long ago
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_health_check_needs_no_key_and_tells_a_server_from_none() {
    let check = |address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
        command.args(["health", address]).env("http_proxy", "http://127.0.0.1:1").output().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, "secret-of-the-server").unwrap();
    let server = Process::start(&["--api-key-file", keys.to_str().unwrap()], "warn");
    let address = format!("http://{}/", server.address);
    for address in [&address, &server.address.to_string()] {
        let healthy = check(address);
        assert_eq!((healthy.status.code(), &healthy.stdout[..]), (Some(0), &b"healthy\n"[..]), "{address}");
    }
    drop(server);
    let none = check(&address);
    assert_eq!((none.status.code(), &none.stdout[..]), (Some(1), &b""[..]));
    let told = String::from_utf8(none.stderr).unwrap();
    assert!(told.contains("does not answer as a healthy server") && told.contains("phi3v serve"), "{told}");
    // another page of the same machine
    let other = Process::start(&[], "warn");
    let elsewhere = check(&format!("http://{}/v1", other.address));
    assert!(String::from_utf8(elsewhere.stderr).unwrap().contains("it answered 404"));
}

#[test]
fn ctrl_c_ends_a_server_as_sigterm_does_also_after_quantizing() {
    if !signals::can_be_sent() {
        return;
    }
    // a level that is empty counts as unset, which is info
    let process = Process::start(&["--quant", "q8"], "").until_ready(&[]);
    signals::interrupt(&process.child);
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("shutting down"), "{log}");
}

#[test]
fn sigterm_lets_running_answers_end_and_exits_with_0() {
    if !signals::can_be_sent() {
        return;
    }
    let process = Process::start(&[], "info").until_ready(&[]);
    // some answers of the random model are short, so several run
    let body = |number: usize| {
        json!({"messages": [user(&format!("A story, number {number}"))], "max_tokens": 2000, "stream": true})
            .to_string()
    };
    let mut running: Vec<_> = (0..4)
        .map(|number| {
            let headers = [("content-type", "application/json")];
            send(process.address, "POST", "/v1/chat/completions", &headers, body(number).as_bytes())
        })
        .collect();
    for stream in &mut running {
        assert!(stream.read(&mut [0; 16]).unwrap() > 0);
    }
    signals::terminate(&process.child);
    for mut stream in running {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(events(&text).last().unwrap().1, "[DONE]");
    }
    let address = process.address;
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("shutting down"), "{log}");
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn the_log_tells_of_requests_and_holds_nothing_of_theirs() {
    if !signals::can_be_sent() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "secret-key-of-some-length\n").unwrap();
    let args =
        ["--api-key-file", keys.to_str().unwrap(), "--log-format", "json", "--allow-image-host", "localhost"];
    let key = ("authorization", "Bearer secret-key-of-some-length");
    let process = Process::start(&args, "debug").until_ready(&[key]);
    let post = |body: &Value| {
        let headers = [key, ("content-type", "application/json")];
        receive(send(process.address, "POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()))
    };
    let picture = data_url(&png(40, 30, 1));
    let message = user_with_picture(&picture, "my secret question");
    for stream in [true, false] {
        let body = json!({"messages": [message], "max_tokens": 3, "stream": stream, "stop": ["secret stop"]});
        assert_eq!(post(&body).status, 200);
    }
    for body in [
        json!({"messages": [user("my secret question")], "secret_field": 1}),
        json!({"messages": [user_with_picture("http://localhost/secret-address.png", "x")]}),
        json!({"messages": [user("x")], "response_format": {"type": "regex", "pattern": "secret("}}),
    ] {
        assert_eq!(post(&body).status, 400);
    }
    let wrong = [("authorization", "Bearer secret-but-wrong-key")];
    assert_eq!(request(process.address, "GET", "/secret-path?secret=query", &wrong, b"").status, 401);
    signals::terminate(&process.child);
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let answered: Vec<&Value> = lines.iter().filter(|line| line["fields"]["message"] == "answered").collect();
    assert!(answered.len() >= 6, "{log}");
    assert!(answered.iter().all(|line| line["span"]["id"].as_str().is_some_and(|id| id.starts_with("req-"))));
    let ended = lines.iter().find(|line| line["fields"]["message"] == "a streamed answer is complete");
    assert!(ended.is_some_and(|line| line["span"]["id"].is_string()), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains("localhost"), "the host of a picture: {log}");
    assert!(!log.contains(&picture[30..60]), "{log}");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server whose stderr is `log`, and its address.
fn with_log(log: impl Into<Stdio>, args: &[&str]) -> (Process, std::net::SocketAddr) {
    let port = free_port();
    let cache = tempfile::tempdir().unwrap();
    let child = serve(port, args, cache.path()).env("RUST_LOG", "trace").stderr(log).spawn().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let process = Process { child, address, log: Arc::default(), reader: None, _cache: cache };
    for _ in 0..3000 {
        if std::net::TcpStream::connect(address).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (process.until_ready(&[]), address)
}

/// Answers, ends by a signal, and exits with 0.
fn serves_to_the_end(name: &str, (mut process, address): (Process, SocketAddr)) {
    let body = json!({"messages": [user("x")], "max_tokens": 2}).to_string();
    for _ in 0..20 {
        let headers = [("content-type", "application/json")];
        let answer = receive(send(address, "POST", "/v1/chat/completions", &headers, body.as_bytes()));
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(request(address, "GET", "/nothing", &[], b"").status, 404, "{name}");
    }
    signals::terminate(&process.child);
    assert_eq!(process.child.wait().unwrap().code(), Some(0), "{name}");
}

#[test]
fn a_log_that_cannot_be_written_changes_nothing() {
    if !signals::can_be_sent() {
        return;
    }
    // a pipe whose reader has gone, from the beginning or later
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    serves_to_the_end("no reader", with_log(writer, &[]));
    let (reader, writer) = std::io::pipe().unwrap();
    let server = with_log(writer, &["--log-format", "json"]);
    drop(reader);
    serves_to_the_end("the reader left", server);
    // one that is full, since its reader does not read: 64 KiB are less than the lines of these requests
    let (reader, writer) = std::io::pipe().unwrap();
    let server = with_log(writer, &[]);
    for _ in 0..1000 {
        assert_eq!(request(server.1, "GET", "/nothing", &[], b"").status, 404);
    }
    serves_to_the_end("the reader does not read", server);
    drop(reader);
    match std::fs::OpenOptions::new().write(true).open("/dev/full") {
        Ok(full) => serves_to_the_end("a full device", with_log(full, &[])),
        Err(_) => phi3v_kernels::testing::skip("a full device needs /dev/full", "use Linux"),
    }
}

#[test]
fn as_many_answers_as_run_together_have_memory() {
    let server = Process::start(&["--context", "1024"], "warn").until_ready(&[]);
    let metrics = request(server.address, "GET", "/metrics", &[], b"").text();
    // 16 of them, in blocks of 64 tokens
    assert!(metrics.contains("\nphi3v_kv_blocks 256\n"), "{metrics}");
}
