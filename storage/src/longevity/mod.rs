//! What a deployment costs over hours and thousands of commits: measured, printed, bounded.
//!
//! Small sizes run with the other tests; the environment asks for the full ones (docs/PERFORMANCE.md).

pub(crate) mod counting;
mod hot;
mod ten_thousand;
mod trickle;

use std::time::Duration;

/// A size that the environment may set.
fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A figure of this process's memory, bytes: `VmRSS` or `VmHWM`.
fn memory_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

/// The middle of several durations.
fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
