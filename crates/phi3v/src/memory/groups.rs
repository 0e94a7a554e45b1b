//! What the control groups of Linux leave to this process: containers, sessions and jobs have their own limits.

use std::path::Path;

/// Where the groups of a cgroup version are, and what their files are called.
struct Hierarchy {
    root: &'static str,
    /// The controller that its line in `/proc/self/cgroup` must list.
    controller: &'static str,
    /// The files with a group's limits, in bytes. Beyond one limit the group is killed, beyond the other it is slowed
    /// down to a standstill.
    limits: &'static [&'static str],
    /// Fields of `memory.stat`: bytes of the group and its subgroups that cannot be released, private and shared. Page
    /// cache can be released, so it is not among them.
    held: [&'static str; 2],
}

const VERSIONS: [Hierarchy; 2] = [
    Hierarchy {
        root: "/sys/fs/cgroup",
        controller: "",
        limits: &["memory.max", "memory.high"],
        held: ["anon", "shmem"],
    },
    Hierarchy {
        root: "/sys/fs/cgroup/memory",
        controller: "memory",
        limits: &["memory.limit_in_bytes"],
        held: ["total_rss", "total_shmem"],
    },
];

/// Bytes that the limits on this process's memory leave; `None` if there are no limits.
pub(super) fn bytes_left() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = |version: &Hierarchy| version.left(Path::new(version.root), version.group(&groups)?);
    VERSIONS.iter().filter_map(left).min()
}

impl Hierarchy {
    /// This process's group, from lines `number:controllers:group`.
    fn group<'a>(&self, groups: &'a str) -> Option<&'a str> {
        groups.lines().find_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == self.controller).then_some(group)
        })
    }

    /// The least that the group and its ancestors leave: what another group holds counts against a limit shared with this
    /// one. A container may have its own group as root, in which case its outer name leads nowhere.
    fn left(&self, root: &Path, group: &str) -> Option<u64> {
        let left = Path::new(group.trim_start_matches('/')).ancestors().filter_map(|group| {
            let text = |name: &str| std::fs::read_to_string(root.join(group).join(name)).ok();
            // "max" is no limit
            let limit = |name: &&str| text(name)?.trim().parse::<u64>().ok();
            let limit = self.limits.iter().filter_map(limit).min()?;
            let held = text("memory.stat")?
                .lines()
                .filter_map(|line| line.split_once(' '))
                .filter(|(name, _)| self.held.contains(name))
                .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
                .sum();
            Some(limit.saturating_sub(held))
        });
        left.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_told_by_its_controllers() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/jobs/a:b\n0::/user.slice\n";
        assert_eq!(
            VERSIONS.each_ref().map(|version| version.group(groups)),
            [Some("/user.slice"), Some("/jobs/a:b")]
        );
        assert_eq!(VERSIONS[1].group("0::/\n"), None);
    }

    #[test]
    fn what_others_hold_counts_against_a_shared_limit() {
        let root = std::env::temp_dir().join(format!("phi3v-groups-{}", std::process::id()));
        let write = |group: &str, limit: &str, held: u64| {
            std::fs::create_dir_all(root.join(group)).unwrap();
            std::fs::write(root.join(group).join("memory.max"), format!("{limit}\n")).unwrap();
            let stat = format!("file 77\nanon {}\nanon_thp 5\nshmem {}\n", held / 4, held - held / 4);
            std::fs::write(root.join(group).join("memory.stat"), stat).unwrap();
        };
        write("slice", "16000", 10_000);
        write("slice/one", "max", 3);
        write("slice/two", "9000", 8_000);
        write("free", "max", 3);
        write("full", "5", 8);
        for (group, max, high) in
            [("high", "max", "5000"), ("low", "4000", "7000"), ("slice/high", "max", "2000")]
        {
            write(group, max, 1_000);
            std::fs::write(root.join(group).join("memory.high"), format!("{high}\n")).unwrap();
        }
        let left = |group| VERSIONS[0].left(&root, group);
        // the slice's limit of 16,000, of which its groups together hold 10,000
        assert_eq!(left("/slice/one"), Some(6_000));
        assert_eq!(left("/slice/two/of/a/container"), Some(1_000));
        assert_eq!([left("/free"), left("/"), left("/nowhere"), left("/full")], [None, None, None, Some(0)]);
        // `memory.high` slows a group down to a standstill
        assert_eq!(
            [left("/high/in"), left("/low"), left("/slice/high")],
            [Some(4_000), Some(3_000), Some(1_000)]
        );
        // a container whose group is the root
        write("", "4000", 1_000);
        assert_eq!(left("/docker/0123"), Some(3_000));
        std::fs::remove_dir_all(root).unwrap();
    }
}
