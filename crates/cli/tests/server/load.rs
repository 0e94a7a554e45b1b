//! Many at once: the batch answers as each alone, nothing is lost, those who leave make room.

use super::harness::{ENDLESS, Running, data_url, events, png, receive, user, user_with_picture};
use phi3v_cli::server::ServerOptions;
use phi3v_cli::server::limits::Limits;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

fn options(queue_max: usize) -> ServerOptions {
    ServerOptions { limits: Limits { queue_max, ..Limits::default() }, ..ServerOptions::default() }
}

/// Texts and pictures of many lengths, greedy and sampled.
fn mixed(index: usize) -> Value {
    let text = format!("Question {index}: {}", "what do you see here? ".repeat(index % 7));
    let picture = |width: u32| data_url(&png(width, 30, index as u8 % 3));
    let message = match index % 4 {
        0 => user_with_picture(&picture(40 + index as u32), &text),
        // the engine begins with the first of several while the others are decoded
        2 => {
            let mut message = user_with_picture(&picture(40 + index as u32), &text);
            let second = json!({"type": "image_url", "image_url": {"url": picture(90)}});
            message["content"].as_array_mut().unwrap().insert(1, second);
            message
        }
        _ => user(&text),
    };
    let temperature = if index.is_multiple_of(3) { 0.8 } else { 0.0 };
    json!({"messages": [message], "max_tokens": 4 + index % 13, "temperature": temperature, "seed": index})
}

#[test]
fn sixty_four_at_once_answer_as_each_alone() {
    let server = Running::start(options(64));
    let alone: Vec<String> = (0..64).map(|index| server.chat(&mixed(index)).content()).collect();
    // a fresh server, so that nothing is known to its prefix cache
    let server = Running::start(options(64));
    let together = Mutex::new(vec![String::new(); 64]);
    std::thread::scope(|scope| {
        for index in 0..64 {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let content = server.chat(&mixed(index)).content();
                together.lock().unwrap()[index] = content;
            });
        }
    });
    for (index, (alone, together)) in alone.iter().zip(together.into_inner().unwrap()).enumerate() {
        assert_eq!(*alone, together, "request {index}");
    }
}

#[test]
fn questions_about_one_picture_that_come_together_compute_it_once() {
    let server = Running::start(ServerOptions::default());
    let url = data_url(&png(80, 60, 17));
    let ask = |question: &str| {
        let body = json!({"messages": [user_with_picture(&url, question)], "max_tokens": 4, "n": 2});
        let usage = server.chat(&body).json()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    let questions = ["What is this?", "Which colour has it?", "Who made it?", "How large is it?"];
    let cached: Vec<u64> = std::thread::scope(|scope| {
        let asked: Vec<_> = questions.map(|question| scope.spawn(move || ask(question))).into();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    // 313 rows of the picture
    assert_eq!(cached.iter().filter(|&&cached| cached == 0).count(), 1, "{cached:?}");
    assert!(cached.iter().filter(|&&cached| cached > 0).all(|&cached| cached >= 256), "{cached:?}");
    let computed = server.metric("phi3v_prompt_tokens_total") - server.metric("phi3v_cached_tokens_total");
    assert!(computed < 313.0 + 8.0 * 128.0, "{computed} tokens of 8 answers were computed");
}

#[test]
fn a_client_that_leaves_makes_room() {
    let server = Running::endless(Limits { queue_max: 2, ..Limits::default() });
    let long = |stream: bool| {
        json!({"messages": [user("Tell me a long story")], "max_tokens": ENDLESS, "stream": stream})
            .to_string()
    };
    let headers = [("content-type", "application/json")];
    for stream in [true, false] {
        let mut clients: Vec<_> = (0..2)
            .map(|_| server.open("POST", "/v1/chat/completions", &headers, long(stream).as_bytes()))
            .collect();
        if stream {
            for client in &mut clients {
                assert!(client.read(&mut [0; 64]).unwrap() > 0);
            }
        } else {
            while server.get("/ready").json()["in_flight"] != 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let refused = server.chat(&json!({"messages": [user("x")], "max_tokens": 1}));
        assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
        assert!(refused.header("retry-after").is_some());
        drop(clients);
        server.wait_idle();
        assert_eq!(server.chat(&json!({"messages": [user("x")], "max_tokens": 1})).status, 200);
    }
    assert_eq!(server.metric("phi3v_kv_blocks_in_use"), 0.0);
    let cancelled = server.get("/metrics").text();
    assert!(cancelled.contains("phi3v_answers_total{reason=\"cancelled\"} 4"), "{cancelled}");
}

#[test]
fn who_reads_the_end_of_an_answer_may_ask_again_at_once() {
    let server = Running::start(options(1));
    for index in 0..200 {
        let answer = server.chat(&json!({"messages": [user("x")], "max_tokens": 1}));
        assert_eq!(answer.status, 200, "request {index}: {}", answer.text());
    }
}

#[test]
fn a_slow_reader_gets_everything_and_holds_nobody_up() {
    let server = Running::endless(Limits { queue_max: 9, ..Limits::default() });
    let body = json!({"messages": [user("Tell me a story")], "max_tokens": 3000, "stream": true}).to_string();
    let mut slow =
        server.open("POST", "/v1/chat/completions", &[("content-type", "application/json")], body.as_bytes());
    assert!(slow.read(&mut [0; 16]).unwrap() > 0);
    let others: Vec<String> = (0..8).map(|index| server.chat(&mixed(index)).content()).collect();
    assert_eq!(others.len(), 8);
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"));
}

#[test]
fn answers_are_not_mixed_up_under_load_with_clients_that_vanish() {
    let server = Running::start(options(64));
    let expected: Vec<String> = (0..16).map(|index| server.chat(&mixed(index)).content()).collect();
    let count = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (server, expected, count) = (&server, &expected, &count);
            scope.spawn(move || {
                for round in 0..12 {
                    let index = (worker * 5 + round * 3) % 16;
                    let mut body = mixed(index);
                    body["stream"] = json!(round % 2 == 0);
                    let headers = [("content-type", "application/json")];
                    let body = body.to_string();
                    let mut client = server.open("POST", "/v1/chat/completions", &headers, body.as_bytes());
                    if round % 5 == 4 {
                        let _ = client.read(&mut [0; 32]);
                        continue;
                    }
                    let answer = receive(client);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let text = if round % 2 == 0 { streamed(&answer.text()) } else { answer.content() };
                    assert_eq!(text, expected[index]);
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 8 * 10);
    server.wait_idle();
    assert_eq!(server.metric("phi3v_kv_blocks_in_use"), 0.0);
}

fn streamed(text: &str) -> String {
    let content = |data: &str| {
        let chunk: Value = serde_json::from_str(data).unwrap();
        chunk["choices"][0]["delta"]["content"].as_str().unwrap_or("").to_owned()
    };
    events(text).iter().filter(|(_, data)| data != "[DONE]").map(|(_, data)| content(data)).collect()
}
