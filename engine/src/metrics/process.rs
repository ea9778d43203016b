//! What the kernel says of this process: its memory, its descriptors, its threads, its time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::Exposition;

/// Ticks a second in `/proc/self/stat`: the same on every Linux that this runs on.
const TICKS: u64 = 100;

/// A look at this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Memory that it really holds, in bytes.
    pub resident_bytes: u64,
    /// The part of it that files stand behind: pages of its own binary, which are read in as they are needed.
    pub mapped_bytes: u64,
    /// Its address space, in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
    /// CPU time of all of them, in hundredths of a second.
    pub cpu_ticks: u64,
}

impl Process {
    /// Looks; what the kernel does not tell is 0.
    #[must_use]
    pub fn this() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        Self { open_fds, ..of(&read("status"), &read("stat")) }
    }
}

fn of(status: &str, stat: &str) -> Process {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>();
        kib.map_or(0, |kib| kib.saturating_mul(1 << 10))
    };
    // The name in brackets may hold anything: what counts stands behind the last of them, from the third field on.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    Process {
        resident_bytes: bytes("VmRSS:"),
        mapped_bytes: bytes("RssFile:"),
        virtual_bytes: bytes("VmSize:"),
        open_fds: 0,
        threads: field(20),
        cpu_ticks: field(14) + field(15),
    }
}

/// What the process held once it was ready and nobody had asked it anything.
#[derive(Debug, Default)]
pub struct Idle {
    resident_bytes: AtomicU64,
    mapped_bytes: AtomicU64,
}

impl Idle {
    /// Measures it: at the end of the start.
    pub fn measure(&self) {
        self.set(&Process::this());
    }

    fn set(&self, process: &Process) {
        self.resident_bytes.store(process.resident_bytes, Ordering::Relaxed);
        self.mapped_bytes.store(process.mapped_bytes, Ordering::Relaxed);
    }

    /// As it was measured, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    /// What the process holds now that nobody lent it, in bytes: what it held then, and what of its binary was read in
    /// since.
    #[must_use]
    pub fn own_bytes(&self, now: &Process) -> u64 {
        self.bytes() + now.mapped_bytes.saturating_sub(self.mapped_bytes.load(Ordering::Relaxed))
    }
}

pub(super) fn write(out: &mut Exposition, started_ns: i64) {
    let process = Process::this();
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory that the process really holds.",
            process.resident_bytes as f64,
        ),
        ("process_virtual_memory_bytes", "Address space of the process.", process.virtual_bytes as f64),
        ("process_open_fds", "Open descriptors.", process.open_fds as f64),
        ("process_threads", "Threads.", process.threads as f64),
        ("process_start_time_seconds", "When the process began, since 1970 UTC.", started_ns as f64 / 1e9),
    ] {
        out.gauge(name, help);
        out.value(name, &[], value);
    }
    out.counter("process_cpu_seconds", "CPU time of the process.");
    out.seconds("process_cpu_seconds", process.cpu_ticks * (1_000_000_000 / TICKS));
}

#[cfg(test)]
mod tests {
    use super::{Idle, Process, of};

    #[test]
    fn pages_of_the_binary_are_no_bodys_but_the_process_own() {
        let idle = Idle::default();
        idle.set(&of("VmRSS:\t 60 kB\nRssFile:\t 40 kB\n", ""));
        assert_eq!(idle.own_bytes(&of("VmRSS:\t 500 kB\nRssFile:\t 70 kB\n", "")), 90 << 10);
        assert_eq!(idle.own_bytes(&of("VmRSS:\t 30 kB\nRssFile:\t 10 kB\n", "")), 60 << 10);
    }

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 700 34 0 0 20 0 9 0 12345 0 0";
        let process =
            of("Name:\tx\nVmSize:\t  800 kB\nVmRSS:\t     200 kB\nRssFile:\t 70 kB\nThreads:\t9\n", stat);
        assert_eq!(
            process,
            Process {
                resident_bytes: 200 << 10,
                mapped_bytes: 70 << 10,
                virtual_bytes: 800 << 10,
                open_fds: 0,
                threads: 9,
                cpu_ticks: 734
            }
        );
        assert_eq!(of("", ""), Process::default());
        let this = Process::this();
        assert!(this.resident_bytes > 0 && this.threads > 0 && this.open_fds > 2, "{this:?}");
    }
}
