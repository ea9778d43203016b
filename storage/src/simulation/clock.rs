//! The world's wall clock: virtual, and it may jump.

use std::cell::Cell;

/// 2023-11-14 22:13:20 UTC.
const START_NS: i64 = 1_700_000_000_000_000_000;

thread_local! {
    static BASE: Cell<(Option<tokio::time::Instant>, i64)> = const { Cell::new((None, 0)) };
}

/// Starts the clock; call it inside the runtime.
pub fn start() {
    BASE.set((Some(tokio::time::Instant::now()), START_NS));
}

/// Moves the wall clock; the monotonic one stays.
pub fn jump(ns: i64) {
    let (start, base) = BASE.get();
    BASE.set((start, base.saturating_add(ns)));
}

/// Nanoseconds since 1970 UTC.
pub fn now() -> i64 {
    let (start, base) = BASE.get();
    let passed = start.map_or(0, |start| i64::try_from(start.elapsed().as_nanos()).unwrap_or(i64::MAX));
    base.saturating_add(passed)
}
