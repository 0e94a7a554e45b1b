//! Checks that a tokenizer.json gives the same ids and texts as the reference.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;

use super::pieces::byte_of;
use super::{AddedToken, Inner, TemplateTokens, TokenizerError};

/// The parts of the file that phi3v has its own rules for, as written there.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    version: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    model: ModelPart,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

/// An added token; only its text and id matter here.
#[derive(Deserialize)]
pub(super) struct Added {
    id: u32,
    content: String,
}

/// The parts of the model that the tokenizers package does not check.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelPart {
    r#type: Value,
    continuing_subword_prefix: Value,
    vocab: Value,
    merges: Value,
}

/// Refuses parts that change ids or text. Reads the file itself and runs first: the tokenizers package panics on some
/// malformed parts, but not on those accepted here. Returns the added tokens, for [`added_ids`].
pub(super) fn parts(json: &[u8]) -> Result<Vec<Added>, TokenizerError> {
    let parts: Parts = serde_json::from_slice(json)
        .map_err(|error| TokenizerError::Malformed { reason: error.to_string() })?;
    for (part, found, expected) in [("version", &parts.version, "1.0"), ("model", &parts.model.r#type, "BPE")]
    {
        if !found.is_null() && found != expected {
            return Err(unsupported_part(part, found, expected));
        }
    }
    let expected = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
    ]});
    expect_part("normalizer", &parts.normalizer, &expected, "prepend U+2581, then replace spaces by it")?;
    let expected = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    expect_part(
        "decoder",
        &parts.decoder,
        &expected,
        "replace U+2581, byte fallback, fuse, strip one space",
    )?;
    expect_part("pre_tokenizer", &parts.pre_tokenizer, &Value::Null, "null")?;
    if !template_is_whole(&parts.post_processor) {
        let expected = "one template of tokens that it explains";
        return Err(unsupported_part("post_processor", &parts.post_processor, expected));
    }
    merges_fit(&parts.model, &parts.added_tokens)?;
    added_tokens_stand_apart(&parts.model, &parts.added_tokens)?;
    Ok(parts.added_tokens)
}

/// Refuses added tokens whose ids differ from those that the tokenizers package gives them. It ignores the ids in the
/// file and numbers added tokens that the vocabulary lacks consecutively from the vocabulary's size.
pub(super) fn added_ids(inner: &Inner, added: &[Added]) -> Result<(), TokenizerError> {
    let Some((token, id)) = added
        .iter()
        .map(|token| (token, inner.token_to_id(&token.content)))
        .find(|(token, id)| *id != Some(token.id))
    else {
        return Ok(());
    };
    let place = id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    Err(TokenizerError::Unsupported {
        part: "added token",
        found: format!("{:?} with the id {}, its place gives it {place}", cut(&token.content), token.id),
        expected: "ids that go on from those before without a gap",
    })
}

/// Checks the merges. The tokenizers package cuts off a prefix without regard to character boundaries, so none is
/// allowed. It also panics if a merge makes more than the longest token. A merge must not make an added token either,
/// since a user's text would become one.
fn merges_fit(model: &ModelPart, added: &[Added]) -> Result<(), TokenizerError> {
    let prefix = &model.continuing_subword_prefix;
    if !prefix.is_null() && prefix != "" {
        return Err(unsupported_part("model", prefix, "no prefix or suffix of subwords"));
    }
    let longest = model.vocab.as_object().and_then(|vocab| vocab.keys().map(String::len).max()).unwrap_or(0);
    let added: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
    for merge in model.merges.as_array().into_iter().flatten() {
        let made = match merge {
            // two tokens with a space between them
            Value::String(pair) => pair.replacen(' ', "", 1),
            Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect(),
            _ => continue,
        };
        if made.len() > longest {
            return Err(unsupported_part("model", merge, "merges that make a token of the vocabulary"));
        }
        if added.contains(made.as_str()) {
            return Err(unsupported_part("model", merge, "merges that make no added token"));
        }
    }
    Ok(())
}

/// Refuses added tokens that text is spelled in before any merge: a character of the vocabulary, or a byte.
fn added_tokens_stand_apart(model: &ModelPart, added: &[Added]) -> Result<(), TokenizerError> {
    let is_spelled = |token: &&Added| {
        let is_letter = token.content.chars().count() == 1;
        is_letter && model.vocab.get(&token.content).is_some() || byte_of(&token.content).is_some()
    };
    match added.iter().find(is_spelled) {
        Some(token) => {
            let found = Value::String(token.content.clone());
            Err(unsupported_part("added token", &found, "no character or byte of the vocabulary"))
        }
        None => Ok(()),
    }
}

/// Whether every piece of the template is the text or a token that the template defines. The tokenizers package panics on
/// other pieces, and on a second template that is not of one or two pieces. It also identifies a part by its fields,
/// whatever its type says.
fn template_is_whole(part: &Value) -> bool {
    match part["type"].as_str() {
        None => return part.is_null(),
        Some("Sequence") => {
            let parts = part["processors"].as_array().map_or(&[][..], Vec::as_slice);
            return matches!(parts, [part] if template_is_whole(part));
        }
        Some("TemplateProcessing") => {}
        Some(_) => return false,
    }
    let whole = |piece: &Value| match piece["SpecialToken"]["id"].as_str() {
        Some(token) => part["special_tokens"].get(token).is_some(),
        None => piece["Sequence"]["id"] == "A",
    };
    part["single"].as_array().is_some_and(|pieces| pieces.iter().all(whole))
}

/// Refuses a model or a post-processor that would give other ids.
pub(super) fn behaviour(inner: &Inner) -> Result<(), TokenizerError> {
    bpe_flags(inner)?;
    let bos = id_of(inner, "<s>")?;
    let begin = inner
        .encode_fast("", true)
        .map_err(|error| TokenizerError::Malformed { reason: error.to_string() })?;
    if begin.get_ids() == [bos] {
        return Ok(());
    }
    Err(TokenizerError::Unsupported {
        part: "post_processor",
        found: format!("ids {:?} around an empty text", begin.get_ids()),
        expected: "<s> before the text and nothing else",
    })
}

/// Checks the BPE options that the reference's vocabulary is made for.
fn bpe_flags(inner: &Inner) -> Result<(), TokenizerError> {
    let unsupported =
        |found: String, expected| TokenizerError::Unsupported { part: "model", found, expected };
    let bpe = inner.get_model();
    if !bpe.byte_fallback {
        return Err(unsupported("byte_fallback false".to_owned(), "byte_fallback true"));
    }
    if let Some(dropout) = bpe.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(unsupported(format!("dropout {dropout}"), "no dropout"));
    }
    if bpe.ignore_merges {
        return Err(unsupported("ignore_merges true".to_owned(), "ignore_merges false"));
    }
    for affix in [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix].into_iter().flatten() {
        if !affix.is_empty() {
            return Err(unsupported(format!("subword affix {affix:?}"), "no prefix or suffix of subwords"));
        }
    }
    Ok(())
}

/// Returns the added tokens of the chat template, which must be matched in the text as it is.
pub(super) fn template_tokens(inner: &Inner) -> Result<TemplateTokens, TokenizerError> {
    let decoder = inner.get_added_tokens_decoder();
    let find = |content: &str| {
        let id = id_of(inner, content)?;
        let token = decoder
            .get(&id)
            .ok_or_else(|| TokenizerError::MissingToken { token: format!("{content} among added_tokens") })?;
        if token.normalized || token.single_word {
            return Err(TokenizerError::Unsupported {
                part: "added token",
                found: format!(
                    "{content} with normalized {}, single_word {}",
                    token.normalized, token.single_word
                ),
                expected: "both false",
            });
        }
        Ok(AddedToken { id, lstrip: token.lstrip, rstrip: token.rstrip })
    };
    Ok(TemplateTokens {
        system: find("<|system|>")?,
        user: find("<|user|>")?,
        assistant: find("<|assistant|>")?,
        end: find("<|end|>")?,
    })
}

/// Returns the id of a token that must exist.
pub(super) fn id_of(inner: &Inner, token: &str) -> Result<u32, TokenizerError> {
    inner.token_to_id(token).ok_or_else(|| TokenizerError::MissingToken { token: token.to_owned() })
}

fn expect_part(
    part: &'static str,
    found: &Value,
    expected: &Value,
    words: &'static str,
) -> Result<(), TokenizerError> {
    if found == expected {
        return Ok(());
    }
    Err(unsupported_part(part, found, words))
}

fn unsupported_part(part: &'static str, found: &Value, expected: &'static str) -> TokenizerError {
    TokenizerError::Unsupported { part, found: cut(&found.to_string()), expected }
}

fn cut(found: &str) -> String {
    match found.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &found[..end]),
        None => found.to_owned(),
    }
}

/// Longest component in an error, which must fit on one line; the message cuts longer ones.
const FOUND_CHARS_MAX: usize = 200;
