//! Products of bf16 in pieces of up to two tiles of rows by two of columns. Attention and products with dense weights
//! are built from these pieces.
//!
//! Registers 0 to 3 hold the sums, 4 and 5 rows of the left factor, 6 and 7 columns of the right one. A step along K
//! is up to 16 words, each a pair of values. The order of additions in a sum depends only on K.

use super::tiles::{ROW, Shapes, TILE, TileShape, Tiles};

/// Words of a step along K.
pub(super) const STEP: usize = TILE;
/// Bytes of a word.
const WORD: usize = 4;

/// Steps of the same size along K.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// The first word.
    pub(super) first: usize,
    pub(super) steps: usize,
    /// Words of each step.
    words: usize,
}

impl Pass {
    /// Returns the passes of `words` words: whole steps, then the rest.
    pub(super) fn all(words: usize) -> impl Iterator<Item = Self> {
        let whole = Self { first: 0, steps: words / STEP, words: STEP };
        let rest = Self { first: words / STEP * STEP, steps: 1, words: words % STEP };
        [whole, rest].into_iter().filter(|pass| pass.steps > 0 && pass.words > 0)
    }

    /// Returns the shapes of the registers.
    pub(super) fn shapes(&self) -> Shapes {
        let left = TileShape { bytes: WORD * self.words, ..TileShape::FULL };
        let right = TileShape { rows: self.words, ..TileShape::FULL };
        let sums = TileShape::FULL;
        Shapes::new([sums, sums, sums, sums, left, left, right, right])
    }

    /// Returns the bytes of a row of the left factor in one step.
    pub(super) fn row_bytes(&self) -> usize {
        WORD * self.words
    }
}

/// The left factor of a pass.
#[derive(Clone, Copy)]
pub(super) struct Left {
    /// The words of the first row in the first step.
    pub(super) start: *const u32,
    /// Distance between rows in bytes, and, in `step`, between steps.
    pub(super) row: usize,
    pub(super) step: usize,
}

/// The right factor of a pass: rows that hold a word of each column.
#[derive(Clone, Copy)]
pub(super) struct Right<F: Fn(usize) -> *const u32> {
    /// Returns the first row of a step.
    pub(super) of_step: F,
    /// Distance between rows in bytes.
    pub(super) row: usize,
}

/// The sums of a product.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) start: *mut f32,
    /// Distance between rows in bytes.
    pub(super) row: usize,
    /// Whether the products are added to the sums, or overwrite them.
    pub(super) accumulate: bool,
}

/// `sums (+)= left right`, with 32 or 16 rows and 32 or 16 columns. Calls `after` with the number of each finished
/// step.
///
/// # Safety
/// The registers must have the shapes of the pass that these steps belong to. The memory that these shapes cover must
/// be readable at every step of both factors, and writable for the sums.
#[inline(always)]
pub(super) unsafe fn multiply<T: Tiles, const ROWS: usize, const COLUMNS: usize>(
    left: Left,
    right: Right<impl Fn(usize) -> *const u32>,
    sums: Sums,
    steps: usize,
    mut after: impl FnMut(usize),
) {
    const { assert!((ROWS == TILE || ROWS == 2 * TILE) && (COLUMNS == TILE || COLUMNS == 2 * TILE)) };
    let below = sums.start.cast::<u8>().wrapping_add(TILE * sums.row);
    let out = sums.start.cast::<u8>();
    // SAFETY: by the caller's promise.
    unsafe {
        if sums.accumulate {
            T::load::<0, 0>(out, sums.row);
            if COLUMNS > TILE {
                T::load::<1, ROW>(out, sums.row);
            }
            if ROWS > TILE {
                T::load::<2, 0>(below, sums.row);
            }
            if ROWS > TILE && COLUMNS > TILE {
                T::load::<3, ROW>(below, sums.row);
            }
        } else {
            T::zero::<0>();
            T::zero::<1>();
            T::zero::<2>();
            T::zero::<3>();
        }
        for step in 0..steps {
            let a = left.start.cast::<u8>().wrapping_add(step * left.step);
            let b = (right.of_step)(step).cast::<u8>();
            T::load::<4, 0>(a, left.row);
            T::load::<6, 0>(b, right.row);
            T::dot_pairs::<0, 4, 6>();
            if COLUMNS > TILE {
                T::load::<7, ROW>(b, right.row);
                T::dot_pairs::<1, 4, 7>();
            }
            if ROWS > TILE {
                T::load::<5, 0>(a.wrapping_add(TILE * left.row), left.row);
                T::dot_pairs::<2, 5, 6>();
            }
            if ROWS > TILE && COLUMNS > TILE {
                T::dot_pairs::<3, 5, 7>();
            }
            after(step);
        }
        T::store::<0, 0>(out, sums.row);
        if COLUMNS > TILE {
            T::store::<1, ROW>(out, sums.row);
        }
        if ROWS > TILE {
            T::store::<2, 0>(below, sums.row);
        }
        if ROWS > TILE && COLUMNS > TILE {
            T::store::<3, ROW>(below, sums.row);
        }
    }
}
