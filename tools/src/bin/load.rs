//! A load test for a running server: requests arrive at random moments whether or not earlier ones are done (open
//! loop), pictures and text mixed; some clients vanish, some read slowly.
//!
//! `cargo run --release -p phi3v-tools --bin load -- 127.0.0.1:8000 [requests=2000] [rate=20] [pid=SERVER]`
//!
//! Before that, throughput against the number of parallel requests: 1, 2, 4, 8 and 16 clients that ask one after the
//! other, with pictures and with text alone; no two requests begin alike, so that nothing comes from the caches.
//! `requests=0` ends with that.
//!
//! Every kind of request is first asked alone; an answer under load must be the same, to the letter. With `pid` the
//! server's memory is read from /proc before, during and after.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Different requests; each is asked many times.
const KINDS: usize = 24;
/// One client in so many vanishes, one in so many reads slowly.
const VANISH_EVERY: usize = 10;
const SLOW_EVERY: usize = 15;
/// Clients of the sweep, and requests of all of them together.
const PARALLEL: [usize; 5] = [1, 2, 4, 8, 16];
const ASKED: usize = 96;
/// What a server may grow by after its caches are full: the allocator's own holes.
const GROWTH_MAX_MIB: u64 = 32;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Options {
    address: String,
    requests: usize,
    rate: f64,
    pid: Option<u32>,
}

impl Options {
    fn from_args() -> Result<Self, Failure> {
        let mut args = std::env::args().skip(1);
        let address = args.next().ok_or("the address of the server is missing, as 127.0.0.1:8000")?;
        let mut options = Self { address, requests: 2000, rate: 20.0, pid: None };
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or("options are written name=value")?;
            match name {
                "requests" => options.requests = value.parse()?,
                "rate" => options.rate = value.parse()?,
                "pid" => options.pid = Some(value.parse()?),
                _ => return Err(format!("there is no option {name}").into()),
            }
        }
        Ok(options)
    }
}

/// What came of one request.
#[derive(Default)]
struct Outcome {
    text: String,
    complete: bool,
    refused: bool,
    first_token: Option<Duration>,
    gaps: Vec<Duration>,
}

/// What came of all.
#[derive(Default)]
struct Tally {
    complete: usize,
    vanished: usize,
    refused: usize,
    lost: Vec<String>,
    mixed_up: Vec<usize>,
    tokens: usize,
    first_token: Vec<Duration>,
    gaps: Vec<Duration>,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_args()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    let mut expected = HashMap::new();
    for kind in 0..KINDS {
        let outcome = ask(&options.address, &request(kind), (false, false)).await?;
        if !outcome.complete {
            return Err(format!("request {kind} has no answer even alone").into());
        }
        expected.insert(kind, outcome.text);
    }
    sweep(&options.address).await?;
    if options.requests == 0 {
        return Ok(());
    }
    let before = memory(options.pid);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (start, mut random) = (Instant::now(), Random(0x9e37_79b9_7f4a_7c15));
    let (mut tasks, mut arrival, mut memories) = (Vec::new(), Duration::ZERO, Vec::new());
    for number in 0..options.requests {
        // arrivals of a Poisson process: exponential pauses
        arrival += Duration::from_secs_f64(-random.fraction().ln() / options.rate);
        tokio::time::sleep_until((start + arrival).into()).await;
        if number % (options.requests / 8).max(1) == 0 {
            memories.extend(memory(options.pid));
        }
        let (address, tally) = (options.address.clone(), Arc::clone(&tally));
        let kind = random.next() as usize % KINDS;
        let expected = expected[&kind].clone();
        tasks.push(tokio::spawn(async move {
            let (vanish, slow) = (number % VANISH_EVERY == 1, number % SLOW_EVERY == 2);
            let outcome = ask(&address, &request(kind), (vanish, slow)).await;
            let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            tally.add(number, (vanish, outcome), &expected);
        }));
    }
    for task in tasks {
        task.await?;
    }
    let elapsed = start.elapsed();
    memories.extend(memory(options.pid));
    let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.report(&options, elapsed);
    if let Some(before) = before {
        println!("memory of the server: {before} MiB before, then {memories:?} MiB");
    }
    // the first eighth fills the caches
    let grown = memories.iter().skip(1).max().zip(memories.get(1)).map_or(0, |(most, early)| most - early);
    if grown > GROWTH_MAX_MIB {
        return Err(format!("the server grew by {grown} MiB, the limit is {GROWTH_MAX_MIB}").into());
    }
    if tally.lost.is_empty() && tally.mixed_up.is_empty() {
        Ok(())
    } else {
        Err("answers were lost or mixed up".into())
    }
}

/// Prints the throughput of as many clients as [`PARALLEL`] says, and whether more of them ever get less than four do.
async fn sweep(address: &str) -> Result<(), Failure> {
    let mut number = 0;
    for with_picture in [true, false] {
        let what = if with_picture { "a picture" } else { "text" };
        let mut four = 0.0;
        for clients in PARALLEL {
            let rate = throughput(address, clients, &mut number, with_picture).await?;
            println!("{clients:2} clients with {what}: {rate:.1} answers/s");
            match clients {
                4 => four = rate,
                8.. if rate < four => {
                    println!("   {:.0} % less than 4 clients get", 100.0 * (1.0 - rate / four))
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Answers per second of `clients` that ask one after the other; their requests are counted on from `number`.
async fn throughput(
    address: &str,
    clients: usize,
    number: &mut usize,
    with_picture: bool,
) -> Result<f64, Failure> {
    let asked_each = ASKED / clients;
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (address, first) = (address.to_owned(), *number);
            *number += asked_each;
            tokio::spawn(async move {
                for number in first..first + asked_each {
                    if !ask(&address, &fresh_request(number, with_picture), (false, false)).await?.complete {
                        return Err(Failure::from(format!("request {number} of the sweep has no answer")));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok((clients * asked_each) as f64 / start.elapsed().as_secs_f64())
}

impl Tally {
    fn add(&mut self, number: usize, (vanish, outcome): (bool, Result<Outcome, Failure>), expected: &str) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.lost.push(format!("{number}: {error}")),
        };
        if outcome.refused {
            self.refused += 1;
        } else if vanish {
            self.vanished += 1;
        } else if !outcome.complete {
            self.lost.push(format!("{number}: the answer broke off"));
        } else if outcome.text != expected {
            self.mixed_up.push(number);
        } else {
            self.complete += 1;
        }
        self.tokens += outcome.gaps.len() + usize::from(outcome.first_token.is_some());
        self.first_token.extend(outcome.first_token);
        self.gaps.extend(outcome.gaps);
    }

    fn report(&mut self, options: &Options, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        println!(
            "{} requests at {}/s in {seconds:.1} s: {} complete, {} vanished, {} refused with 429, {} lost, {} mixed up",
            options.requests,
            options.rate,
            self.complete,
            self.vanished,
            self.refused,
            self.lost.len(),
            self.mixed_up.len()
        );
        println!(
            "{:.1} answers/s, {:.1} events/s",
            self.complete as f64 / seconds,
            self.tokens as f64 / seconds
        );
        println!("first token: {}", percentiles(&mut self.first_token));
        println!("gap between tokens: {}", percentiles(&mut self.gaps));
        for lost in self.lost.iter().take(10) {
            println!("lost: {lost}");
        }
    }
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let milliseconds = |share| at(share).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    format!(
        "p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms",
        milliseconds(0.5),
        milliseconds(0.95),
        milliseconds(0.99)
    )
}

/// Sends a request, as a client that may vanish after its first token or read slowly.
async fn ask(address: &str, request: &Value, (vanish, slow): (bool, bool)) -> Result<Outcome, Failure> {
    let body = request.to_string();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let (mut outcome, mut bytes, mut piece) = (Outcome::default(), Vec::new(), vec![0; 16 << 10]);
    let mut last = None;
    loop {
        let count = tokio::time::timeout(Duration::from_secs(300), stream.read(&mut piece)).await??;
        if count == 0 {
            return Ok(outcome);
        }
        bytes.extend_from_slice(&piece[..count]);
        outcome.refused |= bytes.starts_with(b"HTTP/1.1 429");
        while let Some(end) = bytes.windows(2).position(|two| two == b"\n\n") {
            let event = String::from_utf8(bytes.drain(..end + 2).collect())?;
            let event = event.trim_end();
            let Some((_, data)) = event.split_once("data: ") else { continue };
            if data == "[DONE]" {
                outcome.complete = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(data)?;
            let content = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or("");
            if content.is_empty() {
                continue;
            }
            outcome.text.push_str(content);
            let now = Instant::now();
            match last.replace(now) {
                None => outcome.first_token = Some(now - start),
                Some(before) => outcome.gaps.push(now - before),
            }
        }
        if vanish && outcome.first_token.is_some() {
            return Ok(outcome);
        }
        if slow {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Texts of several lengths, and pictures.
fn request(kind: usize) -> Value {
    let text = format!("Question {kind}: {}", "what do you see here? ".repeat(kind % 9));
    let url = format!("data:image/bmp;base64,{}", base64(&bmp(kind as u8)));
    let content = match kind % 4 {
        0 => {
            json!([{"type": "image_url", "image_url": {"url": url, "detail": "low"}}, {"type": "text", "text": text}])
        }
        _ => json!(text),
    };
    let messages = json!([{"role": "user", "content": content}]);
    json!({"messages": messages, "max_tokens": 8 + kind, "stream": true, "seed": kind, "temperature": 0.7})
}

/// A request that begins as no other does: with a picture of its own, or with text alone.
fn fresh_request(number: usize, with_picture: bool) -> Value {
    let text =
        format!("{number} is the number of this question: what is shown here, and what is written below it?");
    let content = if with_picture {
        let url = format!("data:image/bmp;base64,{}", base64(&picture(number)));
        json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}])
    } else {
        json!(text)
    };
    json!({"messages": [{"role": "user", "content": content}], "max_tokens": 24, "stream": true})
}

/// A picture of 336 x 336 pixels whose bytes no other number has.
fn picture(number: usize) -> Vec<u8> {
    const SIDE: usize = 336;
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x50\x01\0\0\x50\x01\0\0\x01\0\x18\0".to_vec();
    file.resize(54, 0);
    let shades = number.to_le_bytes();
    let pixels = (0..SIDE * SIDE).flat_map(|i| [(i % SIDE) as u8, (i / SIDE) as u8, shades[i / SIDE % 3]]);
    file.extend(pixels);
    file
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// A picture of 8 x 8 pixels in one colour.
fn bmp(shade: u8) -> Vec<u8> {
    let mut file = b"BM\xf6\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0\x18\0".to_vec();
    file.resize(54, 0);
    file.extend(std::iter::repeat_n([shade.wrapping_mul(10), 128, 200], 64).flatten());
    file
}

/// Resident memory of a process in MiB.
fn memory(pid: Option<u32>) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Marsaglia's xorshift: the same load every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// Between 0 and 1, never 0.
    fn fraction(&mut self) -> f64 {
        (self.next() as f64 + 1.0) / (1u64 << 53) as f64
    }
}
