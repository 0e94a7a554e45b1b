//! The tile instructions in plain Rust, for tests; code outside tests never uses them.
//!
//! They panic where a processor would fault.

use super::{ROW, Shapes, TILE, Tiles};
use std::cell::RefCell;

/// The instructions in plain Rust, on registers that each thread has separately. The processor must have AVX2 and
/// FMA.
pub(crate) enum Plain {}

#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    /// Bytes of a row.
    bytes: usize,
    data: [[u8; ROW]; TILE],
}

const EMPTY: Tile = Tile { rows: 0, bytes: 0, data: [[0; ROW]; TILE] };

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([EMPTY; 8]) };
}

/// Calls `work` with a register, which must have a shape.
fn with_tile<R>(tile: u8, work: impl FnOnce(&mut Tile) -> R) -> R {
    TILES.with_borrow_mut(|tiles| {
        let tile = &mut tiles[usize::from(tile)];
        assert!(tile.rows > 0, "a tile without a shape is used");
        work(tile)
    })
}

/// Returns the 32-bit groups of a row.
fn groups(row: &[u8; ROW]) -> [[u8; 4]; TILE] {
    bytemuck::cast(*row)
}

/// Computes a product: calls `row(sums of a row of c, a's row, b)` for each row.
fn product([c, a, b]: [u8; 3], row: impl Fn(&mut [u8; ROW], &[[u8; 4]], &Tile)) {
    TILES.with_borrow_mut(|tiles| {
        assert!(c != a && a != b && b != c, "a product takes three registers");
        let [a, b] = [a, b].map(|tile| tiles[usize::from(tile)]);
        let c = &mut tiles[usize::from(c)];
        assert!(a.rows > 0 && b.rows > 0 && c.rows == a.rows && c.bytes == b.bytes, "shapes of a product");
        assert!(a.bytes == 4 * b.rows && c.bytes.is_multiple_of(4), "K of a product");
        for (sums, a_row) in c.data.iter_mut().zip(&a.data).take(c.rows) {
            row(sums, &groups(a_row)[..b.rows], &b);
            sums[c.bytes..].fill(0);
        }
    });
}

/// Replaces subnormal numbers with zero.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Widens a bf16 to f32.
fn widened(low: u8, high: u8) -> f32 {
    flushed(f32::from_bits(u32::from(u16::from_le_bytes([low, high])) << 16))
}

/// Adds to a row of sums the products of a row of pairs and those of `b`.
#[target_feature(enable = "avx2,fma")]
fn add_pairs(sums: &mut [u8; ROW], a: &[[u8; 4]], b: &Tile) {
    let (mut first, mut second) = ([0.0f32; TILE], [0.0f32; TILE]);
    for (a, b) in a.iter().zip(&b.data) {
        let [a_first, a_second] = [widened(a[0], a[1]), widened(a[2], a[3])];
        for ((b, first), second) in groups(b).iter().zip(&mut first).zip(&mut second) {
            *first = flushed(a_first.mul_add(widened(b[0], b[1]), *first));
            *second = flushed(a_second.mul_add(widened(b[2], b[3]), *second));
        }
    }
    let mut out: [f32; TILE] = bytemuck::cast(*sums);
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        *out = flushed(flushed(*out) + flushed(first + second));
    }
    *sums = bytemuck::cast(out);
}

/// Same as [`add_pairs`], for signed bytes of `a` and unsigned ones of `b`.
fn add_bytes(sums: &mut [u8; ROW], a: &[[u8; 4]], b: &Tile) {
    let mut out: [i32; TILE] = bytemuck::cast(*sums);
    for (a, b) in a.iter().zip(&b.data) {
        for (out, b) in out.iter_mut().zip(groups(b)) {
            let products = a.iter().zip(b).map(|(&a, b)| i32::from(a.cast_signed()) * i32::from(b));
            *out = out.wrapping_add(products.sum());
        }
    }
    *sums = bytemuck::cast(out);
}

impl Tiles for Plain {
    unsafe fn configure(shapes: &Shapes) {
        let bytes = &shapes.0;
        let reserved = [&bytes[1..16], &bytes[32..48], &bytes[56..]];
        assert!(bytes[0] == 1 && reserved.concat().iter().all(|&b| b == 0), "a configuration {bytes:?}");
        TILES.with_borrow_mut(|tiles| {
            for (i, tile) in tiles.iter_mut().enumerate() {
                let row = u16::from_le_bytes([bytes[16 + 2 * i], bytes[17 + 2 * i]]);
                *tile = Tile { rows: bytes[48 + i].into(), bytes: row.into(), ..EMPTY };
                assert!(tile.rows <= TILE && tile.bytes <= ROW, "tile {i} of a configuration {bytes:?}");
                assert_eq!(tile.rows == 0, tile.bytes == 0, "tile {i} of a configuration {bytes:?}");
            }
        });
    }

    unsafe fn release() {
        TILES.set([EMPTY; 8]);
    }

    unsafe fn zero<const T: u8>() {
        with_tile(T, |tile| tile.data = EMPTY.data);
    }

    unsafe fn load<const T: u8, const AT: usize>(base: *const u8, stride: usize) {
        with_tile(T, |tile| {
            tile.data = EMPTY.data;
            for (i, row) in tile.data.iter_mut().enumerate().take(tile.rows) {
                // SAFETY: by the caller's promise.
                unsafe {
                    base.add(AT + i * stride).copy_to_nonoverlapping(row.as_mut_ptr(), tile.bytes);
                }
            }
        });
    }

    unsafe fn store<const T: u8, const AT: usize>(base: *mut u8, stride: usize) {
        with_tile(T, |tile| {
            for (i, row) in tile.data.iter().enumerate().take(tile.rows) {
                // SAFETY: by the caller's promise.
                unsafe {
                    base.add(AT + i * stride).copy_from_nonoverlapping(row.as_ptr(), tile.bytes);
                }
            }
        });
    }

    unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>() {
        product([C, A, B], add_bytes);
    }

    unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: levels with AMX have the instructions of the levels below them.
        product([C, A, B], |sums, a, b| unsafe { add_pairs(sums, a, b) });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Configured, Hardware, TileShape};
    use super::*;
    use crate::testing::{self, Noise};
    use crate::{Feature, Features};

    /// Runs two products one after another, with shapes that fill the registers or do not, added to loaded values or
    /// to zeros. Returns the bytes that were stored.
    unsafe fn run<T: Tiles>(
        [rows, groups, columns]: [usize; 3],
        data: &[u8; 4096],
        bytes: bool,
        zeros: bool,
    ) -> Vec<u8> {
        let sums = TileShape { rows, bytes: 4 * columns };
        let (a, b) = (TileShape { rows, bytes: 4 * groups }, TileShape { rows: groups, bytes: 4 * columns });
        let none = TileShape { rows: 0, bytes: 0 };
        let mut out = vec![0xee; 16 * 80];
        // SAFETY: the caller has the instructions; every address is within `data` and `out`.
        unsafe {
            let _tiles = Configured::<T>::new(&Shapes::new([sums, none, a, none, b, none, none, none]));
            if zeros {
                T::zero::<0>()
            } else {
                T::load::<0, 4>(data.as_ptr(), 96)
            }
            for _ in 0..2 {
                T::load::<2, 64>(data.as_ptr(), 128);
                T::load::<4, 0>(data[2048..].as_ptr(), 64);
                if bytes { T::dot_bytes::<0, 2, 4>() } else { T::dot_pairs::<0, 2, 4>() }
            }
            T::store::<0, 16>(out.as_mut_ptr(), 80);
        }
        out
    }

    #[test]
    fn the_processor_does_what_the_definition_says() {
        if !Features::detect().contains(Feature::AmxBf16) {
            testing::skip("the tile instructions of a processor", "use a processor with AMX-BF16");
            return;
        }
        let mut noise = Noise::new(3);
        for shape in [[16, 16, 16], [16, 8, 16], [5, 16, 16], [1, 3, 7]] {
            // numbers of many magnitudes, with one sign or with both, which cancel; some are flushed, and the
            // products of some nearly are: nothing larger is added to those; none is infinite, because bit 7 is never
            // kept
            for (keep, set, zeros) in [
                (0x3f7f_u16, 0, false),
                (0x4f7f, 0, false),
                (0x817f, 0, false),
                (0x837f, 0x3c00, false),
                (0x817f, 0x2000, true),
            ] {
                let half = |x: f32| (x.to_bits() as u16 & keep | set).to_le_bytes();
                let data: Vec<u8> = noise.values(2048).into_iter().flat_map(half).collect();
                let data = data.as_array().unwrap();
                for bytes in [false, true] {
                    // SAFETY: the processor has the instructions.
                    let found = unsafe { run::<Hardware>(shape, data, bytes, zeros) };
                    // SAFETY: as above.
                    let expected = unsafe { run::<Plain>(shape, data, bytes, zeros) };
                    assert_eq!(found, expected, "{shape:?} {keep:x} {set:x}");
                }
            }
        }
    }

    #[test]
    fn pairs_are_summed_apart_and_small_numbers_are_zero() {
        let pair = |x: f32, y: f32| (x.to_bits() >> 16) | (y.to_bits() & 0xffff_0000);
        let product = |a: [u32; 2], b: [u32; 2], before: f32| {
            let mut b_tile = EMPTY;
            for (row, b) in b_tile.data.iter_mut().zip(b) {
                row[..4].copy_from_slice(&b.to_le_bytes());
            }
            let mut sums = [0; ROW];
            sums[..4].copy_from_slice(&before.to_le_bytes());
            // SAFETY: the test below checks for the instructions.
            unsafe { add_pairs(&mut sums, &a.map(u32::to_le_bytes), &b_tile) };
            f32::from_le_bytes(*sums.first_chunk().unwrap())
        };
        if !Features::detect().contains(Feature::Avx2) {
            testing::skip("tile instructions in plain Rust", "use a processor with AVX2 and FMA");
            return;
        }
        // 2^24 + 1 is lost if both values are summed together, and kept if 1 + 1 come first
        let ones = [pair(4096.0, 1.0), pair(0.0, 1.0)];
        assert_eq!(product(ones, ones, 0.0), 16_777_218.0);
        assert_eq!(product([pair(1.0, 1.0), 0], [pair(2.0, 3.0), 0], 0.5), 5.5);
        let least = f32::MIN_POSITIVE;
        assert_eq!(product([pair(least, 0.0), 0], [pair(0.5, 0.0), 0], 0.0), 0.0);
        assert_eq!(product([pair(least / 2.0, 0.0), 0], [pair(2.0, 0.0), 0], 0.0), 0.0);
        assert_eq!(product([0, 0], [0, 0], least / 2.0).to_bits(), 0);
    }
}
