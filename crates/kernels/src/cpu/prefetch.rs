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

/// Words that are read soon, but not next: they are fetched into the L2, some lines at a time between other work, as many
/// at once would wait for each other.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 fetches ahead"))]
pub(crate) struct Ahead<'a>(pub(crate) &'a [u32]);

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 fetches ahead"))]
impl Ahead<'_> {
    /// Words of a cache line.
    pub(crate) const LINE_WORDS: usize = 16;

    /// Fetches `count` lines from line `first` on; nothing where there are no words at all.
    #[inline]
    pub(crate) fn fetch_lines(self, first: usize, count: usize) {
        #[cfg(target_arch = "x86_64")]
        if !self.0.is_empty() {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            for line in first..first + count {
                let line = self.0.as_ptr().wrapping_add(line * Self::LINE_WORDS);
                // SAFETY: every x86-64 has the instruction, and a prefetch may name any address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (first, count);
    }
}
