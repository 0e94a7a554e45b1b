//! Prefetching of memory.

/// Bytes of a cache line. Where lines are larger, as on Apple's processors, some are fetched twice.
pub(crate) const LINE: usize = 64;

/// Fetches a line into the L1 cache if `L1`, otherwise into the L2 cache.
#[inline(always)]
fn fetch_line<const L1: bool>(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and a prefetch may take any address.
        unsafe {
            if L1 {
                _mm_prefetch::<_MM_HINT_T0>(line.cast())
            } else {
                _mm_prefetch::<_MM_HINT_T1>(line.cast())
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::asm;
        // SAFETY: every AArch64 has the instruction, which changes no register, and a prefetch may take any address.
        unsafe {
            if L1 {
                asm!("prfm pldl1keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
            } else {
                asm!("prfm pldl2keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
            }
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

/// Fetches into the cache a part of a row that will soon be read or written.
#[inline]
pub(crate) fn fetch(part: &[f32]) {
    for line in part.chunks(LINE / size_of::<f32>()) {
        fetch_line::<true>(line.as_ptr().cast());
    }
}

/// Words that are read soon, but not next. They are fetched into the L2 cache, some lines at a time between other
/// work, because many fetches at once would wait for each other.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "the definition does not fetch ahead")
)]
pub(crate) struct Ahead<'a>(pub(crate) &'a [u32]);

#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "the definition does not fetch ahead")
)]
impl Ahead<'_> {
    /// Words per cache line.
    pub(crate) const LINE_WORDS: usize = LINE / size_of::<u32>();

    /// Fetches `count` lines from line `first` on; nothing if there are no words.
    #[inline]
    pub(crate) fn fetch_lines(self, first: usize, count: usize) {
        if !self.0.is_empty() {
            for line in first..first + count {
                fetch_line::<false>(self.0.as_ptr().wrapping_add(line * Self::LINE_WORDS).cast());
            }
        }
    }
}
