//! config.json, generation_config.json and preprocessor_config.json: read, or refused by name.

#![allow(clippy::unwrap_used, reason = "functions of tests are tests too")]

mod common;

use phi3v::config::{ConfigError, GenerationConfig, ModelConfig, VisionConfig};
use phi3v::image::ImageParams;
use serde_json::{Value, json};

/// config.json of the hub's Phi-3-vision in all that matters, its 48 rope factors apart.
fn hub() -> Value {
    json!({
        "architectures": ["Phi3VForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_layer": {
            "embedding_cls": "image", "hd_transform_order": "sub_glb", "projection_cls": "mlp",
            "use_hd_transform": true, "with_learnable_separator": true
        },
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 3072,
        "img_processor": {
            "image_dim_out": 1024, "model_name": "openai/clip-vit-large-patch14-336",
            "name": "clip_vision_model", "num_img_tokens": 144
        },
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "model_type": "phi3_v",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_scaling": { "type": "su", "short_factor": vec![1.05; 48], "long_factor": vec![60.0; 48] },
        "rope_theta": 10000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "vocab_size": 32064
    })
}

fn parse(config: &Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(config.to_string().as_bytes())
}

/// The hub's config with one value changed, as a JSON pointer and its new value.
fn changed(pointer: &str, value: Value) -> Result<ModelConfig, ConfigError> {
    let mut config = hub();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    parse(&config)
}

#[test]
fn the_hubs_config() {
    let config = parse(&hub()).unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size, config.num_hidden_layers), (3072, 8192, 32));
    assert_eq!((config.head_dim(), config.qkv_size(), config.vocab_size), (96, 9216, 32064));
    assert_eq!(config.eos_token_id, [2]);
    assert_eq!(config.context_max(), 131072);
    assert_eq!(config.img_processor, VisionConfig::default());
    assert_eq!(config.img_processor.num_layers_used(), 23);
    assert_eq!(config.img_processor.num_positions(), 577);
    // sqrt(1 + ln(32) / ln(4096)) = sqrt(17 / 12)
    assert!((config.rope_attention_scale() - (17.0_f64 / 12.0).sqrt()).abs() < 1e-15);
    let scaling = config.rope_scaling.unwrap();
    assert_eq!((scaling.short_factor.len(), scaling.long_factor[47]), (48, 60.0));
}

/// As in the reference's `Phi3VConfig.__init__`: with any other value the factors, and so all logits, would be others.
#[test]
fn absent_keys_have_the_references_defaults() {
    let mut config = hub();
    for key in [
        "original_max_position_embeddings",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "hidden_act",
    ] {
        config.as_object_mut().unwrap().remove(key).unwrap();
    }
    let config = parse(&config).unwrap();
    assert_eq!(config.original_max_position_embeddings, 4096);
    assert!((config.rope_attention_scale() - (17.0_f64 / 12.0).sqrt()).abs() < 1e-15);
    assert_eq!((config.num_key_value_heads, config.sliding_window), (32, None));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-5, 10_000.0));
}

#[test]
fn the_golden_checkpoints_files() {
    let Some(dir) = common::shared("reference/golden/tiny") else { return };
    let config = ModelConfig::from_json(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!((config.hidden_size, config.head_dim(), config.vocab_size), (96, 16, 32064));
    assert_eq!((config.img_processor.hidden_size, config.img_processor.num_layers_used()), (64, 2));
    let scaling = config.rope_scaling.unwrap();
    assert_eq!((scaling.short_factor[0], scaling.long_factor[7]), (1.05, 63.850006103515625));
    let bytes = std::fs::read(dir.join("generation_config.json")).unwrap();
    assert_eq!(GenerationConfig::from_json(&bytes).unwrap().eos_token_id, [2]);
    let bytes = std::fs::read(dir.join("preprocessor_config.json")).unwrap();
    assert_eq!(ImageParams::from_json(&bytes).unwrap().num_crops, 16);
}

#[test]
fn values_that_are_accepted() {
    assert_eq!(changed("/eos_token_id", json!([32000, 32007])).unwrap().eos_token_id, [32000, 32007]);
    assert!(changed("/eos_token_id", Value::Null).unwrap().eos_token_id.is_empty());
    assert!(changed("/rope_scaling/type", json!("longrope")).is_ok());
    assert!(changed("/head_dim", json!(96)).is_ok());
    assert!(changed("/quantization_config", Value::Null).is_ok());
    assert!(changed("/resid_pdrop", json!(0.1)).is_ok());
    // prompts begin with the tokenizer's
    assert!(changed("/bos_token_id", json!(32064)).is_ok());
    assert_eq!(changed("/sliding_window", Value::Null).unwrap().context_max(), 131072);
    assert_eq!(changed("/sliding_window", json!(2047)).unwrap().context_max(), 2047);
    assert_eq!(changed("/num_key_value_heads", json!(8)).unwrap().qkv_size(), (32 + 16) * 96);
    let plain = changed("/rope_scaling", Value::Null).unwrap();
    assert_eq!((plain.rope_scaling.as_ref(), plain.rope_attention_scale()), (None, 1.0));
    let clip = changed("/img_processor/clip_config", json!({ "num_hidden_layers": 5 })).unwrap();
    assert_eq!(clip.img_processor, VisionConfig { num_hidden_layers: 5, ..VisionConfig::default() });
}

#[test]
fn values_that_change_the_result_are_refused_by_name() {
    let refused = [
        ("/model_type", json!("phi3")),
        ("/architectures", json!(["Phi3ForCausalLM"])),
        ("/hidden_act", json!("gelu")),
        ("/tie_word_embeddings", json!(true)),
        ("/attention_bias", json!(true)),
        ("/partial_rotary_factor", json!(0.75)),
        ("/head_dim", json!(128)),
        ("/embd_layer/embedding_cls", json!("audio")),
        ("/embd_layer/hd_transform_order", json!("glb_sub")),
        ("/embd_layer/projection_cls", json!("linear")),
        ("/embd_layer/use_hd_transform", json!(false)),
        ("/embd_layer/with_learnable_separator", json!(false)),
        ("/img_processor/name", json!("siglip")),
        ("/img_processor/num_img_tokens", json!(256)),
        ("/img_processor/layer_idx", json!(-1)),
        ("/img_processor/type_feature", json!("cls_patch")),
        ("/img_processor/image_dim_out", json!(1152)),
        ("/rope_scaling/type", json!("yarn")),
        ("/rope_scaling/short_mscale", json!(1.1)),
        ("/rope_parameters", json!({ "rope_type": "longrope" })),
        ("/rope_parameters", json!({ "rope_theta": 10000.0 })),
    ];
    for (pointer, value) in refused {
        let error = changed(pointer, value.clone()).expect_err(pointer);
        assert!(matches!(error, ConfigError::Unsupported { .. }), "{pointer}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(&pointer[1..].replace('/', ".")) && text.contains(&value.to_string()),
            "{text}"
        );
        assert!(error.hint().is_some());
    }
    for (key, value) in
        [("hidden_act", "relu"), ("image_size", "448"), ("patch_size", "16"), ("num_channels", "4")]
    {
        let value = serde_json::from_str(value).unwrap_or(json!(value));
        let error = changed("/img_processor/clip_config", json!({ key: value })).expect_err(key);
        assert!(error.to_string().contains(&format!("img_processor.clip_config.{key}")), "{error}");
    }
}

#[test]
fn absent_keys_whose_default_is_unsupported_are_refused() {
    let parents = [
        ("/embd_layer", "hd_transform_order"),
        ("/embd_layer", "projection_cls"),
        ("/embd_layer", "use_hd_transform"),
        ("/embd_layer", "with_learnable_separator"),
        ("", "model_type"),
        ("", "embd_layer"),
        ("", "img_processor"),
        ("", "hidden_size"),
        ("/rope_scaling", "long_factor"),
        ("/rope_scaling", "type"),
    ];
    for (parent, key) in parents {
        let mut config = hub();
        config.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        let text = parse(&config).expect_err(key).to_string();
        assert!(text.contains(key), "{text}");
    }
}

#[test]
fn quantized_checkpoints_are_refused() {
    for key in ["quantization_config", "quantization", "compression_config"] {
        let error = changed(&format!("/{key}"), json!({ "bits": 4 })).expect_err(key);
        assert!(matches!(error, ConfigError::Quantized { .. }) && error.to_string().contains(key), "{error}");
    }
}

#[test]
fn wrong_types_and_sizes_are_refused() {
    let refused = [
        ("/hidden_size", json!("3072")),
        ("/hidden_size", json!(3072.5)),
        ("/hidden_size", json!(-1)),
        ("/hidden_size", json!(0)),
        ("/hidden_size", json!(u64::MAX)),
        ("/hidden_size", json!(3073)),
        ("/hidden_size", json!(3072 + 32)),
        ("/num_attention_heads", json!(31)),
        ("/num_key_value_heads", json!(5)),
        ("/num_key_value_heads", json!(64)),
        ("/num_hidden_layers", json!(1_000_000)),
        ("/vocab_size", json!(1_u64 << 40)),
        ("/intermediate_size", json!(1 << 30)),
        ("/max_position_embeddings", json!(1_u64 << 40)),
        ("/original_max_position_embeddings", json!(1)),
        ("/sliding_window", json!(0)),
        ("/rms_norm_eps", json!(-1e-5)),
        ("/rope_theta", json!(0.0)),
        ("/eos_token_id", json!("</s>")),
        ("/eos_token_id", json!([2, -1])),
        ("/eos_token_id", json!(1_u64 << 40)),
        ("/rope_scaling", json!([1, 2])),
        ("/rope_scaling/short_factor", json!(vec![1.0; 47])),
        ("/rope_scaling/short_factor", json!([])),
        ("/rope_scaling/long_factor", json!(vec![0.0; 48])),
        ("/rope_scaling/long_factor", json!("1.0")),
        ("/img_processor/clip_config", json!({ "num_attention_heads": 7 })),
        ("/img_processor/clip_config", json!({ "num_hidden_layers": 0 })),
    ];
    for (pointer, value) in refused {
        let error = changed(pointer, value.clone());
        assert!(matches!(error, Err(ConfigError::Value { .. })), "{pointer} {value}: {error:?}");
    }
}

#[test]
fn files_that_are_not_configurations() {
    let refused: [(&[u8], &str); 6] = [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{\"hidden_size\": NaN}", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"{}", "model_type"),
    ];
    for (bytes, part) in refused {
        let text = ModelConfig::from_json(bytes).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains("config.json"), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(ModelConfig::from_json(deep.as_bytes()).is_err());
    let long = vec![b' '; (1 << 20) + 1];
    assert!(matches!(ModelConfig::from_json(&long), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn preprocessor_config() {
    let parse = |value: Value| ImageParams::from_json(value.to_string().as_bytes());
    let config = parse(json!({})).unwrap();
    assert_eq!((config.num_crops, config.image_mean[0], config.image_std[2]), (1, 0.481_454_66, 0.275_777_1));
    let config =
        parse(json!({ "num_crops": 4, "image_mean": [0.5, 0.25, 0], "image_std": [1, 2, 3] })).unwrap();
    assert_eq!(
        (config.num_crops, config.image_mean, config.image_std),
        (4, [0.5, 0.25, 0.0], [1.0, 2.0, 3.0])
    );
    for (key, value) in [
        ("num_crops", json!(0)),
        ("num_crops", json!(100_000)),
        ("num_crops_max", json!(0)),
        ("image_std", json!([1, 0, 1])),
        ("image_mean", json!([1, 1])),
        ("num_img_tokens", json!(100)),
        ("image_processor_type", json!("CLIPImageProcessor")),
    ] {
        let text = parse(json!({ key: value })).expect_err(key).to_string();
        assert!(text.contains(key) && text.contains("preprocessor_config.json"), "{text}");
    }
}
