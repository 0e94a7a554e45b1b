//! The tile instructions, one function each. They are inline assembly because the intrinsics are not stable.
//! [`Plain`] is the same in plain Rust, for tests on processors without AMX.
//!
//! There are eight registers of up to 16 rows of 64 bytes; below, `T`, `A`, `B` and `C` are register numbers.
//! [`Shapes`] says how much of each register is used. Only the functions of [`Tiles`] access the registers; code that
//! the compiler generates elsewhere does not.

mod plain;

pub(crate) use plain::Plain;
use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a register, and its number of 32-bit columns.
pub(super) const TILE: usize = 16;
/// Bytes of a register's row.
pub(super) const ROW: usize = 64;

/// How much of a register is used; nothing if it has no rows.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    /// Bytes of a row, a multiple of 4.
    pub(super) bytes: usize,
}

impl TileShape {
    /// The whole register.
    pub(super) const FULL: Self = Self { rows: TILE, bytes: ROW };
}

/// The shapes of all registers, in the format that `ldtilecfg` reads.
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

/// The instructions, as Intel's manual defines them. They fault if a register without a shape is used or if shapes do
/// not fit each other. In products `C` has the rows of `A` and the columns of `B`, and `B` has as many rows as a row
/// of `A` has groups of 4 bytes.
pub(crate) trait Tiles {
    /// Configures the shapes of the registers, and sets all registers to zero.
    ///
    /// # Safety
    /// The processor must have the instruction.
    unsafe fn configure(shapes: &Shapes);

    /// Releases the registers: otherwise every thread switch would save them.
    ///
    /// # Safety
    /// The processor must have the instruction.
    unsafe fn release();

    /// `T = 0`
    ///
    /// # Safety
    /// The register must have a shape.
    unsafe fn zero<const T: u8>();

    /// Reads the rows of a register. The rows are `stride` bytes apart, beginning `AT` bytes after `base`.
    ///
    /// # Safety
    /// The register must have a shape, and its bytes must be readable in each row.
    unsafe fn load<const T: u8, const AT: usize>(base: *const u8, stride: usize);

    /// Writes the rows of a register to the same addresses.
    ///
    /// # Safety
    /// The register must have a shape, and its bytes must be writable in each row.
    unsafe fn store<const T: u8, const AT: usize>(base: *mut u8, stride: usize);

    /// `C += A B` in 32-bit integers. `A` has signed bytes, `B` unsigned ones, in groups of four along K.
    ///
    /// # Safety
    /// The registers must have shapes that fit each other.
    unsafe fn dot_bytes<const C: u8, const A: u8, const B: u8>();

    /// `C += A B` in f32. `A` and `B` have bf16 in pairs along K. The products of the first values of all pairs are
    /// summed separately, in the order of K and starting from zero, and so are those of the second values. Then both
    /// sums are added, and the result is added to `C`. Every step rounds to nearest even; magnitudes below 2^-126 are
    /// treated as zero.
    ///
    /// # Safety
    /// The registers must have shapes that fit each other.
    unsafe fn dot_pairs<const C: u8, const A: u8, const B: u8>();
}

/// Registers with shapes, released on drop.
pub(super) struct Configured<T: Tiles>(PhantomData<T>);

impl<T: Tiles> Configured<T> {
    /// # Safety
    /// The processor must have the instructions.
    pub(super) unsafe fn new(shapes: &Shapes) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { T::configure(shapes) };
        Self(PhantomData)
    }
}

impl<T: Tiles> Drop for Configured<T> {
    fn drop(&mut self) {
        // SAFETY: the caller of `new` promised that the processor has the instructions.
        unsafe { T::release() };
    }
}

/// The processor's own tiles.
pub(crate) enum Hardware {}

impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn configure(shapes: &Shapes) {
        // SAFETY: 64 bytes that describe registers which this level has.
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
