//! The inverse cosine transform of libjpeg-turbo's vector code (its "accurate integer" method), which saturates where
//! the C code of the same library wraps around. For valid pictures both give the same result. For damaged and extreme
//! ones, the reference's pixels are those of the vector code.

/// Fractional bits of the constants.
const CONST_BITS: u32 = 13;
/// Fractional bits between the passes.
const PASS1_BITS: u32 = 2;

/// Returns `x` with [`CONST_BITS`] fractional bits.
const fn fix(x: f64) -> i32 {
    (x * (1 << CONST_BITS) as f64 + 0.5) as i32
}

const F_0_298: i32 = fix(0.298_631_336);
const F_0_390: i32 = fix(0.390_180_644);
const F_0_541: i32 = fix(0.541_196_100);
const F_0_765: i32 = fix(0.765_366_865);
const F_0_899: i32 = fix(0.899_976_223);
const F_1_175: i32 = fix(1.175_875_602);
const F_1_501: i32 = fix(1.501_321_110);
const F_1_847: i32 = fix(1.847_759_065);
const F_1_961: i32 = fix(1.961_570_560);
const F_2_053: i32 = fix(2.053_119_869);
const F_2_562: i32 = fix(2.562_915_447);
const F_3_072: i32 = fix(3.072_711_026);

/// Eight numbers that are processed together.
type Lanes = [i16; 8];

/// Returns the samples of a block from its coefficients and their quantization steps, both row by row.
pub(super) fn samples(coefficients: &[i16; 64], steps: &[u16; 64]) -> [[u8; 8]; 8] {
    let product = |i: usize| coefficients[i].wrapping_mul(steps[i] as i16);
    let rows: [Lanes; 8] = std::array::from_fn(|y| std::array::from_fn(|x| product(y * 8 + x)));
    let columns = if coefficients[8..].iter().all(|value| *value == 0) {
        // wraps where the whole computation would saturate, as the vector code does
        [rows[0].map(|value| value << PASS1_BITS); 8]
    } else {
        pass::<{ CONST_BITS - PASS1_BITS }>(&rows)
    };
    let done = transposed(&pass::<{ CONST_BITS + PASS1_BITS + 3 }>(&transposed(&columns)));
    done.map(|row| row.map(|value| (value.clamp(-128, 127) + 128) as u8))
}

fn transposed(rows: &[Lanes; 8]) -> [Lanes; 8] {
    std::array::from_fn(|y| std::array::from_fn(|x| rows[x][y]))
}

/// Runs one pass: transforms eight columns; the results lose `SHIFT` bits.
fn pass<const SHIFT: u32>(rows: &[Lanes; 8]) -> [Lanes; 8] {
    let mut out = [[0; 8]; 8];
    for x in 0..8 {
        let [i0, i1, i2, i3, i4, i5, i6, i7] = std::array::from_fn(|y| rows[y][x]);
        let wide = |a: i16, by: i32, b: i16, times: i32| i32::from(a) * by + i32::from(b) * times;
        let even = i32::from(i0.wrapping_add(i4)) << CONST_BITS;
        let odd = i32::from(i0.wrapping_sub(i4)) << CONST_BITS;
        let outer = wide(i2, F_0_541 + F_0_765, i6, F_0_541);
        let inner = wide(i2, F_0_541, i6, F_0_541 - F_1_847);
        let tops = [even + outer, odd + inner, odd - inner, even - outer];
        let (z3, z4) = (i3.wrapping_add(i7), i1.wrapping_add(i5));
        let (z3, z4) = (wide(z3, F_1_175 - F_1_961, z4, F_1_175), wide(z3, F_1_175, z4, F_1_175 - F_0_390));
        let parts = [
            z4 + wide(i7, -F_0_899, i1, F_1_501 - F_0_899),
            z3 + wide(i5, -F_2_562, i3, F_3_072 - F_2_562),
            z4 + wide(i5, F_2_053 - F_2_562, i3, -F_2_562),
            z3 + wide(i7, F_0_298 - F_0_899, i1, -F_0_899),
        ];
        for y in 0..4 {
            out[y][x] = narrow::<SHIFT>(tops[y].wrapping_add(parts[y]));
            out[7 - y][x] = narrow::<SHIFT>(tops[y].wrapping_sub(parts[y]));
        }
    }
    out
}

/// Rounds off `SHIFT` bits and saturates.
fn narrow<const SHIFT: u32>(value: i32) -> i16 {
    let rounded = value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
    rounded.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_fills_the_block() {
        let mut block = [0; 64];
        for (level, sample) in [(0, 128), (10, 138), (-10, 118), (127, 255), (-128, 0), (1000, 255)] {
            block[0] = level;
            assert_eq!(samples(&block, &[8; 64]), [[sample; 8]; 8], "{level}");
        }
    }

    #[test]
    fn sound_blocks_are_the_transform_to_a_rounding() {
        use std::f64::consts::{FRAC_1_SQRT_2, PI};
        let mut state = 7_u32;
        for _ in 0..200 {
            let block: [i16; 64] = std::array::from_fn(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 16) as i32 % (200 / (1 + i as i32)).max(2)) as i16
            });
            let ours = samples(&block, &[1; 64]);
            let part = |n: usize, at: usize| {
                let scale = if n == 0 { FRAC_1_SQRT_2 } else { 1.0 };
                scale / 2.0 * ((2 * at + 1) as f64 * n as f64 * PI / 16.0).cos()
            };
            for (y, row) in ours.iter().enumerate() {
                for (x, ours) in row.iter().enumerate() {
                    let term = |i: usize| f64::from(block[i]) * part(i / 8, y) * part(i % 8, x);
                    let exact = ((0..64).map(term).sum::<f64>() + 128.0).clamp(0.0, 255.0);
                    assert!((f64::from(*ours) - exact).abs() < 0.6, "{ours} and {exact}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates() {
        // far beyond the 10 bits after which the C code wraps around
        let mut block = [0; 64];
        block[0] = 2000;
        block[9] = 2000;
        let samples = samples(&block, &[16; 64]);
        assert_eq!(samples[0][0], 255);
        assert_eq!(samples[7][0], 0);
    }
}
