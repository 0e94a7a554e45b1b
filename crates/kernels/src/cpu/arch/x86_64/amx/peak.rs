//! What tiles can do at most: products on registers alone, of random numbers, for zeros take less power and seem a quarter
//! faster.

use super::tiles::{Configured, ROW, Shapes, TILE, TileShape, Tiles};

/// Bytes of two registers of each factor.
const BYTES: usize = 4 * TILE * ROW;

/// Products of registers that are no less than 1/128 and less than 2, in bf16, of either sign; random bytes too.
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

/// `rounds` times `products`, on registers of which 4 to 7 have numbers.
///
/// # Safety
/// The processor has the instructions.
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

/// Operations of four products of registers whose rows have so many values.
const fn operations(values: usize) -> usize {
    4 * TILE * TILE * values * 2
}

/// Multiplies bytes, and returns the operations done.
///
/// # Safety
/// The processor has AMX-INT8 and the system lets this process use it.
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

/// Multiplies pairs of bf16, and returns the operations done.
///
/// # Safety
/// As [`int8`], with AMX-BF16.
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
