//! Connections that do nothing, or half of something: they give way, and hold up neither others nor the end.

use super::harness::{ENDLESS, Running, receive, request, user};
use phi3v_cli::server::limits::Limits;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Longer than any test: nothing here may depend on a client's time running out.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn patient(connections_max: usize) -> Limits {
    Limits {
        connections_max,
        head_time_max: FOR_EVER,
        body_time_max: FOR_EVER,
        write_time_max: FOR_EVER,
        drain_time_max: FOR_EVER,
        ..Limits::default()
    }
}

/// What a client may send and then stop.
fn halves() -> Vec<(&'static str, String)> {
    let post = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    vec![
        ("nothing", String::new()),
        ("half a request line", "GET /hea".to_owned()),
        ("half a head", "GET /health HTTP/1.1\r\nhost: localhost\r\nx: ".to_owned()),
        ("an answered request", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()),
        ("half a body", format!("{post}content-length: 1000\r\n\r\n{{")),
        ("half a chunked body", format!("{post}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n")),
        (
            "a body that waits to be asked for",
            format!("{post}expect: 100-continue\r\ncontent-length: 9\r\n\r\n"),
        ),
        (
            "half a body of a refused request",
            "POST /nope HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nx".to_owned(),
        ),
        (
            "a body of a request without one",
            "OPTIONS /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n".to_owned(),
        ),
        ("a second, half request", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /he".to_owned()),
    ]
}

fn hold(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // who gives way at once may be cut while it sends
    let _ = stream.write_all(bytes);
    stream
}

/// Whether the server has ended the connection, or does within a minute.
fn is_ended(mut stream: TcpStream) -> bool {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn whoever_holds_all_places_with_nothing_gives_way() {
    let server = Running::with_limits(patient(8));
    for (name, half) in halves() {
        let held: Vec<_> = (0..20).map(|_| hold(server.address, half.as_bytes())).collect();
        for path in ["/health", "/ready", "/v1/models"] {
            assert_eq!(server.get(path).status, 200, "{name}");
        }
        drop(held);
    }
}

#[test]
fn answers_that_are_not_read_give_way() {
    let server = Running::with_limits(patient(4));
    let pipelined = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    let held: Vec<_> = (0..8)
        .map(|_| {
            let stream = hold(server.address, b"");
            stream.set_nonblocking(true).unwrap();
            let _ = (&stream).write(pipelined.as_bytes());
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(server.get("/health").status, 200);
    }
    drop(held);
}

#[test]
fn what_is_being_answered_keeps_its_place_and_health_is_still_told() {
    let server = Running::endless(patient(2));
    let endless = json!({"messages": [user("x")], "max_tokens": ENDLESS}).to_string();
    let in_flight = || server.get("/ready").json()["in_flight"].as_u64().unwrap();
    let mut running = Vec::new();
    // one that was not read when the next connection came has given way
    while in_flight() < 2 && running.len() < 64 {
        running.push(server.open("POST", "/v1/chat/completions", &[JSON], endless.as_bytes()));
        std::thread::sleep(Duration::from_millis(200));
    }
    let silent: Vec<_> = (0..40).map(|_| hold(server.address, b"GET /hea")).collect();
    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let body = json!({"messages": [user("x")], "max_tokens": 1});
    let refused = server.chat(&body);
    assert_eq!((refused.status, refused.code().as_str()), (503, "connections_full"));
    assert!(refused.header("retry-after").is_some());
    assert!(refused.json()["error"]["hint"].is_string());
    assert_eq!(in_flight(), 2, "both go on");
    drop((running, silent));
    server.wait_idle();
    let answered = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        server.chat(&body).status == 200
    });
    assert!(answered, "there are places again");
}

/// Asks for a path on a connection that is kept, and reads the answer; its body is JSON.
fn ask_on(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.ends_with('}') {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&piece[..count]);
    }
    text
}

/// Who comes while all places are taken is not turned away for as long as the connection is kept.
#[test]
fn a_refusal_ends_with_the_places_and_not_with_the_connection() {
    let server = Running::endless(patient(1));
    let body = json!({"messages": [user("x")], "max_tokens": ENDLESS}).to_string();
    let mut running = Vec::new();
    // one that was not read when the next connection came has given way
    while server.get("/ready").json()["in_flight"] == 0 && running.len() < 64 {
        running.push(server.open("POST", "/v1/chat/completions", &[JSON], body.as_bytes()));
        std::thread::sleep(Duration::from_millis(200));
    }
    // this one is refused, and closed so that the next try is a new connection
    let mut refused = hold(server.address, b"");
    let text = ask_on(&mut refused, "/v1/models");
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("connections_full"), "{text}");
    assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    assert!(is_ended(refused));
    // this one is kept, and has a place once there is one
    let mut kept = hold(server.address, b"");
    assert!(ask_on(&mut kept, "/ready").starts_with("HTTP/1.1 200"));
    drop(running);
    while !ask_on(&mut kept, "/ready").contains("\"in_flight\":0") {
        std::thread::sleep(Duration::from_millis(20));
    }
    // the place is given back soon after
    while server.get("/v1/models").status != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    for path in ["/v1/models", "/v1/models", "/v1/models/tiny"] {
        let text = ask_on(&mut kept, path);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}

#[test]
fn a_client_that_leaves_is_missed_whatever_it_has_sent_behind_its_request() {
    let server = Running::endless(patient(8));
    let body = json!({"messages": [user("x")], "max_tokens": ENDLESS}).to_string();
    let length = body.len();
    for behind in ["", "\n", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let request = format!("{head}content-length: {length}\r\n\r\n{body}{behind}");
        let client = hold(server.address, request.as_bytes());
        while server.get("/ready").json()["in_flight"] == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(client);
        server.wait_idle();
    }
    let counted = server.get("/metrics").text();
    let left = "phi3v_http_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 3";
    assert!(counted.contains(left), "{counted}");
}

#[test]
fn half_requests_do_not_delay_the_end() {
    for (name, half) in halves() {
        let mut server = Running::with_limits(patient(64));
        let held: Vec<_> = (0..3).map(|_| hold(server.address, half.as_bytes())).collect();
        // connections are accepted in their order
        assert_eq!(server.get("/health").status, 200);
        let start = Instant::now();
        server.shut_down();
        server.join().unwrap();
        // far less than any limit above; what counts is that it ends at all
        assert!(start.elapsed() < Duration::from_secs(60), "{name}");
        assert!(held.into_iter().all(is_ended), "{name}");
    }
}

#[test]
fn the_end_waits_for_running_answers_and_not_for_half_requests_beside_them() {
    let mut server = Running::endless(patient(64));
    let body = json!({"messages": [user("A story")], "max_tokens": 3000, "stream": true}).to_string();
    let mut running = server.open("POST", "/v1/chat/completions", &[JSON], body.as_bytes());
    assert!(running.read(&mut [0; 64]).unwrap() > 0);
    let half = hold(server.address, b"GET /ready HTTP/1.1\r\nhost: localhost\r\n");
    assert_eq!(server.get("/health").status, 200);
    server.shut_down();
    assert!(is_ended(half), "while the answer is still being made");
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"));
    server.join().unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn errors_of_bad_heads_have_a_body() {
    let server = Running::with_limits(patient(8));
    let long = "x".repeat(70_000);
    let get = "GET /health HTTP/1.1\r\nhost: localhost\r\n";
    let post = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\n";
    for (head, status, code) in [
        (format!("{get}x: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("{get}{}\r\n", "x: y\r\n".repeat(200)), 431, "head_too_large"),
        (format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n"), 400, "head_invalid"),
        (format!("{post}content-length: +5\r\n\r\n"), 400, "head_invalid"),
        (format!("{post}content-length: -1\r\n\r\n"), 400, "head_invalid"),
        (format!("{post}transfer-encoding: gzip\r\n\r\n"), 400, "head_invalid"),
        (format!("{get}x: a\r\n b\r\n\r\n"), 400, "head_invalid"),
        (format!("{get}x y: a\r\n\r\n"), 400, "head_invalid"),
        (format!("{get}no colon\r\n\r\n"), 400, "head_invalid"),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400, "head_invalid"),
        ("GET /health HTTP/9.9\r\n\r\n".to_owned(), 400, "head_invalid"),
        ("\u{16}\u{3}\u{1}\u{2} a handshake\r\n\r\n".to_owned(), 400, "head_invalid"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "http_version"),
        // after one that is answered
        (format!("{get}\r\n{get}no colon\r\n\r\n"), 200, ""),
    ] {
        let mut stream = hold(server.address, head.as_bytes());
        if status == 200 {
            let mut both = String::new();
            stream.read_to_string(&mut both).unwrap();
            assert!(
                both.contains("{\"status\":\"ok\"}HTTP/1.1 400") && both.contains("head_invalid"),
                "{both}"
            );
            continue;
        }
        let refused = receive(stream);
        let start: String = head.chars().take(80).collect();
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{start}");
        assert_eq!(refused.header("content-type"), Some("application/json"));
        let error = &refused.json()["error"];
        let class = if status == 505 { "server_error" } else { "invalid_request_error" };
        assert!(error["type"] == class && error["hint"].is_string(), "{error}");
    }
    assert_eq!(request(server.address, "HEAD", "/health", &[], b"").status, 200);
}

#[test]
fn requests_of_http_1_0_need_no_host() {
    let server = Running::with_limits(Limits::default());
    for (head, status) in [
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        ("GET /ready HTTP/1.0\r\n\r\n", 200),
        ("OPTIONS / HTTP/1.0\r\n\r\n", 405),
        ("GET /v1/models HTTP/1.0\r\nhost: localhost\r\n\r\n", 200),
        ("GET /health HTTP/1.0\r\nhost: evil.example\r\n\r\n", 421),
        ("GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
    ] {
        assert_eq!(receive(hold(server.address, head.as_bytes())).status, status, "{head}");
    }
    let body = json!({"messages": [user("x")], "max_tokens": 1}).to_string();
    let post = format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(receive(hold(server.address, post.as_bytes())).status, 200);
}
