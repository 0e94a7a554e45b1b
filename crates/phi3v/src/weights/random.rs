//! Random weights of any size, made in memory: for benchmarks without a checkpoint.

use super::quantized::Quant;
use super::table::{self, TensorSpec};
use super::{TensorView, Weights};
use crate::config::ModelConfig;
use half::bf16;
use phi3v_kernels::quant::{PANEL, PackedShape};
use phi3v_kernels::{Bytes, Format};

/// Standard deviation of the matrices, about that of real ones.
const DEVIATION: f32 = 0.02;
/// Standard deviation of a random q8 byte, and of a random q4 nibble times a random sub-scale of 0 to 15.
const Q8_DEVIATION: f32 = 73.9;
const Q4_DEVIATION: f32 = 40.6;

/// Returns the bytes of the weights of a model with the shape `config` in the formats of `quant`, or all in bf16, without
/// needing the weights.
#[must_use]
pub fn weights_bytes(config: &ModelConfig, quant: Option<Quant>) -> u64 {
    let used = table::tensors(config).into_iter().filter(|spec| spec.used);
    used.map(|spec| packed(&spec, quant).map_or(2 * spec.values(), PackedShape::bytes) as u64).sum()
}

/// Returns the packed shape of a tensor, if `quant` packs it.
fn packed(spec: &TensorSpec, quant: Option<Quant>) -> Option<PackedShape> {
    let (n, k) = spec.matrix();
    quant.and_then(|q| q.format(spec.role)).and_then(|format| PackedShape::new(format, n, k))
}

impl Weights {
    /// Returns weights for `config` in the formats of `quant`, or all in bf16. The values are pseudo-random and repeat from
    /// panel to panel; norms are 1. This suffices for benchmarks, which depend only on the sizes.
    #[must_use]
    pub fn random(config: &ModelConfig, quant: Option<Quant>) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut tensors, mut bytes_total) = (std::collections::HashMap::new(), 0);
        for spec in table::tensors(config).into_iter().filter(|spec| spec.used) {
            let packed = packed(&spec, quant);
            let bytes = match packed {
                Some(shape) => random_panels(shape, &mut random),
                None => dense(&spec, &mut random),
            };
            bytes_total += bytes.len() as u64;
            let format = packed.map_or(Format::Bf16, PackedShape::format);
            tensors.insert(spec.name, TensorView { format, shape: spec.shape, bytes });
        }
        let dtype = quant.map_or(Format::Bf16, Quant::decoder_format);
        Self { tensors, bytes_total, dtype }
    }
}

/// Repeats one random panel, with scales that make its values about as large as real ones.
fn random_panels(shape: PackedShape, random: &mut Random) -> Bytes {
    let deviation = match shape.format() {
        Format::Q8 => Q8_DEVIATION,
        Format::Q4 => Q4_DEVIATION,
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("a packed shape has a packed format"),
    };
    let scale = bf16::from_f32(DEVIATION / deviation).to_le_bytes();
    let mut panel = vec![0; shape.panel_bytes()];
    random.fill(&mut panel);
    for block in panel.chunks_exact_mut(shape.block_bytes()) {
        block[..2 * PANEL].as_chunks_mut::<2>().0.fill(scale);
    }
    aligned(shape.bytes(), &panel)
}

/// Repeats `part` to `length` bytes, aligned to a cache line as in a mapped file.
fn aligned(length: usize, part: &[u8]) -> Bytes {
    const LINE: usize = 64;
    let mut bytes: Vec<u8> = Vec::with_capacity(length + LINE);
    bytes.resize(bytes.as_ptr().align_offset(LINE), 0);
    let start = bytes.len();
    while bytes.len() < start + length {
        let missing = start + length - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(missing)]);
    }
    Bytes::from(bytes).slice(start..start + length)
}

/// Returns bf16 values: random ones for a matrix, ones for a norm, zeros for a bias.
fn dense(spec: &TensorSpec, random: &mut Random) -> Bytes {
    let length = 2 * spec.values();
    if spec.name.ends_with(".bias") {
        return Bytes::from(vec![0; length]);
    }
    if spec.shape.len() == 1 {
        return Bytes::from(bf16::ONE.to_le_bytes().repeat(spec.values()));
    }
    let mut part = vec![0; length.min(1 << 20)];
    random.fill(&mut part);
    for value in part.as_chunks_mut::<2>().0 {
        // random sign and fraction, exponent of 2^-6: magnitudes of 0.016 to 0.031
        *value = ((u16::from_le_bytes(*value) & 0x807f) | 0x3c80).to_le_bytes();
    }
    aligned(length, &part)
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}
