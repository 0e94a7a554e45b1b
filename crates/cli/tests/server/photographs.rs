//! Photographs of phones in requests: taken in every way, and none takes the server from others.

use super::harness::{Response, Running, base64, image_tokens};
use serde_json::{Value, json};
use std::path::Path;

/// A photograph as phones make them.
struct Photograph {
    /// The ending of its name.
    kind: &'static str,
    width: u64,
    height: u64,
}

impl Photograph {
    /// Those that this build reads.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        if cfg!(feature = "heic") {
            all.push(Self { kind: "heic", width: 96, height: 64 });
        }
        if cfg!(feature = "avif") {
            all.push(Self { kind: "avif", width: 64, height: 48 });
        }
        all
    }

    fn base64(&self) -> String {
        let name = format!("../../testdata/{0}/color_420.{0}", self.kind);
        base64(&std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap())
    }
}

#[test]
fn photographs_of_phones_are_taken_in_every_way() {
    let server = Running::drawing();
    for photograph in Photograph::all() {
        let (kind, data) = (photograph.kind, photograph.base64());
        let own = format!("image/{kind}");
        // browsers and clients that do not know the format name none, or another
        let types = [&own, "image/heif", "application/octet-stream", "image/jpeg", ""];
        let asked = types.map(|kind| {
            let part =
                json!({"type": "image_url", "image_url": {"url": format!("data:{kind};base64,{data}")}});
            let answer = server.chat_about(part);
            assert_eq!(image_tokens(&answer), 1, "{kind}");
            answer.content()
        });
        assert!(asked.iter().all(|answer| *answer == asked[0]));
        for file_data in [format!("data:{own};base64,{data}"), data.clone()] {
            let file = json!({"type": "file", "file": {"file_data": file_data, "filename": "IMG_0001"}});
            assert_eq!(server.chat_about(file).content(), asked[0]);
        }
        let url = json!({"type": "image_url", "image_url": {"url": format!("data:{own};base64,{data}")}});
        let body = json!({"messages": [{"role": "user", "content": [url]}]});
        let image = server.post("/tokenize?thumbnails=true", &body).json()["images"][0].clone();
        let size = (&image["width"], &image["height"]);
        assert_eq!(size, (&json!(photograph.width), &json!(photograph.height)));
        assert!(image["thumbnail"].as_str().unwrap().starts_with("data:image/png;base64,"));
        let cut = format!("data:{own};base64,{}", &data[..400]);
        let refused = server.chat_about(json!({"type": "image_url", "image_url": {"url": cut}}));
        assert_eq!((refused.status, refused.code().as_str()), (400, "image_invalid"), "{kind}");
    }
}

#[test]
fn the_responses_api_takes_photographs_of_phones() {
    let server = Running::drawing();
    for photograph in Photograph::all() {
        let (kind, data) = (photograph.kind, photograph.base64());
        let url = format!("data:image/{kind};base64,{data}");
        let ask = |part: Value| {
            let content = json!([part, {"type": "input_text", "text": "What?"}]);
            let input = json!([{"role": "user", "content": content}]);
            server.post("/v1/responses", &json!({"max_output_tokens": 2, "input": input}))
        };
        let text = |answer: &Response| answer.json()["output"][0]["content"][0]["text"].clone();
        let first = ask(json!({"type": "input_image", "image_url": url}));
        assert_eq!(first.status, 200, "{kind}: {}", first.text());
        assert_eq!(first.json()["usage"]["input_tokens"].as_u64().unwrap() / 313, 1, "{kind}");
        assert!(text(&first).is_string());
        for file_data in [url.clone(), data.clone()] {
            let file = json!({"type": "input_file", "filename": format!("a.{kind}"), "file_data": file_data});
            let answer = ask(file);
            assert_eq!((answer.status, text(&answer)), (200, text(&first)), "{kind}: {}", answer.text());
        }
        let cut = format!("data:image/{kind};base64,{}", &data[..400]);
        let refused = ask(json!({"type": "input_image", "image_url": cut}));
        assert_eq!((refused.status, refused.code().as_str()), (400, "image_invalid"), "{kind}");
    }
}

#[cfg(feature = "avif")]
#[test]
fn a_photograph_that_ends_its_decoder_takes_nothing_from_others() {
    let server = Running::drawing();
    // eight bytes that the decoder of AV1 cannot take, as the coded picture
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/avif/color_420.avif");
    let whole = std::fs::read(whole).unwrap();
    let mut bytes = whole.clone();
    let start = bytes.windows(4).rposition(|name| name == b"mdat").unwrap() + 4;
    bytes[start..start + 8].copy_from_slice(&[0x2f, 0x2f, 5, 4, 0x80, 0, 0, 0]);
    let url = |bytes: &[u8]| json!({"type": "image_url", "image_url": {"url": format!("data:;base64,{}", base64(bytes))}});
    let refused = server.chat_about(url(&bytes));
    assert_eq!((refused.status, refused.code().as_str()), (400, "image_invalid"));
    assert_eq!(refused.json()["error"]["message"], "the AVIF picture is damaged");
    assert_eq!(image_tokens(&server.chat_about(url(&whole))), 1, "it goes on");
}
