//! The amount of work of the model's computations: operations and bytes.

use phi3v::config::{ModelConfig, VisionConfig};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v::weights::table::{self, Role};
use phi3v_kernels::{KV_BLOCK_TOKENS, KvLayout, Limits};
use std::ops::Range;

/// A multiply-add counts as two operations.
const OPERATIONS: f64 = 2.0;

/// Sizes of a model that determine the work.
pub(super) struct Work {
    config: ModelConfig,
    quant: Option<Quant>,
    /// Multiply-adds per token of the decoder's matrices, and of lm_head.
    decoder: f64,
    lm_head: f64,
    /// Multiply-adds per row of the vision tower (each patch and the class) and per token of the projector.
    tower: f64,
    projector: f64,
    /// Bytes of weights that a decoded token reads.
    weight_bytes: f64,
    /// Bytes of keys and values of one token.
    kv_bytes: f64,
}

impl Work {
    pub(super) fn new(config: &ModelConfig, weights: &Weights, quant: Option<Quant>, kv: KvLayout) -> Self {
        let mut work = Self {
            config: config.clone(),
            quant,
            decoder: 0.0,
            lm_head: 0.0,
            tower: 0.0,
            projector: 0.0,
            weight_bytes: 0.0,
            kv_bytes: kv.block_bytes() as f64 / KV_BLOCK_TOKENS as f64,
        };
        for spec in table::tensors(config).into_iter().filter(|spec| spec.used && spec.role != Role::Dense) {
            let values = spec.values() as f64;
            let sum = match spec.role {
                Role::Decoder => &mut work.decoder,
                _ if spec.name.starts_with("lm_head") => &mut work.lm_head,
                _ if spec.name.contains("img_projection") => &mut work.projector,
                _ => &mut work.tower,
            };
            *sum += values;
            if spec.role == Role::Decoder || spec.name.starts_with("lm_head") {
                work.weight_bytes += weights.tensor(&spec.name).map_or(0, |tensor| tensor.bytes.len()) as f64;
            }
        }
        work
    }

    /// Operations per second of products with weights.
    fn product_peak(&self, limits: &Limits) -> f64 {
        let peak = if self.quant.is_some() { limits.int8_gops } else { limits.bf16_gflops };
        peak.median * 1e9
    }

    /// Seconds that the tokens `range` of a prompt take at the limits, including the logits of the last.
    pub(super) fn prefill_seconds(&self, range: Range<usize>, limits: &Limits) -> f64 {
        let tokens = range.len() as f64;
        let products = OPERATIONS * (self.decoder * tokens + self.lm_head);
        // each token attends to itself and to earlier ones: on average the middle of the range
        let keys = (range.start + range.end) as f64 / 2.0;
        let width = (self.config.num_attention_heads * self.config.head_dim()) as f64;
        // scores and weighted sums of values
        let attention = OPERATIONS * 2.0 * width * keys * tokens * self.config.num_hidden_layers as f64;
        products / self.product_peak(limits) + attention / (limits.bf16_gflops.median * 1e9)
    }

    /// Seconds that `tiles` tiles and the projector's `tokens` rows take at the limits.
    pub(super) fn vision_seconds(&self, tiles: usize, tokens: usize, limits: &Limits) -> f64 {
        let VisionConfig { hidden_size, .. } = self.config.img_processor;
        let layers = self.config.img_processor.num_layers_used() as f64;
        let rows = self.config.img_processor.num_positions() as f64;
        let products = OPERATIONS * (self.tower * rows * tiles as f64 + self.projector * tokens as f64);
        let attention = OPERATIONS * 2.0 * hidden_size as f64 * rows * rows * tiles as f64 * layers;
        products / self.product_peak(limits) + attention / (limits.bf16_gflops.median * 1e9)
    }

    /// Seconds at the limits of a step that decodes one token after `depth` others in each of `rows` sequences: the time of
    /// its reads or of its products, whichever is longer.
    pub(super) fn decode_seconds(&self, rows: usize, depth: usize, limits: &Limits) -> f64 {
        let rows = rows as f64;
        let bytes = self.weight_bytes + rows * self.kv_bytes * depth as f64;
        let products = OPERATIONS * (self.decoder + self.lm_head) * rows;
        (bytes / (limits.read_gb_s.median * 1e9)).max(products / self.product_peak(limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3v_kernels::{Heads, KvFormat, Rate};

    #[test]
    fn the_real_model_is_as_much_work_as_counted_by_hand() {
        let config = ModelConfig::phi_3_5_vision();
        let heads = Heads { query: 32, key_value: 32, dim: 96 };
        let kv = KvLayout { layers: 32, heads, format: KvFormat::Bf16 };
        let mut config_small = config.clone();
        config_small.num_hidden_layers = 0;
        let weights = Weights::random(&config_small, Some(Quant::Q8));
        let work = Work::new(&config, &weights, Some(Quant::Q8), kv);
        // 32 layers of [9216 + 3072 + 16384, 3072] and [3072, 8192], then [32064, 3072]
        assert!((work.decoder - 3.624e9).abs() < 1e6, "{}", work.decoder);
        assert!((work.lm_head - 98.5e6).abs() < 1e5, "{}", work.lm_head);
        assert!((work.kv_bytes - 393_216.0).abs() < 1.0, "{}", work.kv_bytes);
        // a peak of one operation per nanosecond: seconds equal billions of operations
        let one = Rate { median: 1.0, low: 1.0, high: 1.0 };
        let limits =
            Limits { int8_gops: one, bf16_gflops: one, f32_gflops: one, read_gb_s: one, read_bytes: 1 };
        let prefill = work.prefill_seconds(0..2500, &limits);
        assert!((prefill / 19_350.0 - 1.0).abs() < 0.01, "18.1 of products and 1.23 of attention: {prefill}");
        let (few, many) = (work.decode_seconds(1, 64, &limits), work.decode_seconds(16, 64, &limits));
        let one_token = 2.0 * (3.624 + 0.0985);
        assert!((few / one_token - 1.0).abs() < 0.01, "products, as weights are not counted here: {few}");
        assert!((many / (16.0 * one_token) - 1.0).abs() < 0.01, "{many}");
        let vision = work.vision_seconds(17, 2509, &limits);
        assert!((vision / 6_330.0 - 1.0).abs() < 0.05, "6.33 counted without the projector: {vision}");
    }
}
