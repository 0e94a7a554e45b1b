//! What macOS says of its cores, by their levels of performance.

/// Cores of one level.
pub(super) struct Level {
    /// The level's name; macOS before 13 does not tell it.
    pub(super) name: Option<String>,
    /// How many there are.
    pub(super) cores: usize,
}

/// Cores worth a thread of levels, the fastest first: those of the first and of others that are known not to be small,
/// such as the performance cores below the super cores of newer chips. `None` where there is none.
pub(super) fn cores(levels: impl IntoIterator<Item = Level>) -> Option<usize> {
    let is_large = |level: &Level| level.name.as_deref().is_some_and(|name| name != "Efficiency");
    let worth = levels.into_iter().enumerate().filter(|(index, level)| *index == 0 || is_large(level));
    Some(worth.map(|(_, level)| level.cores).sum()).filter(|&cores| cores > 0)
}

/// The levels that the system tells; none on Intel, where there is but one kind of cores.
#[cfg(target_os = "macos")]
pub(super) fn levels() -> Vec<Level> {
    let of_level = |level: usize, what: &str| std::ffi::CString::new(format!("hw.perflevel{level}.{what}"));
    let levels = (0..number(c"hw.nperflevels").unwrap_or(1)).map_while(|level| {
        let cores = number(&of_level(level, "physicalcpu").ok()?)?;
        Some(Level { name: of_level(level, "name").ok().and_then(|name| text(&name)), cores })
    });
    levels.collect()
}

/// A number above zero that the system tells by this name.
#[cfg(target_os = "macos")]
pub(super) fn number(name: &std::ffi::CStr) -> Option<usize> {
    let mut bytes = [0; size_of::<i32>()];
    (read(name, &mut bytes)? == bytes.len()).then_some(())?;
    usize::try_from(i32::from_ne_bytes(bytes)).ok().filter(|&number| number > 0)
}

/// A short text that the system tells by this name.
#[cfg(target_os = "macos")]
fn text(name: &std::ffi::CStr) -> Option<String> {
    let mut bytes = [0; 64];
    read(name, &mut bytes)?;
    Some(std::ffi::CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?.to_owned())
}

/// How many bytes the system has written of what it tells by this name; `None` where it has refused.
#[cfg(target_os = "macos")]
fn read(name: &std::ffi::CStr, bytes: &mut [u8]) -> Option<usize> {
    let mut size = bytes.len();
    // SAFETY: the name ends with a zero; the system writes at most `size` bytes, which `bytes` has.
    let failed = unsafe {
        libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &raw mut size, std::ptr::null_mut(), 0)
    };
    (failed == 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores_of(levels: &[(Option<&str>, usize)]) -> Option<usize> {
        cores(levels.iter().map(|&(name, cores)| Level { name: name.map(str::to_owned), cores }))
    }

    #[test]
    fn all_levels_but_those_of_small_cores_count() {
        let (large, small) = (Some("Performance"), Some("Efficiency"));
        for (levels, expected) in [
            // M1 to M4, and M5
            (&[(large, 8), (small, 2)][..], 8),
            (&[(Some("Super"), 4), (small, 6)], 4),
            // M5 Pro
            (&[(Some("Super"), 5), (large, 10)], 15),
            (&[(Some("Super"), 2), (large, 4), (small, 8)], 6),
            // macOS 12 does not name levels: its chips have small cores below the first
            (&[(None, 8), (None, 2)], 8),
            (&[(small, 4)], 4),
        ] {
            assert_eq!(cores_of(levels), Some(expected), "{levels:?}");
        }
        assert_eq!(cores_of(&[]), None);
        assert_eq!(cores_of(&[(large, 0)]), None);
    }

    #[cfg(target_os = "macos")]
    #[test]
    fn the_system_tells() {
        let all = number(c"hw.physicalcpu").unwrap();
        assert!((1..=all).contains(&super::super::cores().unwrap()));
        assert_eq!(number(c"hw.no.such.thing"), None);
    }
}
