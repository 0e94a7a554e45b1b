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

/// Cores worth a thread: those of the first performance level, or all where there is but one kind (Intel).
#[cfg(target_os = "macos")]
fn cores() -> Option<usize> {
    let asked = [c"hw.perflevel0.physicalcpu", c"hw.physicalcpu"];
    asked.into_iter().find_map(|name| {
        let (mut cores, mut size) = (0i32, size_of::<i32>());
        // SAFETY: the name ends with a zero; the system writes at most `size` bytes to an integer of that size.
        let failed = unsafe {
            libc::sysctlbyname(name.as_ptr(), (&raw mut cores).cast(), &raw mut size, std::ptr::null_mut(), 0)
        };
        usize::try_from(cores).ok().filter(|&cores| failed == 0 && cores > 0)
    })
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
