//! Keys, and what the holder of one can find out about the others; pages of listed origins.

use super::harness::{
    ENDLESS, Response, Running, data_url, load, load_endless, png, request, user, user_with_picture,
};
use phi3v::device::Device;
use phi3v::engine::EngineOptions;
use phi3v_cli::origin::Origin;
use phi3v_cli::server::guard::Guard;
use phi3v_cli::server::limits::Limits;
use phi3v_cli::server::{Loaded, ServerOptions};
use serde_json::{Value, json};

const ALICE: &str = "alices-key-of-some-length";
const BOB: &str = "bobs-key-of-the-same-length";

fn server(guard: impl FnOnce(Guard) -> Guard, origins: &[&str]) -> Running {
    let load = || load(EngineOptions { context_tokens: 4096, ..Default::default() });
    limited(Limits::default(), guard, origins, load)
}

fn limited(
    limits: Limits,
    guard: impl FnOnce(Guard) -> Guard,
    origins: &[&str],
    load: fn() -> Result<Loaded<Device>, phi3v::Error>,
) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("\u{feff}# alice\n{ALICE}\r\n\n# bob of the second floor\n{BOB}\n"))
        .unwrap();
    let origins: Vec<Origin> = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    let guard = guard(Guard::new(&[], &origins).with_key_file(&keys).unwrap());
    let options = ServerOptions { guard, limits, cors_origins: origins, ..ServerOptions::default() };
    let server = Running::start_with(options, load);
    while get(&server, ALICE, "/ready").status == 503 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server
}

fn get(server: &Running, key: &str, path: &str) -> Response {
    request(server.address, "GET", path, &[("authorization", &format!("Bearer {key}"))], b"")
}

fn cached(server: &Running, key: &str, body: &Value, path: &str) -> u64 {
    let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {key}"))];
    let answer = request(server.address, "POST", path, &headers, body.to_string().as_bytes()).json();
    let usage = &answer["usage"];
    let details = [&usage["prompt_tokens_details"], &usage["input_tokens_details"]];
    details.iter().find_map(|details| details["cached_tokens"].as_u64()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn one_key_does_not_tell_what_another_has_asked() {
    let server = server(|guard| guard, &[]);
    let text = user(&"a long question that only alice knows ".repeat(40));
    let picture = user_with_picture(&data_url(&png(80, 60, 17)), "What is this?");
    for message in [text, picture] {
        let body = json!({"messages": [message], "max_tokens": 1, "n": 2});
        assert_eq!(cached(&server, ALICE, &body, "/v1/chat/completions"), 0);
        assert_eq!(cached(&server, BOB, &body, "/v1/chat/completions"), 0);
        assert!(cached(&server, ALICE, &body, "/v1/chat/completions") > 0);
        assert!(cached(&server, BOB, &body, "/v1/chat/completions") > 0);
    }
    let body = json!({"input": "another long question ".repeat(40), "max_output_tokens": 16});
    assert_eq!(cached(&server, ALICE, &body, "/v1/responses"), 0);
    assert_eq!(cached(&server, BOB, &body, "/v1/responses"), 0);
    assert!(cached(&server, ALICE, &body, "/v1/responses") > 0);
    let body = json!({
        "input": "a third long question ".repeat(40),
        "questions": [{"type": "predicate", "instructions": "It is long."}],
    });
    assert_eq!(cached(&server, ALICE, &body, "/v1/decisions"), 0);
    assert_eq!(cached(&server, BOB, &body, "/v1/decisions"), 0);
    assert!(cached(&server, ALICE, &body, "/v1/decisions") > 0);
}

#[test]
fn one_key_does_not_keep_the_others_out() {
    let limits = Limits { queue_max: 4, max_tokens_max: ENDLESS, ..Limits::default() };
    let server = limited(limits, |guard| guard, &[], load_endless);
    let body = |tokens: usize| {
        json!({"messages": [user("A story")], "max_tokens": tokens, "stream": tokens > 9}).to_string()
    };
    let bearer = |key: &str| format!("Bearer {key}");
    let open = |key: &str| {
        let headers = [("content-type", "application/json"), ("authorization", &*bearer(key))];
        server.open("POST", "/v1/chat/completions", &headers, body(ENDLESS / 2).as_bytes())
    };
    let held: Vec<_> = (0..4).map(|_| open(ALICE)).collect();
    while get(&server, ALICE, "/ready").json()["in_flight"] != 4 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let ask = |key: &str| {
        let headers = [("content-type", "application/json"), ("authorization", &*bearer(key))];
        request(server.address, "POST", "/v1/chat/completions", &headers, body(2).as_bytes())
    };
    assert_eq!(ask(ALICE).code(), "queue_full");
    assert_eq!(ask(BOB).status, 200);
    drop(held);
}

#[test]
fn one_key_does_not_take_all_memory_for_input() {
    let limits = Limits { input_bytes_max: 64 << 10, ..Limits::default() };
    let server = limited(limits, |guard| guard, &[], || load(EngineOptions::default()));
    let ask = |path: &str, bytes: usize| {
        let body = json!({"messages": [user(&"x".repeat(bytes))], "max_tokens": 1}).to_string();
        let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {ALICE}"))];
        request(server.address, "POST", path, &headers, body.as_bytes())
    };
    for path in ["/v1/chat/completions", "/tokenize"] {
        let refused = ask(path, 50 << 10);
        assert_eq!((refused.status, refused.code().as_str()), (413, "input_too_large"), "{path}");
        assert!(refused.text().contains("the limit is 49152"), "{}", refused.text());
        assert_eq!(ask(path, 100).status, 200);
    }
}

#[test]
fn keys_share_what_is_known_where_the_server_is_told_to() {
    let server = server(Guard::with_shared_cache, &[]);
    let body = json!({"messages": [user(&"a long question ".repeat(40))], "max_tokens": 1});
    assert_eq!(cached(&server, ALICE, &body, "/v1/chat/completions"), 0);
    assert!(cached(&server, BOB, &body, "/v1/chat/completions") > 0);
}

#[test]
fn comments_of_the_key_file_open_nothing_and_one_header_counts() {
    let server = server(|guard| guard, &[]);
    for key in [ALICE, BOB] {
        assert_eq!(get(&server, key, "/v1/models").status, 200, "{key}");
    }
    for key in ["# alice", "# bob of the second floor", "bob of the second floor"] {
        assert_eq!(get(&server, key, "/v1/models").code(), "invalid_api_key", "{key}");
    }
    let (good, bad) = (format!("Bearer {ALICE}"), "Bearer another-key-that-is-wrong");
    for pair in [[&good, bad], [bad, &good], [&good, &good]] {
        let headers = pair.map(|value| ("authorization", value));
        let refused = request(server.address, "GET", "/v1/models", &headers, b"");
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"));
        assert!(refused.text().contains("more than one"), "{}", refused.text());
    }
}

#[test]
fn options_tell_nothing_without_a_key_but_to_pages_of_listed_origins() {
    let app = "app://obsidian.md";
    let server = server(|guard| guard, &[app, "https://ok.example"]);
    let options =
        |path: &str, headers: &[(&str, &str)]| request(server.address, "OPTIONS", path, headers, b"");
    let asks = ("access-control-request-method", "POST");
    for path in ["/v1/chat/completions", "/v1/models", "/nothing", "/"] {
        for headers in [vec![], vec![asks], vec![("origin", app)]] {
            assert_eq!(options(path, &headers).status, 401, "{path} {headers:?}");
        }
    }
    assert_eq!(options("/nothing", &[("origin", app), asks]).status, 401, "there is nothing to be asked");
    assert_eq!(options("/v1/models", &[("origin", "app://other.md"), asks]).code(), "origin_not_allowed");
    for origin in [app, "https://ok.example"] {
        let headers = [("origin", origin), asks, ("access-control-request-headers", "authorization,x-own")];
        let asked = options("/v1/chat/completions", &headers);
        assert_eq!(asked.status, 204);
        assert_eq!(asked.header("access-control-allow-origin"), Some(origin));
        assert_eq!(asked.header("access-control-allow-headers"), Some("authorization,x-own"));
        assert_eq!(asked.header("access-control-allow-methods"), Some("GET, POST"));
        assert!(asked.body.is_empty());
        // a page may also read why it was refused
        let refused = request(server.address, "GET", "/v1/models", &[("origin", origin)], b"");
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin)));
        assert_eq!(refused.header("vary"), Some("origin"));
        assert!(refused.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    }
}
