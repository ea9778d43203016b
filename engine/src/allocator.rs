//! The allocator of every binary, and when its free memory goes back to the system.
//!
//! Memory that is given back under load is taken again a moment later, and the kernel clears every page of it in
//! between: that was 10 to 21 % of the CPU. So freed memory waits a second for its next use, and a process that has
//! nothing to do gives back all of it at once. Each thread keeps some freed pieces for itself, which no other can
//! return: lanes do it when they were idle for a second ([`give_back`]), threads of runtimes when they park ([`tidy`]),
//! and those that parked too soon after the last time are woken for it once all lanes rest (`rest.rs`). What waits is
//! lent to nobody, so it must not take the process to its cap: it is counted ([`kept_bytes`]) and bounded, and near the
//! cap nothing waits ([`watch`]).
//!
//! Pages are small ones. A huge page is 2 MiB from its first byte on, and comes back after a part of it was given to
//! the system: with them a process held two to three times what was allocated in it.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tikv_jemalloc_sys::mallctl;

use crate::clock::Clock;

/// Few arenas, each for many threads: what many threads with a heap each keep for themselves is more than what they use
/// once a process rests (docs/decisions/0014-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena for each core; freed memory waits a second, of which at full load half, twice and ten times as much cost the
/// same CPU; no huge pages. The allocator reads it before `main`.
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: Option<&'static c_char> = Some({
    let text = c"narenas_ratio:1,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never";
    // SAFETY: the pointer is that of a text that lives for ever and is never written.
    unsafe { &*text.as_ptr() }
});

/// Between two tidyings of one thread. Chosen: what a seal has freed is returned before the next but one.
const TIDY_EVERY_NS: u64 = 2_000_000_000;

/// The same while the process is near its cap.
const TIDY_TIGHT_NS: u64 = 100_000_000;

/// Hundredths of the cap that may wait. Chosen: a quarter of it was seen waiting within the second.
const KEPT_PERCENT_MAX: u64 = 10;

/// Between two looks at the process's size.
pub const LOOK: Duration = Duration::from_millis(200);

/// The same near the cap.
const LOOK_TIGHT: Duration = Duration::from_millis(50);

/// Hundredths of the cap from which on freed memory waits for the next look at most, and below which it may wait again.
const TIGHT_PERCENT: u64 = 75;
const LOOSE_PERCENT: u64 = 60;

/// Whether the process is near its cap.
static IS_TIGHT: AtomicBool = AtomicBool::new(false);

/// The allocator's name for all arenas together, `MALLCTL_ARENAS_ALL`; the binding does not name it.
const PURGE_ALL: &CStr = c"arena.4096.purge";

/// Keeps the kernel from making huge pages; call it before there is much memory.
pub fn start() {
    // SAFETY: sets a flag of this process's memory map, by numbers alone. A kernel that knows no huge pages makes none.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Has a thread of the allocator's own give back what waited for a second, so that no lane has to: for the server.
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

/// Has this thread take all its memory, large pieces too, from the first arena: for a process whose address space is
/// limited, since what one arena keeps no other can use.
pub fn share_an_arena() {
    set(c"thread.arena", 0_u32);
    set(c"arena.0.oversize_threshold", usize::MAX);
}

/// Returns what this thread keeps for itself, and gives back all memory that is free.
pub fn rest() {
    give_back();
    release();
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

/// Looks how much waits for its next use, and how near the process, which holds `resident_bytes`, is to its cap. Says
/// how long until the next look.
pub fn watch(resident_bytes: u64, memory_max: u64) -> Duration {
    let percent = if is_tight() { LOOSE_PERCENT } else { TIGHT_PERCENT };
    let is_tight = resident_bytes > memory_max / 100 * percent;
    IS_TIGHT.store(is_tight, Ordering::Relaxed);
    if is_tight || kept_bytes() > memory_max / 100 * KEPT_PERCENT_MAX {
        release();
    }
    if is_tight { LOOK_TIGHT } else { LOOK }
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

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::sync::Mutex;

    use super::{LOOK, LOOK_TIGHT, PURGE_ALL, call, get, is_tight, kept_bytes, set, watch};

    #[test]
    fn every_command_is_one_of_the_allocators() {
        assert!(call(PURGE_ALL) && call(c"thread.tcache.flush"));
        assert!(!call(c"arena.4096.tidy"));
        assert!(set(c"thread.arena", 0_u32) && set(c"arena.0.oversize_threshold", usize::MAX));
        assert!(set(c"background_thread", false));
        assert_eq!(get::<isize>(c"opt.dirty_decay_ms"), Some(1_000), "it was read");
    }

    /// The allocator is one for all tests of this binary.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Nothing is given back by time alone: on a busy machine a second is soon over.
    fn keep_all() {
        set(c"arenas.dirty_decay_ms", -1_isize);
        for arena in 0..get::<u32>(c"arenas.narenas").unwrap_or(0) {
            let name = CString::new(format!("arena.{arena}.dirty_decay_ms")).unwrap();
            set(&name, -1_isize);
        }
    }

    #[test]
    fn what_waits_is_counted_and_bounded() {
        let _alone = ALONE.lock().unwrap();
        keep_all();
        let pieces: Vec<Vec<u8>> = (0..1_000).map(|_| vec![7; 100_000]).collect();
        drop(pieces);
        let kept = kept_bytes();
        assert!(kept > 50_000_000, "{kept}");
        // Other tests free and take meanwhile: bounds far from what they do.
        watch(0, 100_000_000_000);
        assert!(kept_bytes() > 40_000_000, "it may wait");
        watch(0, 1_000_000);
        assert!(kept_bytes() < kept / 2, "{} of {kept}", kept_bytes());
    }

    #[test]
    fn near_the_cap_it_is_looked_at_more_often_and_nothing_waits() {
        let _alone = ALONE.lock().unwrap();
        keep_all();
        drop((0..1_000).map(|_| vec![7; 100_000]).collect::<Vec<Vec<u8>>>());
        let kept = kept_bytes();
        assert!(kept > 50_000_000, "{kept}");
        assert_eq!((watch(76_000_000_000, 100_000_000_000), is_tight()), (LOOK_TIGHT, true));
        assert!(kept_bytes() < kept / 2, "{} of {kept}", kept_bytes());
        assert_eq!((watch(61, 100), is_tight()), (LOOK_TIGHT, true), "no to and fro at the mark");
        assert_eq!((watch(60, 100), is_tight()), (LOOK, false));
    }

    #[test]
    fn pages_are_small_ones() {
        super::start();
        // SAFETY: reads a flag of this process. A kernel that does not know the question has none either.
        let are_disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
        assert_ne!(are_disabled, 0);
    }
}
