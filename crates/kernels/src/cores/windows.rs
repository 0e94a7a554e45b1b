//! Counts cores from what Windows reports.

/// A core with one or more logical processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Core {
    /// Higher values are faster; all cores have the same value if they are alike.
    pub(super) efficiency_class: u8,
    /// The group of up to 64 logical processors that the core belongs to.
    pub(super) group: u16,
    /// Bit mask of its logical processors within the group.
    pub(super) processors: usize,
}

/// Returns the number of cores worth a thread: those the process may run on, without the cores of the lowest class if
/// there are several classes. The bits of `allowed` restrict the cores only if there is a single group. `None` if no
/// core is left.
pub(super) fn cores(told: &[Core], allowed: Option<usize>) -> Option<usize> {
    let groups = told.iter().map(|core| core.group).max()?;
    let allowed = allowed.filter(|_| groups == 0);
    let is_allowed = |core: &&Core| allowed.is_none_or(|allowed| core.processors & allowed != 0);
    let classes = || told.iter().filter(is_allowed).map(|core| core.efficiency_class);
    let (lowest, highest) = (classes().min()?, classes().max()?);
    Some(classes().filter(|&class| class > lowest || lowest == highest).count())
}

/// Parses the cores from the records that the system writes, of various sizes:
/// `SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX` with a `PROCESSOR_RELATIONSHIP` each.
fn parse(mut records: &[u8]) -> Vec<Core> {
    const SIZE: usize = 4;
    const EFFICIENCY_CLASS: usize = 9;
    const MASK: usize = 32;
    const GROUP: usize = MASK + size_of::<usize>();
    let mut cores = Vec::new();
    while let Some(size) = records[SIZE.min(records.len())..].first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((record, rest)) = records.split_at_checked(size) else { break };
        let (Some(&efficiency_class), Some(mask), Some(group)) = (
            record.get(EFFICIENCY_CLASS),
            record.get(MASK..).and_then(|bytes| bytes.first_chunk()),
            record.get(GROUP..).and_then(|bytes| bytes.first_chunk()),
        ) else {
            break;
        };
        let (processors, group) = (usize::from_le_bytes(*mask), u16::from_le_bytes(*group));
        cores.push(Core { efficiency_class, group, processors });
        records = rest;
    }
    cores
}

/// Returns the cores that the system reports; `None` if it refuses.
#[cfg(windows)]
pub(super) fn told() -> Option<Vec<Core>> {
    use windows_sys::Win32::System::SystemInformation::{
        GetLogicalProcessorInformationEx, RelationProcessorCore,
    };
    let mut bytes = 0;
    // SAFETY: without a buffer the call writes only the size that it needs.
    unsafe {
        GetLogicalProcessorInformationEx(RelationProcessorCore, std::ptr::null_mut(), &raw mut bytes);
    }
    // words, because the records must be aligned
    let mut words = vec![0u64; (bytes as usize).div_ceil(size_of::<u64>())];
    let buffer = words.as_mut_ptr().cast();
    // SAFETY: the call writes at most `bytes` bytes, which the buffer has.
    let done = unsafe { GetLogicalProcessorInformationEx(RelationProcessorCore, buffer, &raw mut bytes) };
    let records: &[u8] = bytemuck::cast_slice(&words);
    (done != 0).then(|| parse(&records[..records.len().min(bytes as usize)]))
}

/// Returns the mask of the logical processors of its group that this process may run on; `None` if the system does
/// not report it.
#[cfg(windows)]
pub(super) fn allowed() -> Option<usize> {
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessAffinityMask};
    let (mut process, mut system) = (0, 0);
    // SAFETY: the handle is that of this process, and the call writes two words.
    let done = unsafe { GetProcessAffinityMask(GetCurrentProcess(), &raw mut process, &raw mut system) };
    (done != 0 && process != 0).then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `cores` cores of a class, each with `threads` logical processors from number `first` on.
    fn of(class: u8, first: usize, cores: usize, threads: usize) -> impl Iterator<Item = Core> {
        (0..cores).map(move |i| Core {
            efficiency_class: class,
            group: 0,
            processors: ((1 << threads) - 1) << (first + threads * i),
        })
    }

    #[test]
    fn cores_count_once_and_those_of_the_lowest_class_do_not() {
        let alike: Vec<_> = of(0, 0, 4, 2).collect();
        assert_eq!(cores(&alike, None), Some(4));
        // 8 large cores of two threads, 8 small ones of one
        let mixed: Vec<_> = of(1, 0, 8, 2).chain(of(0, 16, 8, 1)).collect();
        assert_eq!(cores(&mixed, None), Some(8));
        let three: Vec<_> = of(2, 0, 6, 1).chain(of(1, 6, 8, 1)).chain(of(0, 14, 2, 1)).collect();
        assert_eq!(cores(&three, None), Some(14));
        assert_eq!(cores(&[], None), None);
    }

    #[test]
    fn only_cores_that_the_process_may_use_count() {
        let alike: Vec<_> = of(0, 0, 4, 2).collect();
        // both processors of one core and one of another
        assert_eq!(cores(&alike, Some(0b0111)), Some(2));
        let mixed: Vec<_> = of(1, 0, 8, 2).chain(of(0, 16, 8, 1)).collect();
        assert_eq!(cores(&mixed, Some(0xff_0000)), Some(8));
        assert_eq!(cores(&mixed, Some(0)), None);
        // the bits describe only one group
        let two_groups = [alike[0], Core { group: 1, ..alike[0] }];
        assert_eq!(cores(&two_groups, Some(0b100)), Some(2));
    }

    /// Returns a record as the system writes it.
    fn record(class: u8, mask: usize, group: u16) -> Vec<u8> {
        let size = 8 + 24 + size_of::<usize>() + 8;
        let head = [0u32.to_le_bytes(), (size as u32).to_le_bytes()].concat();
        let core = [&[1, class][..], &[0; 20], &1u16.to_le_bytes()].concat();
        let affinity = [&mask.to_le_bytes()[..], &group.to_le_bytes(), &[0; 6]].concat();
        [head, core, affinity].concat()
    }

    #[test]
    fn records_are_read_as_far_as_they_are_whole() {
        let two = [record(1, 0b11, 0), record(0, 0b100, 3)].concat();
        let first = Core { efficiency_class: 1, group: 0, processors: 0b11 };
        assert_eq!(parse(&two), [first, Core { efficiency_class: 0, group: 3, processors: 0b100 }]);
        assert_eq!(parse(&two[..two.len() - 1]), [first]);
        assert_eq!(parse(&two[..3]), []);
        assert_eq!(parse(&[0; 64]), []);
    }

    #[cfg(windows)]
    #[test]
    fn the_system_tells() {
        assert!(cores(&told().unwrap(), allowed()).unwrap() >= 1);
    }
}
