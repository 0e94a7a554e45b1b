//! tokenizer.json: whatever is accepted can encode and decode anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::tokenizer::Tokenizer;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return };
    let text = "What is this?\n caf\u{e9} \u{1f600} <|end|>\n<|user|> </s> x";
    let _ = tokenizer.decode(&tokenizer.encode_raw(text), false);
    let _ = tokenizer.decode(&tokenizer.encode_plain(text), true);
    let _ = tokenizer.decode(&[0, 1, 2, 5, 300, u32::MAX], true);
});
