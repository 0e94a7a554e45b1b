//! A checkpoint as a whole: the tiny one in the repository opens, and what is missing is named.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::checkpoint::{Checkpoint, CheckpointError};
use phi3v::files::Files;
use phi3v_kernels::{Bytes, Precision};
use std::fs;
use std::path::{Path, PathBuf};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny")
}

/// A copy of the tiny checkpoint that a test may damage.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn the_tiny_checkpoint_opens() {
    let checkpoint = Checkpoint::open(&tiny()).unwrap();
    assert_eq!(checkpoint.name, "tiny");
    assert_eq!((checkpoint.config.head_dim(), checkpoint.config.img_processor.num_layers_used()), (16, 2));
    assert_eq!(checkpoint.preprocessor.num_crops, 4);
    assert_eq!(checkpoint.tokenizer.vocab_size(), checkpoint.config.vocab_size);
    assert_eq!(checkpoint.stop_ids(), [2, 467, 474]);
    let down = checkpoint.weights.linear("model.layers.1.mlp.down_proj", Precision::F32).unwrap();
    assert_eq!((down.n, down.k), (48, 96));
}

#[test]
fn a_checkpoint_in_memory_is_the_same() {
    let mut files = Vec::new();
    for entry in fs::read_dir(tiny()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        files.push((name, Bytes::from(fs::read(entry.path()).unwrap())));
    }
    let files = Files::Memory { name: "built in".to_owned(), files };
    let (memory, folder) = (Checkpoint::from_files(&files).unwrap(), Checkpoint::open(&tiny()).unwrap());
    assert_eq!((memory.name.as_str(), &memory.config), ("built in", &folder.config));
    let norm = "model.norm.weight";
    assert_eq!(memory.weights.vector(norm).unwrap(), folder.weights.vector(norm).unwrap());
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
        let dir = copy();
        fs::remove_file(dir.path().join(file)).unwrap();
        let error = Checkpoint::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
        assert!(error.hint().unwrap().contains(file));
    }
    let dir = copy();
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
    fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    fs::write(dir.path().join("model.safetensors.index.json"), r#"{"weight_map": {}}"#).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("no tensor model.embed_tokens.weight"), "{error}");

    let error = Checkpoint::open(Path::new("/no/such/folder")).unwrap_err();
    assert!(matches!(error, CheckpointError::NoFolder { .. }), "{error}");
}

/// Its zeros take no room on the disk, and to read them would take minutes.
#[cfg(unix)]
#[test]
fn files_beyond_their_limits_are_refused_unread() {
    for file in ["config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json"] {
        let dir = copy();
        fs::File::create(dir.path().join(file)).unwrap().set_len(1 << 40).unwrap();
        let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("1099511627776"), "{error}");
    }
    let dir = copy();
    let index = fs::File::create(dir.path().join("model.safetensors.index.json")).unwrap();
    index.set_len(1 << 40).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("1099511627776"), "{error}");
}

#[test]
fn files_of_different_models_are_refused() {
    let dir = copy();
    let path = dir.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap().replace("\"vocab_size\": 512", "\"vocab_size\": 500");
    fs::write(&path, config).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Vocabulary { last: 511, vocab_size: 500 }), "{error}");
    fs::write(&path, "{").unwrap();
    assert!(Checkpoint::open(dir.path()).unwrap_err().to_string().contains("config.json"));
}

#[test]
fn the_golden_checkpoint_opens() {
    let Some(dir) = common::shared("reference/golden/tiny") else { return };
    assert_eq!(Checkpoint::open(&dir).unwrap().stop_ids(), [2, 32000, 32007]);
}
