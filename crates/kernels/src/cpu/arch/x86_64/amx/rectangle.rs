//! Products of bf16 in pieces of up to two tiles of rows by two of columns, which is what attention and products with dense
//! weights are made of.
//!
//! Registers 0 to 3 hold the sums, 4 and 5 the left factor's rows, 6 and 7 the right one's columns. Along K a step is up to
//! 16 words, pairs of values. The order in which a sum is made depends on K alone.

use super::tiles::{ROW, Shapes, TILE, TileShape, Tiles};

/// Words of a step along K.
pub(super) const STEP: usize = TILE;
/// Bytes of a word.
const WORD: usize = 4;

/// Steps along K of the same size.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// The first word.
    pub(super) first: usize,
    pub(super) steps: usize,
    /// Words of each step.
    words: usize,
}

impl Pass {
    /// The passes of `words` words: whole steps, then what is left.
    pub(super) fn all(words: usize) -> impl Iterator<Item = Self> {
        let whole = Self { first: 0, steps: words / STEP, words: STEP };
        let rest = Self { first: words / STEP * STEP, steps: 1, words: words % STEP };
        [whole, rest].into_iter().filter(|pass| pass.steps > 0 && pass.words > 0)
    }

    /// The registers' shapes.
    pub(super) fn shapes(&self) -> Shapes {
        let left = TileShape { bytes: WORD * self.words, ..TileShape::FULL };
        let right = TileShape { rows: self.words, ..TileShape::FULL };
        let sums = TileShape::FULL;
        Shapes::new([sums, sums, sums, sums, left, left, right, right])
    }

    /// Bytes of a row of the left factor in one step.
    pub(super) fn row_bytes(&self) -> usize {
        WORD * self.words
    }
}

/// The left factor of a pass.
#[derive(Clone, Copy)]
pub(super) struct Left {
    /// The first row's words of the first step.
    pub(super) start: *const u32,
    /// Bytes from row to row, and from step to step.
    pub(super) row: usize,
    pub(super) step: usize,
}

/// The right factor of a pass, rows of words of the columns.
#[derive(Clone, Copy)]
pub(super) struct Right<F: Fn(usize) -> *const u32> {
    /// The first row of a step.
    pub(super) of_step: F,
    /// Bytes from row to row.
    pub(super) row: usize,
}

/// The sums.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) start: *mut f32,
    /// Bytes from row to row.
    pub(super) row: usize,
    /// Whether they are added to, or overwritten.
    pub(super) accumulate: bool,
}

/// `sums (+)= left right`, 32 rows or 16, 32 columns or 16; calls `after` with the number of each step done.
///
/// # Safety
/// The registers have the shapes of the pass whose steps these are; as much as these shapes say is readable at every step
/// of both factors, and writable of the sums.
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
