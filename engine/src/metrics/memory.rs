//! The one budget of memory, pool by pool, beside what the process really holds.

use storage::memory::{Memory, Pool};

use super::exposition::Exposition;
use super::process::{Idle, Process};
use crate::allocator;

pub(super) fn write(out: &mut Exposition, memory: &Memory, idle: &Idle) {
    for (name, help, value) in [
        ("floodmark_memory_max_bytes", "The cap of the process's memory.", memory.memory_max()),
        ("floodmark_memory_base_bytes", "What is set aside for the process itself.", memory.base_bytes()),
        ("floodmark_memory_idle_bytes", "What the process held when it was ready.", idle.bytes()),
        (
            "floodmark_memory_used_bytes",
            "What it held when it was ready, pages of its binary since, what all pools lend, and what is kept.",
            used_in_all(memory, idle, &Process::this()),
        ),
        ("floodmark_memory_kept_bytes", "Freed memory that waits for its next use.", allocator::kept_bytes()),
    ] {
        out.gauge(name, help);
        out.value(name, &[], value as f64);
    }
    out.gauge("floodmark_memory_pool_used_bytes", "Bytes that a pool lends.");
    for pool in Pool::ALL {
        out.value("floodmark_memory_pool_used_bytes", &[("pool", pool.as_str())], memory.used(pool) as f64);
    }
    out.gauge("floodmark_memory_pool_max_bytes", "Bytes that a pool lends at most.");
    for pool in Pool::ALL {
        out.value("floodmark_memory_pool_max_bytes", &[("pool", pool.as_str())], memory.max(pool) as f64);
    }
    let name = "floodmark_memory_refusals";
    out.counter(name, "Times that a pool lent nothing, to a tenant over its share or to anybody.");
    for pool in Pool::ALL {
        let (share, whole) = memory.refused(pool);
        out.count(name, &[("pool", pool.as_str()), ("reason", "share")], share);
        out.count(name, &[("pool", pool.as_str()), ("reason", "whole")], whole);
    }
}

/// What the process should hold by what is counted: what is its own, what is lent, and what was and waits.
#[must_use]
pub fn used_in_all(memory: &Memory, idle: &Idle, now: &Process) -> u64 {
    with_kept(idle.own_bytes(now) + lent_bytes(memory), allocator::kept_bytes(), now.resident_bytes)
}

fn lent_bytes(memory: &Memory) -> u64 {
    Pool::ALL.into_iter().map(|pool| memory.used(pool)).sum()
}

/// The sum with what waits for its next use, as far as the process can hold it: among the pages that the allocator keeps
/// are such that nobody ever wrote to, and the kernel has given none of these.
fn with_kept(used: u64, kept: u64, resident: u64) -> u64 {
    used + kept.min(resident.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::with_kept;

    #[test]
    fn what_waits_is_counted_as_far_as_the_process_holds_it() {
        assert_eq!(with_kept(100, 30, 200), 130);
        assert_eq!(with_kept(100, 30, 110), 110, "the rest was never written to");
        assert_eq!(with_kept(100, 30, 90), 100, "what is lent counts before it is used");
    }
}
