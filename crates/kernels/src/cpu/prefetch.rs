//! Asking for memory before it is used.

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
pub(crate) const LINE: usize = 64;

/// Fetches a part of a row that will soon be read or written into the cache.
#[inline]
pub(crate) fn fetch(part: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in part.chunks(LINE / size_of::<f32>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = part;
}
