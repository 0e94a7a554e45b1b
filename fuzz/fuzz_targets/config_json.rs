//! Configuration files: whatever is accepted has sizes that can be computed with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phi3v::config::{GenerationConfig, ModelConfig};
use phi3v::image::ImageParams;
use phi3v::weights::table;

fuzz_target!(|data: &[u8]| {
    let _ = GenerationConfig::from_json(data);
    if let Ok(config) = ImageParams::from_json(data) {
        assert!(config.num_crops > 0 && config.image_std.iter().all(|std| *std > 0.0));
    }
    let Ok(config) = ModelConfig::from_json(data) else { return };
    assert!(config.head_dim() * config.num_attention_heads == config.hidden_size);
    assert!(config.rope_attention_scale() >= 1.0);
    if let Some(scaling) = &config.rope_scaling {
        assert_eq!(scaling.short_factor.len(), config.head_dim() / 2);
        assert_eq!(scaling.long_factor.len(), config.head_dim() / 2);
    }
    for spec in table::tensors(&config) {
        assert!(spec.values() > 0 && spec.matrix().0 * spec.matrix().1 == spec.values());
    }
});
