//! What is due by itself: retention once a day, a sweep every so many minutes.

use serde::{Deserialize, Serialize};

/// Nanoseconds in a minute and in a day.
const MINUTE_NS: i64 = 60_000_000_000;
const DAY_NS: i64 = 1_440 * MINUTE_NS;

/// When jobs run by themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// When the daily retention run begins, as HH:MM in UTC.
    pub retention_at: String,
    /// Minutes between two sweeps.
    pub sweep_minutes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retention_at: "02:00".into(), sweep_minutes: 60 }
    }
}

/// The minute of the day that a time of the form HH:MM names.
#[must_use]
pub fn minutes_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str, below: u16| {
        let is_good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_good && *number < below)
    };
    Some(two(hours, 24)? * 60 + two(minutes, 60)?)
}

/// Which day's run a moment belongs to: days begin when the run is due.
pub fn day_of(now_ns: i64, at_minutes: u16) -> i64 {
    now_ns.saturating_sub(i64::from(at_minutes) * MINUTE_NS).div_euclid(DAY_NS)
}

#[cfg(test)]
mod tests {
    use super::{DAY_NS, MINUTE_NS, day_of, minutes_of_day};

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        let check = |text, expected| assert_eq!(minutes_of_day(text), expected, "{text}");
        check("02:00", Some(120));
        check("23:59", Some(1_439));
        check("00:00", Some(0));
        for bad in ["24:00", "2:00", "02:60", "0200", "02:00:00", "+2:00", "", "aa:bb"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_day_begins_when_its_run_is_due() {
        let at = 120;
        assert_eq!(day_of(10 * DAY_NS + 119 * MINUTE_NS, at), 9);
        assert_eq!(day_of(10 * DAY_NS + 120 * MINUTE_NS, at), 10);
        assert_eq!(day_of(11 * DAY_NS + 119 * MINUTE_NS, at), 10);
        assert_eq!(day_of(-1, 0), -1);
    }
}
