//! The allocator of every binary, and when its free memory goes back to the system.
//!
//! Memory that is given back under load is taken again a moment later, and the kernel clears every page of it in
//! between: that was 10 to 21 % of the CPU. So freed memory waits [`KEPT`] for its next use, and a process that has
//! nothing to do gives back all of it at once. Each thread has a heap of its own, which no other can tidy: lanes do
//! it when they were idle for a second ([`give_back`]), threads of runtimes when they park ([`tidy`]), and those that
//! parked too soon after the last time are woken for it once all lanes rest ([`Quiet`]). What waits is no part of any
//! budget, so it must not take the process to its cap: near it nothing waits ([`watch`]).
//!
//! Pages are small ones. A huge page is 2 MiB from its first byte on, and comes back after a part of it was given to
//! the system: with them a process held two to three times what was allocated in it.

use std::cell::Cell;
use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// Many small allocations of many sizes on many threads: what mimalloc is for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory waits for its next use while there is work. Chosen: longer than the pause between two
/// bursts of a steady load, such as two seals.
const KEPT: Duration = Duration::from_secs(10);

/// Between two tidyings of one thread. Chosen: what a seal has freed is given back before the next but one, and the
/// kernel clears some megabytes a second for it.
const TIDY_EVERY_NS: u64 = 2_000_000_000;

/// The same while the process is near its cap.
const TIDY_TIGHT_NS: u64 = 100_000_000;

/// Hundredths of the cap from which on freed memory waits no more, and below which it waits again.
const TIGHT_PERCENT: u64 = 75;
const LOOSE_PERCENT: u64 = 60;

/// When a lane was last busy, in nanoseconds of the monotonic clock.
static BUSY_NS: AtomicU64 = AtomicU64::new(0);

/// Whether the process is near its cap.
static IS_TIGHT: AtomicBool = AtomicBool::new(false);

/// `mi_option_purge_delay`, in milliseconds; the binding does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Sets how long freed memory waits, and keeps the kernel from making huge pages of it; call it before there is much.
pub fn start() {
    // SAFETY: sets a flag of this process's memory map, by numbers alone. A kernel that knows no huge pages makes none.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    set_delay(KEPT);
}

/// Gives back what the C library's own allocator keeps, which compressors take their memory from: it has an arena for
/// nearly each thread.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: walks that allocator's free memory under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn set_delay(delay: Duration) {
    let millis = c_long::try_from(delay.as_millis()).expect("ten seconds at most");
    // SAFETY: sets one word of the allocator's own options; any thread may, at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, millis) };
}

/// Gives back all memory that this thread's heap does not use, and what lies free between heaps.
///
/// Costs some milliseconds after a burst, and the next burst pays for clean pages: for the idle alone.
pub fn give_back() {
    // SAFETY: walks this thread's own heap and the free memory that all threads share under the allocator's own
    // locks; nothing that is in use moves or ends.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Looks how near the process, which holds `resident_bytes`, is to its cap.
pub fn watch(resident_bytes: u64, memory_max: u64) {
    let was_tight = is_tight();
    let percent = if was_tight { LOOSE_PERCENT } else { TIGHT_PERCENT };
    let is_tight = resident_bytes > memory_max / 100 * percent;
    if is_tight != was_tight {
        IS_TIGHT.store(is_tight, Ordering::Relaxed);
        set_delay(if is_tight { Duration::ZERO } else { KEPT });
    }
}

/// Whether the process is near its cap: whoever has a heap of its own is to give back what it does not use.
pub fn is_tight() -> bool {
    IS_TIGHT.load(Ordering::Relaxed)
}

/// Gives back what this thread's heap does not use, every second or so; for threads about to wait.
pub fn tidy() {
    thread_local! {
        static TIDIED_NS: Cell<u64> = const { Cell::new(0) };
    }
    let now_ns = Clock::monotonic_ns();
    TIDIED_NS.with(|tidied_ns| {
        let every_ns = if is_tight() { TIDY_TIGHT_NS } else { TIDY_EVERY_NS };
        if now_ns.saturating_sub(tidied_ns.get()) >= every_ns {
            tidied_ns.set(now_ns);
            give_back();
        }
    });
}

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
    /// Whether it is time.
    pub fn is_due(&mut self) -> bool {
        self.is_due_at(Clock::monotonic_ns(), BUSY_NS.load(Ordering::Relaxed))
    }

    fn is_due_at(&mut self, now_ns: u64, busy_ns: u64) -> bool {
        if now_ns.saturating_sub(busy_ns) < QUIET_NS {
            return false;
        }
        let is_due = self
            .told_ns
            .is_none_or(|told_ns| told_ns < busy_ns || now_ns.saturating_sub(told_ns) >= QUIET_AGAIN_NS);
        if is_due {
            self.told_ns = Some(now_ns);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::{QUIET_AGAIN_NS, QUIET_NS, Quiet};

    #[test]
    fn threads_are_woken_when_all_lanes_rest() {
        let mut quiet = Quiet::default();
        let busy = 7 * QUIET_NS;
        assert!(!quiet.is_due_at(busy + QUIET_NS - 1, busy));
        assert!(quiet.is_due_at(busy + QUIET_NS, busy));
        assert!(!quiet.is_due_at(busy + QUIET_NS + 1, busy), "once");
        assert!(quiet.is_due_at(busy + QUIET_NS + QUIET_AGAIN_NS, busy), "again, for what was freed since");
        let busy = busy + QUIET_NS + QUIET_AGAIN_NS + 1;
        assert!(!quiet.is_due_at(busy + 1, busy));
        assert!(quiet.is_due_at(busy + QUIET_NS, busy), "after each burst");
    }

    #[test]
    fn pages_are_small_ones() {
        super::start();
        // SAFETY: reads a flag of this process. A kernel that does not know the question has none either.
        let are_disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
        assert_ne!(are_disabled, 0);
    }
}
