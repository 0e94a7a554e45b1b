//! Hostile and careless clients get a clear error, and nobody else notices.

use super::harness::{ENDLESS, Running, data_url, load, png, receive, request, user, user_with_picture};
use phi3v::engine::EngineOptions;
use phi3v_cli::server::guard::Guard;
use phi3v_cli::server::limits::Limits;
use phi3v_cli::server::{ServeError, ServerOptions};
use phi3v_cli::sources::{Fetcher, Sources};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

fn picture(url: &str) -> Value {
    json!({"messages": [user_with_picture(url, "What is this?")], "max_tokens": 2})
}

#[test]
fn hosts_origins_and_keys_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "a-key-of-some-length\n").unwrap();
    let origin = "https://pages.example";
    let origins = vec!["https://Pages.example/".parse().unwrap()];
    let guard = Guard::new(&["phi.example".to_owned()], &origins).with_key_file(&keys).unwrap();
    let options = ServerOptions { guard, cors_origins: origins, ..ServerOptions::default() };
    let server = Running::start_with(options, || load(EngineOptions::default()));
    let get = |path: &str, headers: &[(&str, &str)]| request(server.address, "GET", path, headers, b"");
    let key = ("authorization", "Bearer a-key-of-some-length");

    assert_eq!(get("/health", &[]).status, 200);
    for path in ["/", "/app.js", "/ready", "/metrics", "/v1/models", "/nothing"] {
        let refused = get(path, &[]);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"), "{path}");
        assert!(refused.header("www-authenticate").is_some());
        assert!(!refused.text().contains("a-key"));
    }
    assert_eq!(get("/", &[key]).status, 200);
    assert_eq!(get("/", &[("host", "evil.example"), key]).code(), "host_not_allowed");
    assert_eq!(get("/health", &[("host", "evil.example")]).code(), "host_not_allowed");
    assert_eq!(get("/health", &[("host", "phi.example")]).status, 200);
    assert_eq!(get("/health", &[("origin", "https://evil.example")]).code(), "origin_not_allowed");

    let allowed = get("/", &[("origin", origin), key]);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some(origin)));
    // the official client's own headers
    let asked = "authorization,content-type,x-stainless-lang,x-stainless-retry-count";
    let preflight = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", asked),
    ];
    let preflight = request(server.address, "OPTIONS", "/v1/chat/completions", &preflight, b"");
    assert_eq!(preflight.header("access-control-allow-origin"), Some(origin));
    assert_eq!(preflight.header("access-control-allow-headers"), Some(asked));
    let other = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let other = request(server.address, "OPTIONS", "/v1/chat/completions", &other, b"");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, None));
}

#[test]
fn cors_is_off_unless_listed() {
    let server = Running::with_limits(Limits::default());
    let origin = format!("http://{}", server.address);
    let own = request(server.address, "GET", "/health", &[("origin", &origin)], b"");
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, None));
}

#[test]
fn bodies_and_heads_are_bounded() {
    let limits = Limits { body_bytes_max: 2000, head_bytes_max: 9000, ..Limits::default() };
    let second = Duration::from_secs(1);
    let impatient =
        Running::with_limits(Limits { body_time_max: second, head_time_max: second, ..limits.clone() });
    let server = Running::with_limits(limits);
    let long = json!({"messages": [user(&"x".repeat(3000))]});
    let refused = server.chat(&long);
    assert_eq!((refused.status, refused.code().as_str()), (413, "body_too_large"));

    // of unknown length
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 3000, "x".repeat(3000));
    let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let refused = receive(server.open("POST", "/v1/chat/completions", &headers, chunk.as_bytes()));
    assert_eq!(refused.code(), "body_too_large");

    // a body that never comes
    let headers = [("content-type", "application/json"), ("content-length", "100")];
    let refused = receive(impatient.open("POST", "/v1/chat/completions", &headers, b"{"));
    assert_eq!((refused.status, refused.code().as_str()), (408, "body_timeout"));

    // a head that never ends
    let mut slow = TcpStream::connect(impatient.address).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();

    let refused = request(server.address, "GET", "/health", &[("x-long", &"x".repeat(20_000))], b"");
    assert_eq!((refused.status, refused.code().as_str()), (431, "head_too_large"));
    let plain = [("content-type", "text/plain")];
    let refused = request(server.address, "POST", "/v1/chat/completions", &plain, b"{}");
    assert_eq!((refused.status, refused.code().as_str()), (415, "content_type"));
    // whichever of them another program would go by
    let json = ("content-type", "application/json");
    for both in [[json, plain[0]], [plain[0], json], [json, json]] {
        let refused = request(server.address, "POST", "/v1/chat/completions", &both, b"{}");
        assert_eq!((refused.status, refused.code().as_str()), (400, "head_invalid"));
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn hostile_pictures_are_refused_and_named() {
    let limits = Limits { images_max: 2, ..Limits::default() };
    let limits = Limits { image: phi3v::image::ImageLimits { pixels_max: 10_000, ..limits.image }, ..limits };
    let server = Running::with_limits(limits);
    let good = png(40, 30, 1);
    // a header that announces 60,000 x 60,000 pixels
    let mut bomb = good.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    // a header that announces none
    let empty = [b"BM".as_slice(), &[0; 12], b"\x28\0\0\0", &[0; 8], b"\x01\0\x18\0", &[0; 24]].concat();
    let cases = [
        (data_url(&bomb), vec!["image_invalid", "image_too_large"]),
        (data_url(&empty), vec!["image_invalid"]),
        (data_url(&png(200, 100, 1)), vec!["image_too_large"]),
        (data_url(&good[..good.len() / 2]), vec!["image_invalid"]),
        (data_url(b"hello"), vec!["image_invalid"]),
        (data_url(b""), vec!["image_invalid"]),
        (
            data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            vec!["image_invalid", "image_format_unsupported"],
        ),
        ("data:image/png;base64,@@@".to_owned(), vec!["image_url_invalid"]),
        ("data:".to_owned(), vec!["image_url_invalid"]),
        ("http://127.0.0.1:1/x.png".to_owned(), vec!["image_source_not_allowed"]),
        ("https://example.com/x.png".to_owned(), vec!["image_source_not_allowed"]),
        ("file:///etc/passwd".to_owned(), vec!["image_source_not_allowed"]),
        ("ftp://example.com/x.png".to_owned(), vec!["image_source_not_allowed"]),
        ("/etc/passwd".to_owned(), vec!["image_source_not_allowed"]),
        (String::new(), vec!["image_source_not_allowed"]),
    ];
    for (url, codes) in cases {
        let refused = server.chat(&picture(&url));
        assert!((400..500).contains(&refused.status));
        assert!(codes.contains(&refused.code().as_str()), "{url}: {}", refused.text());
        let error = &refused.json()["error"];
        assert_eq!(error["param"], "messages[0].content[0].image_url", "{error}");
        assert!(error["hint"].is_string(), "{error}");
        assert!(!refused.text().contains("passwd") && !refused.text().contains("127.0.0.1"), "{error}");
    }
    let url = data_url(&good);
    let parts: Vec<Value> = (0..3).map(|_| json!({"type": "image_url", "image_url": {"url": url}})).collect();
    let many = json!({"messages": [{"role": "user", "content": parts}]});
    assert_eq!(server.chat(&many).code(), "too_many_images");
    let system = json!({"messages": [{"role": "system", "content": [parts[0]]}, user("x")]});
    assert_eq!(server.chat(&system).code(), "invalid_value");
    assert_eq!(server.chat(&picture(&url)).status, 200);
}

#[test]
fn the_corpus_of_odd_pictures_never_breaks_the_server() {
    let Some(corpus) = phi3v_kernels::testing::shared("images/pillow") else { return };
    let server = Running::drawing();
    let mut seen = 0;
    let paths = std::fs::read_dir(corpus).unwrap().filter_map(|file| Some(file.ok()?.path()));
    for path in paths
        .filter(|path| path.metadata().is_ok_and(|file| file.is_file() && file.len() < 1 << 20))
        .take(120)
    {
        let url = data_url(&std::fs::read(&path).unwrap());
        let answer = server.post("/tokenize", &picture(&url));
        let fine = answer.status == 200 || (400..500).contains(&answer.status);
        assert!(fine, "{}: {}", path.display(), answer.text());
        seen += 1;
    }
    assert!(seen > 0);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn pictures_come_from_the_allowed_folder_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::write(dir.join("a.png"), png(40, 30, 1)).unwrap();
    let sources = Sources::data_urls_only().with_folder(&dir).unwrap();
    let server = Running::start(ServerOptions { sources, ..ServerOptions::default() });
    let folder = url::Url::from_file_path(&dir).unwrap();
    assert_eq!(server.chat(&picture(&format!("{folder}/a.png"))).status, 200);
    for path in ["/b.png", "/../../etc/passwd", ""] {
        let refused = server.chat(&picture(&format!("{folder}{path}")));
        assert_eq!(refused.code(), "image_source_not_allowed");
        assert!(!refused.text().contains(dir.to_str().unwrap()));
    }
}

/// A picture whose header, with the right checksum, announces 60,000 x 60,000 pixels and whose data is short.
#[test]
fn a_bomb_with_a_valid_checksum_is_refused_by_its_header() {
    let mut bomb = Vec::new();
    let mut writer = png::Encoder::new(&mut bomb, 60_000, 60_000).write_header().unwrap();
    // an empty zlib stream
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]).unwrap();
    drop(writer);
    let server = Running::with_limits(Limits::default());
    let refused = server.chat(&picture(&data_url(&bomb)));
    assert_eq!((refused.status, refused.code().as_str()), (413, "image_too_large"), "{}", refused.text());
}

#[test]
fn an_allowed_host_on_this_machine_is_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let names = ["127.0.0.1", "localhost"];
    let hosts = names.iter().map(|name| format!("{name}:{port}").parse().unwrap()).collect();
    let sources = Sources::data_urls_only().with_remote(Fetcher::new(hosts));
    let server = Running::start(ServerOptions { sources, ..ServerOptions::default() });
    for name in names {
        let refused = server.chat(&picture(&format!("http://{name}:{port}/a.png")));
        assert_eq!((refused.status, refused.code().as_str()), (400, "image_source_not_allowed"));
        assert_eq!(refused.json()["error"]["param"], "messages[0].content[0].image_url");
    }
    assert!(listener.accept().is_err(), "nobody may have connected");
}

#[test]
fn a_request_that_takes_too_long_ends_with_an_error() {
    let limits = Limits { request_time_max: Duration::from_millis(150), ..Limits::default() };
    let server = Running::endless(limits);
    let body =
        |stream: bool| json!({"messages": [user("A long story")], "max_tokens": ENDLESS, "stream": stream});
    let late = server.chat(&body(false));
    assert_eq!((late.status, late.code().as_str()), (504, "deadline_exceeded"));
    let late = server.chat(&body(true));
    assert!(late.text().contains("deadline_exceeded"), "{}", late.text());
    server.wait_idle();
}

#[test]
fn a_reader_that_never_reads_is_dropped() {
    let server = Running::endless(Limits { write_time_max: Duration::from_millis(300), ..Limits::default() });
    // some 30 MB, more than all the buffers on the way
    let body = json!({"messages": [user("A story")], "max_tokens": ENDLESS, "stream": true, "logprobs": true,
        "top_logprobs": 20});
    let headers = [("content-type", "application/json")];
    let mut deaf = server.open("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes());
    assert!(deaf.read(&mut [0; 64]).unwrap() > 0);
    server.wait_idle();
    std::thread::sleep(Duration::from_secs(1));
    let mut bytes = Vec::new();
    // a reset is as good as an end
    let _ = deaf.read_to_end(&mut bytes);
    assert!(!String::from_utf8_lossy(&bytes).contains("[DONE]"), "{} bytes came", bytes.len());
}

#[test]
fn shutting_down_finishes_what_is_running_and_refuses_what_is_new() {
    let mut server = Running::endless(Limits::default());
    let body = json!({"messages": [user("A story")], "max_tokens": 2000, "stream": true}).to_string();
    let headers = [("content-type", "application/json")];
    let mut running = server.open("POST", "/v1/chat/completions", &headers, body.as_bytes());
    assert!(running.read(&mut [0; 64]).unwrap() > 0);
    server.shut_down();
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"), "{text}");
    server.join().unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn what_does_not_end_in_time_is_given_up() {
    let mut server =
        Running::endless(Limits { drain_time_max: Duration::from_millis(100), ..Limits::default() });
    let body = json!({"messages": [user("A story")], "max_tokens": ENDLESS, "stream": true}).to_string();
    let headers = [("content-type", "application/json")];
    let mut running = server.open("POST", "/v1/chat/completions", &headers, body.as_bytes());
    assert!(running.read(&mut [0; 64]).unwrap() > 0);
    // read on, since a client that does not is cut for that alone
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        // a reset is as good as an end
        let _ = running.read_to_end(&mut told);
        String::from_utf8_lossy(&told).into_owned()
    });
    server.shut_down();
    server.join().unwrap();
    let told = reader.join().unwrap();
    assert!(!told.contains("[DONE]") && !told.contains("\"finish_reason\":\""), "{told}");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let mut server =
        Running::start_with::<phi3v::device::Device>(ServerOptions::default(), || Err(phi3v::Error::Stopped));
    assert!(matches!(server.join(), Err(ServeError::Load(_))));
}

#[test]
fn who_ends_a_server_that_loads_does_not_wait_for_the_model() {
    let (gate, opened) = mpsc::channel::<()>();
    let load = move || {
        let _ = opened.recv();
        load(EngineOptions::default())
    };
    let mut server = Running::start_with(ServerOptions::default(), load);
    assert_eq!(server.get("/ready").status, 503);
    server.shut_down();
    let (ended, waited) = mpsc::channel();
    let loading = std::thread::spawn(move || {
        let in_time = waited.recv_timeout(Duration::from_secs(60)).is_ok();
        drop(gate);
        in_time
    });
    server.join().unwrap();
    // where it has waited for the model, nobody hears this
    let _ = ended.send(());
    assert!(loading.join().unwrap(), "it ended when the model was loaded");
}

#[test]
fn random_bodies_never_break_the_server() {
    let server = Running::with_limits(Limits::default());
    let seed = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]}],"max_tokens":1,"n":1,"stop":["a"],"temperature":0.5,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}}}"#;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let pool = b"{}[]\",:0-9.eE\\u\x00\xff null true \"n\":";
    for _ in 0..300 {
        let mut body = seed.to_vec();
        for _ in 0..1 + random(6) {
            let at = random(body.len());
            match random(3) {
                0 => drop(body.remove(at)),
                1 => body.insert(at, pool[random(pool.len())]),
                _ => body[at] = pool[random(pool.len())],
            }
        }
        let answer = server.post_bytes("/tokenize", &body);
        assert!(answer.status == 200 || (400..500).contains(&answer.status), "{}", answer.text());
    }
    assert_eq!(server.get("/health").status, 200);
}
