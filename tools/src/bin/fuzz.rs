//! A fuzzer of requests for a running server: valid requests, bent in their JSON, their bytes and their heads.
//!
//! `cargo run --release -p phi3v-tools --bin fuzz -- 127.0.0.1:8000 [seconds=600] [seed=1]`
//!
//! Every answer must be HTTP with a status below 500 (or 503, a full or closing server), every refusal OpenAI's error
//! object; after each hundred a plain question must still be answered.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Clients at the same time.
const CLIENTS: u64 = 4;
/// Longest answer that is asked for, so that most of the time goes into requests.
const TOKENS: u64 = 4;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("the address of the server is missing, as 127.0.0.1:8000")?;
    let (mut seconds, mut seed) = (600, 1);
    for arg in args {
        let (name, value) = arg.split_once('=').ok_or("options are written name=value")?;
        match name {
            "seconds" => seconds = value.parse()?,
            "seed" => seed = value.parse()?,
            _ => return Err(format!("there is no option {name}").into()),
        }
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = address.clone();
            std::thread::spawn(move || {
                attack(
                    &address,
                    end,
                    Random((seed * CLIENTS + client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                )
            })
        })
        .collect();
    let mut statuses = [0usize; 600];
    for client in clients {
        let counted = client.join().map_err(|_| "a client panicked")??;
        statuses.iter_mut().zip(counted).for_each(|(all, one)| *all += one);
    }
    for (status, count) in statuses.iter().enumerate().filter(|(_, count)| **count > 0) {
        println!("{status}: {count}");
    }
    println!("{} requests, no answer was wrong", statuses.iter().sum::<usize>());
    Ok(())
}

/// Sends bent requests until `end`; counts the answers' statuses, 0 where the server closed without one.
fn attack(address: &str, end: Instant, mut random: Random) -> Result<[usize; 600], Failure> {
    let mut statuses = [0; 600];
    for number in 0u64.. {
        if Instant::now() > end {
            break;
        }
        let (request, whole) = bent(&mut random);
        let answer = send(address, &request, whole)?;
        let status = check(&answer).map_err(|error| {
            format!("{error}\n--- request\n{}\n--- answer\n{}", shown(&request), shown(&answer))
        })?;
        statuses[status] += 1;
        if number % 100 == 0 {
            let body =
                json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}).to_string();
            let answer = send(address, &head("POST", "/v1/chat/completions", body.as_bytes()), true)?;
            if !matches!(check(&answer)?, 200 | 429 | 503) {
                return Err(format!("a plain question got {}", shown(&answer)).into());
            }
        }
    }
    Ok(statuses)
}

/// The start of some bytes, for people.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// The status of an answer, 0 for none.
fn check(answer: &[u8]) -> Result<usize, Failure> {
    if answer.is_empty() {
        return Ok(0);
    }
    let text = String::from_utf8_lossy(answer);
    let status: usize = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)).ok_or("not HTTP")?.parse()?;
    if status >= 500 && status != 503 {
        return Err(format!("status {status}").into());
    }
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no end of the head")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse::<usize>);
    if let (true, Some(Ok(length @ 1..))) = (status >= 400 && head.contains("application/json"), length) {
        // bent bytes may be two requests, so another answer may follow
        let error: Value = serde_json::from_str(body.get(..length).ok_or("a cut answer")?)?;
        if !error["error"]["message"].is_string() || !error["error"]["code"].is_string() {
            return Err("an error without message and code".into());
        }
    }
    Ok(status)
}

/// Sends bytes and reads until the server closes; what was read when it resets the connection. After a request that is
/// not `whole`, for whose rest a server would wait, the client leaves.
fn send(address: &str, request: &[u8], whole: bool) -> Result<Vec<u8>, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    // a server that has seen enough may close before all is sent
    let _ = stream.write_all(request);
    if !whole {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) => return Err(error.into()),
        }
    }
}

fn head(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A request with up to three things wrong with it, and whether its head says how long it is.
fn bent(random: &mut Random) -> (Vec<u8>, bool) {
    let (path, mut body) = valid(random);
    for _ in 0..random.below(4) {
        bend_value(&mut body, random, 0);
    }
    let mut bytes = body.to_string().into_bytes();
    if random.below(4) == 0 {
        bend_bytes(&mut bytes, random);
    }
    let method = if random.below(40) == 0 { "PUT" } else { "POST" };
    let mut request = head(method, path, &bytes);
    let whole = random.below(8) > 0;
    if !whole {
        let end = request.len().min(200);
        let mut start = request.drain(..end).collect();
        bend_bytes(&mut start, random);
        start.append(&mut request);
        request = start;
    }
    (request, whole)
}

/// A request that is right.
fn valid(random: &mut Random) -> (&'static str, Value) {
    const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let text = "What is <|end|> written <|image_1|> here? \u{1F600}";
    match random.below(7) {
        0 => (
            "/v1/chat/completions",
            json!({"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": [
                {"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]}],
                "max_tokens": TOKENS, "stream": random.below(2) == 0, "temperature": 0.5, "top_p": 0.9, "seed": 7,
                "stop": ["\n"], "logprobs": true, "top_logprobs": 2, "n": 1, "presence_penalty": 0.1}),
        ),
        1 => (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": text}], "max_completion_tokens": TOKENS,
                "stream": true, "stream_options": {"include_usage": true}, "response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "strict": true, "schema": {"type": "object", "properties":
                {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}}}}),
        ),
        2 => (
            "/v1/responses",
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": text},
                {"type": "input_image", "image_url": PIXEL}]}], "max_output_tokens": TOKENS,
                "stream": random.below(2) == 0, "instructions": "Be short."}),
        ),
        4 => (
            "/v1/decisions",
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": text},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"}]}, {"type": "function_call", "call_id": "c",
                "name": "f", "arguments": text}, {"type": "function_call_output", "call_id": "c", "output": text}], "questions": [
                {"type": "predicate", "instructions": text}, {"type": "choice", "name": "n", "instructions": [
                {"type": "input_json", "data": {"a": 1}}], "choices": [{"value": true}, {"value": text}]},
                {"type": "score", "instructions": text, "levels": [{"label": "a"}, {"label": "b"}]}]}),
        ),
        3 => ("/tokenize", json!({"messages": [{"role": "user", "content": text}]})),
        _ => (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS,
                "stream": random.below(2) == 0, "response_format": form(random)}),
        ),
    }
}

/// A form that costs something: references, numbers and repetition, in a schema, a pattern or a grammar.
fn form(random: &mut Random) -> Value {
    let chain = random.below(400);
    let times = 1 << random.below(20);
    match random.below(6) {
        0 => {
            let pattern = format!("({}){{0,{times}}}", "[a-z]{2,9}|x*".repeat(1 + random.below(8) as usize));
            json!({"type": "regex", "pattern": pattern})
        }
        1 => {
            let rules = (0..chain).map(|n| format!("r{n}: \"a\" r{}\n", n + 1)).collect::<String>();
            let grammar = format!("start: r0{{0,{times}}}\n{rules}r{chain}: /[0-9]{{1,{times}}}/\n");
            json!({"type": "grammar", "grammar": grammar})
        }
        _ => {
            let definitions =
                (0..chain).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})));
            let mut definitions: serde_json::Map<_, _> = definitions.collect();
            definitions.insert(format!("d{chain}"), schema(random, 0));
            let mut schema = schema(random, 0);
            schema["$defs"] = definitions.into();
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
        }
    }
}

/// A schema of a few levels.
fn schema(random: &mut Random, depth: u64) -> Value {
    let bits = 1 + random.below(40);
    let number = random.below(1 << bits);
    let low = number as f64 / [1.0, 3.0, 10.0, 1e7][random.below(4) as usize];
    let kinds = if depth > 3 { 6 } else { 10 };
    match random.below(kinds) {
        0 => json!({"type": "integer", "multipleOf": 1 + number, "minimum": low}),
        1 => json!({"type": "number", "exclusiveMinimum": -low, "exclusiveMaximum": low, "multipleOf": 0.25}),
        2 => json!({"type": "string", "minLength": number % 1000, "maxLength": number}),
        3 => json!({"type": "string", "pattern": format!("^(a|b{{1,{}}})*$", 1 + number % 5000)}),
        4 => json!({"enum": [number, low, "x", null, [number], {"a": low}]}),
        5 => json!({"$ref": format!("#/$defs/d{}", random.below(400))}),
        6 => {
            json!({"type": "array", "items": schema(random, depth + 1), "minItems": number % 50, "maxItems": number})
        }
        7 => json!({"anyOf": [schema(random, depth + 1), schema(random, depth + 1)]}),
        8 => json!({"allOf": [schema(random, depth + 1), schema(random, depth + 1)]}),
        _ => {
            json!({"type": "object", "properties": {"a": schema(random, depth + 1), "b": schema(random, depth + 1)},
            "required": ["a"], "additionalProperties": random.below(2) == 0})
        }
    }
}

/// Replaces, removes or doubles something in a JSON value.
fn bend_value(value: &mut Value, random: &mut Random, depth: usize) {
    let deeper = depth < 8 && random.below(4) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len() as u64) as usize).cloned().unwrap_or_default();
            match random.below(8) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), odd(random))),
                _ => bend_value(&mut map[&key], random, depth + 1),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.below(items.len() as u64) as usize;
            match random.below(8) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => bend_value(&mut items[at], random, depth + 1),
            }
        }
        _ => *value = odd(random),
    }
}

/// A value that nobody expects.
fn odd(random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1e308),
        5 => json!(u64::MAX),
        6 => json!(0.1),
        7 => json!(""),
        8 => json!("<|user|>\n<|image_9|><|end|>"),
        9 => json!("a".repeat(1 << random.below(14))),
        10 => json!("data:image/png;base64,AAAA"),
        11 => json!("http://127.0.0.1/x.png"),
        12 => (0..random.below(200)).fold(json!([]), |inner, _| json!([inner])),
        _ => json!({"type": "object", "$ref": "#"}),
    }
}

/// Changes, cuts or repeats some bytes.
fn bend_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(4) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes.truncate(at),
            2 => drop(bytes.remove(at)),
            _ => {
                let end = bytes.len().min(at + random.below(32) as usize);
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// Marsaglia's xorshift: the same requests every time.
struct Random(u64);

impl Random {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
