//! Asking for memory before it is used.

/// Bytes of a cache line; where lines are larger, as Apple's are, some are asked for twice.
pub(crate) const LINE: usize = 64;

/// Fetches a line into the L1, or else into the L2.
#[inline(always)]
fn fetch_line<const L1: bool>(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and a prefetch may name any address.
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
        // SAFETY: every AArch64 has the instruction, which changes no register, and a prefetch may name any address.
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

/// Fetches a part of a row that will soon be read or written into the cache.
#[inline]
pub(crate) fn fetch(part: &[f32]) {
    for line in part.chunks(LINE / size_of::<f32>()) {
        fetch_line::<true>(line.as_ptr().cast());
    }
}

/// Words that are read soon, but not next: they are fetched into the L2, some lines at a time between other work, as many
/// at once would wait for each other.
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
    /// Words of a cache line.
    pub(crate) const LINE_WORDS: usize = LINE / size_of::<u32>();

    /// Fetches `count` lines from line `first` on; nothing where there are no words at all.
    #[inline]
    pub(crate) fn fetch_lines(self, first: usize, count: usize) {
        if !self.0.is_empty() {
            for line in first..first + count {
                fetch_line::<false>(self.0.as_ptr().wrapping_add(line * Self::LINE_WORDS).cast());
            }
        }
    }
}
