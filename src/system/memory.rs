//! Memory: what the process has now and had at most, and how much RAM it can still take. Each is `None` if the system does not
//! tell. The report prints the first two; a run fits itself into the third.

#[cfg(target_os = "linux")]
use std::path::Path;

/// Resident bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// What the system says; `None` where it does not.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name| Some(field(status, name)? * 1024);
        let resident = bytes("VmRSS:")?;
        // The kernel counts in batches, and the two need not fit.
        let peak = bytes("VmHWM:")?.max(resident);
        Some(Self { resident, peak })
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of RAM that the process can still take: what the system has free, and what the limits of its control groups leave.
#[cfg(target_os = "linux")]
pub(crate) fn free_memory() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.and_then(|text| Some(field(&text, "MemAvailable:")? * 1024));
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok();
    let groups = groups.and_then(|text| free_in_groups(Path::new("/sys/fs/cgroup"), &text));
    [system, groups].into_iter().flatten().min()
}

/// The same elsewhere, where there are no control groups.
#[cfg(not(target_os = "linux"))]
pub(crate) fn free_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    Some(system.available_memory()).filter(|bytes| *bytes > 0)
}

/// What the control groups of `/proc/self/cgroup` leave. The limits of all groups above one hold for it too.
#[cfg(target_os = "linux")]
fn free_in_groups(root: &Path, membership: &str) -> Option<u64> {
    let free = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        // The second version has one tree for all controllers, the first one a tree for each.
        let (root, files) = if controllers.is_empty() {
            (
                root.to_path_buf(),
                ["memory.max", "memory.current", "inactive_file "],
            )
        } else if controllers.split(',').any(|name| name == "memory") {
            let files = [
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ];
            (root.join("memory"), files)
        } else {
            return None;
        };
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|group| group.starts_with(&root));
        above.filter_map(|group| free_in_group(group, files)).min()
    };
    membership.lines().filter_map(free).min()
}

/// `None` without a limit. Pages of files that were not used lately are given up when memory is needed.
#[cfg(target_os = "linux")]
fn free_in_group(group: &Path, [limit, usage, unused]: [&str; 3]) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let unused = read("memory.stat")
        .and_then(|text| field(&text, unused))
        .unwrap_or(0);
    let used = number(usage)?.saturating_sub(unused);
    Some(number(limit)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words() {
        let status = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!(
            memory,
            Memory {
                resident: 1_024_000,
                peak: 2_048_000
            }
        );
        assert_eq!(Memory::parse("VmRSS:\t1000 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn something_is_free_and_not_more_than_there_is() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let free = free_memory().unwrap();
        assert!(free > 0 && free <= field(&meminfo, "MemTotal:").unwrap() * 1024);
    }

    /// Groups as both versions lay them out: the tightest limit on the way up counts, and unused pages of files are free.
    #[test]
    #[cfg(target_os = "linux")]
    fn limits_of_control_groups() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, files: &[(&str, &str)]| {
            let folder = root.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in files {
                std::fs::write(folder.join(name), text).unwrap();
            }
        };
        let free = |membership: &str| free_in_groups(root.path(), membership);
        assert_eq!(free("0::/a/b\n"), None);
        group("a/b", &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        assert_eq!(free("0::/a/b\n"), None);
        let stat = "anon 1\nactive_file 9\ninactive_file 300\n";
        group(
            "a",
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "700\n"),
                ("memory.stat", stat),
            ],
        );
        assert_eq!(free("0::/a/b\n"), Some(600));
        // A container sees its own group as the root, under a path that is not there.
        let files = [
            ("memory.limit_in_bytes", "500\n"),
            ("memory.usage_in_bytes", "900\n"),
        ];
        group("memory", &files);
        assert_eq!(free("3:cpu:/x\n4:cpuset,memory:/not/there\n0::/\n"), Some(0));
    }
}
