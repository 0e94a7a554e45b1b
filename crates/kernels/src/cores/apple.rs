//! Counts cores by the performance levels that macOS reports.

/// The cores of one performance level.
pub(super) struct Level {
    /// Name of the level; macOS before 13 does not report it.
    pub(super) name: Option<String>,
    /// Number of cores.
    pub(super) cores: usize,
}

/// Returns the number of cores worth a thread, from levels in descending order of speed: the cores of the first
/// level, and of other levels known not to be small, such as the performance cores below the super cores of newer
/// chips. `None` if there are no such cores.
pub(super) fn cores(levels: impl IntoIterator<Item = Level>) -> Option<usize> {
    let is_large = |level: &Level| level.name.as_deref().is_some_and(|name| name != "Efficiency");
    let worth = levels.into_iter().enumerate().filter(|(index, level)| *index == 0 || is_large(level));
    Some(worth.map(|(_, level)| level.cores).sum()).filter(|&cores| cores > 0)
}

/// Returns the levels that the system reports; none on Intel, where all cores are of one kind.
#[cfg(target_os = "macos")]
pub(super) fn levels() -> Vec<Level> {
    let of_level = |level: usize, what: &str| std::ffi::CString::new(format!("hw.perflevel{level}.{what}"));
    let levels = (0..number(c"hw.nperflevels").unwrap_or(1)).map_while(|level| {
        let cores = number(&of_level(level, "physicalcpu").ok()?)?;
        Some(Level { name: of_level(level, "name").ok().and_then(|name| text(&name)), cores })
    });
    levels.collect()
}

/// Reads the positive number that the system reports under this name.
#[cfg(target_os = "macos")]
pub(super) fn number(name: &std::ffi::CStr) -> Option<usize> {
    let mut bytes = [0; size_of::<i32>()];
    (read(name, &mut bytes)? == bytes.len()).then_some(())?;
    usize::try_from(i32::from_ne_bytes(bytes)).ok().filter(|&number| number > 0)
}

/// Reads the short text that the system reports under this name.
#[cfg(target_os = "macos")]
fn text(name: &std::ffi::CStr) -> Option<String> {
    let mut bytes = [0; 64];
    read(name, &mut bytes)?;
    Some(std::ffi::CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?.to_owned())
}

/// Reads what the system reports under this name. Returns the number of bytes written to `bytes`; `None` if the
/// system refuses.
#[cfg(target_os = "macos")]
fn read(name: &std::ffi::CStr, bytes: &mut [u8]) -> Option<usize> {
    let mut size = bytes.len();
    // SAFETY: the name ends with a zero byte; the system writes at most `size` bytes, which `bytes` has.
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
            // macOS 12 does not name levels: its chips have small cores below the first level
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
