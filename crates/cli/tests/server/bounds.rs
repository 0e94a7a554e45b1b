//! What a request may take, and when requests are accepted at all.

use super::harness::{Running, data_url, device, load, load_on, png, receive, tiny, user, user_with_picture};
use phi3v::checkpoint::Checkpoint;
use phi3v::engine::EngineOptions;
use phi3v_cli::server::limits::Limits;
use phi3v_cli::server::{ServeError, ServerOptions};
use phi3v_kernels::testing::Deferred;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const JSON: (&str, &str) = ("content-type", "application/json");

fn short() -> Value {
    json!({"messages": [user("x")], "max_tokens": 1})
}

#[test]
fn text_messages_and_tokens_are_bounded() {
    let server = Running::with_limits(Limits {
        text_bytes_max: 100,
        messages_max: 3,
        max_tokens_max: 20,
        queue_max: 2,
        ..Limits::default()
    });
    let long = json!({"messages": [user(&"x".repeat(60)), user(&"y".repeat(41))], "max_tokens": 1});
    let many = json!({"messages": [user("a"), user("b"), user("c"), user("d")], "max_tokens": 1});
    let cases = [
        (long, "text_too_long", "messages", "100"),
        (many, "invalid_value", "messages", "3"),
        (json!({"messages": [user("x")], "max_tokens": 21}), "invalid_value", "max_tokens", "20"),
        (
            json!({"messages": [user("x")], "max_completion_tokens": 21}),
            "invalid_value",
            "max_completion_tokens",
            "20",
        ),
        // more than the queue holds would be refused for ever, so it is not told to come again
        (json!({"messages": [user("x")], "n": 3, "max_tokens": 1}), "invalid_value", "n", "1 to 2"),
    ];
    for (body, code, param, limit) in cases {
        let refused = server.chat(&body);
        let error = &refused.json()["error"];
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{error}");
        assert_eq!(error["param"], param);
        assert!(error["message"].as_str().unwrap().contains(limit), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
    let fits = json!({"messages": [user(&"x".repeat(50)), user(&"y".repeat(50))], "max_tokens": 20, "n": 2});
    assert_eq!(server.chat(&fits).status, 200);
}

#[test]
fn memory_is_taken_by_what_arrives_and_not_by_what_is_announced() {
    let server = Running::with_limits(Limits { input_bytes_max: 64 << 10, ..Limits::default() });
    let promise =
        || server.open("POST", "/v1/chat/completions", &[JSON, ("content-length", "30000000")], b"{");
    let mut promising: Vec<TcpStream> = (0..4).map(|_| promise()).collect();
    let unknown = [JSON, ("transfer-encoding", "chunked")];
    promising.push(server.open("POST", "/v1/chat/completions", &unknown, b"1\r\n{\r\n"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.chat(&short()).status, 200, "nobody is kept out by promises");

    // what has really come does count
    let large = json!({"messages": [user(&"x".repeat(20_000))], "max_tokens": 1});
    let refused = (1..=20).find_map(|attempt| {
        let mut sender = promise();
        sender.write_all(&vec![b' '; 60_000]).ok();
        // a server that has not read it by then gives the memory to the question, and refuses the sender
        std::thread::sleep(Duration::from_millis(50 * attempt));
        promising.push(sender);
        Some(server.chat(&large)).filter(|answer| answer.status == 429)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.code(), "queue_full", "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    drop(promising);
    // it is given back when the client has gone
    let mut status = 429;
    for _ in 0..500 {
        status = server.chat(&short()).status;
        if status == 200 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(status, 200);
}

#[test]
fn input_that_could_never_fit_is_not_told_to_come_again() {
    let server = Running::with_limits(Limits { input_bytes_max: 64 << 10, ..Limits::default() });
    let body = json!({"messages": [user(&"x".repeat(100_000))], "max_tokens": 1});
    let refused = server.chat(&body);
    assert_eq!((refused.status, refused.code().as_str()), (413, "input_too_large"));
    // a tile of 336 x 336 takes 1.35 MB, however small the picture's file
    let body = json!({"messages": [user_with_picture(&data_url(&png(40, 30, 1)), "x")], "max_tokens": 1});
    let refused = server.chat(&body);
    assert_eq!((refused.status, refused.code().as_str()), (413, "input_too_large"));
    assert_eq!(server.chat(&short()).status, 200);
}

#[test]
fn the_deadline_counts_for_the_preparation_too() {
    let limits = Limits { request_time_max: Duration::from_millis(1), ..Limits::default() };
    let server = Running::with_limits(limits);
    // takes far longer to be decoded and cut
    let url = data_url(&png(2000, 1500, 1));
    let body = json!({"messages": [user_with_picture(&url, "What is this?")], "max_tokens": 1});
    for path in ["/v1/chat/completions", "/tokenize"] {
        let late = server.post(path, &body);
        assert_eq!((late.status, late.code().as_str()), (504, "deadline_exceeded"), "{path}");
        // the official clients would ask twice more
        assert_eq!(late.header("x-should-retry"), Some("false"));
    }
}

#[test]
fn a_refusal_reaches_who_is_still_sending() {
    let server = Running::with_limits(Limits { body_bytes_max: 1 << 10, ..Limits::default() });
    for _ in 0..4 {
        let length = ("content-length", "8388608");
        let mut stream = server.open("POST", "/v1/chat/completions", &[JSON, length], b"{");
        stream.write_all(&vec![b' '; (8 << 20) - 1]).unwrap();
        let refused = receive(stream);
        assert_eq!((refused.status, refused.code().as_str()), (413, "body_too_large"));
    }
}

#[test]
fn who_finds_no_place_is_refused_before_pictures_are_looked_at() {
    let server = Running::endless(Limits { queue_max: 1, ..Limits::default() });
    let endless = json!({"messages": [user("x")], "max_tokens": 4000, "stream": true}).to_string();
    let mut running = server.open("POST", "/v1/chat/completions", &[JSON], endless.as_bytes());
    running.read_exact(&mut [0; 400]).unwrap(); // it has begun
    let broken = user_with_picture("data:image/png;base64,AAAA", "x");
    let refused = server.chat(&json!({"messages": [broken], "max_tokens": 1}));
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"), "{}", refused.text());
    assert!(refused.text().contains("1 answer running or waiting already, the limit"), "{}", refused.text());
}

#[test]
fn requests_are_refused_while_the_model_loads() {
    let (go_on, wait) = mpsc::channel::<()>();
    let server = Running::start_with(ServerOptions::default(), move || {
        wait.recv().unwrap();
        load(EngineOptions::default())
    });
    assert_eq!(server.get("/health").status, 200);
    for refused in [server.get("/ready"), server.get("/v1/models"), server.chat(&short())] {
        assert_eq!((refused.status, refused.code().as_str()), (503, "loading"));
        assert!(refused.header("retry-after").is_some());
    }
    go_on.send(()).unwrap();
    while server.get("/ready").status == 503 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.chat(&short()).status, 200);
}

#[test]
fn a_device_that_fails_is_opened_anew_once() {
    let devices: Arc<Mutex<Vec<Arc<AtomicBool>>>> = Arc::default();
    let opened = Arc::clone(&devices);
    let (go_on, wait) = mpsc::channel::<()>();
    go_on.send(()).unwrap();
    let mut server = Running::start_with(ServerOptions::default(), move || {
        wait.recv().unwrap();
        let device = Deferred::new(device()?);
        opened.lock().unwrap().push(device.lost());
        let checkpoint = Checkpoint::open(&tiny())?;
        let stop_ids = checkpoint.stop_ids();
        load_on(device, checkpoint, stop_ids, EngineOptions { context_tokens: 4096, ..Default::default() })
    })
    .until_ready();
    let fail = |device: usize| {
        devices.lock().unwrap()[device].store(true, Ordering::Release);
        let failed = server.chat(&short());
        assert_eq!((failed.status, failed.code().as_str()), (503, "device_failed"), "{}", failed.text());
    };
    assert_eq!(server.chat(&short()).status, 200);
    fail(0);
    // who looks for a server finds another; who comes nevertheless waits for the model
    let ready = || server.get("/ready");
    let not_ready = (0..500).map(|_| (std::thread::sleep(Duration::from_millis(10)), ready()).1);
    let not_ready = { not_ready }.find(|ready| ready.status == 503).expect("the model is being loaded");
    assert_eq!(not_ready.code(), "loading");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.chat(&short()));
        go_on.send(()).unwrap();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    assert_eq!(ready().status, 200);
    fail(1);
    assert!(matches!(server.join(), Err(ServeError::EngineStopped)), "a second failure is the end");
    assert_eq!(devices.lock().unwrap().len(), 2);
}
