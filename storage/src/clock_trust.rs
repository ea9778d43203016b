//! Whether the wall clock may be believed when it says that something is old (F27).
//!
//! A clock that jumps ahead makes everything look old, and what was deleted for its age does not come back. So
//! an age counts only while wall clock and monotonic clock have passed the same time since the start, and only
//! once an observation that agreed is followed by another, an hour later by the monotonic clock. There is no way
//! back to trust but the wall clock's return: a jump that stays is believed at the next start, not before.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far two observations that confirm each other lie apart.
pub const APART: Duration = Duration::from_secs(3_600);

/// How far the clocks may part at once. Chosen: above every leap second and every step of a running NTP.
const STEP_NS_MAX: i128 = 60_000_000_000;

/// How far they may drift apart besides, as a fraction of the time since the start. Chosen: twice the 500 ppm
/// that NTP may slew.
const DRIFT_PARTS: i128 = 1_000;

/// What is known of this process' clocks.
#[derive(Debug)]
pub struct ClockTrust {
    start_ns: i64,
    start: Instant,
    /// The first observation that agreed since the last that did not.
    agreed: Mutex<Option<Instant>>,
}

impl ClockTrust {
    /// Begins with both clocks as they stand at the start, which is the first observation.
    #[must_use]
    pub fn new(wall_ns: i64, at: Instant) -> Self {
        Self { start_ns: wall_ns, start: at, agreed: Mutex::new(Some(at)) }
    }

    /// Whether both clocks have passed the same time since the start.
    #[must_use]
    pub fn agrees(&self, wall_ns: i64, at: Instant) -> bool {
        let passed = i128::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(i128::MAX);
        let apart = (i128::from(wall_ns) - i128::from(self.start_ns) - passed).abs();
        apart <= STEP_NS_MAX + passed / DRIFT_PARTS
    }

    /// Notes how the clocks stand; whether ages by this wall clock are to be believed.
    pub fn observe(&self, wall_ns: i64, at: Instant) -> bool {
        let agrees = self.agrees(wall_ns, at);
        let mut agreed = self.agreed.lock().expect("no panic happens under this lock");
        if !agrees {
            *agreed = None;
            return false;
        }
        at.saturating_duration_since(*agreed.get_or_insert(at)) >= APART
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{APART, ClockTrust};

    const START_NS: i64 = 1_800_000_000_000_000_000;
    const HOUR_NS: i64 = 3_600_000_000_000;
    const YEAR_NS: i64 = 365 * 24 * HOUR_NS;

    /// What is believed after observations at these minutes, each with the wall clock's jump at that moment.
    fn check(observations: &[(u64, i64)], expected: &[bool]) {
        let start = Instant::now();
        let trust = ClockTrust::new(START_NS, start);
        let found: Vec<bool> = observations
            .iter()
            .map(|(minutes, jump_ns)| {
                let passed = Duration::from_secs(minutes * 60);
                let wall_ns = START_NS + i64::try_from(passed.as_nanos()).unwrap() + jump_ns;
                trust.observe(wall_ns, start + passed)
            })
            .collect();
        assert_eq!(found, expected, "{observations:?}");
    }

    /// F27: two observations an hour apart, and no jump between start and now.
    #[test]
    fn a_clock_is_believed_after_an_hour_in_step() {
        check(&[(1, 0), (59, 0), (60, 0), (90, 1)], &[false, false, true, true]);
        for years in [10, -10] {
            let jump = years * YEAR_NS;
            // A jump ends belief at once, however long it stays.
            check(&[(60, 0), (61, jump), (200, jump), (20_000, jump)], &[true, false, false, false]);
            // Back in step, belief begins anew.
            check(&[(60, jump), (61, 0), (120, 0), (121, 0)], &[false, false, false, true]);
        }
        // Drift and small steps are no jump; an hour is, as a time zone's mistake would be.
        check(&[(10_000, 500_000_000_000)], &[true]);
        check(&[(90, HOUR_NS), (90, -HOUR_NS), (90, 59_000_000_000)], &[false, false, false]);
    }

    #[test]
    fn agreement_needs_no_second_look() {
        let start = Instant::now();
        let trust = ClockTrust::new(START_NS, start);
        assert!(trust.agrees(START_NS + 1, start));
        assert!(!trust.agrees(START_NS + YEAR_NS, start));
        assert!(trust.agrees(START_NS + HOUR_NS, start + APART));
    }
}
