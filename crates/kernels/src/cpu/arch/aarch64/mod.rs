//! Kernels for AArch64, one folder per instruction set: [`dotprod`] extends [`neon`], and [`i8mm`] extends both.

/// Defines a function of one instruction without a stable intrinsic. It takes `sum` and two factors, in vector
/// registers.
macro_rules! instruction {
    ($(#[$doc:meta])* fn $name:ident$(<$lane:ident>)?, $features:literal, $text:literal, ($sum:ty, $a:ty, $b:ty)) => {
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn $name$(<const $lane: i32>)?(mut sum: $sum, a: $a, b: $b) -> $sum {
            // SAFETY: one instruction on registers alone, of a feature that the function requires.
            unsafe {
                std::arch::asm!(
                    $text,
                    sum = inout(vreg) sum,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    $(lane = const $lane,)?
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sum
        }
    };
}

pub(crate) mod dotprod;
pub(crate) mod i8mm;
pub(crate) mod neon;
