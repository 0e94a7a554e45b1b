//! The guide's examples work as they stand there, and so does the official Python client.

use super::harness::{Running, drawer, png, user};
use phi3v_cli::server::ServerOptions;
use phi3v_cli::server::error::Code;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_guide_s_examples_work() {
    let has = Command::new("sh").args(["-ec", "command -v curl; command -v base64; command -v tr"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        phi3v_kernels::testing::skip(
            "the guide's examples need curl, and a shell with base64 and tr",
            "install curl, on Windows Git with its shell on the path",
        );
        return;
    }
    let server = Running::start(ServerOptions { drawer: drawer(), ..ServerOptions::default() });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cover.png"), png(60, 40, 9)).unwrap();
    let guide = std::fs::read_to_string(repository().join("docs/guide/server.md")).unwrap();
    let mut examples = 0;
    let is_run = |block: &&str| cfg!(feature = "pdf") || !block.split("```").next().unwrap().contains(".pdf");
    for block in guide.split("```sh\n").skip(1).filter(is_run) {
        let script =
            block.split("```").next().unwrap().replace("127.0.0.1:8000", &server.address.to_string());
        let output = Command::new("sh").args(["-ec", &script]).current_dir(dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.is_empty(), "{script}\n{text}");
        assert!(
            text.ends_with("[DONE]\n\n") || serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
        examples += 1;
    }
    assert!(examples >= 6);
}

/// Methods and paths of the router, as `get /ready`, but for the page's.
fn routes() -> Vec<String> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/server/router.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let routes = source.split(".route(\"").skip(1).map(|rest| {
        let (path, rest) = rest.split_once("\", ").unwrap();
        let method = rest.split('(').next().unwrap();
        format!("{method} {}", path.replace("{*", "{"))
    });
    let mut routes: Vec<String> = routes.collect();
    routes.sort();
    routes
}

/// The guide's table has every route, and nothing else.
#[test]
fn the_guide_lists_the_routes() {
    let guide = std::fs::read_to_string(repository().join("docs/guide/server.md")).unwrap();
    let table = guide.split("## The API\n\n| | |\n|---|---|\n").nth(1).unwrap();
    let first = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" | ").next());
    let mut listed: Vec<String> = first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|route| {
            let (method, path) = route.split_once(' ').unwrap();
            format!("{} {path}", method.to_lowercase())
        })
        .collect();
    listed.sort();
    assert_eq!(listed, routes());
}

/// What the router serves is what `/openapi.json` describes, but for the page's own files.
#[test]
fn the_description_has_every_route_with_its_method() {
    let mut served = routes();
    served.push("get /".to_owned());
    served.sort();
    let server = Running::start(ServerOptions::default());
    let document = server.get("/openapi.json").json();
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    described.sort();
    assert_eq!(served, described);
}

/// Every metric stands in the guide.
#[test]
fn the_guide_lists_the_metrics() {
    let guide = std::fs::read_to_string(repository().join("docs/guide/server.md")).unwrap();
    let text = Running::start(ServerOptions::default()).get("/metrics").text();
    let mut named = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(guide.contains(&format!("| `{name}`")) || guide.contains(&format!(", `{name}` |")), "{name}");
        named += 1;
    }
    assert!(named > 10, "{text}");
}

/// Codes that rows of a batch have, and no answer of the server.
const CODES_OF_BATCHES: [Code; 2] = [Code::ImageUnreadable, Code::InputChanged];

/// Every stable code stands in the guide's table with its status, and nothing else does.
#[test]
fn the_guide_lists_the_codes() {
    let guide = |name: &str| std::fs::read_to_string(repository().join("docs/guide").join(name)).unwrap();
    let page = guide("server.md");
    let table = page.split("| status | code |\n|---|---|\n").nth(1).unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| ")?.split_once(" | "));
    let names = |codes: &str| codes.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut listed: Vec<_> = rows
        .flat_map(|(status, codes)| names(codes).into_iter().map(move |code| (status.to_owned(), code)))
        .collect();
    let of_server = Code::ALL.iter().filter(|code| !CODES_OF_BATCHES.contains(code));
    let mut codes: Vec<_> =
        of_server.map(|code| (code.status().as_str().to_owned(), code.name().to_owned())).collect();
    listed.sort();
    codes.sort();
    assert_eq!(listed, codes);
    for code in CODES_OF_BATCHES {
        assert!(guide("batch.md").contains(&format!("`{}`", code.name())), "{code:?}");
    }
}

#[test]
fn the_official_python_client_works() {
    let python = std::env::var("PHI3V_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import openai"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        let remedy = "set PHI3V_PYTHON to a Python with the package openai";
        phi3v_kernels::testing::skip("the Python client is not installed", remedy);
        return;
    }
    let server = Running::start(ServerOptions::default());
    let script = repository().join("crates/cli/tests/page/client.py");
    let output = Command::new(python).arg(script).arg(format!("http://{}", server.address)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn responses_stream_and_do_not_store() {
    let server = Running::start(ServerOptions::default());
    let body = json!({"input": [user("Hello")], "instructions": "Be brief.", "max_output_tokens": 12});
    let whole = server.post("/v1/responses", &body);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post("/v1/responses", &body).events();
    let parsed: Vec<serde_json::Value> =
        events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    for (number, ((name, _), event)) in events.iter().zip(&parsed).enumerate() {
        assert_eq!(
            (event["type"].as_str().unwrap(), event["sequence_number"].as_u64()),
            (name.as_str(), Some(number as u64))
        );
    }
    let deltas = parsed.iter().filter(|event| event["type"] == "response.output_text.delta");
    let joined: String = deltas.map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert_eq!(parsed.last().unwrap()["response"]["output"][0]["content"][0]["text"], text);
    let refused = server.post("/v1/responses", &json!({"input": "x", "previous_response_id": "resp_1"}));
    assert_eq!(refused.code(), "unsupported_field");
}
