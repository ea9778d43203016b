//! Where a process runs that is to be kept within bounds: a group of its own with a memory limit, a small disk.
//!
//! Both need root. The group is cgroup v2's where the machine has it, else v1's; neither is made inside the group of the
//! tests, which stay outside the limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::skipped;

/// A memory group, removed at its end.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// Makes a group of at most `bytes`, swap included; `None`, said aloud, where the machine does not let us.
    pub fn make(bytes: u64) -> Option<Self> {
        let name = format!("floodmark-test-{}-{}", std::process::id(), unique());
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let is_v2 = fs::read_to_string(v2.join("cgroup.subtree_control"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|one| one == "memory"));
        let folder = if is_v2 { v2.join(name) } else { v1.join(name) };
        let group = Self { folder, is_v2 };
        let is_made = (is_v2 || v1.is_dir()) && fs::create_dir(&group.folder).is_ok();
        let limits = if is_v2 {
            [("memory.max", bytes), ("memory.swap.max", 0)]
        } else {
            [("memory.limit_in_bytes", bytes), ("memory.memsw.limit_in_bytes", bytes)]
        };
        // A machine without swap may lack the second.
        let is_limited = is_made
            && limits
                .iter()
                .enumerate()
                .all(|(index, (file, bytes))| group.write(file, *bytes).is_ok() || index == 1);
        if !is_limited {
            skipped("no memory group can be made here (root may): the limit is one of address space");
            return None;
        }
        Some(group)
    }

    fn write(&self, file: &str, bytes: u64) -> std::io::Result<()> {
        fs::write(self.folder.join(file), bytes.to_string())
    }

    /// What a shell does to be in the group.
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.folder.display())
    }

    /// Memory of the group's processes that no file backs, now.
    pub fn used(&self) -> u64 {
        self.reader()()
    }

    /// What reads [`Self::used`], for a thread of its own.
    pub fn reader(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let (file, name) = (self.folder.join("memory.stat"), if self.is_v2 { "anon" } else { "total_rss" });
        move || field(&file, name)
    }

    /// Processes that the kernel ended for memory.
    pub fn kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        field(&self.folder.join(file), "oom_kill")
    }
}

/// A number that a file tells behind a name.
fn field(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that was just killed may still be in it.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A file system of its own in a file, gone with its value.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Makes and mounts one of `bytes`; `None`, said aloud, where the machine does not let us.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("disk"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap();
        let is_done = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
        // Every block of the image is written before it is used: one that is only taken is noted in the journal of the
        // file system below at its first write, and a sync on this disk would wait for what others do to that one.
        let make = ["-q", "-F", "-m", "0", "-E", "nodiscard"];
        let mut zeros = Command::new("dd");
        zeros.args(["if=/dev/zero", "bs=1M", "conv=fsync"]).arg(format!("count={}", bytes.div_ceil(1 << 20)));
        zeros.arg(format!("of={}", image.display()));
        if !is_done(&mut zeros)
            || !is_done(Command::new("mkfs.ext4").args(make).arg(&image))
            || !is_done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))
        {
            skipped("no small file system can be mounted here (root may): the disk has no limit");
            return None;
        }
        let disk = Self { folder };
        disk.write_directly();
        Some(disk)
    }

    /// Has the mapping write to the image past the machine's page cache, where its kernel and the file system below can.
    ///
    /// Otherwise a sync of one file waits for all that anybody wrote to the disk, which lies in the image's pages: no
    /// real disk does that.
    fn write_directly(&self) {
        let told = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(self.path()).output();
        let device =
            told.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default();
        let is_done = Command::new("losetup").args(["--direct-io=on", &device]).status();
        if !is_done.is_ok_and(|status| status.success()) {
            skipped(
                "the small disk writes through the page cache: waits for its syncs are longer than a disk's",
            );
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// The share of a folder's file system that is free.
pub fn free_share(folder: &Path) -> f64 {
    let told = Command::new("df").args(["--output=avail,size", "-B1"]).arg(folder).output();
    let told = told.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
    let mut numbers =
        told.lines().last().unwrap_or_default().split_whitespace().map(|one| one.parse::<f64>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(free)), Some(Ok(size))) if size > 0.0 => free / size,
        _ => 1.0,
    }
}

/// Resident memory of one process, now.
pub fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Memory of one process that no file stands behind, now: what it asked for, without pages of its own binary.
pub fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let told = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    told.and_then(|told| told.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Memory of a process and everything it started: `(resident now, largest of one child now, children)`.
pub fn resident_of_all(pid: u32) -> (u64, u64, usize) {
    let of_children: Vec<u64> = children(pid).into_iter().map(resident).collect();
    (
        resident(pid) + of_children.iter().sum::<u64>(),
        of_children.iter().copied().max().unwrap_or(0),
        of_children.len(),
    )
}

/// Every process below `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|one| one.parse().ok()) {
            found.push(child);
            found.extend(children(child));
        }
    }
    found
}

/// A number for each call of this process.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
