//! Downloads from a hub, against servers on this machine that do everything a network can do to them.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "functions of tests are tests too")]

mod command;
mod damaged;
mod fixture;
mod server;
mod tls;

use fixture::{COMMIT, Heard, Hub, MODEL, TOKEN, WEIGHTS, contents, etag};
use phi3v::checkpoint::Checkpoint;
use phi3v::files::LockedFile;
use phi3v_cli::error::{CliError, ExitCode};
use phi3v_cli::hub::{HubError, HubOptions, ModelSource, Progress, Token, resolve};
use server::{Reply, Request};
use std::fs;
use std::io::{BufRead, BufReader, Write};
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn a_model_is_downloaded_to_the_standard_cache_and_opens() {
    let hub = Hub::start();
    let heard = Heard::default();
    let source = resolve(MODEL, &hub.options(), &mut heard.clone()).unwrap();
    let dir = hub.repo().join("snapshots").join(COMMIT);
    assert_eq!(source, ModelSource::Folder(dir.clone()));
    hub.check(&dir);
    assert_eq!(fs::read_to_string(hub.repo().join("refs/main")).unwrap(), COMMIT);
    // elsewhere links need privileges
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(dir.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(etag(WEIGHTS, &hub.contents[WEIGHTS]))
    );
    let left: Vec<_> =
        fs::read_dir(hub.repo().join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none()), "{left:?}");
    assert_eq!(Checkpoint::open(&dir).unwrap().name, MODEL);
    let total: usize =
        hub.contents.iter().filter(|(name, _)| name.ends_with("safetensors")).map(|(_, c)| c.len()).sum();
    let heard = heard.all();
    assert!(
        heard.contains(&format!("start {MODEL} {total}")) && heard.last().unwrap() == "finish",
        "{heard:?}"
    );
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let hub = Hub::start();
    hub.download();
    let token = format!("Bearer {TOKEN}");
    assert!(hub.main.requests().iter().all(|request| request.header("authorization") == Some(&token)));
    assert!(!hub.storage.requests().is_empty());
    assert!(hub.storage.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn what_is_in_the_cache_is_used() {
    let hub = Hub::start();
    let dir = hub.download();
    hub.main.forget();
    hub.storage.forget();
    assert_eq!(hub.download(), dir);
    assert!(hub.main.requests().is_empty(), "a cached model needs no network");
    let options = phi3v_cli::hub::HubOptions { refresh: true, ..hub.options() };
    resolve(MODEL, &options, &mut Heard::default()).unwrap();
    assert!(
        !hub.main.requests().is_empty() && hub.storage.requests().is_empty(),
        "only descriptions are fetched"
    );
    // a snapshot that lacks a file is completed, and only that file is fetched
    fs::remove_file(dir.join(WEIGHTS)).unwrap();
    fs::remove_file(hub.blob(WEIGHTS)).unwrap();
    hub.download();
    assert_eq!(hub.storage.requests().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_to_is_checked_and_used() {
    use std::os::unix::fs::PermissionsExt;
    let hub = Hub::start();
    let dir = hub.download();
    let locks = hub.cache.path().join(".locks/models--org--tiny");
    for entry in fs::read_dir(&locks).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let set = |mode| fs::set_permissions(&locks, fs::Permissions::from_mode(mode)).unwrap();
    set(0o500);
    let options = HubOptions { refresh: true, ..hub.options() };
    let source = resolve(MODEL, &options, &mut Heard::default());
    set(0o700);
    assert_eq!(source.unwrap(), ModelSource::Folder(dir));
}

#[test]
fn a_commit_may_be_named() {
    let hub = Hub::bent(contents(), |request, reply| {
        match request.path.strip_prefix("/api/models/org/tiny/revision/") {
            Some("v1" | "refs%2Fpr%2F1" | COMMIT) => {
                let siblings: Vec<_> =
                    contents().into_keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
                let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
                Reply { body: info.to_string().into_bytes(), ..Reply::new(200) }
            }
            _ => reply,
        }
    });
    for revision in ["refs/pr/1", "v1", COMMIT] {
        let model = format!("{MODEL}@{revision}");
        let ModelSource::Folder(dir) = resolve(&model, &hub.options(), &mut Heard::default()).unwrap() else {
            panic!()
        };
        hub.check(&dir);
        assert_eq!(hub.repo().join("refs").join(revision).exists(), revision != COMMIT);
    }
    hub.main.forget();
    // beside the name, as programs have it, and over what the name says
    let at = |revision: &str| HubOptions { revision: Some(revision.to_owned()), ..hub.options() };
    for model in [MODEL.to_owned(), format!("{MODEL}@refs/pr/1")] {
        let ModelSource::Folder(dir) = resolve(&model, &at("v1"), &mut Heard::default()).unwrap() else {
            panic!()
        };
        hub.check(&dir);
    }
    assert!(hub.main.requests().is_empty(), "v1 is here already");
    for revision in ["", "../main", "a//b", "a b"] {
        let refused = resolve(MODEL, &at(revision), &mut Heard::default()).unwrap_err();
        assert!(matches!(refused, HubError::UnknownModel { .. }), "{revision}: {refused}");
    }
}

#[test]
fn an_interrupted_download_is_resumed() {
    let hub = Hub::start();
    let path = hub.incomplete(WEIGHTS);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &hub.contents[WEIGHTS][..100_000]).unwrap();
    let heard = Heard::default();
    let ModelSource::Folder(dir) = resolve(MODEL, &hub.options(), &mut heard.clone()).unwrap() else {
        panic!()
    };
    hub.check(&dir);
    assert_eq!(hub.starts(WEIGHTS), [100_000]);
    assert!(heard.all().contains(&"resumed 100000".to_owned()));
}

#[test]
fn an_answer_that_is_not_the_file_costs_nothing() {
    let hub = Hub::bent(contents(), |request, reply| {
        if request.path != format!("/files/{WEIGHTS}") || request.method != "GET" {
            return reply;
        }
        Reply { body: b"<html>please log in</html>".to_vec(), ..Reply::new(200) }
    });
    let path = hub.incomplete(WEIGHTS);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let begun = &hub.contents[WEIGHTS][..100_000];
    fs::write(&path, begun).unwrap();
    let error = hub.resolve().unwrap_err();
    assert!(error.to_string().contains("it answers with 26 bytes"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), begun);
}

#[test]
fn a_file_beside_the_weights_has_a_limit() {
    let mut contents = contents();
    contents.insert("config.json".to_owned(), vec![b' '; (16 << 20) + 1]);
    let error = Hub::bent(contents, |_, reply| reply).resolve().unwrap_err();
    assert!(error.to_string().starts_with("config.json has 16777217 bytes on the hub"), "{error}");
}

#[test]
fn a_beginning_that_is_damaged_or_too_long_is_replaced() {
    for len in [100_000, 10_000_000] {
        let hub = Hub::start();
        let path = hub.incomplete(WEIGHTS);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![7; len]).unwrap();
        hub.download();
        assert_eq!(*hub.starts(WEIGHTS).last().unwrap(), 0);
    }
}

/// Counts a file's downloads from 0.
fn nth(request: &Request, counter: &AtomicUsize) -> Option<usize> {
    let counts = request.path == format!("/files/{WEIGHTS}") && request.method == "GET";
    counts.then(|| counter.fetch_add(1, Ordering::SeqCst))
}

#[test]
fn a_broken_connection_is_continued() {
    let count = AtomicUsize::new(0);
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(0) => Reply { cut: Some(50_000), ..reply },
        Some(1) => Reply { cut: Some(0), ..reply },
        Some(2) => Reply { cut: Some(30_000), ..reply },
        _ => reply,
    });
    hub.download();
    let starts = hub.starts(WEIGHTS);
    assert!(starts.len() == 4 && starts[0] == 0 && starts.is_sorted(), "{starts:?}");
    assert_eq!(starts[1], starts[2]);
    assert!(starts[1] <= 50_000 && starts[3] <= 80_000 && starts[3] > 0, "{starts:?}");
}

#[test]
fn a_stalled_connection_is_replaced() {
    let count = AtomicUsize::new(0);
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(0) => Reply { cut: Some(50_000), stall: Duration::from_secs(3600), ..reply },
        _ => reply,
    });
    let options = phi3v_cli::hub::HubOptions { stall_time_max: Duration::from_millis(300), ..hub.options() };
    let ModelSource::Folder(dir) = resolve(MODEL, &options, &mut Heard::default()).unwrap() else { panic!() };
    hub.check(&dir);
    assert!(hub.starts(WEIGHTS).len() >= 2);
}

#[test]
fn a_slow_server_without_ranges_is_waited_for() {
    let hub = Hub::bent(contents(), |request, reply| match request.path.ends_with(WEIGHTS) {
        // ten pieces, the whole longer than a stall and each piece shorter
        true if request.method == "GET" => Reply { pause: Duration::from_millis(250), ..reply },
        _ => reply,
    });
    let options = phi3v_cli::hub::HubOptions { stall_time_max: Duration::from_secs(2), ..hub.options() };
    resolve(MODEL, &options, &mut Heard::default()).unwrap();
    assert_eq!(hub.starts(WEIGHTS), [0]);
}

/// Gives a download up when so many bytes of a file are there.
struct Leaving {
    heard: Heard,
    after_bytes: usize,
    given_up: Arc<AtomicBool>,
}

impl Progress for Leaving {
    fn start(&mut self, model: &str, total: u64) {
        self.heard.start(model, total);
    }

    fn file_resumed(&mut self, bytes: u64) {
        self.heard.file_resumed(bytes);
    }

    fn file_bytes(&mut self, bytes: u64) {
        if bytes >= self.after_bytes as u64 {
            self.given_up.store(true, Ordering::SeqCst);
        }
    }

    fn file_done(&mut self, size: u64, was_there: bool) {
        self.heard.file_done(size, was_there);
    }

    fn note(&mut self, text: &str) {
        self.heard.note(text);
    }

    fn finish(&mut self) {
        self.heard.finish();
    }
}

#[test]
fn a_download_that_nobody_waits_for_any_more_ends() {
    let (count, after_bytes) = (AtomicUsize::new(0), 50_000);
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(0) => Reply { cut: Some(after_bytes), stall: Duration::from_secs(3600), ..reply },
        _ => reply,
    });
    let options = hub.options();
    let given_up = Arc::clone(&options.given_up);
    let mut leaving = Leaving { heard: Heard::default(), after_bytes, given_up };
    let error = resolve(MODEL, &options, &mut leaving).unwrap_err();
    assert!(matches!(error, HubError::GivenUp), "{error}");
    assert_eq!(CliError::from(error).exit_code(), ExitCode::Interrupted);
    let asked = (hub.main.requests().len(), hub.storage.requests().len());
    let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
    assert!(matches!(error, HubError::GivenUp), "{error}");
    assert_eq!((hub.main.requests().len(), hub.storage.requests().len()), asked, "nothing more is asked for");
    hub.download();
    assert_eq!(hub.starts(WEIGHTS), [0, after_bytes], "what was received stays");
}

#[test]
fn a_check_that_nobody_waits_for_any_more_ends() {
    let given_up = Arc::new(AtomicBool::new(false));
    let (told, leaves) = (Arc::clone(&given_up), Arc::new(AtomicBool::new(false)));
    let leaves_now = Arc::clone(&leaves);
    // the last request of all, where the cache has everything
    let last = contents().into_keys().rfind(|name| name.ends_with("safetensors")).unwrap();
    let hub = Hub::bent(contents(), move |request, reply| {
        if request.path.ends_with(&last) && leaves_now.load(Ordering::SeqCst) {
            told.store(true, Ordering::SeqCst);
        }
        reply
    });
    let dir = hub.download();
    fs::remove_dir_all(hub.cache.path().join(".locks")).unwrap();
    leaves.store(true, Ordering::SeqCst);
    let options = HubOptions { refresh: true, given_up, ..hub.options() };
    let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
    assert!(matches!(error, HubError::GivenUp), "{error}");
    options.given_up.store(false, Ordering::SeqCst);
    leaves.store(false, Ordering::SeqCst);
    assert_eq!(resolve(MODEL, &options, &mut Heard::default()).unwrap(), ModelSource::Folder(dir));
}

/// Gives up when another download has to be waited for.
struct Impatient(Arc<AtomicBool>);

impl Progress for Impatient {
    fn start(&mut self, _: &str, _: u64) {}

    fn file_resumed(&mut self, _: u64) {}

    fn file_bytes(&mut self, _: u64) {}

    fn file_done(&mut self, _: u64, _: bool) {}

    fn note(&mut self, text: &str) {
        assert_eq!(text, format!("waiting for another download of {WEIGHTS}"));
        self.0.store(true, Ordering::SeqCst);
    }

    fn finish(&mut self) {}
}

#[test]
fn waiting_for_another_download_ends_when_nobody_waits_any_more() {
    let hub = Hub::start();
    let locks = hub.cache.path().join(".locks/models--org--tiny");
    fs::create_dir_all(&locks).unwrap();
    let name = etag(WEIGHTS, &hub.contents[WEIGHTS]) + ".lock";
    let other = LockedFile::try_lock(fs::File::create(locks.join(name)).unwrap()).unwrap().unwrap();
    let options = hub.options();
    let mut progress = Impatient(Arc::clone(&options.given_up));
    let error = resolve(MODEL, &options, &mut progress).unwrap_err();
    assert!(matches!(error, HubError::GivenUp), "{error}");
    drop(other);
    hub.download();
    assert_eq!(hub.starts(WEIGHTS), [0]);
}

#[test]
fn the_pause_before_another_attempt_ends_when_nobody_waits_any_more() {
    for broken in ["/api/models/org/tiny/revision/main", "/files/tokenizer.json"] {
        let given_up = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&given_up);
        let hub = Hub::bent(contents(), move |request, reply| {
            if request.method != "GET" || request.path != broken {
                return reply;
            }
            told.store(true, Ordering::SeqCst);
            Reply::new(503)
        });
        let options = HubOptions { retry_pause: Duration::from_secs(3600), given_up, ..hub.options() };
        let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
        assert!(matches!(error, HubError::GivenUp), "{error}");
        let requests = [hub.main.requests(), hub.storage.requests()].concat();
        assert_eq!(requests.iter().filter(|request| request.path == broken).count(), 1);
    }
}

#[test]
fn a_server_that_begins_from_zero_every_time_is_given_up() {
    let count = AtomicUsize::new(0);
    let all = contents()[WEIGHTS].clone();
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        // a little more every time, and never all
        Some(n) => Reply { body: all.clone(), cut: Some(1000 + n), ..Reply::new(200) },
        None => reply,
    });
    let error = hub.resolve().unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(hub.starts(WEIGHTS).len() <= 8, "{:?}", hub.starts(WEIGHTS));
}

#[test]
fn a_server_without_ranges_still_works() {
    let count = AtomicUsize::new(0);
    let all = contents()[WEIGHTS].clone();
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(0) => Reply { cut: Some(50_000), ..reply },
        Some(_) => Reply { body: all.clone(), ..Reply::new(200) },
        None => reply,
    });
    hub.download();
    assert_eq!(hub.starts(WEIGHTS).len(), 2);
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let count = AtomicUsize::new(0);
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(0) => Reply { cut: Some(1000), ..reply },
        Some(_) => Reply { cut: Some(0), ..reply },
        None => reply,
    });
    let error = hub.resolve().unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(error.hint().unwrap().contains("continues"));
    assert_eq!(
        fs::metadata(hub.incomplete(WEIGHTS)).unwrap().len(),
        1000,
        "what came is kept for the next run"
    );
    assert!(!hub.repo().join("refs/main").exists());
}

#[test]
fn a_wrong_checksum_is_refused_and_deleted() {
    for name in [WEIGHTS, "config.json"] {
        let hub = Hub::bent(contents(), move |request, mut reply| {
            if request.path.ends_with(name) && !reply.body.is_empty() {
                reply.body[10] ^= 1;
            }
            reply
        });
        match hub.resolve() {
            Err(HubError::Checksum { file, expected, found }) => {
                assert_eq!((file.as_str(), &expected), (name, &etag(name, &hub.contents[name])));
                assert_ne!(expected, found);
            }
            other => panic!("{other:?}"),
        }
        assert!(!hub.blob(name).exists() && !hub.incomplete(name).exists());
        assert!(!hub.repo().join("refs/main").exists());
    }
}

#[test]
fn refusals_of_the_hub() {
    let answers = |status: u16, code: &'static str| {
        let hub = Hub::bent(contents(), move |_, _| Reply::new(status).with("X-Error-Code", code));
        let error = hub.resolve().unwrap_err();
        assert!(error.hint().is_some());
        (error, hub.main.requests().len())
    };
    assert!(matches!(answers(404, "RepoNotFound"), (HubError::NotFound { .. }, 1)));
    assert!(matches!(answers(401, "RepoNotFound"), (HubError::NotFound { .. }, 1)));
    assert!(matches!(answers(401, ""), (HubError::Token { .. }, 1)));
    assert!(matches!(answers(401, "GatedRepo"), (HubError::Forbidden { .. }, 1)));
    assert!(matches!(answers(403, "GatedRepo"), (HubError::Forbidden { .. }, 1)));
    assert!(matches!(answers(503, ""), (HubError::Status { status: 503, .. }, 3)), "it is tried again");
    let text = answers(403, "GatedRepo").0.to_string();
    assert!(text.contains(MODEL) && !text.contains(TOKEN), "{text}");
    // the hub's own words
    let hub = Hub::bent(contents(), |_, _| {
        Reply::new(403).with("X-Error-Message", "Access to this resource is disabled.")
    });
    let error = hub.resolve().unwrap_err();
    assert!(error.to_string().ends_with(": Access to this resource is disabled"), "{error}");
    assert!(!error.hint().unwrap().contains("terms"), "{error}");
}

#[test]
fn a_storage_host_that_refuses_is_asked_at_a_fresh_address() {
    for status in [400, 403] {
        let count = AtomicUsize::new(0);
        let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
            Some(0..3) => Reply::new(status),
            Some(3) => Reply { cut: Some(50_000), ..reply },
            Some(4) => Reply::new(status),
            _ => reply,
        });
        hub.download();
        let resolved = format!("/{MODEL}/resolve/{COMMIT}/{WEIGHTS}");
        let asked = hub.main.requests();
        let asked = asked.iter().filter(|request| request.path == resolved && request.method == "GET");
        assert_eq!((asked.count(), hub.starts(WEIGHTS).len()), (6, 6), "each time by way of the hub");
    }
}

#[test]
fn a_refusal_of_what_the_hub_has_just_described_is_passing() {
    let count = AtomicUsize::new(0);
    let hub = Hub::bent(contents(), move |request, reply| {
        let first = request.method == "GET"
            && request.path.ends_with("config.json")
            && count.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Reply::new(403) } else { reply }
    });
    hub.download();
}

#[test]
fn a_storage_host_that_always_refuses_is_named() {
    for status in [400, 401, 403, 404] {
        let hub = Hub::bent(contents(), move |request, reply| {
            if request.path.starts_with("/files/") { Reply::new(status) } else { reply }
        });
        let error = hub.resolve().unwrap_err();
        assert!(matches!(error, HubError::Storage { .. }), "{error}");
        let told = error.to_string();
        assert!(
            told.starts_with(&format!(
                "{} does not give tokenizer.json, which {} has",
                hub.storage.url, hub.main.url
            )),
            "{told}"
        );
        assert!(told.ends_with(&format!("answered with status {status}")), "{told}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("clock") && !hint.contains("terms"), "{hint}");
    }
}

/// Options with more variables than those of the hub.
fn with_variables(hub: &Hub, variables: &[(&str, &str)]) -> HubOptions {
    let more = HubOptions::from_variables(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    HubOptions { proxies: more.proxies, token: more.token, ..hub.options() }
}

#[test]
fn proxies_are_for_their_scheme_and_not_for_exceptions() {
    // nothing listens there
    let nobody = "http://user:secret@127.0.0.1:1";
    for variables in [
        &[("HTTPS_PROXY", nobody)][..],
        &[("ALL_PROXY", nobody), ("NO_PROXY", "127.0.0.0/8")],
        &[("http_proxy", nobody), ("no_proxy", "example.org, 127.0.0.1")],
        &[("HTTP_PROXY", nobody), ("NO_PROXY", "*")],
    ] {
        let hub = Hub::start();
        let found = resolve(MODEL, &with_variables(&hub, variables), &mut Heard::default());
        assert!(found.is_ok(), "{variables:?}: {found:?}");
    }
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let hub = Hub::start();
        let options = with_variables(&hub, &[(variable, nobody), ("NO_PROXY", "10.0.0.0/8")]);
        let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
        let told = error.to_string();
        let through = format!(" through the proxy http://127.0.0.1:1 of {variable}: ");
        assert!(told.contains(&through) && !told.contains("secret"), "{told}");
        assert!(error.hint().unwrap().contains(variable));
        assert!(hub.main.requests().is_empty());
    }
    let hub = Hub::start();
    for address in ["ftp://127.0.0.1", "http://127.0.0.1:99999", "127.0.0.1:0"] {
        let options = with_variables(&hub, &[("HTTP_PROXY", address)]);
        let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
        assert_eq!(error.to_string(), "HTTP_PROXY is not the address of a proxy", "{address}");
    }
}

#[test]
fn a_proxy_that_connects_to_nothing_is_named_at_once() {
    for (status, hint) in [
        ("405 Method Not Allowed", "let the proxy of http_proxy allow CONNECT"),
        (
            "407 Proxy Authentication Required",
            "give http_proxy as http://USER:PASSWORD@HOST:PORT (of a user and a password with %40 for @, ",
        ),
    ] {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://user:secret@{}", proxy.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = proxy.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            head.join("\n")
        });
        let hub = Hub::start();
        let options = with_variables(&hub, &[("http_proxy", &address)]);
        let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
        assert!(asked.join().unwrap().starts_with("CONNECT "));
        let told = error.to_string();
        assert!(told.starts_with("the proxy http://127.0.0.1:") && !told.contains("secret"), "{told}");
        assert!(told.ends_with(&format!("it answered CONNECT with status {}", &status[..3])), "{told}");
        assert!(error.hint().is_some_and(|told| told.starts_with(hint)));
    }
}

#[test]
fn what_is_no_address_of_a_hub_is_told_at_once() {
    for endpoint in ["127.0.0.1:9", "ftp://x", "http://127.0.0.1:99999"] {
        let options = HubOptions { endpoint: endpoint.to_owned(), ..Hub::start().options() };
        let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
        let told = format!("HF_ENDPOINT is {endpoint:?}, which is no http:// or https:// address");
        assert_eq!(error.to_string(), told);
        assert!(error.hint().is_some());
    }
}

#[test]
fn what_cannot_be_a_token_is_named_before_anything_is_asked() {
    let hub = Hub::start();
    let token = Token::new("hf_\u{e9}", "HF_TOKEN");
    let options = HubOptions { token, ..hub.options() };
    let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
    assert_eq!(error.to_string(), "HF_TOKEN holds no access token: character 4 of it is U+00E9");
    assert!(hub.main.requests().is_empty());
}

#[cfg(unix)]
#[test]
fn links_in_the_place_of_unfinished_downloads_are_not_written_through() {
    for victim in ["precious", "absent"] {
        let hub = Hub::start();
        let lock = hub.blob(WEIGHTS).file_name().unwrap().to_str().unwrap().to_owned() + ".lock";
        let locks = hub.cache.path().join(".locks/models--org--tiny");
        for link in [hub.incomplete(WEIGHTS), locks.join(lock)] {
            let outside = tempfile::tempdir().unwrap();
            let target = outside.path().join(victim);
            if victim == "precious" {
                fs::write(&target, "precious").unwrap();
            }
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            // a first link may have stopped the run before, and left a lock
            drop(fs::remove_file(&link));
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let error = hub.resolve().unwrap_err().to_string();
            assert!(error.ends_with("it is a link and not a file"), "{error}");
            let left = fs::read_to_string(&target).ok();
            assert_eq!(left.as_deref(), (victim == "precious").then_some("precious"));
            fs::remove_file(&link).unwrap();
        }
        hub.download();
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_cache_is_not_waited_for() {
    for place in ["refs/main", "incomplete", "index"] {
        let hub = Hub::start();
        let path = match place {
            "incomplete" => hub.incomplete(WEIGHTS),
            "index" => hub.download().join("model.safetensors.index.json"),
            other => hub.repo().join(other),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(fs::remove_file(&path));
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if !made.is_ok_and(|status| status.success()) {
            phi3v_kernels::testing::skip("a pipe needs mkfifo", "install mkfifo");
            return;
        }
        match hub.resolve() {
            Ok(ModelSource::Folder(dir)) => hub.check(&dir),
            Ok(ModelSource::Demo) => panic!("the demo"),
            Err(error) => assert!(error.to_string().contains("it is a pipe and not a file"), "{error}"),
        }
    }
}

#[test]
fn without_a_token_a_hidden_model_is_not_found() {
    let hub = Hub::bent(contents(), |_, _| Reply::new(401));
    let options = phi3v_cli::hub::HubOptions { token: None, ..hub.options() };
    let error = resolve(MODEL, &options, &mut Heard::default()).unwrap_err();
    assert!(
        matches!(error, HubError::NotFound { .. }) && error.hint().unwrap().contains("HF_TOKEN"),
        "{error}"
    );
}

#[test]
fn offline_only_the_cache_is_used() {
    let hub = Hub::start();
    let options = || phi3v_cli::hub::HubOptions { offline: true, refresh: true, ..hub.options() };
    let error = resolve(MODEL, &options(), &mut Heard::default()).unwrap_err();
    assert!(
        matches!(error, HubError::NotCached { .. }) && error.to_string().contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    let by_option = HubOptions { offline_by: "local_files_only", ..options() };
    let error = resolve(MODEL, &by_option, &mut Heard::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "org/tiny is not in the cache, and local_files_only forbids to download it"
    );
    assert!(hub.main.requests().is_empty());
    let dir = hub.download();
    hub.main.forget();
    assert_eq!(resolve(MODEL, &options(), &mut Heard::default()).unwrap(), ModelSource::Folder(dir.clone()));
    assert!(hub.main.requests().is_empty());
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    assert!(resolve(MODEL, &options(), &mut Heard::default()).is_err(), "half a snapshot is none");
}

#[test]
fn a_hub_out_of_reach() {
    let hub = Hub::start();
    let dir = hub.download();
    // port 9 discards; nothing listens there on a test machine
    let endpoint = "http://127.0.0.1:9".to_owned();
    let options = phi3v_cli::hub::HubOptions { endpoint, refresh: true, ..hub.options() };
    let heard = Heard::default();
    assert_eq!(resolve(MODEL, &options, &mut heard.clone()).unwrap(), ModelSource::Folder(dir));
    assert!(heard.all()[0].contains("using the copy in the cache"), "{:?}", heard.all());
    let error = resolve("org/other", &options, &mut Heard::default()).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
}

#[test]
fn repositories_without_a_checkpoint() {
    for (missing, named) in [
        ("tokenizer.json", "tokenizer.json"),
        ("model.safetensors.index.json", "model.safetensors"),
        ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ] {
        let mut contents = contents();
        contents.remove(missing);
        let error = Hub::bent(contents, |_, reply| reply).resolve().unwrap_err();
        assert!(matches!(&error, HubError::NotACheckpoint { file, .. } if file == named), "{error}");
    }
}

#[test]
fn hostile_answers_lead_nowhere() {
    let info = |sha: &str| serde_json::json!({ "sha": sha, "siblings": [] }).to_string().into_bytes();
    let bodies = [info("../../etc"), info(""), info(&"A".repeat(40)), b"<html>".to_vec(), b"{}".to_vec()];
    for body in bodies {
        let hub = Hub::bent(contents(), move |_, _| Reply { body: body.clone(), ..Reply::new(200) });
        let error = hub.resolve().unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    }
    for etag in ["", "../../../outside", "short", &"G".repeat(64)] {
        let etag = etag.to_owned();
        let hub = Hub::bent(contents(), move |_, reply| match reply.status {
            302 => Reply::new(200).with("ETag", &etag),
            _ => reply,
        });
        let error = hub.resolve().unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    }
    let mut outside = contents();
    let index = String::from_utf8(outside["model.safetensors.index.json"].clone()).unwrap();
    let index = index.replace(WEIGHTS, "../../../model.safetensors");
    outside.insert("model.safetensors.index.json".to_owned(), index.into_bytes());
    let error = Hub::bent(outside, |_, reply| reply).resolve().unwrap_err();
    assert!(matches!(error, HubError::Model(_)), "{error}");
}

#[test]
fn a_scheme_may_be_written_either_way() {
    let hub = Hub::start();
    let endpoint = hub.main.url.replace("http://", "HTTP://");
    resolve(MODEL, &HubOptions { endpoint, ..hub.options() }, &mut Heard::default()).unwrap();
    let token = format!("Bearer {TOKEN}");
    assert!(hub.main.requests().iter().all(|request| request.header("authorization") == Some(&token)));
}

#[test]
fn redirects_end() {
    let hub = Hub::bent(contents(), |_, _| Reply::new(302).with("Location", "/again"));
    let error = hub.resolve().unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    let hub = Hub::bent(contents(), |_, _| Reply::new(302));
    assert!(matches!(hub.resolve(), Err(HubError::Protocol { .. })));
}

#[test]
fn free_disk_space_is_checked_before() {
    let hub = Hub::bent(contents(), |request, mut reply| {
        if request.path.ends_with(WEIGHTS) {
            reply.headers.retain(|(name, _)| name != "X-Linked-Size");
            reply = reply.with("X-Linked-Size", 1_u64 << 60);
        }
        reply
    });
    let error = hub.resolve().unwrap_err();
    assert!(matches!(error, HubError::DiskSpace { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("and 268.4 MB that stay free, and ") && told.contains("GB free"), "{told}");
    assert!(hub.starts(WEIGHTS).is_empty());
}

#[test]
fn two_downloads_at_once_share_the_work() {
    let hub = Hub::bent(contents(), |request, reply| {
        if request.path.starts_with("/files/model") {
            std::thread::sleep(Duration::from_millis(100));
        }
        reply
    });
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| hub.download())).collect();
        for run in runs {
            run.join().unwrap();
        }
    });
    assert_eq!(hub.starts(WEIGHTS), [0]);
}
