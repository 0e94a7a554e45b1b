//! The built-in demo checkpoint: a small model of exactly the phi3_v architecture, trained by `training/`.
//!
//! Only the source of its bytes is special; it uses the same loader, processor and model as any other checkpoint.

mod code;
#[cfg(test)]
mod pack;
mod unpack;

use crate::files::Files;
use phi3v_kernels::Bytes;
use std::sync::LazyLock;

/// The name of the checkpoint wherever a model is named.
pub const NAME: &str = "demo";

/// What the model can do, worded to follow its name.
pub const ABILITIES: &str = "reads simple covers, charts, large text and shapes";

/// The unpacked weights. A constant in place of the static would be stored in the program once for every use.
static WEIGHTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| unpack::unpack(include_bytes!(concat!(env!("OUT_DIR"), "/model.packed"))));

/// Returns names and contents of the checkpoint's files, laid out as those of a downloaded checkpoint. The program contains
/// the weights packed; the first call unpacks them once.
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

/// Returns the files of the checkpoint, in memory, to be opened with
/// [`Checkpoint::from_files`](crate::checkpoint::Checkpoint::from_files).
#[must_use]
pub fn files() -> Files {
    let entry = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), Bytes::from_static(bytes));
    Files::Memory { name: NAME.to_owned(), files: contents().map(entry).into() }
}
