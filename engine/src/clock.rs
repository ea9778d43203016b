//! The only place that reads a clock; everything else is given its `now`.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl Clock {
    /// Wall-clock time, nanoseconds since 1970 UTC. May jump.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one room that reads the clock")]
    pub fn now_ns() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Time since the first reading of this clock, in nanoseconds. Never jumps.
    #[must_use]
    pub fn monotonic_ns() -> u64 {
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A time as RFC 3339 text in UTC, with as many digits as it needs.
#[must_use]
pub fn rfc3339(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(at) => at.to_string(),
        // 64-bit nanoseconds end in 2262, long before jiff's calendar does.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, rfc3339};

    #[test]
    fn times_read_as_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_767_323_045_123_456_789), "2026-01-02T03:04:05.123456789Z");
    }

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let first = Clock::monotonic_ns();
        assert!(Clock::monotonic_ns() >= first);
    }
}
