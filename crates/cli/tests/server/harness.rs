//! A server for a test, a plain HTTP client that can also behave badly, and pictures.

use phi3v::checkpoint::Checkpoint;
use phi3v::constraint::{ConstraintFactory, GrammarLimits};
use phi3v::device::{Device, DeviceOptions};
use phi3v::engine::{Engine, EngineOptions};
use phi3v::image::ImageParams;
use phi3v::model::{ModelOptions, Phi3V};
use phi3v_cli::documents::Drawer;
use phi3v_cli::server::limits::Limits;
use phi3v_cli::server::state::ServedModel;
use phi3v_cli::server::{Loaded, ServeError, Server, ServerOptions};
use phi3v_kernels::Backend;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Tokens of an answer that is still being made when a test has done what it wants.
pub const ENDLESS: usize = 60_000;

/// Where the tiny checkpoint is.
pub fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny")
}

/// Loads the tiny checkpoint.
pub fn load(options: EngineOptions) -> Result<Loaded<Device>, phi3v::Error> {
    let checkpoint = Checkpoint::open(&tiny())?;
    let stop_ids = checkpoint.stop_ids();
    load_with(checkpoint, stop_ids, options)
}

/// Loads the tiny checkpoint such that its answers are as long as they may be.
pub fn load_endless() -> Result<Loaded<Device>, phi3v::Error> {
    let options = EngineOptions { context_tokens: 2 * ENDLESS + 5_000, ..EngineOptions::default() };
    load_with(Checkpoint::open(&tiny())?, Vec::new(), options)
}

/// Loads the built-in model.
pub fn load_demo() -> Result<Loaded<Device>, phi3v::Error> {
    let checkpoint = Checkpoint::from_files(&phi3v::demo::files())?;
    let stop_ids = checkpoint.stop_ids();
    load_with(checkpoint, stop_ids, EngineOptions { context_tokens: 4096, ..Default::default() })
}

fn load_with(
    checkpoint: Checkpoint,
    stop_ids: Vec<u32>,
    options: EngineOptions,
) -> Result<Loaded<Device>, phi3v::Error> {
    load_on(device()?, checkpoint, stop_ids, options)
}

/// The device that tests run on.
pub fn device() -> Result<Device, phi3v::Error> {
    let choice = phi3v_kernels::testing::test_device().parse()?;
    Ok(Device::open(&DeviceOptions { choice, threads: Some(1), ..DeviceOptions::default() })?)
}

/// Loads a checkpoint on a device.
pub fn load_on<B: Backend>(
    device: B,
    checkpoint: Checkpoint,
    stop_ids: Vec<u32>,
    options: EngineOptions,
) -> Result<Loaded<B>, phi3v::Error> {
    let image_params = ImageParams { num_crops: 1, ..checkpoint.preprocessor };
    let Checkpoint { name: checkpoint_name, config, tokenizer, weights, .. } = checkpoint;
    let model = Phi3V::load(device, &config, &weights, ModelOptions::F32, &mut |_| {})?;
    let engine = Engine::new(model, Arc::clone(&tokenizer), stop_ids, options)?;
    let context_tokens = engine.context_tokens();
    let constraints = Arc::new(ConstraintFactory::new(&tokenizer, GrammarLimits::default())?);
    let description = (checkpoint_name == phi3v::demo::NAME).then(phi3v_cli::runtime::demo_notice);
    let name = "tiny".to_owned();
    let model = ServedModel { name, description, tokenizer, constraints, image_params, context_tokens };
    Ok(Loaded { engine, model })
}

/// What draws documents: the binary, as this program is a test.
pub fn drawer() -> Drawer {
    Drawer::by(Path::new(env!("CARGO_BIN_EXE_phi3v")))
}

/// A running server; it is stopped and waited for when this is dropped.
pub struct Running {
    pub address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError<phi3v::Error>>>>,
}

impl Running {
    /// Starts a server and waits until it is ready.
    pub fn start(options: ServerOptions) -> Self {
        Self::start_with(options, || load(EngineOptions { context_tokens: 4096, ..Default::default() }))
            .until_ready()
    }

    /// A server that draws documents and decodes pictures in other processes.
    pub fn drawing() -> Self {
        Self::start(ServerOptions { drawer: drawer(), ..ServerOptions::default() })
    }

    /// A server of the built-in model.
    pub fn demo() -> Self {
        Self::start_with(ServerOptions::default(), load_demo).until_ready()
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self::start(ServerOptions { limits, ..ServerOptions::default() })
    }

    /// A server whose answers are as long as they may be, up to `ENDLESS` tokens.
    pub fn endless(limits: Limits) -> Self {
        let limits = Limits { max_tokens_max: ENDLESS, ..limits };
        Self::start_with(ServerOptions { limits, drawer: drawer(), ..ServerOptions::default() }, load_endless)
            .until_ready()
    }

    pub fn until_ready(self) -> Self {
        while self.get("/ready").status == 503 {
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    pub fn start_with<B: Backend + 'static>(
        options: ServerOptions,
        load: impl FnMut() -> Result<Loaded<B>, phi3v::Error> + Send + 'static,
    ) -> Self {
        let server = Server::start(options, load).expect("a free port");
        let address = server.address;
        let (shutdown, stop) = oneshot::channel();
        let thread =
            std::thread::spawn(move || server.run(async { drop(stop.await) }, std::future::pending()));
        Self { address, shutdown: Some(shutdown), thread: Some(thread) }
    }

    /// Begins to shut down.
    pub fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// Waits for the end.
    pub fn join(&mut self) -> Result<(), ServeError<phi3v::Error>> {
        self.thread.take().expect("joined once").join().expect("the server does not panic")
    }

    pub fn get(&self, path: &str) -> Response {
        request(self.address, "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Response {
        request(self.address, "POST", path, &[("content-type", "application/json")], body)
    }

    /// Asks about a part of a chat's message.
    pub fn chat_about(&self, part: Value) -> Response {
        let content = json!([part, {"type": "text", "text": "What?"}]);
        self.chat(&json!({"max_tokens": 2, "messages": [{"role": "user", "content": content}]}))
    }

    pub fn chat(&self, body: &Value) -> Response {
        self.post("/v1/chat/completions", body)
    }

    /// Opens a connection and sends a request, and leaves the answer to the caller.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        send(self.address, method, path, headers, body)
    }

    /// The value of a metric without labels, or of the first with them.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until the engine has nothing to do.
    pub fn wait_idle(&self) {
        for _ in 0..6000 {
            if self.get("/ready").json()["in_flight"] == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the engine is still busy");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shut_down();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {}", self.text())).to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The text of the first choice.
    pub fn content(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }

    /// The data of server-sent events: (name, data).
    pub fn events(&self) -> Vec<(String, String)> {
        events(&self.text())
    }
}

/// Splits a stream into (name, data).
pub fn events(text: &str) -> Vec<(String, String)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let all = text.split("\n\n");
    all.filter_map(|event| Some((field(event, "event:").unwrap_or_default(), field(event, "data:")?)))
        .collect()
}

/// The text of an answer.
pub struct Collect(pub String);

impl phi3v::engine::Observer for Collect {
    fn token(&mut self, token: &phi3v::engine::Token) {
        self.0.push_str(&token.text);
    }
}

/// Sends a request whose connection ends with the answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    if !headers.iter().any(|(name, _)| *name == "content-length" || *name == "transfer-encoding") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // a server that refuses the head may close before it has the body
    let _ = stream.write_all(body);
    stream
}

pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    receive(send(address, method, path, headers, body))
}

/// Reads an answer to its end.
pub fn receive(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let mut piece = [0; 65536];
    // a reset after the answer, because the server did not read all of the body, is no failure
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    parse(&bytes).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &bytes[end + 4..];
    Some(Response { status, headers, body: if chunked { dechunk(body) } else { body.to_vec() } })
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let data = &bytes[end + 2..];
        if size == 0 || data.len() < size + 2 {
            body.extend_from_slice(&data[..size.min(data.len())]);
            break;
        }
        body.extend_from_slice(&data[..size]);
        bytes = &data[size + 2..];
    }
    body
}

/// A PNG with stripes that depend on `seed`.
pub fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..width * height)
        .flat_map(|i| [(i % width) as u8 ^ seed, (i / width) as u8, seed.wrapping_mul(37)])
        .collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

/// Bytes in base64.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// A data URL.
pub fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(bytes))
}

/// Tokens of pictures in the answer's prompt. Of one tile and the whole a picture has 313.
pub fn image_tokens(answer: &Response) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["usage"]["prompt_tokens"].as_u64().unwrap() / 313
}

/// A user's message of text.
pub fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// A user's message of a picture and text.
pub fn user_with_picture(url: &str, text: &str) -> Value {
    json!({"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": text},
    ]})
}
