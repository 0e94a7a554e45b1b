//! Counts cores from the processors that Linux reports, one folder each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

/// Capacity of the fastest core, and of all cores if the system does not distinguish them.
const FULL_CAPACITY: u32 = 1024;

/// Returns the number of physical cores, counted as distinct sets of sibling threads, that this thread may run on and
/// that are not small.
///
/// Cores count if they have at least three fifths of the largest `cpu_capacity`. In Arm's mixed processors the little
/// cores have a fifth to two fifths and the middle ones three quarters or more; Apple's small cores have up to 571 of
/// 1,024 (M2). Intel's processors report capacities only if no core has two threads; their large cores are those of
/// the device `cpu_core`.
///
/// `devices` is the folder of all devices of the system, `status` the file with the kernel's status of this thread.
pub(super) fn cores(devices: &Path, status: &Path) -> Option<usize> {
    let text = |path: &Path| std::fs::read_to_string(path).ok();
    let allowed = text(status).and_then(|status| {
        Processors::parse(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
    });
    let large = text(&devices.join("cpu_core/cpus")).and_then(|list| Processors::parse(&list));
    let mut cores = BTreeMap::new();
    for entry in std::fs::read_dir(devices.join("system/cpu")).ok()?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        let (Some(number), Some(siblings)) =
            (number, text(&entry.path().join("topology/thread_siblings_list")))
        else {
            continue;
        };
        if allowed.as_ref().is_some_and(|allowed| !allowed.contains(number)) {
            continue;
        }
        let capacity = text(&entry.path().join("cpu_capacity"));
        let capacity = capacity.and_then(|capacity| capacity.trim().parse().ok()).unwrap_or(FULL_CAPACITY);
        let is_small = large.as_ref().is_some_and(|large| !large.contains(number));
        cores.insert(siblings, if is_small { 0 } else { capacity });
    }
    let largest = *cores.values().max()?;
    Some(cores.values().filter(|&&capacity| 5 * u64::from(capacity) >= 3 * u64::from(largest)).count())
}

/// Numbers of processors, as ranges.
struct Processors(Vec<RangeInclusive<usize>>);

impl Processors {
    /// Parses a list as the system writes it, `0-3,8`; `None` if it is malformed or empty.
    fn parse(list: &str) -> Option<Self> {
        let range = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        list.trim().split(',').map(range).collect::<Option<_>>().map(Self)
    }

    fn contains(&self, number: usize) -> bool {
        self.0.iter().any(|range| range.contains(&number))
    }
}

/// Returns the bytes of the caches of the highest level, counted once per distinct set of threads.
pub(super) fn cache_bytes(folder: &Path) -> Option<usize> {
    let mut caches = BTreeMap::new();
    for processor in std::fs::read_dir(folder).ok()?.flatten() {
        let Ok(entries) = std::fs::read_dir(processor.path().join("cache")) else { continue };
        for cache in entries.flatten() {
            let text = |name| std::fs::read_to_string(cache.path().join(name)).ok();
            let level = text("level").and_then(|level| level.trim().parse::<u8>().ok());
            if let (Some(level), Some(sharing), Some(size)) = (level, text("shared_cpu_list"), text("size")) {
                caches.insert((level, sharing), bytes(size.trim()));
            }
        }
    }
    let (highest, _) = caches.keys().max().cloned()?;
    let of_level = caches.iter().filter(|((level, _), _)| *level == highest);
    of_level.map(|(_, bytes)| *bytes).sum()
}

/// Parses a size as the system writes it: `32768K`.
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

    /// A folder that is deleted when dropped.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Creates a folder of processors with their siblings and, if given, capacities, plus other entries that Linux
    /// keeps there.
    fn folder(name: &str, processors: &[(&str, Option<&str>)]) -> Folder {
        let folder = std::env::temp_dir().join(format!("phi3v-cores-{}-{name}", std::process::id()));
        let all = folder.join("system/cpu");
        std::fs::create_dir_all(all.join("cpufreq")).unwrap();
        std::fs::write(all.join("online"), "0-7\n").unwrap();
        for (i, (siblings, capacity)) in processors.iter().enumerate() {
            let processor = all.join(format!("cpu{i}"));
            std::fs::create_dir_all(processor.join("topology")).unwrap();
            std::fs::write(processor.join("topology/thread_siblings_list"), siblings).unwrap();
            if let Some(capacity) = capacity {
                std::fs::write(processor.join("cpu_capacity"), capacity).unwrap();
            }
        }
        Folder(folder)
    }

    /// Returns the cores of a thread whose status allows it the processors of a list.
    fn cores_of(folder: &Folder, allowed: &str) -> Option<usize> {
        let status = folder.0.join("status");
        std::fs::write(&status, format!("Name:\tphi3v\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n"))
            .unwrap();
        super::cores(&folder.0, &status)
    }

    /// Returns the cores if nothing restricts which may be used.
    fn cores(devices: &Path) -> Option<usize> {
        super::cores(devices, Path::new("/nowhere/at/all"))
    }

    #[test]
    fn only_cores_that_may_be_used_count() {
        // four cores with two threads each, numbered in either of two ways
        let pairs = ["0-1\n", "0-1\n", "2-3\n", "2-3\n", "4-5\n", "4-5\n", "6-7\n", "6-7\n"];
        let pairs = folder("pairs", &pairs.map(|siblings| (siblings, None)));
        let halves = ["0,4\n", "1,5\n", "2,6\n", "3,7\n", "0,4\n", "1,5\n", "2,6\n", "3,7\n"];
        let halves = folder("halves", &halves.map(|siblings| (siblings, None)));
        for (allowed, of_pairs, of_halves) in
            [("0-7", 4, 4), ("0-3", 2, 4), ("0,2,4,6", 4, 2), ("1,5", 2, 1), ("7", 1, 1)]
        {
            assert_eq!(cores_of(&pairs, allowed), Some(of_pairs), "{allowed}");
            assert_eq!(cores_of(&halves, allowed), Some(of_halves), "{allowed}");
        }
        // an unreadable list forbids nothing
        for allowed in ["", "all", "0-", "3-x"] {
            assert_eq!(cores_of(&pairs, allowed), Some(4), "{allowed}");
        }
    }

    #[test]
    fn the_small_cores_of_intel_are_left_out() {
        // two large cores of two threads, four small ones, and no capacities
        let siblings = ["0-1\n", "0-1\n", "2-3\n", "2-3\n", "4\n", "5\n", "6\n", "7\n"];
        let mixed = folder("hybrid", &siblings.map(|siblings| (siblings, None)));
        std::fs::create_dir_all(mixed.0.join("cpu_core")).unwrap();
        std::fs::write(mixed.0.join("cpu_core/cpus"), "0-3\n").unwrap();
        assert_eq!(cores_of(&mixed, "0-7"), Some(2));
        assert_eq!(cores_of(&mixed, "2-6"), Some(1));
        // no large core may be used
        assert_eq!(cores_of(&mixed, "4-6"), Some(3));
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
            let cache = two.0.join(format!("system/cpu/cpu{processor}/cache/index{level}"));
            std::fs::create_dir_all(&cache).unwrap();
            let level = level.to_string();
            for (name, text) in [("level", &*level), ("shared_cpu_list", sharing), ("size", size)] {
                std::fs::write(cache.join(name), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(cache_bytes(&two.0.join("system/cpu")), Some(128 << 20));
        std::fs::write(two.0.join("system/cpu/cpu2/cache/index3/size"), "much").unwrap();
        assert_eq!(cache_bytes(&two.0.join("system/cpu")), None);
        assert_eq!(cache_bytes(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn little_cores_are_left_out() {
        let capacities = ["250", "250", "250", "250", "780", "780", "780", "1024"];
        let numbers = ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"];
        let mixed: Vec<_> = numbers.into_iter().zip(capacities.map(Some)).collect();
        assert_eq!(cores(&folder("mixed", &mixed).0), Some(4));
        // the largest capacity counts, not 1024, and three fifths of it are enough
        let slow = [("0\n", Some("512\n")), ("1\n", Some("308\n")), ("2\n", Some("307\n"))];
        assert_eq!(cores(&folder("slow", &slow).0), Some(2));
        // the capacities of an M2, derived from its device tree and clocks
        let apple = ["571", "571", "571", "571", "1024", "1024", "1024", "1024"];
        let apple: Vec<_> = numbers.into_iter().zip(apple.map(Some)).collect();
        assert_eq!(cores(&folder("apple", &apple).0), Some(4));
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
