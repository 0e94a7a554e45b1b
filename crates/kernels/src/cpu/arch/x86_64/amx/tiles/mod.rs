//! The tile instructions, each by itself and as text, for the intrinsics are not stable; and the same in plain Rust
//! ([`Plain`]) for tests on processors that have none.
//!
//! There are eight registers, `T`, `A`, `B` and `C` below by their number, of up to 16 rows of 64 bytes. [`Shapes`] says how
//! much of each is used. Nothing but the functions of [`Tiles`] touches them, and what the compiler makes of other code
//! does not.

mod plain;

pub(crate) use plain::Plain;
use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a register, and 32-bit columns of one.
pub(super) const TILE: usize = 16;
/// Bytes of a register's row.
pub(super) const ROW: usize = 64;

/// How much of a register is used; of one without rows nothing is.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    /// Bytes of a row, a multiple of 4.
    pub(super) bytes: usize,
}

impl TileShape {
    /// All of it.
    pub(super) const FULL: Self = Self { rows: TILE, bytes: ROW };
}

/// Shapes of all registers, as `ldtilecfg` reads them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Shapes([u8; 64]);

impl Shapes {
    pub(super) fn new(tiles: [TileShape; 8]) -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1; // palette
        for (i, TileShape { rows, bytes: row }) in tiles.into_iter().enumerate() {
            assert!(rows <= TILE && row <= ROW, "{rows} rows of {row} bytes");
            // a register without rows has no columns either
            bytes[16 + 2 * i] = if rows == 0 { 0 } else { row as u8 };
            bytes[48 + i] = rows as u8;
        }
        Self(bytes)
    }
}

/// The instructions, as Intel's manual defines them. They fault where a register is used that has no shape, or shapes do
/// not fit each other; in products `C` has the rows of `A` and the columns of `B`, which has as many rows as `A` has groups
/// of 4 bytes in a row.
pub(crate) trait Tiles {
    /// Gives the registers their shapes; all are zero then.
    ///
    /// # Safety
    /// The processor has the instruction.
    unsafe fn configure(shapes: &Shapes);

    /// Gives the registers back: left in use they would be saved with every switch of threads.
    ///
    /// # Safety
    /// The processor has the instruction.
    unsafe fn release();

    /// `T = 0`
    ///
    /// # Safety
    /// The register has a shape.
    unsafe fn zero<const T: u8>();

    /// Reads the rows of a register, `stride` bytes apart, from `AT` bytes after `base` on.
    ///
    /// # Safety
    /// The register has a shape, and as many bytes may be read in each row.
    unsafe fn load<const T: u8, const AT: usize>(base: *const u8, stride: usize);

    /// Writes them likewise.
    ///
    /// # Safety
    /// The register has a shape, and as many bytes may be written in each row.
    unsafe fn store<const T: u8, const AT: usize>(base: *mut u8, stride: usize);

    /// `C += A B` in 32-bit integers; `A` is of signed bytes, `B` of unsigned ones, in groups of four along K.
    ///
    /// # Safety
    /// The registers have shapes that fit.
    unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>();

    /// `C += A B` in f32, `A` and `B` being bf16 in pairs along K. The products of the first values of all pairs are summed
    /// by themselves, in the order of K and from zero on, and those of the second; then both sums are added, and to `C`.
    /// Every step rounds to nearest even; what is below 2^-126 is zero.
    ///
    /// # Safety
    /// The registers have shapes that fit.
    unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>();
}

/// Registers that have shapes; they are given back with it.
pub(super) struct Configured<T: Tiles>(PhantomData<T>);

impl<T: Tiles> Configured<T> {
    /// # Safety
    /// The processor has the instructions.
    pub(super) unsafe fn new(shapes: &Shapes) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { T::configure(shapes) };
        Self(PhantomData)
    }
}

impl<T: Tiles> Drop for Configured<T> {
    fn drop(&mut self) {
        // SAFETY: who made it had the instructions.
        unsafe { T::release() };
    }
}

/// The processor's own.
pub(crate) enum Hardware {}

impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn configure(shapes: &Shapes) {
        // SAFETY: 64 bytes that describe registers this level has.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const *shapes, options(readonly, nostack)) };
    }

    #[inline(always)]
    unsafe fn release() {
        // SAFETY: by the caller's promise.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }

    #[inline(always)]
    unsafe fn zero<const T: u8>() {
        // SAFETY: by the caller's promise.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack)) };
    }

    #[inline(always)]
    unsafe fn load<const T: u8, const AT: usize>(base: *const u8, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm{t}, [{base} + {stride} + {at}]",
                t = const T, base = in(reg) base, stride = in(reg) stride, at = const AT, options(nostack),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: u8, const AT: usize>(base: *mut u8, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            asm!(
                "tilestored [{base} + {stride} + {at}], tmm{t}",
                t = const T, base = in(reg) base, stride = in(reg) stride, at = const AT, options(nostack),
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: by the caller's promise.
        unsafe {
            asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack));
        }
    }

    #[inline(always)]
    unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: by the caller's promise.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack));
        }
    }
}
