//! The most that tiles can do: products on registers alone. The factors are random numbers, because zeros take less
//! power and seem a quarter faster.

use super::tiles::{Configured, ROW, Shapes, TILE, TileShape, Tiles};

/// Bytes of two registers of each factor.
const BYTES: usize = 4 * TILE * ROW;

/// Random bytes which, as bf16, are numbers of either sign with magnitudes from 1/128 to less than 2.
struct Numbers([u8; BYTES]);

impl Numbers {
    fn new() -> Self {
        let (mut state, mut bytes) = (88_172_645_463_325_252u64, [0; BYTES]);
        for pair in bytes.as_chunks_mut().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *pair = (0x3c00 | (state as u16 & 0x83ff)).to_le_bytes();
        }
        Self(bytes)
    }
}

/// Calls `products` `rounds` times, on registers of which 4 to 7 hold numbers.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
unsafe fn burn<T: Tiles>(rounds: usize, products: impl Fn()) {
    let numbers = Numbers::new();
    let register = |i: usize| numbers.0[i * TILE * ROW..].as_ptr();
    // SAFETY: each register is loaded from as many bytes as it has.
    unsafe {
        let _tiles = Configured::<T>::new(&Shapes::new([TileShape::FULL; 8]));
        T::load::<4, 0>(register(0), ROW);
        T::load::<5, 0>(register(1), ROW);
        T::load::<6, 0>(register(2), ROW);
        T::load::<7, 0>(register(3), ROW);
        for _ in 0..rounds {
            products();
        }
    }
}

/// Returns the operations of four products of registers whose rows have `values` values.
const fn operations(values: usize) -> usize {
    4 * TILE * TILE * values * 2
}

/// Multiplies bytes. Returns the number of operations.
///
/// # Safety
/// The processor must have AMX-INT8, and the system must let this process use it.
pub(super) unsafe fn int8<T: Tiles>(rounds: usize) -> usize {
    // SAFETY: by the caller's promise; the registers are full.
    unsafe {
        burn::<T>(rounds, || {
            T::dot_bytes::<0, 4, 6>();
            T::dot_bytes::<1, 4, 7>();
            T::dot_bytes::<2, 5, 6>();
            T::dot_bytes::<3, 5, 7>();
        });
    }
    rounds * operations(ROW)
}

/// Multiplies pairs of bf16. Returns the number of operations.
///
/// # Safety
/// Same as for [`int8`], with AMX-BF16.
pub(super) unsafe fn bf16<T: Tiles>(rounds: usize) -> usize {
    // SAFETY: by the caller's promise; the registers are full.
    unsafe {
        burn::<T>(rounds, || {
            T::dot_pairs::<0, 4, 6>();
            T::dot_pairs::<1, 4, 7>();
            T::dot_pairs::<2, 5, 6>();
            T::dot_pairs::<3, 5, 7>();
        });
    }
    rounds * operations(ROW / 2)
}

#[cfg(test)]
mod tests {
    use super::super::tiles::Plain;
    use super::*;
    use crate::{Feature, Features};

    #[test]
    fn a_round_is_four_products() {
        if !Features::detect().contains(Feature::Avx2) {
            crate::testing::skip("the peaks of tiles", "use a processor with AVX2 and FMA");
            return;
        }
        // SAFETY: the processor has AVX2 and FMA, and tiles in plain Rust need nothing else.
        let [int8, bf16] = unsafe { [int8::<Plain>(3), bf16::<Plain>(3)] };
        // 16 x 16 sums of 64 or 32 products
        assert_eq!([int8, bf16], [3 * 4 * 2 * 256 * 64, 3 * 4 * 2 * 256 * 32]);
    }

    #[test]
    fn numbers_differ_and_are_finite() {
        let Numbers(bytes) = Numbers::new();
        let (pairs, _) = bytes.as_chunks::<2>();
        let values = pairs.iter().map(|&pair| half::bf16::from_le_bytes(pair).to_f32());
        assert!(values.clone().all(|x| (1.0 / 128.0..2.0).contains(&x.abs())));
        let negative = values.clone().filter(|x| x.is_sign_negative()).count();
        assert!((900..1150).contains(&negative) && pairs.len() == 2048, "{negative}");
    }
}
