//! Properties of prompts and streams: what users type stays text, and pieces equal the whole.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::chat_template::{Message, Part, Role, render};
use phi3v::processor::{ProcessorError, chat_prompt, raw_prompt};
use phi3v::tokenizer::{DecodeStream, Tokenizer, TokenizerError};
use rand_pcg::{
    Pcg64,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

fn fixture_json() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/tokenizer.json")).unwrap()
}

fn fixture() -> Tokenizer {
    Tokenizer::from_json(&fixture_json()).unwrap()
}

/// The fixture, and the hub's tokenizer if it is there.
fn tokenizers() -> Vec<Arc<Tokenizer>> {
    let hub = common::shared("reference/golden/tiny/tokenizer.json");
    let hub = hub.map(|path| Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap());
    [fixture()].into_iter().chain(hub).map(Arc::new).collect()
}

struct Random(Pcg64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Words, white space of all kinds and broken tags, but nothing that is an added token or an image tag.
    fn ordinary_text(&mut self) -> String {
        let words = [
            "What",
            " is",
            "  this",
            "\n",
            " ",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "\u{200b}",
            "\u{85}",
            "\u{1c}",
            "caf\u{e9}",
            "\u{1f600}",
            "\u{65e5}\u{672c}",
            "e\u{301}",
            "\u{2581}",
            "<|ende",
            "|>",
            "<|",
            ">",
            "<|USER|>",
            "12.5 %",
            "\0",
            "< |user|>",
            "\u{feff}",
            "<|image_|>",
            "<|image_x1|>",
            "<",
            "aaaa",
        ];
        (0..self.below(8)).map(|_| self.pick(&words)).collect()
    }
}

const ADDED: [&str; 9] = [
    "<s>",
    "</s>",
    "<unk>",
    "<|end|>",
    "<|user|>",
    "<|system|>",
    "<|assistant|>",
    "<|endoftext|>",
    "<|image|>",
];

/// A conversation whose pictures are numbered 1..=k in random places, and the k lengths.
fn random_conversation(random: &mut Random) -> (Vec<Message>, Vec<usize>) {
    let images = random.below(4);
    let mut messages = Vec::new();
    let mut numbers: Vec<usize> = (1..=images).collect();
    for turn in 0..1 + random.below(4) {
        let role = random.pick(&[Role::User, Role::User, Role::Assistant, Role::System]);
        let mut content = Vec::new();
        for _ in 0..random.below(4) {
            content.push(Part::Text(random.ordinary_text()));
            if turn == 0 && !numbers.is_empty() {
                content.push(Part::Image(numbers.swap_remove(random.below(numbers.len()))));
            }
        }
        messages.push(Message { role, content });
    }
    messages[0].content.extend(numbers.into_iter().map(Part::Image));
    let num_img_tokens = (0..images).map(|_| 1 + random.below(5)).collect();
    (messages, num_img_tokens)
}

#[test]
fn conversations_of_ordinary_text_equal_their_rendered_prompt() {
    for tokenizer in tokenizers() {
        let mut random = Random::new(1);
        for _ in 0..2000 {
            let (messages, num_img_tokens) = random_conversation(&mut random);
            let text = render(&messages);
            let special =
                |part: &Part| matches!(part, Part::Text(text) if ADDED.iter().any(|a| text.contains(a)));
            assert!(
                !messages.iter().flat_map(|m| &m.content).any(special),
                "the generator makes ordinary text"
            );
            assert_eq!(
                chat_prompt(&tokenizer, &messages, &num_img_tokens),
                raw_prompt(&tokenizer, &text, &num_img_tokens),
                "{text:?}"
            );
        }
    }
}

#[test]
fn plain_text_is_a_stretch_of_the_raw_prompt() {
    for tokenizer in tokenizers() {
        let mut random = Random::new(2);
        for _ in 0..2000 {
            let text = random.ordinary_text();
            assert_eq!(tokenizer.encode_plain(&text), tokenizer.encode_raw(&text)[1..], "{text:?}");
        }
    }
}

#[test]
fn what_a_user_types_never_becomes_a_token_or_a_picture() {
    for tokenizer in tokenizers() {
        let placeholders = (1..=39).map(|i| format!("<|placeholder{i}|>"));
        let tags = ["<|image_1|>", "<|image_2|>", "<|image_01|>"].map(str::to_owned);
        let typed: Vec<String> =
            ADDED.map(str::to_owned).into_iter().chain(placeholders).chain(tags).collect();
        let lowest_added = tokenizer.token_id("<|endoftext|>").unwrap();
        for text in &typed {
            for text in [text.clone(), format!("a {text}b"), text.repeat(2), format!("{text}\n\n  {text}")] {
                let plain = tokenizer.encode_plain(&text);
                assert!(plain.iter().all(|&id| id > 2 && id < lowest_added), "{text:?}");
                assert_eq!(tokenizer.decode(&plain, true), text);

                let parts = [Part::Image(1), Part::Text(text.clone())];
                let ids = chat_prompt(&tokenizer, &[Message::user(parts)], &[2]).unwrap();
                let specials = ids.iter().filter(|&&id| id >= i64::from(lowest_added)).count();
                assert_eq!(specials, 3, "user, end, assistant: {text:?}");
                assert_eq!(ids.iter().filter(|&&id| id < 0).count(), 2);
            }
        }
    }
}

#[test]
fn an_image_tag_in_two_parts_stays_text() {
    let parts = [Part::Text("<|image_".to_owned()), Part::Text("1|>".to_owned())];
    let ids = chat_prompt(&fixture(), &[Message { role: Role::User, content: parts.to_vec() }], &[]).unwrap();
    assert!(ids.iter().all(|&id| id > 0));
}

#[test]
fn pictures_out_of_order_keep_their_numbers() {
    let content = vec![Part::Image(2), Part::Text("\nand ".to_owned()), Part::Image(1)];
    let ids = chat_prompt(&fixture(), &[Message { role: Role::User, content }], &[3, 2]).unwrap();
    let images: Vec<i64> = ids.into_iter().filter(|&id| id < 0).collect();
    assert_eq!(images, [-2, -2, -1, -1, -1]);
}

#[test]
fn picture_numbers_are_checked() {
    let tokenizer = fixture();
    let ask = |numbers: &[usize], images: usize| {
        let parts = numbers.iter().map(|&number| Part::Image(number));
        chat_prompt(&tokenizer, &[Message::user(parts)], &vec![1; images]).unwrap_err()
    };
    let error = ask(&[1, 3], 2);
    assert_eq!(error.to_string(), "image numbers must be 1, 2, 3 and so on without a gap, got 1, 3");
    assert_eq!(ask(&[0], 1), ProcessorError::ImageNumbers { numbers: vec![0] });
    assert_eq!(ask(&[2], 1), ProcessorError::ImageNumbers { numbers: vec![2] });
    assert_eq!(ask(&[1, 1], 1), ProcessorError::RepeatedImage { number: 1, times: 2 });
    assert_eq!(ask(&[1], 2).to_string(), "the prompt names 1 image and 2 are given");
    assert_eq!(ask(&[2, 1], 1).to_string(), "the prompt names 2 images and 1 is given");
    assert_eq!(ask(&[1], 0), ProcessorError::ImageCount { tags: 1, images: 0 });
    assert_eq!(chat_prompt(&tokenizer, &[], &[]), Err(ProcessorError::NoMessages));
    let huge = raw_prompt(&tokenizer, &format!("<|image_{}|>", "9".repeat(10_000)), &[1]).unwrap_err();
    assert_eq!(huge, ProcessorError::ImageNumbers { numbers: vec![u64::MAX] });
}

#[test]
fn digits_of_every_script_are_numbers() {
    let tokenizer = fixture();
    // Arabic-Indic, Devanagari, full-width, mathematical bold and sans-serif (the blocks of the last two touch others).
    for digit in ['\u{661}', '\u{967}', '\u{ff11}', '\u{1d7cf}', '\u{1d7e3}'] {
        let ids = raw_prompt(&tokenizer, &format!("<|image_{digit}|>"), &[2]);
        assert_eq!(ids, raw_prompt(&tokenizer, "<|image_1|>", &[2]), "{digit}");
    }
}

/// The text of ids by the definition: their bytes side by side, U+FFFD for what is no character, without the first space.
fn lossy(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let before = tokenizer.encode_plain("a");
    let is_left_out = |id: u32| {
        let with = [&before[..], &[id]].concat();
        skip_special && tokenizer.decode(&with, true) == "a"
    };
    let shown = ids.iter().filter(|&&id| !is_left_out(id));
    let bytes: Vec<u8> = shown.flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
    let text = String::from_utf8_lossy(&bytes);
    text.strip_prefix(' ').unwrap_or(&text).to_owned()
}

#[test]
fn streams_lose_no_character_and_equal_the_reference_where_all_are_whole() {
    for tokenizer in tokenizers() {
        let mut random = Random::new(3);
        let size = tokenizer.vocab_size();
        let space = tokenizer.token_id("\u{2581}").unwrap();
        let mut whole = 0;
        for _ in 0..3000 {
            let smile = "\u{1f600}".bytes().map(|byte| 3 + u32::from(byte));
            let mut ids: Vec<u32> = Vec::new();
            for _ in 0..random.below(12) {
                match random.below(7) {
                    0 => ids.extend(smile.clone()),
                    1 => ids.push(3 + random.below(256) as u32),
                    2 => ids.push(space),
                    3 => ids.push(tokenizer.stop_ids()[random.below(2)]),
                    4 => ids.extend(smile.clone().take(1 + random.below(3))),
                    // A checkpoint's vocabulary may go beyond the tokenizer's.
                    _ => ids.push(random.below(size + 20) as u32),
                }
            }
            for special in [false, true] {
                let mut stream = if special {
                    DecodeStream::with_special(tokenizer.clone())
                } else {
                    DecodeStream::new(tokenizer.clone())
                };
                let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
                text += &stream.finish();
                assert_eq!(text, lossy(&tokenizer, &ids, !special), "{ids:?}");
                let reference = tokenizer.decode(&ids, !special);
                if !reference.contains('\u{fffd}') {
                    assert_eq!(text, reference, "{ids:?}");
                    whole += 1;
                }
            }
        }
        assert!(whole > 1000, "{whole} texts without broken characters");
    }
}

#[test]
fn decode_equals_the_tokenizers_package() {
    for (tokenizer, json) in tokenizers().iter().zip([Some(fixture_json()), hub_json()].into_iter().flatten())
    {
        let package = tokenizers::Tokenizer::from_bytes(json).unwrap();
        let mut random = Random::new(4);
        for _ in 0..3000 {
            let bytes = random.below(2) == 0;
            let range = if bytes { 262 } else { tokenizer.vocab_size() + 20 };
            let ids: Vec<u32> = (0..random.below(10)).map(|_| random.below(range) as u32).collect();
            for skip in [false, true] {
                assert_eq!(tokenizer.decode(&ids, skip), package.decode(&ids, skip).unwrap(), "{ids:?}");
            }
        }
    }
}

fn hub_json() -> Option<Vec<u8>> {
    common::shared("reference/golden/tiny/tokenizer.json").map(|path| std::fs::read(path).unwrap())
}

/// What a stream gives for each id, and at the end.
fn pieces(tokenizer: &Arc<Tokenizer>, ids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut stream = DecodeStream::new(tokenizer.clone());
    let mut pieces: Vec<String> = ids.into_iter().map(|id| stream.push(id)).collect();
    pieces.push(stream.finish());
    pieces
}

#[test]
fn characters_arrive_with_their_last_byte() {
    let tokenizer = Arc::new(fixture());
    let bytes = |bytes: &[u8]| bytes.iter().map(|&byte| tokenizer.byte_id(byte)).collect::<Vec<_>>();
    let plain = |text| tokenizer.encode_plain(text);
    assert_eq!(pieces(&tokenizer, plain("a\u{1f600} b")), ["a", "", "", "", "\u{1f600}", " b", ""]);
    let lines = pieces(&tokenizer, bytes(b"\n\n"));
    assert_eq!(lines, ["\n", "\n", ""], "a line ends when it ends, not with the next word");
    // Khmer, Amharic and a rare ideograph: three or four bytes each, none waits for the next
    for text in ["\u{1781}\u{17d2}\u{1798}", "\u{1230}\u{120b}\u{121d}", "\u{20bb7}\u{20bb7}"] {
        let size = text.chars().next().unwrap().len_utf8();
        let given = pieces(&tokenizer, bytes(text.as_bytes()));
        for (index, piece) in given[..text.len()].iter().enumerate() {
            assert_eq!(piece.is_empty(), (index + 1) % size != 0, "{given:?}");
        }
        assert_eq!(given.concat(), text);
    }
}

#[test]
fn only_what_is_no_character_is_replaced() {
    let tokenizer = Arc::new(fixture());
    let text = |bytes: &[u8]| pieces(&tokenizer, bytes.iter().map(|&byte| tokenizer.byte_id(byte))).concat();
    let smiles = "\u{1f600}\u{1f389}";
    for cut in 1..4 {
        // an answer may end within a character
        assert_eq!(
            text(&[smiles.as_bytes(), &smiles.as_bytes()[..cut]].concat()),
            format!("{smiles}\u{fffd}")
        );
    }
    assert_eq!(text(b"\xf0\x9fA\xe2\x82\xac"), "\u{fffd}A\u{20ac}", "one mark for an unfinished character");
    assert_eq!(text(b"\xff\x80\n"), "\u{fffd}\u{fffd}\n", "and one for each byte that begins none");
    assert_eq!(text(b"\xed\xa0\x80"), "\u{fffd}\u{fffd}\u{fffd}", "half a pair is no character");
    assert_eq!(text(b"  "), " ", "the first space is the tokenizer's");
    // the reference judges the run as a whole
    let ids: Vec<u32> = b"\xe2\x82\xac\xf0".iter().map(|&byte| tokenizer.byte_id(byte)).collect();
    assert_eq!(tokenizer.decode(&ids, true), "\u{fffd}".repeat(4));
}

#[test]
fn what_was_said_in_bytes_is_read_again_as_the_same_ids() {
    for tokenizer in tokenizers() {
        let ids = tokenizer.encode_plain("Smile \u{1f600}\u{1f389}\u{1781}\n\u{20bb7}");
        assert_eq!(tokenizer.encode_plain(&pieces(&tokenizer, ids.clone()).concat()), ids);
    }
}

#[test]
fn files_that_say_the_same_otherwise_give_the_same_ids() {
    let json: Value = serde_json::from_slice(&fixture_json()).unwrap();
    let text = "a stretch of several words<|end|>";
    let ids = fixture().encode_raw(text);
    let cut = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    let templates = json!({"type": "Sequence", "processors": [json["post_processor"]]});
    for (key, value) in [("truncation", cut), ("post_processor", templates), ("version", Value::Null)] {
        let mut json = json.clone();
        json[key] = value;
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode_raw(text), ids, "{key}");
    }
}

/// The package panics on these.
#[test]
fn templates_that_are_not_whole_are_refused() {
    let json: Value = serde_json::from_slice(&fixture_json()).unwrap();
    const BOS: &str = "<s>";
    let whole = json["post_processor"].clone();
    let template = |before: &[&str]| {
        let mut single: Vec<_> =
            before.iter().map(|token| json!({"SpecialToken": {"id": token, "type_id": 0}})).collect();
        single.extend((!before.is_empty()).then(|| json!({"Sequence": {"id": "A", "type_id": 0}})));
        let mut template = whole.clone();
        template["single"] = Value::Array(single);
        template
    };
    let mut pair = whole.clone();
    pair["pair"] = json!([{"SpecialToken": {"id": "unexplained", "type_id": 0}}]);
    // a sequence of one is what it has
    let mut one = json.clone();
    one["post_processor"] = json!({"type": "Sequence", "processors": [whole.clone()]});
    assert_eq!(Tokenizer::from_json(one.to_string().as_bytes()).unwrap().encode_raw("a")[0], 1);
    for (pointer, broken) in [
        ("/post_processor/special_tokens", json!({})),
        ("/post_processor/type", json!("Template")),
        ("/post_processor/single/1/Sequence/id", json!("B")),
        ("/post_processor/single/0/SpecialToken", json!(["<s>", 0])),
        // or that get what another has made of the text: nothing, two pieces, or three
        ("/post_processor", json!({"type": "Sequence", "processors": [template(&[]), template(&[])]})),
        ("/post_processor", json!({"type": "Sequence", "processors": [template(&[BOS]), pair.clone()]})),
        ("/post_processor", json!({"type": "Sequence", "processors": [template(&[BOS, BOS]), pair]})),
        ("/post_processor", json!({"type": "Sequence", "processors": []})),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = broken;
        let refused = Tokenizer::from_json(json.to_string().as_bytes()).unwrap_err();
        assert!(
            matches!(refused, TokenizerError::Unsupported { part: "post_processor", .. }),
            "{pointer}: {refused}"
        );
    }
}

#[test]
fn tokenizers_of_other_rules_are_refused() {
    let change = |from: &str, to: &str| {
        let json = String::from_utf8(fixture_json()).unwrap();
        assert!(json.contains(from), "{from}");
        Tokenizer::from_json(json.replace(from, to).as_bytes()).unwrap_err()
    };
    let part = |error: TokenizerError| match error {
        TokenizerError::Unsupported { part, .. } => part,
        other => panic!("{other}"),
    };
    assert_eq!(part(change("\"prepend\": \"\u{2581}\"", "\"prepend\": \"_\"")), "normalizer");
    assert_eq!(part(change("\"start\": 1", "\"start\": 2")), "decoder");
    assert_eq!(
        part(change("\"pre_tokenizer\": null", "\"pre_tokenizer\": {\"type\": \"Whitespace\"}")),
        "pre_tokenizer"
    );
    // the package cuts a prefix into characters, and panics on merges that are longer than every token
    let json: Value = serde_json::from_slice(&fixture_json()).unwrap();
    for (pointer, broken) in [
        ("/model/continuing_subword_prefix", json!("#")),
        ("/model/merges/0", json!(format!("{} b", "a".repeat(300)))),
        // text would become an added token
        ("/model/merges/0", json!("< s>")),
        ("/model/merges/0", json!(["<s", ">"])),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = broken;
        let refused = Tokenizer::from_json(json.to_string().as_bytes()).unwrap_err();
        assert_eq!(part(refused), "model", "{pointer}");
    }
    for spelled in ["a", "\u{2581}", "<0x41>"] {
        let mut json = json.clone();
        let added = json!({"id": 511, "content": spelled, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        json["added_tokens"].as_array_mut().unwrap().push(added);
        let refused = Tokenizer::from_json(json.to_string().as_bytes()).unwrap_err();
        assert_eq!(part(refused), "added token", "{spelled}");
    }
    // the package numbers added tokens as they come, whatever their ids
    let is_after = |token: &Value| token["content"] == "<|placeholder1|>";
    let gap = json["added_tokens"].as_array().unwrap().iter().position(is_after).unwrap();
    let mut fewer = json.clone();
    fewer["added_tokens"].as_array_mut().unwrap().remove(gap);
    let refused = Tokenizer::from_json(fewer.to_string().as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("its place gives it"), "{refused}");
    assert_eq!(part(refused), "added token");
    let large = vec![b' '; (16 << 20) + 1];
    assert!(matches!(Tokenizer::from_json(&large), Err(TokenizerError::TooLarge { .. })));
    assert_eq!(part(change("\"version\": \"1.0\"", "\"version\": \"2.0\"")), "version");
    assert_eq!(part(change("\"type\": \"BPE\"", "\"type\": \"WordPiece\"")), "model");
    assert_eq!(part(change("\"byte_fallback\": true", "\"byte_fallback\": false")), "model");
    assert_eq!(part(change("\"dropout\": null", "\"dropout\": 0.5")), "model");
    assert_eq!(part(change("\"normalized\": false", "\"normalized\": true")), "added token");
    assert!(
        matches!(change("<0x0A>", "<0x0Z>"), TokenizerError::MissingToken { token } if token == "<0x0A>")
    );
    assert!(
        matches!(change("<|end|>", "<|fin|>"), TokenizerError::MissingToken { token } if token == "<|end|>")
    );
    assert!(matches!(Tokenizer::from_json(b"{}"), Err(TokenizerError::Malformed { .. })));
    // Broken within a part that the tokenizers package reads with `expect`.
    assert!(matches!(
        change("\"type\": \"Fuse\"\n", "\"type\": \"Fuse\"\n]"),
        TokenizerError::Malformed { .. }
    ));
    assert!(matches!(
        change("\"<0xFF>\": 258", "\"<0xFF>\": 4000000000"),
        TokenizerError::IdTooLarge { id: 4_000_000_000, .. }
    ));
}
