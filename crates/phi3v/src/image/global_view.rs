//! The global view: the whole padded HD image scaled to 336x336 with torch's bicubic interpolation
//! (`align_corners=False`, no antialiasing, a = -0.75). It is computed from the *normalised* pixels, and overshoots
//! are kept.
//!
//! Both sides of the HD image are multiples `k` of 336, so the four weights of an axis are the same everywhere:
//! - odd k: the source coordinate `k*i + (k-1)/2` is an integer, the weights are (0, 1, 0, 0), and one pixel is
//!   picked;
//! - even k: the coordinate lies half way, the weights are (-0.09375, 0.59375, 0.59375, -0.09375), all exact in f32.

use super::TILE_SIDE;

/// Weights of cubic convolution with a = -0.75, half way between two samples.
const HALF_WAY: [f32; 4] = [-0.09375, 0.59375, 0.59375, -0.09375];

/// Source indices and weights for one axis of `k * 336` samples.
pub(super) struct Axis {
    k: usize,
    weights: &'static [f32],
}

impl Axis {
    pub(super) fn new(k: usize) -> Self {
        let weights: &[f32] = if k % 2 == 1 { &[1.0] } else { &HALF_WAY };
        Self { k, weights }
    }

    /// The source sample and weight of each tap of output `i`, clamped to the border.
    fn taps(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let last = self.k * TILE_SIDE - 1;
        let center = self.k * i + self.k / 2;
        // half way, the taps are center-2 ..= center+1
        let before = self.weights.len() / 2;
        self.weights.iter().enumerate().map(move |(t, w)| ((center + t).saturating_sub(before).min(last), *w))
    }
}

/// Computes one colour plane of the global view, `[336, 336]`.
///
/// `hd` is the HD image `[h_crop * 336, w_crop * 336, 3]`; `lut` holds the normalised value of each level of this colour.
pub(super) fn plane(
    hd: &[u8],
    vertical: &Axis,
    horizontal: &Axis,
    channel: usize,
    lut: &[f32; 256],
    out: &mut [f32],
) {
    let row_bytes = horizontal.k * TILE_SIDE * 3;
    for (y, row) in out.chunks_exact_mut(TILE_SIDE).enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (sy, wy) in vertical.taps(y) {
                let line = &hd[sy * row_bytes..][..row_bytes];
                let mut line_sum = 0.0;
                for (sx, wx) in horizontal.taps(x) {
                    line_sum += wx * lut[usize::from(line[sx * 3 + channel])];
                }
                sum += wy * line_sum;
            }
            *value = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch's source coordinates and weights, computed as torch does for any size.
    fn general_taps(len_in: usize, i: usize) -> Vec<(usize, f64)> {
        let a = -0.75;
        let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
        let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
        let real = len_in as f64 / TILE_SIDE as f64 * (i as f64 + 0.5) - 0.5;
        let t = real - real.floor();
        let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        let index = |j: i64| (real.floor() as i64 - 1 + j).clamp(0, len_in as i64 - 1) as usize;
        (0..4).map(|j| (index(j), weights[j as usize])).filter(|(_, w)| *w != 0.0).collect()
    }

    #[test]
    fn taps_are_those_of_the_general_formula() {
        for k in 1..=16 {
            let axis = Axis::new(k);
            for i in [0, 1, 2, 167, 334, 335] {
                let ours: Vec<(usize, f64)> = axis.taps(i).map(|(s, w)| (s, f64::from(w))).collect();
                assert_eq!(ours, general_taps(k * TILE_SIDE, i), "k {k} output {i}");
            }
        }
    }
}
