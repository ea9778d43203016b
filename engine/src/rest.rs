//! When there is so little to do that giving memory back costs nobody: for one lane, and for the whole process.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::allocator::{give_back, is_tight};
use crate::clock::Clock;

/// When a lane was last busy, in nanoseconds of the monotonic clock.
static BUSY_NS: AtomicU64 = AtomicU64::new(0);

/// Tells when a lane has so little to do that giving memory back costs nobody.
#[derive(Debug, Default)]
pub struct Rest {
    ticks: u32,
}

/// Requests of a lane in one second up to which it counts as at rest.
const LIGHT_REQUESTS: u64 = 50;

/// Ticks between two times of giving back while the rest goes on: what other threads freed meanwhile.
const AGAIN_TICKS: u32 = 5;

impl Rest {
    /// One second has passed, in which so many requests came. At the first second of rest, and now and then while it
    /// lasts, has the lane `let_go` of what it keeps for its next work, and gives memory back.
    pub fn tick(&mut self, requests: u64, let_go: impl FnOnce()) {
        if requests > LIGHT_REQUESTS {
            BUSY_NS.store(Clock::monotonic_ns(), Ordering::Relaxed);
        }
        if requests > LIGHT_REQUESTS && !is_tight() {
            self.ticks = 0;
            return;
        }
        if self.ticks.is_multiple_of(AGAIN_TICKS) || is_tight() {
            let_go();
            give_back();
        }
        self.ticks = self.ticks.wrapping_add(1);
    }
}

/// Which time of one rest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Lanes were busy before.
    First,
    /// Only background work went on since the last time.
    Again,
}

/// Tells when all lanes have been at rest for a while, so that threads are to be woken to give memory back.
#[derive(Debug, Default)]
pub struct Quiet {
    told_ns: Option<u64>,
}

/// Rest of all lanes before threads are woken. Chosen: longer than a pause between two bursts of a steady load.
const QUIET_NS: u64 = 5_000_000_000;

/// Between two times while the rest goes on: what background work freed meanwhile.
const QUIET_AGAIN_NS: u64 = 10_000_000_000;

impl Quiet {
    /// Whether it is time, and whether for the first time since lanes were busy.
    pub fn due(&mut self) -> Option<Due> {
        self.due_at(Clock::monotonic_ns(), BUSY_NS.load(Ordering::Relaxed))
    }

    fn due_at(&mut self, now_ns: u64, busy_ns: u64) -> Option<Due> {
        if now_ns.saturating_sub(busy_ns) < QUIET_NS {
            return None;
        }
        let due = match self.told_ns {
            Some(told_ns) if told_ns >= busy_ns => Due::Again,
            _ => Due::First,
        };
        let is_soon = |told_ns: u64| now_ns.saturating_sub(told_ns) < QUIET_AGAIN_NS;
        if due == Due::Again && self.told_ns.is_some_and(is_soon) {
            return None;
        }
        self.told_ns = Some(now_ns);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::{Due, QUIET_AGAIN_NS, QUIET_NS, Quiet};

    #[test]
    fn threads_are_woken_when_all_lanes_rest() {
        let mut quiet = Quiet::default();
        let busy = 7 * QUIET_NS;
        assert_eq!(quiet.due_at(busy + QUIET_NS - 1, busy), None);
        assert_eq!(quiet.due_at(busy + QUIET_NS, busy), Some(Due::First));
        assert_eq!(quiet.due_at(busy + QUIET_NS + 1, busy), None, "once");
        let again = busy + QUIET_NS + QUIET_AGAIN_NS;
        assert_eq!(quiet.due_at(again, busy), Some(Due::Again), "for what was freed since");
        let busy = again + 1;
        assert_eq!(quiet.due_at(busy + 1, busy), None);
        assert_eq!(quiet.due_at(busy + QUIET_NS, busy), Some(Due::First), "after each burst");
    }

    // A name that the allocator does not know, or a value of another type, would change nothing and say nothing.
}
