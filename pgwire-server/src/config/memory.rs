//! How much memory this process may take: what the default of the cache is made of.
//!
//! Linux tells the machine's memory in `/proc/meminfo` (proc_meminfo(5)), the control groups of the process in
//! `/proc/self/cgroup` (cgroups(7)), and their limits below `/sys/fs/cgroup`: `memory.max` in version 2, where a group
//! without one says `max`, `memory.limit_in_bytes` in version 1, where it says more than any machine has. A group has
//! what those above it leave, too. In a container its own group is often the only one to be seen.
//!
//! Asked by the settings of a server once. It never looks at what is in use.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The smallest of the machine's memory and the limits of this process' groups, in bytes; `None` where nothing tells.
pub fn allowed_bytes() -> Option<u64> {
    allowed(|path| fs::read_to_string(path).ok())
}

fn allowed(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limit = |file: PathBuf| read(&file)?.trim().parse::<u64>().ok();
    let limits = groups.lines().flat_map(limit_files).filter_map(limit);
    machine.into_iter().chain(limits).min()
}

/// Of `/proc/meminfo`, whose kB are 1,024 bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// What may limit the memory of a group, and of those above it. `line`: `hierarchy:controllers:group`.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, name) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|one| one == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let group = Path::new(group.trim_start_matches('/'));
    group.ancestors().map(|group| Path::new(root).join(group).join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       16384256 kB\nMemFree:          519368 kB\nSwapTotal:       2097148 kB\n";
    const MACHINE: u64 = 16_384_256 * 1024;
    const VERSION_1: &str = "12:cpu,cpuacct:/a\n9:memory:/docker/5f\n1:name=systemd:/a\n0::/a\n";

    fn found(files: &[(&str, &str)]) -> Option<u64> {
        allowed(|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_counts() {
        let machine = ("/proc/meminfo", MEMINFO);
        let group = ("/proc/self/cgroup", "0::/system.slice/sepal.service\n");
        let own = "/sys/fs/cgroup/system.slice/sepal.service/memory.max";
        let above = "/sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[machine]), Some(MACHINE));
        assert_eq!(found(&[machine, group]), Some(MACHINE), "no limits are to be seen");
        assert_eq!(found(&[machine, group, (own, "max\n"), (above, "max\n")]), Some(MACHINE));
        assert_eq!(found(&[machine, group, (own, "2147483648\n"), (above, "max\n")]), Some(1 << 31));
        assert_eq!(found(&[machine, group, (own, "max\n"), (above, "1073741824\n")]), Some(1 << 30));
        assert_eq!(found(&[machine, group, (own, "99999999999999\n")]), Some(MACHINE), "more than there is");
        assert_eq!(found(&[group, (own, "2147483648\n")]), Some(1 << 31));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let machine = ("/proc/meminfo", MEMINFO);
        let limit = ("/sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(found(&[machine, ("/proc/self/cgroup", "0::/\n"), limit]), Some(1 << 29));
        // Of version 1 it is told what its group is called outside.
        let groups = ("/proc/self/cgroup", VERSION_1);
        let limit = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(found(&[machine, groups, limit]), Some(1 << 29));
        let own = ("/sys/fs/cgroup/memory/docker/5f/memory.limit_in_bytes", "268435456\n");
        assert_eq!(found(&[machine, groups, limit, own]), Some(1 << 28));
        let none = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found(&[machine, groups, none]), Some(MACHINE));
    }

    #[test]
    fn what_does_not_read_as_expected_is_passed_over() {
        for text in
            ["", "MemTotal:", "MemTotal: kB", "MemTotal: many kB", "MemTotal: 18446744073709551615 kB"]
        {
            assert_eq!(found(&[("/proc/meminfo", text)]), None, "{text:?}");
        }
        let limit = ("/sys/fs/cgroup/memory.max", "1024\n");
        for groups in ["", "nothing", "0:", "7:cpu:/"] {
            assert_eq!(found(&[("/proc/self/cgroup", groups), limit]), None, "{groups:?}");
        }
    }
}
