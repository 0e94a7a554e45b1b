//! Safetensors files and their index: refused, or every tensor can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::config::ModelConfig;
use phi3v::weights::{Weights, shards, table};
use phi3v_kernels::{Bytes, Precision};
use std::sync::LazyLock;

/// The configuration that the shards in testdata/tiny, the first inputs, belong to.
static CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| {
    ModelConfig::from_json(include_bytes!("../../testdata/tiny/config.json")).expect("it is ours and tested")
});

fuzz_target!(|data: &[u8]| {
    let _ = shards::parse_index(data);
    open(data.to_vec());
    // the same as a header in front of as many bytes as its offsets can mean
    let mut file = (data.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(data);
    file.resize(file.len() + (1 << 16), 0);
    open(file);
});

fn open(file: Vec<u8>) {
    let Ok(weights) = Weights::from_bytes(Bytes::from(file), &CONFIG) else { return };
    for spec in table::tensors(&CONFIG).iter().filter(|spec| spec.used) {
        assert_eq!(weights.vector(&spec.name).expect("it was checked").len(), spec.values());
        if let Some(name) = spec.name.strip_suffix(".weight") {
            let matrix = weights.linear(name, Precision::F32).expect("it was checked");
            assert_eq!(matrix.n * matrix.k, spec.values());
        }
    }
}
