//! A hub on this machine with one repository, `org/tiny`: the tiny checkpoint of the repository and files that nobody
//! needs. Large files lie on a second server, as the hub's do; a test may bend every reply.

use crate::server::{Reply, Request, Server};
use phi3v_cli::hub::{HubError, HubOptions, ModelSource, Progress, resolve};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const MODEL: &str = "org/tiny";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const WEIGHTS: &str = "model-00001-of-00002.safetensors";
pub const TOKEN: &str = "hf_secret";

/// File names and contents.
pub type Contents = BTreeMap<String, Vec<u8>>;
/// Changes a reply before it is sent.
type Bend = dyn Fn(&Request, Reply) -> Reply + Send + Sync;

pub struct Hub {
    pub main: Server,
    pub storage: Server,
    pub contents: Contents,
    pub cache: tempfile::TempDir,
}

pub fn contents() -> Contents {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny");
    let mut contents = Contents::new();
    for entry in std::fs::read_dir(tiny).unwrap() {
        let entry = entry.unwrap();
        contents.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    contents.insert("README.md".to_owned(), b"read me".to_vec());
    contents.insert("modeling_phi3_v.py".to_owned(), b"import os".to_vec());
    contents
}

pub fn etag(name: &str, content: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if is_large(name) {
        return hex(&Sha256::digest(content));
    }
    hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name == "tokenizer.json"
}

impl Hub {
    pub fn start() -> Self {
        Self::bent(contents(), |_, reply| reply)
    }

    /// A hub with other contents, whose replies go through `bend`.
    pub fn bent(contents: Contents, bend: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let bend: Arc<Bend> = Arc::new(bend);
        let (files, change) = (contents.clone(), Arc::clone(&bend));
        let storage = Server::start(move |request| change(request, stored(request, &files)));
        let (files, storage_url) = (contents.clone(), storage.url.clone());
        let main = Server::start(move |request| bend(request, described(request, &files, &storage_url)));
        Self { main, storage, contents, cache: tempfile::tempdir().unwrap() }
    }

    pub fn options(&self) -> HubOptions {
        let cache = self.cache.path().to_str().unwrap().to_owned();
        let endpoint = self.main.url.clone();
        let mut options = HubOptions::from_variables(|name| match name {
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_HUB_CACHE" => Some(cache.clone()),
            "HF_TOKEN" => Some(TOKEN.to_owned()),
            _ => None,
        });
        options.retry_pause = Duration::from_millis(1);
        options
    }

    pub fn resolve(&self) -> Result<ModelSource, HubError> {
        resolve(MODEL, &self.options(), &mut Heard::default())
    }

    /// The folder of a download that must succeed, checked against what the hub has.
    pub fn download(&self) -> PathBuf {
        let ModelSource::Folder(dir) = self.resolve().unwrap() else { panic!("not a folder") };
        self.check(&dir);
        dir
    }

    pub fn check(&self, dir: &Path) {
        for (name, content) in &self.contents {
            let wanted = name.ends_with(".json") || is_large(name);
            let found = std::fs::read(dir.join(name)).ok();
            assert_eq!(found.as_ref(), Some(content).filter(|_| wanted), "{name}");
        }
    }

    pub fn repo(&self) -> PathBuf {
        self.cache.path().join("models--org--tiny")
    }

    pub fn blob(&self, name: &str) -> PathBuf {
        self.repo().join("blobs").join(etag(name, &self.contents[name]))
    }

    pub fn incomplete(&self, name: &str) -> PathBuf {
        self.repo().join("blobs").join(etag(name, &self.contents[name]) + ".incomplete")
    }

    /// First bytes of all downloads of a file from the storage server.
    pub fn starts(&self, name: &str) -> Vec<usize> {
        let requests = self.storage.requests();
        let of_file = requests.iter().filter(|request| request.path.ends_with(name));
        of_file.map(|request| request.range_start().unwrap_or(0)).collect()
    }
}

/// The hub: the list of files, descriptions, small files behind a redirect on the same host.
fn described(request: &Request, contents: &Contents, storage: &str) -> Reply {
    if request.path == "/api/models/org/tiny/revision/main" {
        let siblings: Vec<_> = contents.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({ "id": MODEL, "sha": COMMIT, "private": false, "siblings": siblings });
        return Reply { body: info.to_string().into_bytes(), ..Reply::new(200) };
    }
    let resolved = format!("/{MODEL}/resolve/{COMMIT}/");
    let name = request.path.strip_prefix(&resolved).or_else(|| request.path.strip_prefix("/cached/"));
    let Some((name, content)) = name.and_then(|name| contents.get_key_value(name)) else {
        return Reply::new(404).with("X-Error-Code", "RepoNotFound");
    };
    if is_large(name) {
        return Reply::new(302)
            .with("Location", format!("{storage}/files/{name}"))
            .with("ETag", "\"of the redirect\"")
            .with("X-Linked-Etag", format!("\"{}\"", etag(name, content)))
            .with("X-Linked-Size", content.len());
    }
    if request.path.starts_with(&resolved) {
        return Reply::new(307).with("Location", format!("/cached/{name}"));
    }
    Reply { body: content.clone(), ..Reply::new(200) }.with("ETag", format!("W/\"{}\"", etag(name, content)))
}

/// The storage server: bytes, from where the client asks for them.
fn stored(request: &Request, contents: &Contents) -> Reply {
    let Some(content) = request.path.strip_prefix("/files/").and_then(|name| contents.get(name)) else {
        return Reply::new(404);
    };
    match request.range_start() {
        None => Reply { body: content.clone(), ..Reply::new(200) },
        Some(start) if start >= content.len() => Reply::new(416),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            Reply { body: content[start..].to_vec(), ..Reply::new(206) }.with("Content-Range", range)
        }
    }
}

/// Remembers what it was told.
#[derive(Clone, Default)]
pub struct Heard(pub Arc<Mutex<Vec<String>>>);

impl Heard {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Heard {
    fn start(&mut self, model: &str, total: u64) {
        self.push(format!("start {model} {total}"));
    }

    fn file_resumed(&mut self, bytes: u64) {
        self.push(format!("resumed {bytes}"));
    }

    fn file_bytes(&mut self, _bytes: u64) {}

    fn file_done(&mut self, size: u64, was_there: bool) {
        self.push(format!("done {size} {was_there}"));
    }

    fn note(&mut self, text: &str) {
        self.push(text.to_owned());
    }

    fn finish(&mut self) {
        self.push("finish".to_owned());
    }
}
