//! LongRoPE ("su"): rotary position embedding with two sets of per-frequency factors.
//!
//! Su et al. 2021 (RoPE), Ding et al. 2024 (LongRoPE), and `Phi3SuScaledRotaryEmbedding` of the checkpoint's
//! modelling code. The inverse frequency of pair `i` is `1 / (factor_i * theta^(2i / dim))`. Cosines and sines of
//! both sets include the attention scale, so scores grow by its square.
//!
//! The set is chosen for a sequence as a whole, never per position: keys rotated by one set do not match queries
//! rotated by the other. See [`crate::engine`] for sequences that cross the limit.

use crate::config::ModelConfig;

/// Which of the checkpoint's two factor arrays rotates a sequence, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeFactors {
    /// `rope_scaling.short_factor`: sequences of up to `original_max_position_embeddings` tokens.
    Short,
    /// `rope_scaling.long_factor`: longer sequences.
    Long,
}

/// Inverse frequencies of both factor sets, and the scale of their cosines and sines.
#[derive(Clone, Debug)]
pub struct Rope {
    short: Vec<f32>, // [head_dim / 2]
    long: Vec<f32>,  // [head_dim / 2]
    scale: f32,
    original_max_position_embeddings: usize,
}

impl Rope {
    /// Computes the inverse frequencies in f32, as the reference does.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let dim = config.head_dim();
        let frequencies = |factors: Option<&[f64]>| {
            (0..dim / 2)
                .map(|i| {
                    let factor = factors.map_or(1.0, |factors| factors[i] as f32);
                    let exponent = (2 * i) as f32 / dim as f32;
                    1.0 / (factor * (config.rope_theta as f32).powf(exponent))
                })
                .collect()
        };
        let scaling = config.rope_scaling.as_ref();
        Self {
            short: frequencies(scaling.map(|scaling| scaling.short_factor.as_slice())),
            long: frequencies(scaling.map(|scaling| scaling.long_factor.as_slice())),
            scale: config.rope_attention_scale() as f32,
            // without scaling both sets are equal, and there is no limit to cross
            original_max_position_embeddings: scaling
                .map_or(usize::MAX, |_| config.original_max_position_embeddings),
        }
    }

    /// Returns the set that rotates a sequence of `tokens` tokens, counting prompt and answer so far.
    #[must_use]
    pub fn factors_for(&self, tokens: usize) -> RopeFactors {
        if tokens > self.original_max_position_embeddings { RopeFactors::Long } else { RopeFactors::Short }
    }

    /// Appends one row, `[head_dim]`: `head_dim / 2` scaled cosines, then as many sines, of `position`.
    pub fn push_row(&self, position: usize, factors: RopeFactors, out: &mut Vec<f32>) {
        let frequencies = match factors {
            RopeFactors::Short => &self.short,
            RopeFactors::Long => &self.long,
        };
        // positions stay below 2^24, so the product is rounded once, as in the reference
        let angles = frequencies.iter().map(|frequency| frequency * position as f32);
        out.extend(angles.clone().map(|angle| angle.cos() * self.scale));
        out.extend(angles.map(|angle| angle.sin() * self.scale));
    }
}
