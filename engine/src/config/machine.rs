//! How much memory there is, and how much of it is ours by default.
//!
//! A process in a container is killed at its cgroup's limit, whatever the machine has. The limit is found from
//! `/proc/self/cgroup`, for version 1 and 2, at the group itself and at every group above it: the least counts.

use std::path::Path;

use storage::memory::MEMORY_BYTES_MIN;

/// The serving process's part by default, in bytes, on up to two cores. Chosen: what the figures are taken with.
const MEMORY_BYTES: u64 = 350_000_000;

/// More for each core beyond two, in bytes: each is one more lane with its scratch.
const CORE_BYTES: u64 = 50_000_000;

/// The query workers' part by default, in bytes.
const QUERY_MEMORY_BYTES: u64 = 512_000_000;

/// What stands for no limit where nothing can be read: as if the machine had no end.
const UNKNOWN: u64 = u64::MAX;

/// What this process runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores that may be used.
    pub cores: usize,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// The least limit of the process's cgroups, in bytes; `None` = no limit.
    pub cgroup_bytes: Option<u64>,
}

impl Machine {
    /// Looks at the machine that this process runs on.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        let groups = read("/proc/self/cgroup").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            memory_bytes: memory_total(&meminfo).unwrap_or(UNKNOWN),
            cgroup_bytes: cgroup_limit(&groups, read),
        }
    }

    /// The cap of the serving process where none is configured, in bytes: at most a quarter of the machine's memory
    /// and 60 % of its cgroup's limit.
    #[must_use]
    pub fn memory_max(&self) -> u64 {
        let more_cores = u64::try_from(self.cores.saturating_sub(2)).unwrap_or(0);
        let wanted = CORE_BYTES.saturating_mul(more_cores).saturating_add(MEMORY_BYTES);
        let of_cgroup = self.cgroup_bytes.map_or(UNKNOWN, |bytes| bytes / 10 * 6);
        wanted.min(self.memory_bytes / 4).min(of_cgroup).max(MEMORY_BYTES_MIN)
    }

    /// The cap of all query workers where none is configured, in bytes: at most a quarter of what there is.
    #[must_use]
    pub fn query_memory_max(&self) -> u64 {
        QUERY_MEMORY_BYTES.min(self.limit() / 4)
    }

    /// What there is, in bytes: the machine's memory, or its cgroup's limit where that is less.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.cgroup_bytes.unwrap_or(UNKNOWN).min(self.memory_bytes)
    }
}

/// The machine's memory by `/proc/meminfo`.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The least memory limit of the groups that `/proc/self/cgroup` names, and of all above them.
///
/// `read` gives a file's text. In a container the path may be the host's, and the file system that is mounted begins
/// at the group itself: the walk up to the root finds it there.
fn cgroup_limit(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|one| one == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(path).ancestors() {
            let group = group.to_string_lossy();
            let separator = if group.ends_with('/') { "" } else { "/" };
            // "max" is no number, and no limit.
            let limit =
                read(&format!("{root}{group}{separator}{file}")).and_then(|text| text.trim().parse().ok());
            least = match (least, limit) {
                (Some(least), Some(limit)) => Some(u64::min(least, limit)),
                (least, limit) => least.or(limit),
            };
        }
    }
    // Version 1 says "no limit" as a number of pages that no machine has.
    least.filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {

    use super::{MEMORY_BYTES_MIN, Machine, cgroup_limit, memory_total};

    const GB: u64 = 1_000_000_000;

    #[test]
    fn the_cap_follows_cores_machine_and_cgroup() {
        let check = |cores, memory_bytes, cgroup_bytes, expected: (u64, u64)| {
            let machine = Machine { cores, memory_bytes, cgroup_bytes };
            let got = (machine.memory_max() / 1_000_000, machine.query_memory_max() / 1_000_000);
            assert_eq!(got, expected, "{machine:?}");
        };
        check(1, 16 * GB, None, (350, 512));
        check(2, 16 * GB, None, (350, 512));
        check(8, 64 * GB, None, (650, 512));
        // A quarter of the machine.
        check(8, GB, None, (250, 250));
        // 60 % of the cgroup, and a quarter of it for the workers.
        check(2, 64 * GB, Some(GB / 2), (300, 125));
        check(64, 64 * GB, Some(GB), (600, 250));
        check(2, 64 * GB, Some(GB), (350, 250));
        check(2, u64::MAX, None, (350, 512));
        let tiny = Machine { cores: 1, memory_bytes: 1 << 20, cgroup_bytes: Some(1 << 20) };
        assert_eq!(tiny.memory_max(), MEMORY_BYTES_MIN);
    }

    #[test]
    fn the_least_limit_on_the_way_to_the_root_counts() {
        let check = |groups: &str, files: &[(&str, &str)], expected: Option<u64>| {
            let read =
                |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
            assert_eq!(cgroup_limit(groups, read), expected, "{groups} {files:?}");
        };
        let v2 = "0::/kube/pod1/c1\n";
        check(v2, &[], None);
        check(v2, &[("/sys/fs/cgroup/kube/pod1/c1/memory.max", "max\n")], None);
        check(v2, &[("/sys/fs/cgroup/kube/pod1/c1/memory.max", "1000\n")], Some(1000));
        check(
            v2,
            &[
                ("/sys/fs/cgroup/kube/pod1/c1/memory.max", "max\n"),
                ("/sys/fs/cgroup/kube/pod1/memory.max", "500\n"),
                ("/sys/fs/cgroup/kube/memory.max", "900\n"),
            ],
            Some(500),
        );
        // The host's path, and a file system that begins at the group.
        check(v2, &[("/sys/fs/cgroup/memory.max", "700\n")], Some(700));
        let v1 = "12:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n";
        check(v1, &[("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "4096\n")], Some(4096));
        check(v1, &[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n")], Some(8192));
        check(v1, &[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")], None);
        check("garbage\n\n:::\n", &[], None);
        check("0::/../../outside\n", &[("/sys/fs/cgroup/memory.max", "12\n")], Some(12));
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(memory_total("MemTotal:       16000 kB\nMemFree: 1 kB\n"), Some(16_000 << 10));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert!(Machine::this().memory_bytes > 1 << 20);
    }
}
