//! The allocator of every binary, and when its free memory goes back to the system.
//!
//! Memory that is given back under load is taken again a moment later, and the kernel clears every page of it in
//! between: that was 10 to 21 % of the CPU. So freed memory waits [`KEPT`] for its next use, and a process that has
//! nothing to do gives back all of it at once. Each thread keeps some freed pieces for itself, which no other can
//! return: lanes do it when they were idle for a second ([`give_back`]), threads of runtimes when they park ([`tidy`]),
//! and those that parked too soon after the last time are woken for it once all lanes rest ([`Quiet`]). What waits is
//! lent to nobody, so it must not take the process to its cap: it is counted ([`kept_bytes`]) and bounded, and near the
//! cap nothing waits ([`watch`]).
//!
//! Pages are small ones. A huge page is 2 MiB from its first byte on, and comes back after a part of it was given to
//! the system: with them a process held two to three times what was allocated in it.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tikv_jemalloc_sys::mallctl;

use crate::clock::Clock;

/// Few arenas, each for many threads: what many threads with a heap each keep for themselves is more than what they use
/// once a process rests (docs/decisions/0014-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena for each core; freed memory waits [`KEPT`]; no huge pages. The allocator reads it before `main`.
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: Option<&'static c_char> = Some({
    let text = c"narenas_ratio:1,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never";
    // SAFETY: the pointer is that of a text that lives for ever and is never written.
    unsafe { &*text.as_ptr() }
});

/// How long freed memory waits for its next use while there is work. Chosen: at full load half a second, one, two and ten
/// cost the same CPU.
const KEPT: Duration = Duration::from_secs(1);

/// Between two tidyings of one thread. Chosen: what a seal has freed is returned before the next but one.
const TIDY_EVERY_NS: u64 = 2_000_000_000;

/// The same while the process is near its cap.
const TIDY_TIGHT_NS: u64 = 100_000_000;

/// Hundredths of the cap that may wait. Chosen: a quarter of it was seen waiting within the second.
const KEPT_PERCENT: u64 = 10;

/// Hundredths of the cap from which on freed memory waits no more, and below which it waits again.
const TIGHT_PERCENT: u64 = 75;
const LOOSE_PERCENT: u64 = 60;

/// When a lane was last busy, in nanoseconds of the monotonic clock.
static BUSY_NS: AtomicU64 = AtomicU64::new(0);

/// Whether the process is near its cap.
static IS_TIGHT: AtomicBool = AtomicBool::new(false);

/// The allocator's name for all arenas together, `MALLCTL_ARENAS_ALL`; the binding does not name it.
const PURGE_ALL: &CStr = c"arena.4096.purge";

/// Keeps the kernel from making huge pages; call it before there is much memory.
pub fn start() {
    // SAFETY: sets a flag of this process's memory map, by numbers alone. A kernel that knows no huge pages makes none.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Has a thread of the allocator's own give back what waited [`KEPT`], so that no lane has to: for the server.
pub fn give_back_beside() {
    set(c"background_thread", true);
}

/// Gives back all memory that is free and that no thread keeps for itself.
///
/// The next burst pays for clean pages: for a process at rest.
pub fn release() {
    call(PURGE_ALL);
}

/// Returns the free pieces that this thread keeps for itself.
pub fn give_back() {
    call(c"thread.tcache.flush");
}

fn set_delay(delay: Duration) {
    let millis = isize::try_from(delay.as_millis()).expect("a second at most");
    // Of arenas to come, then of those there are; one that nobody used yet has none to set.
    set(c"arenas.dirty_decay_ms", millis);
    for arena in 0..get::<u32>(c"arenas.narenas").unwrap_or(0) {
        let name = CString::new(format!("arena.{arena}.dirty_decay_ms")).expect("no zero in it");
        set(&name, millis);
    }
}

/// A command of the allocator, by its name in jemalloc's manual. One that it does not take changes nothing.
fn call(name: &CStr) -> bool {
    // SAFETY: the name ends with a zero; the command takes no value and gives none.
    unsafe { mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) == 0 }
}

/// Sets one of the allocator's values. `T` is the type that jemalloc's manual names, else it is refused.
fn set<T: Copy>(name: &CStr, mut value: T) -> bool {
    let value = (&raw mut value).cast();
    // SAFETY: the name ends with a zero, and the value is read within its size.
    unsafe { mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), value, size_of::<T>()) == 0 }
}

/// Reads one of the allocator's values. `T` is the type that jemalloc's manual names, else there is none.
fn get<T: Copy + Default>(name: &CStr) -> Option<T> {
    let (mut value, mut size) = (T::default(), size_of::<T>());
    let at = (&raw mut value).cast();
    // SAFETY: the name ends with a zero, and no more is written than the size says.
    let code = unsafe { mallctl(name.as_ptr(), at, &raw mut size, ptr::null_mut(), 0) };
    (code == 0 && size == size_of::<T>()).then_some(value)
}

/// Bytes of freed memory that wait for their next use.
#[must_use]
pub fn kept_bytes() -> u64 {
    // The allocator's figures are those of when its epoch was last moved on.
    set(c"epoch", 1_u64);
    let pages = get::<usize>(c"stats.arenas.4096.pdirty").unwrap_or(0);
    (pages * get::<usize>(c"arenas.page").unwrap_or(0)) as u64
}

/// Looks how much waits for its next use, and how near the process, which holds `resident_bytes`, is to its cap.
pub fn watch(resident_bytes: u64, memory_max: u64) {
    if kept_bytes() > memory_max / 100 * KEPT_PERCENT {
        release();
    }
    let was_tight = is_tight();
    let percent = if was_tight { LOOSE_PERCENT } else { TIGHT_PERCENT };
    let is_tight = resident_bytes > memory_max / 100 * percent;
    if is_tight != was_tight {
        IS_TIGHT.store(is_tight, Ordering::Relaxed);
        set_delay(if is_tight { Duration::ZERO } else { KEPT });
    }
}

/// Whether the process is near its cap: every thread is to return what it does not use.
pub fn is_tight() -> bool {
    IS_TIGHT.load(Ordering::Relaxed)
}

/// Returns what this thread keeps for itself, every other second or so; for threads about to wait.
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
    use std::sync::Mutex;

    use super::{
        KEPT, PURGE_ALL, QUIET_AGAIN_NS, QUIET_NS, Quiet, call, get, is_tight, kept_bytes, set, watch,
    };

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

    // A name that the allocator does not know, or a value of another type, would change nothing and say nothing.
    #[test]
    fn every_command_is_one_of_the_allocators() {
        assert!(call(PURGE_ALL) && call(c"thread.tcache.flush"));
        assert!(!call(c"arena.4096.tidy"));
        assert!(set(c"background_thread", true));
        assert_eq!(
            get::<isize>(c"opt.dirty_decay_ms"),
            isize::try_from(KEPT.as_millis()).ok(),
            "it was read"
        );
    }

    /// The allocator is one for all tests of this binary.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn what_waits_is_counted_and_bounded() {
        let _alone = ALONE.lock().unwrap();
        let pieces: Vec<Vec<u8>> = (0..1_000).map(|_| vec![7; 100_000]).collect();
        drop(pieces);
        let kept = kept_bytes();
        assert!(kept > 50_000_000, "{kept}");
        watch(0, 1_200_000_000);
        assert!(kept_bytes() > 40_000_000, "it may wait");
        watch(0, 300_000_000);
        assert!(kept_bytes() < 30_000_000, "{}", kept_bytes());
    }

    #[test]
    fn near_the_cap_nothing_waits_in_any_arena() {
        let _alone = ALONE.lock().unwrap();
        let delay = || get::<isize>(c"arena.0.dirty_decay_ms");
        let waits = delay();
        assert_eq!(waits, get::<isize>(c"arenas.dirty_decay_ms"));
        watch(76, 100);
        assert_eq!((is_tight(), delay()), (true, Some(0)));
        watch(61, 100);
        assert_eq!((is_tight(), delay()), (true, Some(0)), "no to and fro at the mark");
        watch(60, 100);
        assert_eq!((is_tight(), delay()), (false, waits));
    }

    #[test]
    fn pages_are_small_ones() {
        super::start();
        // SAFETY: reads a flag of this process. A kernel that does not know the question has none either.
        let are_disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
        assert_ne!(are_disabled, 0);
    }
}
