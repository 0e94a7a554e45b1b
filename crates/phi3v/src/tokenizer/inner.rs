//! The tokenizers package with only the parts that `check::parts` allows. The package's own `Tokenizer` would link all of
//! its models, normalisers and decoders into the program, with their engines and Unicode tables.

use super::{SPACE, TokenizerError};
use serde::Deserialize;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Encoding, NormalizedString, Normalizer, PostProcessor, TokenizerBuilder};

/// BPE on stretches of text. The pre-tokenizer and decoder types only fill their places; there is none of either.
pub(super) type Inner = tokenizers::TokenizerImpl<BPE, Spaces, WhitespaceSplit, Templates, Fuse>;

/// The parts of a tokenizer.json that phi3v has no rules of its own for.
#[derive(Deserialize)]
struct File {
    model: BPE,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    post_processor: Option<Templates>,
}

/// Reads a file whose parts were checked. The result neither truncates nor pads what it encodes, whatever the file says:
/// lengths are up to the caller.
pub(super) fn inner(json: &[u8]) -> Result<Inner, TokenizerError> {
    let malformed = |reason: String| TokenizerError::Malformed { reason };
    let File { mut model, added_tokens, post_processor } =
        serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    // the cache treats a whole stretch of text as a word: few recur, and every thread would keep 10,000 of them
    model.resize_cache(CACHED_STRETCHES);
    let builder = TokenizerBuilder::new().with_model(model).with_normalizer(Some(Spaces));
    let mut inner =
        builder.with_post_processor(post_processor).build().map_err(|error| malformed(error.to_string()))?;
    inner.add_tokens(added_tokens).map_err(|error| malformed(error.to_string()))?;
    Ok(inner)
}

/// Stretches of text whose ids each thread caches, such as those of the chat template: 1 kB each.
const CACHED_STRETCHES: usize = 64;

/// The normaliser: puts U+2581 in front of a stretch and in place of its spaces.
pub(super) struct Spaces;

impl Normalizer for Spaces {
    fn normalize(&self, stretch: &mut NormalizedString) -> tokenizers::Result<()> {
        stretch.prepend(SPACE);
        stretch.replace(' ', SPACE)
    }
}

/// What is put around a text: a template, possibly as the only part of a sequence.
#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum Templates {
    TemplateProcessing(TemplateProcessing),
    Sequence { processors: [Box<Self>; 1] },
}

impl PostProcessor for Templates {
    fn added_tokens(&self, is_pair: bool) -> usize {
        match self {
            Self::TemplateProcessing(template) => template.added_tokens(is_pair),
            Self::Sequence { processors: [template] } => template.added_tokens(is_pair),
        }
    }

    fn process_encodings(
        &self,
        encodings: Vec<Encoding>,
        add_special_tokens: bool,
    ) -> tokenizers::Result<Vec<Encoding>> {
        match self {
            Self::TemplateProcessing(template) => template.process_encodings(encodings, add_special_tokens),
            Self::Sequence { processors: [template] } => {
                template.process_encodings(encodings, add_special_tokens)
            }
        }
    }
}
