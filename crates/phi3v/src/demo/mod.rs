//! The built-in demo checkpoint: a small model of exactly the phi3_v architecture, trained by `training/`.
//!
//! Only where its bytes come from is special; it goes through the same loader, processor and model as any other.

mod code;
#[cfg(test)]
mod pack;
mod unpack;

use crate::files::Files;
use phi3v_kernels::Bytes;
use std::sync::LazyLock;

/// What the checkpoint is called wherever a model is named.
pub const NAME: &str = "demo";

/// What it can do, in words that go on from its name.
pub const ABILITIES: &str = "reads simple covers, charts, large text and shapes";

/// A constant would lie in the program once for every use.
static WEIGHTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| unpack::unpack(include_bytes!(concat!(env!("OUT_DIR"), "/model.packed"))));

/// Names and contents of the checkpoint's files, laid out as a downloaded one's. The weights lie packed in the program;
/// the first call unpacks them, once and for all.
#[must_use]
pub fn contents() -> [(&'static str, &'static [u8]); 7] {
    [
        ("config.json", include_bytes!("config.json")),
        ("generation_config.json", include_bytes!("generation_config.json")),
        ("preprocessor_config.json", include_bytes!("preprocessor_config.json")),
        ("tokenizer.json", include_bytes!("tokenizer.json")),
        ("tokenizer_config.json", include_bytes!("tokenizer_config.json")),
        ("special_tokens_map.json", include_bytes!("special_tokens_map.json")),
        ("model.safetensors", &WEIGHTS),
    ]
}

/// The files of the checkpoint, in memory, to be opened with
/// [`Checkpoint::from_files`](crate::checkpoint::Checkpoint::from_files).
#[must_use]
pub fn files() -> Files {
    let entry = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), Bytes::from_static(bytes));
    Files::Memory { name: NAME.to_owned(), files: contents().map(entry).into() }
}
