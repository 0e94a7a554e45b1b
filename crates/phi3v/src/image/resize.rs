//! Resizing as in Pillow: the antialiased triangle filter ("bilinear") in 8-bit fixed point.
//!
//! Per axis, weights are computed in f64, normalised to sum 1 and rounded to 22 fractional bits. Every output sample
//! is `clip((2^21 + sum k*p) >> 22)`. The two axes are two passes with rounding to u8 in between, so their order
//! affects the last bit: [`Order`] states it. An axis whose size does not change is skipped.
//!
//! Invariant: the sums fit in i32. Weights are not negative and sum to 2^22 with an error of at most half a unit per
//! tap. A sum is therefore at most 255 * (2^22 + taps / 2) + 2^21, which is below 2^31 if an output sample has fewer
//! than 8 million taps.

use super::RgbImage;
use super::error::ImageError;
use super::room::zeros;
use super::threads::for_each_band;
use std::borrow::Cow;

/// Fractional bits of a weight: 32 bits minus 8 for the sample and 2 for headroom.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Samples per accumulator block of the vertical pass: 4 KiB of i32, which stays in the L1 cache.
const BLOCK: usize = 1024;

/// Which axis is filtered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Rows first, then columns: Pillow's order.
    HorizontalFirst,
    /// Columns first, then rows: the effect of Pillow's order between two transpositions.
    VerticalFirst,
}

/// The weights of one axis.
struct Weights {
    /// Index of the first input sample of each output sample. `[out]`
    first: Vec<usize>,
    /// Start of each output sample's weights in `taps`. `[out + 1]`
    start: Vec<usize>,
    /// Fixed point weights, one output sample after the other.
    taps: Vec<i32>,
}

impl Weights {
    /// Computes weights that resize `len_in` samples to `len_out`, both at least 1.
    fn new(len_in: usize, len_out: usize) -> Self {
        let scale = len_in as f64 / len_out as f64;
        // the filter is stretched for shrinking, never for enlarging; the triangle's support is 1
        let stretch = scale.max(1.0);
        let mut weights = Self {
            first: Vec::with_capacity(len_out),
            start: Vec::with_capacity(len_out + 1),
            taps: Vec::new(),
        };
        let mut exact = Vec::new();
        weights.start.push(0);
        for i in 0..len_out {
            let center = (i as f64 + 0.5) * scale;
            // `as` truncates towards zero and clamps negative values to 0, as the reference's casts and clamps do
            let first = (center - stretch + 0.5) as usize;
            let end = ((center + stretch + 0.5) as usize).min(len_in);
            exact.clear();
            exact.extend((first..end).map(|x| triangle((x as f64 - center + 0.5) * (1.0 / stretch))));
            let sum: f64 = exact.iter().sum();
            let fixed = |w: &f64| {
                let w = if sum == 0.0 { *w } else { *w / sum };
                (0.5 + w * f64::from(1 << PRECISION_BITS)) as i32
            };
            weights.first.push(first);
            weights.taps.extend(exact.iter().map(fixed));
            weights.start.push(weights.taps.len());
        }
        weights
    }

    /// First input sample and weights of output sample `i`.
    fn of(&self, i: usize) -> (usize, &[i32]) {
        (self.first[i], &self.taps[self.start[i]..self.start[i + 1]])
    }
}

fn triangle(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

/// Drops the fraction and clips. The sum is never negative, so only the upper bound needs clipping.
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).min(255) as u8
}

/// Resizes to `width` x `height`. All sides must be at least 1.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub(super) fn resize(
    image: &RgbImage,
    width: usize,
    height: usize,
    order: Order,
) -> Result<RgbImage, ImageError> {
    let resized = match order {
        Order::HorizontalFirst => resize_height(resize_width(Cow::Borrowed(image), width)?, height),
        Order::VerticalFirst => resize_width(resize_height(Cow::Borrowed(image), height)?, width),
    };
    resized.map(Cow::into_owned)
}

/// The horizontal pass: resizes every row to `width` pixels.
fn resize_width(image: Cow<'_, RgbImage>, width: usize) -> Result<Cow<'_, RgbImage>, ImageError> {
    let source: &RgbImage = &image;
    if source.width == width {
        return Ok(image);
    }
    let weights = Weights::new(source.width, width);
    let mut pixels = zeros(source.height * width * 3)?;
    for_each_band(&mut pixels, width * 3, |first_row, band| {
        let rows = source.pixels[first_row * source.width * 3..].chunks_exact(source.width * 3);
        for (row, out) in rows.zip(band.chunks_exact_mut(width * 3)) {
            resize_row(row, out, &weights);
        }
    });
    Ok(Cow::Owned(RgbImage { width, height: source.height, pixels }))
}

/// Resizes one row `[width_in, 3]` to `[width_out, 3]`.
fn resize_row(row: &[u8], out: &mut [u8], weights: &Weights) {
    for (i, pixel) in out.chunks_exact_mut(3).enumerate() {
        let (first, taps) = weights.of(i);
        let mut sums = [1_i32 << (PRECISION_BITS - 1); 3];
        let inputs = row[first * 3..(first + taps.len()) * 3].chunks_exact(3);
        for (input, k) in inputs.zip(taps) {
            for c in 0..3 {
                sums[c] += i32::from(input[c]) * k;
            }
        }
        for c in 0..3 {
            pixel[c] = clip8(sums[c]);
        }
    }
}

/// The vertical pass: resizes every column to `height` pixels.
fn resize_height(image: Cow<'_, RgbImage>, height: usize) -> Result<Cow<'_, RgbImage>, ImageError> {
    let source: &RgbImage = &image;
    if source.height == height {
        return Ok(image);
    }
    let weights = Weights::new(source.height, height);
    let row_bytes = source.width * 3;
    let mut pixels = zeros(height * row_bytes)?;
    for_each_band(&mut pixels, row_bytes, |first_row, band| {
        for (i, out) in band.chunks_exact_mut(row_bytes).enumerate() {
            let (first, taps) = weights.of(first_row + i);
            blend_rows(source, first, taps, out);
        }
    });
    Ok(Cow::Owned(RgbImage { width: source.width, height, pixels }))
}

/// Computes one output row: the weighted sum of `taps.len()` rows, starting at row `first`.
fn blend_rows(source: &RgbImage, first: usize, taps: &[i32], out: &mut [u8]) {
    let row_bytes = source.width * 3;
    let mut sums = [0_i32; BLOCK];
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let sums = &mut sums[..out.len()];
        sums.fill(1 << (PRECISION_BITS - 1));
        for (t, k) in taps.iter().enumerate() {
            let at = (first + t) * row_bytes + block * BLOCK;
            for (sum, p) in sums.iter_mut().zip(&source.pixels[at..at + out.len()]) {
                *sum += i32::from(*p) * k;
            }
        }
        for (o, sum) in out.iter_mut().zip(sums) {
            *o = clip8(*sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_any_axis_sum_to_one_and_stay_inside() {
        for (len_in, len_out) in [(1, 336), (336, 336), (7, 5), (5, 7), (4000, 1344), (65_535, 1), (3, 1344)]
        {
            let weights = Weights::new(len_in, len_out);
            for i in 0..len_out {
                let (first, taps) = weights.of(i);
                assert!(!taps.is_empty() && first + taps.len() <= len_in);
                assert!(taps.iter().all(|k| *k >= 0));
                let sum: i64 = taps.iter().map(|k| i64::from(*k)).sum();
                assert!((sum - (1 << PRECISION_BITS)).abs() <= taps.len() as i64);
            }
        }
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let image = RgbImage { width: 3, height: 5, pixels: [255, 0, 7].repeat(15) };
        for order in [Order::HorizontalFirst, Order::VerticalFirst] {
            assert_eq!(resize(&image, 8, 2, order).unwrap().pixels, [255, 0, 7].repeat(16));
        }
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let pixels: Vec<u8> = (0..60).collect();
        let image = RgbImage { width: 4, height: 5, pixels };
        assert_eq!(resize(&image, 4, 5, Order::HorizontalFirst).unwrap(), image);
    }
}
