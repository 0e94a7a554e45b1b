//! The checkpoint's tensors: opened when they are right, refused by name when they are not.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::weights::quantized::Quant;
use phi3v::weights::table::{self, TensorSpec};
use phi3v::weights::{Weights, WeightsError, weights_bytes};
use phi3v_kernels::{Bytes, Format, Precision};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A model of a few thousand values, with fewer key/value heads than heads.
fn config() -> ModelConfig {
    let config = json!({
        "model_type": "phi3_v", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16, "max_position_embeddings": 4096,
        "embd_layer": { "hd_transform_order": "sub_glb", "projection_cls": "mlp", "use_hd_transform": true,
            "with_learnable_separator": true },
        "img_processor": { "clip_config": { "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 6 } }
    });
    ModelConfig::from_json(config.to_string().as_bytes()).unwrap()
}

/// A safetensors file in the making; header entries may be bent before it is written.
#[derive(Clone, Default)]
struct File {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        let offsets = [start, self.data.len()];
        self.header
            .insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }

    /// All of `specs` in bf16, the value of each being its index within the file, modulo 251.
    fn of(specs: &[TensorSpec]) -> Self {
        let mut file = Self::default();
        for spec in specs {
            let values = 0..spec.values();
            let bytes: Vec<u8> =
                values.flat_map(|i| half::bf16::from_f32((i % 251) as f32).to_le_bytes()).collect();
            file.add(&spec.name, "BF16", &spec.shape, &bytes);
        }
        file
    }

    fn with_header(&self, header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.data);
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        self.with_header(&Value::Object(self.header.clone()).to_string())
    }

    fn open(&self) -> Result<Weights, WeightsError> {
        Weights::from_bytes(Bytes::from(self.bytes()), &config())
    }
}

fn whole() -> File {
    File::of(&table::tensors(&config()))
}

const QKV: &str = "model.layers.0.self_attn.qkv_proj.weight";
const NORM: &str = "model.norm.weight";

#[test]
fn the_table_of_the_real_model() {
    let bytes = include_str!("../../../testdata/phi-3-vision/config.json");
    let specs = table::tensors(&ModelConfig::from_json(bytes.as_bytes()).unwrap());
    let bytes: usize = specs.iter().map(|spec| 2 * spec.values()).sum();
    // the hub's model.safetensors.index.json: 592 tensors, total_size 8293242880
    assert_eq!((specs.len(), bytes), (592, 8_293_242_880));
    // 16 tensors of encoder layer 23, 2 of post_layernorm
    assert_eq!(specs.iter().filter(|spec| !spec.used).count(), 18);
}

#[test]
fn tensors_are_handed_out_by_name() {
    let weights = whole().open().unwrap();
    let qkv = weights.linear("model.layers.0.self_attn.qkv_proj", Precision::Bf16).unwrap();
    assert_eq!((qkv.n, qkv.k, qkv.format, qkv.bias), (16, 8, Format::Bf16, None));
    assert_eq!(qkv.bytes.len(), 2 * 16 * 8);
    let fc1 = "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.0.mlp.fc1";
    let fc1 = weights.linear(fc1, Precision::F32).unwrap();
    assert_eq!((fc1.n, fc1.k, fc1.bias.unwrap()), (6, 4, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let conv = "model.vision_embed_tokens.img_processor.vision_model.embeddings.patch_embedding";
    let conv = weights.linear(conv, Precision::F32).unwrap();
    assert_eq!((conv.n, conv.k, conv.bias), (4, 3 * 14 * 14, None));
    assert_eq!(weights.vector(NORM).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(weights.vector("model.vision_embed_tokens.sub_GN").unwrap().len(), 16);
    assert_eq!(weights.dtype(), Format::Bf16);
    let used: u64 =
        table::tensors(&config()).iter().filter(|spec| spec.used).map(|spec| 2 * spec.values() as u64).sum();
    assert_eq!(weights.bytes_total(), used);
    let unused = "model.vision_embed_tokens.img_processor.vision_model.post_layernorm.weight";
    assert!(matches!(weights.vector(unused), Err(WeightsError::Missing { .. })));
    assert!(weights.vector("lm_head").is_err());
}

#[test]
fn every_dense_dtype_is_widened() {
    let spec = TensorSpec { name: NORM.to_owned(), shape: vec![8], role: table::Role::Dense, used: true };
    let values = [0.0_f32, 1.0, -2.5, 0.125, 1e-3, 300.0, -0.0, 65504.0];
    let mut f32_file = without(&spec.name);
    f32_file.add(NORM, "F32", &[8], &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    assert_eq!(f32_file.open().unwrap().vector(NORM).unwrap(), values);
    let halves: Vec<half::f16> = values.iter().map(|v| half::f16::from_f32(*v)).collect();
    let mut f16_file = without(&spec.name);
    f16_file.add(NORM, "F16", &[8], &halves.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let expected: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
    assert_eq!(f16_file.open().unwrap().vector(NORM).unwrap(), expected);
}

/// The whole file without one tensor.
fn without(name: &str) -> File {
    let specs: Vec<_> = table::tensors(&config()).into_iter().filter(|spec| spec.name != name).collect();
    File::of(&specs)
}

#[test]
fn unused_tensors_may_be_missing_and_known_extras_are_ignored() {
    let specs: Vec<_> = table::tensors(&config()).into_iter().filter(|spec| spec.used).collect();
    let mut file = File::of(&specs);
    file.add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[2], &[0; 8]);
    file.add(
        "model.vision_embed_tokens.img_processor.vision_model.embeddings.position_ids",
        "I64",
        &[1, 2],
        &[0; 16],
    );
    assert!(file.open().is_ok());
}

#[test]
fn every_missing_tensor_is_named() {
    for spec in table::tensors(&config()).into_iter().filter(|spec| spec.used) {
        match without(&spec.name).open() {
            Err(WeightsError::Missing { name }) => assert_eq!(name, spec.name),
            other => panic!("{}: {other:?}", spec.name),
        }
    }
}

#[test]
fn extra_misshapen_and_mistyped_tensors_are_named() {
    let mut extra = whole();
    extra.add("model.layers.1.mlp.down_proj.weight", "BF16", &[1], &[0; 2]);
    let error = extra.open().unwrap_err();
    assert!(matches!(&error, WeightsError::Extra { name, .. } if name.contains("layers.1")), "{error}");

    let mut misshapen = whole();
    misshapen.header[QKV]["shape"] = json!([8, 16]);
    let text = misshapen.open().unwrap_err().to_string();
    assert!(text.contains(QKV) && text.contains("[8, 16]") && text.contains("[16, 8]"), "{text}");

    for (dtype, shape) in [("I16", json!([16, 8])), ("U8", json!([32, 8])), ("F8_E4M3", json!([16, 16]))] {
        let mut mistyped = whole();
        mistyped.header[QKV]["dtype"] = json!(dtype);
        mistyped.header[QKV]["shape"] = shape;
        let text = mistyped.open().unwrap_err().to_string();
        assert!(text.contains(QKV) && text.contains(dtype), "{text}");
    }
    // an unused tensor may be missing, but not wrong
    let unused = "model.vision_embed_tokens.img_processor.vision_model.post_layernorm.weight";
    let mut misshapen = whole();
    misshapen.header[unused]["shape"] = json!([2, 2]);
    assert!(matches!(misshapen.open(), Err(WeightsError::Shape { .. })));
}

#[test]
fn files_of_an_unknown_format_are_refused() {
    let mut file = whole();
    file.header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    assert!(file.open().is_ok());
    file.header["__metadata__"] = json!({ "format": "another" });
    assert!(matches!(file.open(), Err(WeightsError::FileFormat { .. })));
}

#[test]
fn hostile_headers_are_refused() {
    let bend = |change: &dyn Fn(&mut File)| {
        let mut file = whole();
        change(&mut file);
        file.open().unwrap_err()
    };
    let offsets = |file: &File| -> [u64; 2] {
        let pair = file.header[NORM]["data_offsets"].as_array().unwrap();
        [pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap()]
    };
    let error = bend(&|file| {
        let [start, end] = offsets(file);
        file.header[NORM]["data_offsets"] = json!([start - 2, end]);
    });
    assert!(matches!(&error, WeightsError::Overlap { second, .. } if second == NORM), "{error}");
    let error = bend(&|file| {
        let [start, end] = offsets(file);
        file.header[NORM]["data_offsets"] = json!([start + 2, end]);
    });
    assert!(matches!(&error, WeightsError::Offsets { name, .. } if name == NORM), "{error}");
    let error = bend(&|file| {
        let [start, end] = offsets(file);
        file.header[NORM]["data_offsets"] = json!([end, start]);
    });
    assert!(matches!(error, WeightsError::Offsets { .. } | WeightsError::Overlap { .. }), "{error}");
    let error = bend(&|file| file.data.extend([0; 3]));
    assert!(matches!(error, WeightsError::TrailingBytes { bytes: 3, .. }), "{error}");
    let error = bend(&|file| file.data.truncate(file.data.len() - 1));
    assert!(matches!(error, WeightsError::TruncatedTensor { .. }), "{error}");
    for shape in [json!([9]), json!([u64::MAX, 2]), json!([4, 2, 1, 1, 1, 1, 1, 1, 1, 1]), json!([])] {
        let error = bend(&|file| file.header[NORM]["shape"] = shape.clone());
        assert!(matches!(&error, WeightsError::TensorBytes { name, .. } if name == NORM), "{error}");
    }
    for wrong in [json!({}), json!(3), json!({ "dtype": "BF16", "shape": [-1], "data_offsets": [0, 2] })] {
        let error = bend(&|file| file.header[NORM] = wrong.clone());
        assert!(matches!(error, WeightsError::Header { .. }), "{error}");
    }
    for error in [bend(&|file| file.header[NORM]["dtype"] = json!("Q3")), bend(&|file| file.data.clear())] {
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn absurd_lengths_and_repeated_names_are_refused() {
    let open = |bytes: Vec<u8>| Weights::from_bytes(Bytes::from(bytes), &config()).unwrap_err();
    assert!(matches!(open(Vec::new()), WeightsError::Truncated { bytes: 0, needed: 8, .. }));
    assert!(matches!(open(vec![0; 7]), WeightsError::Truncated { .. }));
    assert!(matches!(open(vec![0xff; 100]), WeightsError::HeaderSize { bytes: u64::MAX, .. }));
    assert!(matches!(open(100_u64.to_le_bytes().to_vec()), WeightsError::Truncated { needed: 108, .. }));
    assert!(matches!(open(0_u64.to_le_bytes().to_vec()), WeightsError::Header { .. }));
    let whole = whole();
    let bytes = whole.bytes();
    for len in (0..bytes.len()).step_by(97) {
        assert!(Weights::from_bytes(Bytes::from(bytes[..len].to_vec()), &config()).is_err());
    }
    let header = Value::Object(whole.header.clone()).to_string();
    let twice = format!("{},\"{NORM}\":{}}}", &header[..header.len() - 1], whole.header[NORM]);
    let text = open(whole.with_header(&twice)).to_string();
    assert!(text.contains(NORM) && text.contains("twice"), "{text}");
}

/// Writes `files` and an index over them to a fresh folder, lets `bend` change it, and opens it.
fn open_sharded(bend: impl Fn(&mut BTreeMap<String, String>, &Path)) -> Result<Weights, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    let specs = table::tensors(&config());
    let (first, second) = specs.split_at(specs.len() / 2);
    let mut weight_map = BTreeMap::new();
    for (name, specs) in [("model-1.safetensors", first), ("model-2.safetensors", second)] {
        std::fs::write(dir.path().join(name), File::of(specs).bytes()).unwrap();
        weight_map.extend(specs.iter().map(|spec| (spec.name.clone(), name.to_owned())));
    }
    bend(&mut weight_map, dir.path());
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": weight_map }).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    Weights::open(dir.path(), &config())
}

#[test]
fn shards_are_read_and_checked_against_the_index() {
    let weights = open_sharded(|_, _| {}).unwrap();
    assert_eq!(weights.bytes_total(), whole().open().unwrap().bytes_total());

    let missing = open_sharded(|_, dir| std::fs::remove_file(dir.join("model-2.safetensors")).unwrap());
    assert!(matches!(missing, Err(WeightsError::MissingFile { file, .. }) if file == "model-2.safetensors"));

    let elsewhere = open_sharded(|map, _| drop(map.insert(QKV.to_owned(), "model-2.safetensors".to_owned())));
    assert!(matches!(elsewhere, Err(WeightsError::NotInShard { name, .. }) if name == QKV));

    let unknown =
        open_sharded(|map, _| drop(map.insert("model.other".to_owned(), "model-2.safetensors".to_owned())));
    assert!(matches!(unknown, Err(WeightsError::NotInShard { name, .. }) if name == "model.other"));

    // of several always the same
    let unknown = |map: &mut BTreeMap<String, String>, _: &Path| {
        map.extend((10..60).map(|i| (format!("model.other{i}"), "model-2.safetensors".to_owned())));
    };
    assert!(
        matches!(open_sharded(unknown), Err(WeightsError::NotInShard { name, .. }) if name == "model.other10")
    );

    // told when its shard is read, so that headers of nothing but such are not held together
    let extra = open_sharded(|map, dir| {
        let mut file = File::default();
        file.add("model.other", "BF16", &[1], &[0; 2]);
        std::fs::write(dir.join("model-0.safetensors"), file.bytes()).unwrap();
        map.insert("model.other".to_owned(), "model-0.safetensors".to_owned());
        std::fs::write(dir.join("model-2.safetensors"), "cut").unwrap();
    });
    assert!(matches!(extra, Err(WeightsError::Extra { name, .. }) if name == "model.other"));

    let twice = open_sharded(|map, dir| {
        let mut file = File::of(&table::tensors(&config())[..1]);
        file.add("model.more.inv_freq", "BF16", &[1], &[0; 2]);
        std::fs::write(dir.join("model-3.safetensors"), file.bytes()).unwrap();
        map.insert("model.more.inv_freq".to_owned(), "model-3.safetensors".to_owned());
    });
    assert!(
        matches!(twice, Err(WeightsError::Duplicate { name, .. }) if name == "model.embed_tokens.weight")
    );
}

#[test]
fn an_index_cannot_lead_out_of_the_folder() {
    let names = [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        ".safetensors",
        "model.safetensors\0",
        "model.bin",
        "",
    ];
    for name in names {
        let result = open_sharded(|map, _| drop(map.insert(QKV.to_owned(), name.to_owned())));
        assert!(
            matches!(&result, Err(WeightsError::ShardName { file }) if file == name),
            "{name}: {result:?}"
        );
    }
    let several = open_sharded(|map, _| map.extend((10..60).map(|i| (format!("a{i}"), format!("{i}.bin")))));
    assert!(matches!(several, Err(WeightsError::ShardName { file }) if file == "10.bin"));
    let many =
        open_sharded(|map, _| map.extend((0..300).map(|i| (format!("t{i}"), format!("m{i}.safetensors")))));
    assert!(matches!(many, Err(WeightsError::ShardCount { count: 302, .. })));
}

#[test]
fn a_folder_without_weights_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Weights::open(dir.path(), &config()).unwrap_err();
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    assert!(error.hint().unwrap().contains("safetensors"));
    std::fs::write(dir.path().join("model.safetensors.index.json"), "{}").unwrap();
    assert!(matches!(Weights::open(dir.path(), &config()), Err(WeightsError::Index(_))));
}

#[test]
fn the_golden_checkpoint_opens() {
    let Some(dir) = common::shared("reference/golden/tiny") else { return };
    let config = ModelConfig::from_json(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let weights = Weights::open(&dir, &config).unwrap();
    assert_eq!(weights.dtype(), Format::Bf16);
    let head = weights.linear("lm_head", Precision::F32).unwrap();
    assert_eq!((head.n, head.k), (32064, 96));
}

#[test]
fn sizes_are_known_before_there_are_weights() {
    let demo = Checkpoint::from_files(&phi3v::demo::files()).unwrap().config;
    for quant in [None, Some(Quant::Q8), Some(Quant::Q4)] {
        assert_eq!(weights_bytes(&demo, quant), Weights::random(&demo, quant).bytes_total());
    }
    // as the index of the real checkpoint has it, without the parts that the model does not read
    let real = weights_bytes(&ModelConfig::phi_3_5_vision(), None);
    assert!((8_200_000_000..8_300_000_000).contains(&real), "{real}");
}
