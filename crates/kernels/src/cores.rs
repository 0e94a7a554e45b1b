//! How many threads a pool has unless told otherwise: one per physical core, the small ones of a mixed processor left
//! out. Loops end when their slowest task does, and a core at a third of the others' speed holds up all of them.

/// One thread per core that computes best and that this process may use.
pub(crate) fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Bytes that the largest caches hold, all of them together; `None` where the system does not tell.
pub(crate) fn cache_bytes() -> Option<usize> {
    #[cfg(not(target_os = "macos"))]
    return linux::cache_bytes(std::path::Path::new("/sys/devices/system/cpu"));
    #[cfg(target_os = "macos")]
    return None;
}

/// Cores worth a thread; `None` where the system does not tell.
#[cfg(not(target_os = "macos"))]
fn cores() -> Option<usize> {
    linux::cores(std::path::Path::new("/sys/devices/system/cpu"))
}

/// Cores worth a thread; `None` where the system does not tell.
#[cfg(target_os = "macos")]
fn cores() -> Option<usize> {
    apple::cores(apple::levels()).or_else(|| apple::number(c"hw.physicalcpu"))
}

/// What macOS says of its cores, by their levels of performance.
#[cfg(any(test, target_os = "macos"))]
mod apple {
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
        let of_level =
            |level: usize, what: &str| std::ffi::CString::new(format!("hw.perflevel{level}.{what}"));
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
            libc::sysctlbyname(
                name.as_ptr(),
                bytes.as_mut_ptr().cast(),
                &raw mut size,
                std::ptr::null_mut(),
                0,
            )
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
}

/// What Linux says of its processors, one folder each.
#[cfg(not(target_os = "macos"))]
mod linux {
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Capacity of the fastest core, and of all where the system does not tell them apart.
    const FULL_CAPACITY: u32 = 1024;

    /// Physical cores, distinct sets of sibling threads, with at least half the largest `cpu_capacity`: of Arm's mixed
    /// processors the little cores have a fifth to two fifths, the middle ones three quarters and more.
    pub(super) fn cores(folder: &Path) -> Option<usize> {
        let mut cores = BTreeMap::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let Ok(siblings) = std::fs::read_to_string(entry.path().join("topology/thread_siblings_list"))
            else {
                continue;
            };
            let capacity = std::fs::read_to_string(entry.path().join("cpu_capacity")).ok();
            let capacity = capacity.and_then(|capacity| capacity.trim().parse().ok());
            cores.insert(siblings, capacity.unwrap_or(FULL_CAPACITY));
        }
        let largest = *cores.values().max()?;
        Some(cores.values().filter(|&&capacity| capacity >= largest.div_ceil(2)).count())
    }

    /// Bytes of the caches of the highest level: those of distinct sets of threads.
    pub(super) fn cache_bytes(folder: &Path) -> Option<usize> {
        let mut caches = BTreeMap::new();
        for processor in std::fs::read_dir(folder).ok()?.flatten() {
            let Ok(entries) = std::fs::read_dir(processor.path().join("cache")) else { continue };
            for cache in entries.flatten() {
                let text = |name| std::fs::read_to_string(cache.path().join(name)).ok();
                let level = text("level").and_then(|level| level.trim().parse::<u8>().ok());
                if let (Some(level), Some(sharing), Some(size)) =
                    (level, text("shared_cpu_list"), text("size"))
                {
                    caches.insert((level, sharing), bytes(size.trim()));
                }
            }
        }
        let (highest, _) = caches.keys().max().cloned()?;
        let of_level = caches.iter().filter(|((level, _), _)| *level == highest);
        of_level.map(|(_, bytes)| *bytes).sum()
    }

    /// A size as the system writes it: `32768K`.
    fn bytes(size: &str) -> Option<usize> {
        let digits = size.trim_end_matches(['K', 'M', 'G']);
        let shift = match &size[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            _ => 30,
        };
        digits.parse::<usize>().ok()?.checked_mul(1 << shift)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::path::PathBuf;

        /// A folder that goes with the test.
        struct Folder(PathBuf);

        impl Drop for Folder {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }

        /// Processors with their siblings and, where there is one, capacity; and what else lies beside them.
        fn folder(name: &str, processors: &[(&str, Option<&str>)]) -> Folder {
            let folder = std::env::temp_dir().join(format!("phi3v-cores-{}-{name}", std::process::id()));
            std::fs::create_dir_all(folder.join("cpufreq")).unwrap();
            std::fs::write(folder.join("online"), "0-7\n").unwrap();
            for (i, (siblings, capacity)) in processors.iter().enumerate() {
                let processor = folder.join(format!("cpu{i}"));
                std::fs::create_dir_all(processor.join("topology")).unwrap();
                std::fs::write(processor.join("topology/thread_siblings_list"), siblings).unwrap();
                if let Some(capacity) = capacity {
                    std::fs::write(processor.join("cpu_capacity"), capacity).unwrap();
                }
            }
            Folder(folder)
        }

        #[test]
        fn siblings_are_one_core() {
            let two = folder("smt", &[("0,2\n", None), ("1,3\n", None), ("0,2\n", None), ("1,3\n", None)]);
            assert_eq!(cores(&two.0), Some(2));
        }

        #[test]
        fn the_largest_caches_are_counted_once_each() {
            let two = folder("caches", &[("0\n", None), ("1\n", None), ("2\n", None)]);
            let caches =
                [(0, 2, "0", "1024K"), (0, 3, "0-1", "32768K"), (1, 3, "0-1", "32768K"), (2, 3, "2", "96M")];
            for (processor, level, sharing, size) in caches {
                let cache = two.0.join(format!("cpu{processor}/cache/index{level}"));
                std::fs::create_dir_all(&cache).unwrap();
                let level = level.to_string();
                for (name, text) in [("level", &*level), ("shared_cpu_list", sharing), ("size", size)] {
                    std::fs::write(cache.join(name), format!("{text}\n")).unwrap();
                }
            }
            assert_eq!(cache_bytes(&two.0), Some(128 << 20));
            std::fs::write(two.0.join("cpu2/cache/index3/size"), "much").unwrap();
            assert_eq!(cache_bytes(&two.0), None);
            assert_eq!(cache_bytes(Path::new("/nowhere/at/all")), None);
        }

        #[test]
        fn little_cores_are_left_out() {
            let capacities = ["250", "250", "250", "250", "780", "780", "780", "1024"];
            let numbers = ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"];
            let mixed: Vec<_> = numbers.into_iter().zip(capacities.map(Some)).collect();
            assert_eq!(cores(&folder("mixed", &mixed).0), Some(4));
            // the largest is what counts, not 1024, and half of it is enough
            let slow = [("0\n", Some("512\n")), ("1\n", Some("256\n")), ("2\n", Some("255\n"))];
            assert_eq!(cores(&folder("slow", &slow).0), Some(2));
        }

        #[test]
        fn capacities_that_say_nothing_leave_no_core_out() {
            let even = [("0\n", Some("1024\n")), ("1\n", Some("")), ("2\n", None), ("3\n", Some("x"))];
            assert_eq!(cores(&folder("even", &even).0), Some(4));
            let zero = [("0\n", Some("0\n")), ("1\n", Some("0\n"))];
            assert_eq!(cores(&folder("zero", &zero).0), Some(2));
        }

        #[test]
        fn nothing_is_counted_where_the_system_does_not_tell() {
            assert_eq!(cores(&folder("none", &[]).0), None);
            assert_eq!(cores(Path::new("/nowhere/at/all")), None);
        }
    }
}
