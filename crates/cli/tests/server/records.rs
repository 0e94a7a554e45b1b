//! What is counted: every request once, also those whose client has left; times as their names say.

use super::harness::{ENDLESS, Running, user};
use phi3v_cli::server::ServerOptions;
use phi3v_cli::server::limits::Limits;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_client_that_leaves_before_its_answer_is_counted() {
    let server = Running::endless(Limits::default());
    let body = json!({"messages": [user("A long story")], "max_tokens": ENDLESS}).to_string();
    let headers = [("content-type", "application/json")];
    let client = server.open("POST", "/v1/chat/completions", &headers, body.as_bytes());
    while server.get("/ready").json()["in_flight"] != 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    server.wait_idle();
    let counted = "phi3v_http_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 1";
    // the engine may be rid of the answer before the request's line is written
    let mut text = String::new();
    for _ in 0..500 {
        text = server.get("/metrics").text();
        if text.contains(counted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{text}");
}

#[test]
fn every_gap_between_tokens_is_counted() {
    let server = Running::start(ServerOptions::default());
    let mut tokens = 0.0;
    for (number, max_tokens) in [(1.0, 5), (2.0, 9)] {
        let body = json!({"messages": [user("Tell me a story")], "max_tokens": max_tokens});
        tokens += server.chat(&body).json()["usage"]["completion_tokens"].as_f64().unwrap();
        assert_eq!(server.metric("phi3v_first_token_seconds_count"), number);
        assert_eq!(server.metric("phi3v_token_gap_seconds_count"), tokens - number);
    }
}
