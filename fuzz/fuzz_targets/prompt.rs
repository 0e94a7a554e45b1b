//! Prompts: whatever people type stays text, numbers of pictures are checked, and pieces of an answer equal the whole.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use phi3v::chat_template::{Message, Part, Role, render};
use phi3v::processor::{chat_prompt, raw_prompt, reference_ids};
use phi3v::stop::StopStrings;
use phi3v::tokenizer::{DecodeStream, Tokenizer};

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let json = include_bytes!("../../testdata/tiny/tokenizer.json");
    Arc::new(Tokenizer::from_json(json).expect("our own fixture"))
});

fuzz_target!(|data: &[u8]| {
    let Some((&images, rest)) = data.split_first() else { return };
    let num_img_tokens: Vec<usize> = (1..=usize::from(images % 4)).collect();
    let text = String::from_utf8_lossy(rest);
    plain_text(&text);
    if let Ok(ids) = raw_prompt(&TOKENIZER, &text, &num_img_tokens) {
        assert_eq!(reference_ids(&TOKENIZER, &text, &num_img_tokens).as_ref(), Ok(&ids));
        assert_eq!(count_images(&ids), num_img_tokens.iter().sum::<usize>());
    }
    conversation(&text, &num_img_tokens);
    stream(rest);
    stop_strings(&text);
});

/// Text typed by a user has no added tokens and comes back as it was.
fn plain_text(text: &str) {
    let ids = TOKENIZER.encode_plain(text);
    let [_, endoftext] = TOKENIZER.stop_ids();
    assert!(ids.iter().all(|&id| id > 2 && id < endoftext));
    assert_eq!(TOKENIZER.decode(&ids, true), text.replace('\u{2581}', " "));
}

/// Lines are messages, tabs separate their parts, and a part of one digit is a picture.
fn conversation(text: &str, num_img_tokens: &[usize]) {
    let part = |part: &str| match part.parse() {
        Ok(number) if part.len() == 1 => Part::Image(number),
        _ => Part::Text(part.to_owned()),
    };
    let roles = [Role::User, Role::Assistant, Role::System];
    let messages: Vec<Message> = text
        .lines()
        .zip(roles.into_iter().cycle())
        .map(|(line, role)| Message { role, content: line.split('\t').map(part).collect() })
        .collect();
    let _ = render(&messages);
    let Ok(ids) = chat_prompt(&TOKENIZER, &messages, num_img_tokens) else { return };
    assert_eq!(count_images(&ids), num_img_tokens.iter().sum::<usize>());
    let [end, _] = TOKENIZER.stop_ids();
    assert_eq!(ids.iter().filter(|&&id| id == i64::from(end)).count(), messages.len());
}

fn count_images(ids: &[i64]) -> usize {
    ids.iter().filter(|&&id| id < 0).count()
}

/// Two bytes are an id, some of them beyond the vocabulary.
fn stream(bytes: &[u8]) {
    let ids: Vec<u32> =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]])) % 520).collect();
    let mut stream = DecodeStream::with_special(TOKENIZER.clone());
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text += &stream.finish();
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| TOKENIZER.token_bytes(id)).copied().collect();
    let whole = String::from_utf8_lossy(&bytes);
    assert_eq!(text, whole.strip_prefix(' ').unwrap_or(&whole));
}

/// The first line's words are stop strings of the rest: nothing shown contains one.
fn stop_strings(text: &str) {
    let (stops, answer) = text.split_once('\n').unwrap_or(("", text));
    let stops: Vec<&str> = stops.split(' ').collect();
    let Ok(mut watch) = StopStrings::new(&stops) else { return };
    let mut shown = String::new();
    for piece in answer.split_inclusive(['e', ' ']) {
        let output = watch.push(piece);
        shown += &output.text;
        if output.stopped_by.is_some() {
            break;
        }
    }
    shown += &watch.finish();
    assert!(answer.starts_with(&shown) && stops.iter().all(|stop| !shown.contains(stop)));
}
