//! What the kernel says a process has used: its own accounting, the steadiest figure on a busy machine.

use std::io;
use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// CPU time, user and system, of all its threads.
    pub cpu: Duration,
    /// Largest resident memory ever, in bytes.
    pub memory_bytes_max: u64,
}

/// Ticks a second in which the kernel shows CPU time: 100 on every Linux, whatever its own timer does.
const TICKS_PER_SECOND: u64 = 100;

/// Reads what process `pid` has used.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub fn used(pid: u32) -> io::Result<Used> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "the process table cannot be read");
    Ok(Used { cpu: cpu_of(&stat).ok_or_else(unreadable)?, memory_bytes_max: memory_of(&status).unwrap_or(0) })
}

/// Reads the CPU time of the calling thread.
///
/// # Errors
/// When there is no `/proc`.
pub fn thread_cpu() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
    cpu_of(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the process table cannot be read"))
}

/// Reads fields 14 and 15; the name in field 2 may hold spaces and parentheses.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * (1_000 / TICKS_PER_SECOND)))
}

fn memory_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounting_is_read_whatever_the_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 1 2 3";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("42"), None);
        assert_eq!(memory_of("Name:\tx\nVmHWM:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(memory_of("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(used(std::process::id()).expect("it runs").memory_bytes_max > 0);
        assert!(used(u32::MAX).is_err());
    }
}
