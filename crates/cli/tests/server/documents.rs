//! Documents in requests: their pages are asked about, and no document takes the server from others.
#![cfg(feature = "pdf")]

use super::harness::{Response, Running, base64, drawer, image_tokens, user_with_picture};
use base64::Engine;
use phi3v_cli::documents::DrawLimits;
use phi3v_cli::server::ServerOptions;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn document(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/documents").join(name)).unwrap()
}

fn data_url(name: &str) -> String {
    format!("data:application/pdf;base64,{}", base64(&document(name)))
}

fn file(name: &str) -> Value {
    json!({"type": "file", "file": {"file_data": data_url(name), "filename": name}})
}

#[test]
fn the_pages_of_a_file_are_pictures() {
    let server = Running::drawing();
    assert_eq!(image_tokens(&server.chat_about(file("shapes.pdf"))), 3);
    let mut some = file("shapes.pdf");
    some["file"]["pages"] = "2-3".into();
    assert_eq!(image_tokens(&server.chat_about(some.clone())), 2);
    let bare = json!({"type": "file", "file": {"file_data": base64(&document("shapes.pdf"))}});
    assert_eq!(image_tokens(&server.chat_about(bare)), 3);
    let url = json!({"max_tokens": 2, "messages": [user_with_picture(&data_url("shapes.pdf"), "What?")]});
    assert_eq!(image_tokens(&server.chat(&url)), 3);
    let whole = server.chat_about(file("shapes.pdf")).content();
    assert_eq!(server.chat(&url).content(), whole);
    let tiff = json!({"type": "file", "file": {"file_data": base64(&document("pages.tif")), "pages": "1-"}});
    assert_eq!(image_tokens(&server.chat_about(tiff)), 3);
}

#[test]
fn the_responses_api_takes_files_too() {
    let server = Running::drawing();
    let ask = |pages: Value| {
        let mut part =
            json!({"type": "input_file", "filename": "a.pdf", "file_data": data_url("shapes.pdf")});
        if !pages.is_null() {
            part["pages"] = pages;
        }
        let content = json!([part, {"type": "input_text", "text": "What?"}]);
        server.post(
            "/v1/responses",
            &json!({"max_output_tokens": 2, "input": [{"role": "user", "content": content}]}),
        )
    };
    let tokens = |answer: Response| answer.json()["usage"]["input_tokens"].as_u64().unwrap() / 313;
    assert_eq!((tokens(ask(Value::Null)), tokens(ask("2".into()))), (3, 1));
    let refused = ask("0".into());
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_value"));
    assert_eq!(refused.json()["error"]["param"], "input[0].content[0].pages");
}

#[test]
fn pages_can_be_seen_before_they_are_asked_about() {
    let server = Running::drawing();
    let mut some = file("shapes.pdf");
    some["file"]["pages"] = "2-".into();
    let body = json!({"messages": [{"role": "user", "content": [some]}]});
    let images = server.post("/tokenize?thumbnails=true", &body).json()["images"].clone();
    let pages: Vec<u64> =
        images.as_array().unwrap().iter().map(|image| image["page"].as_u64().unwrap()).collect();
    assert_eq!(pages, [2, 3]);
    let url = images[0]["thumbnail"].as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    let png = base64::prelude::BASE64_STANDARD.decode(url).unwrap();
    let image = phi3v::image::decode(&png, Default::default(), &Default::default()).unwrap();
    assert_eq!((image.width, image.height), (112, 79));
    assert!(image.pixels.chunks_exact(3).any(|pixel| pixel[2] > 200 && pixel[0] < 60), "the blue rectangle");
    assert!(server.post("/tokenize", &body).json()["images"][0].get("thumbnail").is_none());
}

#[test]
fn what_cannot_be_drawn_is_told() {
    let server = Running::drawing();
    let told = |part: Value| {
        let answer = server.chat_about(part);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        (answer.status, answer.code(), message)
    };
    let locked = told(file("password.pdf"));
    assert_eq!(locked, (400, "document_unusable".to_owned(), "the PDF needs a password".to_owned()));
    let mut beyond = file("shapes.pdf");
    beyond["file"]["pages"] = "9".into();
    assert_eq!(told(beyond).2, "there is no page 9, the document has 3");
    let broken = json!({"type": "file", "file": {"file_data": base64(b"%PDF-1.4 nothing")}});
    assert_eq!(told(broken).2, "the PDF is damaged");
    let by_id = json!({"type": "file", "file": {"filename": "a.pdf"}});
    assert_eq!(told(by_id).1, "invalid_value");
    let by_id = json!({"type": "file", "file": {"file_id": "file-1"}});
    assert_eq!(told(by_id).0, 400);
}

#[test]
fn pages_count_as_pictures() {
    let limits = phi3v_cli::server::limits::Limits { images_max: 2, ..Default::default() };
    let server = Running::start(ServerOptions { limits, drawer: drawer(), ..ServerOptions::default() });
    let refused = server.chat_about(file("shapes.pdf"));
    assert_eq!((refused.status, refused.code().as_str()), (400, "too_many_images"));
    assert_eq!(
        refused.json()["error"]["message"],
        "the document has 3 pages, and 2 at most are looked at together"
    );
    let mut one = file("shapes.pdf");
    one["file"]["pages"] = "1".into();
    let content = |pages: &str| {
        let mut other = file("shapes.pdf");
        other["file"]["pages"] = pages.into();
        json!({"max_tokens": 2, "messages": [{"role": "user", "content": [one, other, {"type": "text", "text": "What?"}]}]})
    };
    assert_eq!(image_tokens(&server.chat(&content("2"))), 2);
    assert_eq!(server.chat(&content("2-3")).code(), "too_many_images");
}

#[test]
fn a_document_that_is_never_drawn_takes_nothing_from_others() {
    let limits = DrawLimits { page_time_max: Duration::from_secs(5), ..DrawLimits::default() };
    let drawer = drawer().with_limits(limits);
    let server = Running::start(ServerOptions { drawer, ..ServerOptions::default() });
    let endless = json!({"type": "file", "file": {"file_data": base64(&document("endless.pdf"))}});
    let refused = server.chat_about(endless);
    assert_eq!((refused.status, refused.code().as_str()), (400, "document_unusable"));
    assert_eq!(image_tokens(&server.chat_about(file("shapes.pdf"))), 3, "it goes on");
}

#[test]
fn the_files_of_a_request_have_one_time_for_drawing() {
    let limits =
        phi3v_cli::server::limits::Limits { draw_time_max: Duration::from_secs(5), ..Default::default() };
    let server = Running::start(ServerOptions { limits, drawer: drawer(), ..ServerOptions::default() });
    let endless = json!({"type": "file", "file": {"file_data": base64(&document("endless.pdf"))}});
    let content = json!([endless, file("shapes.pdf"), {"type": "text", "text": "What?"}]);
    let refused = server.chat(&json!({"messages": [{"role": "user", "content": content}]}));
    assert_eq!((refused.status, refused.code().as_str()), (400, "document_unusable"));
    assert_eq!(
        refused.json()["error"]["message"],
        "the documents and pictures could not be drawn within 5 s together, the limit"
    );
    assert_eq!(image_tokens(&server.chat_about(file("shapes.pdf"))), 3, "others have their own");
}

#[test]
fn decisions_are_made_about_the_pages_of_a_file() {
    let options = || ServerOptions { drawer: drawer(), ..ServerOptions::default() };
    let server = Running::start_with(options(), super::harness::load_demo).until_ready();
    let part = |pages: &str| json!({"type": "input_file", "filename": "a.pdf", "file_data": data_url("words.pdf"), "pages": pages});
    let choices = json!([{"value": "Garden Notes"}, {"value": "Team Plan"}]);
    let text = json!({"type": "input_text", "text": "What is written here?"});
    for (page, written) in [("1", "Garden Notes"), ("2", "Team Plan")] {
        for (input, instructions) in [
            (json!([part(page)]), json!([text])),
            (json!([{"type": "input_text", "text": "Look."}]), json!([part(page), text])),
        ] {
            let question = json!({"type": "choice", "instructions": instructions, "choices": choices});
            let input = json!([{"role": "user", "content": input}]);
            let body = json!({"input": input, "questions": [question, question]});
            let answer = server.post("/v1/decisions", &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["answers"][1]["choice"], written, "page {page}");
        }
    }
}
