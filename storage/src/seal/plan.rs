//! Which tables to seal now: by rows, bytes, age, or because memory is short.

use crate::options::Options;

/// A table's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Rows that wait.
    pub rows: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// When the oldest was appended, nanoseconds since 1970 UTC; `None` where nothing waits.
    pub oldest_ns: Option<i64>,
}

/// The places in `backlogs` of the tables to seal, the largest first.
///
/// Above half of `hot_bytes_max` the largest is sealed whether it is due or not; above half of `wal_bytes_max`,
/// given as `is_log_long`, those are whose oldest chunk keeps the log from being trimmed at its beginning.
#[must_use]
pub fn due(backlogs: &[Backlog], is_log_long: bool, options: &Options, now_ns: i64) -> Vec<usize> {
    let total: u64 = backlogs.iter().map(|backlog| backlog.bytes).sum();
    let age_ns = i64::try_from(options.seal_age().as_nanos()).unwrap_or(i64::MAX);
    let largest = backlogs.iter().enumerate().max_by_key(|(_, backlog)| backlog.bytes).map(|(at, _)| at);
    let oldest = backlogs.iter().filter_map(|backlog| backlog.oldest_ns).min();
    let newest = backlogs.iter().filter_map(|backlog| backlog.oldest_ns).max();
    // The older half of the time between: one table a round would not keep up with thousands that trickle.
    let pins = oldest.zip(newest).map(|(oldest, newest)| oldest + (newest - oldest) / 2);
    let mut due: Vec<usize> = (0..backlogs.len())
        .filter(|at| {
            let backlog = backlogs[*at];
            let Some(oldest_ns) = backlog.oldest_ns else { return false };
            backlog.rows >= options.seal_rows
                || backlog.bytes >= options.seal_bytes
                // A clock that jumped back makes chunks look young: the log's own budget still seals them.
                || now_ns.saturating_sub(oldest_ns) >= age_ns
                || (is_log_long && pins.is_some_and(|pins| oldest_ns <= pins))
                || (total > options.hot_bytes_max / 2 && largest == Some(*at))
        })
        .collect();
    due.sort_by_key(|at| std::cmp::Reverse(backlogs[*at].bytes));
    due
}

#[cfg(test)]
mod tests {
    use super::{Backlog, due};
    use crate::options::Options;

    fn check(backlogs: &[(u64, u64, Option<i64>)], now_ns: i64, expected: &[usize]) {
        let options = Options {
            seal_rows: 100,
            seal_bytes: 1_000,
            seal_age_ms: 1,
            hot_bytes_max: 3_000,
            ..Options::default()
        };
        let backlogs: Vec<_> = backlogs
            .iter()
            .map(|(rows, bytes, oldest_ns)| Backlog { rows: *rows, bytes: *bytes, oldest_ns: *oldest_ns })
            .collect();
        assert_eq!(due(&backlogs, false, &options, now_ns), expected);
    }

    #[test]
    fn a_long_log_makes_those_due_that_hold_its_beginning() {
        let backlog = |oldest_ns| Backlog { rows: 1, bytes: 1, oldest_ns };
        let backlogs = [backlog(Some(100)), backlog(None), backlog(Some(40)), backlog(Some(0))];
        assert_eq!(due(&backlogs, true, &Options::default(), 100), [2, 3]);
        assert!(due(&backlogs, false, &Options::default(), 100).is_empty());
    }

    #[test]
    fn rows_bytes_age_and_pressure_make_a_table_due() {
        check(&[(0, 0, None), (99, 999, Some(0))], 999_999, &[]);
        check(&[(100, 1, Some(0)), (1, 1_000, Some(0))], 0, &[1, 0]);
        check(&[(1, 1, Some(0)), (0, 0, None)], 1_000_000, &[0]);
        check(&[(1, 800, Some(0)), (1, 801, Some(0))], 0, &[1]);
        check(&[(1, 1, Some(10))], 0, &[]);
    }
}
