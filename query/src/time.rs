//! Times as they come in and go out.
//!
//! In: RFC 3339, or an integer whose magnitude tells its unit. Out: RFC 3339 in UTC. Inside there are only
//! nanoseconds since 1970 UTC as `i64` (years 1677 to 2262).

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Parses RFC 3339 (a bare date means its midnight, UTC) or an integer in s, ms, µs or ns by magnitude
/// (below 5e9, 5e12, 5e15, above). `None` for anything else and for times outside of 1677 to 2262.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        let factor = match number.unsigned_abs() {
            0..5_000_000_000 => 1_000_000_000,
            5_000_000_000..5_000_000_000_000 => 1_000_000,
            5_000_000_000_000..5_000_000_000_000_000 => 1_000,
            _ => 1,
        };
        return number.checked_mul(factor);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return i64::try_from(timestamp.as_nanosecond()).ok();
    }
    // In a query string an unescaped `+` is a space: `…T03:04:05 02:00`.
    if text.contains(['T', 't']) && text.contains(' ') {
        let timestamp: Timestamp = text.replace(' ', "+").parse().ok()?;
        return i64::try_from(timestamp.as_nanosecond()).ok();
    }
    let date: Date = (text.len() == 10).then(|| text.parse().ok())??;
    let midnight = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    i64::try_from(midnight.as_nanosecond()).ok()
}

/// RFC 3339 with all nine digits: `2026-01-02T03:04:05.000000000Z`.
#[must_use]
pub fn with_nanoseconds(time_ns: i64) -> String {
    let timestamp =
        Timestamp::from_nanosecond(i128::from(time_ns)).expect("jiff's range is wider than i64's");
    format!("{timestamp:.9}")
}

/// RFC 3339 with as many digits as the time needs.
#[must_use]
pub fn shortest(time_ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(time_ns)).expect("jiff's range is wider than i64's").to_string()
}

#[cfg(test)]
mod tests {
    use super::{parse, shortest, with_nanoseconds};

    #[test]
    fn times_are_told_apart_by_form_and_magnitude() {
        let second = 1_767_323_045_000_000_000;
        for (text, expected) in [
            ("2026-01-02T03:04:05Z", Some(second)),
            ("2026-01-02T05:04:05+02:00", Some(second)),
            ("2026-01-02T05:04:05 02:00", Some(second)),
            ("2026-01-02T03:04:05.123456789Z", Some(second + 123_456_789)),
            ("1767323045", Some(second)),
            ("1767323045000", Some(second)),
            ("1767323045000000", Some(second)),
            ("1767323045000000000", Some(second)),
            ("0", Some(0)),
            ("-1", Some(-1_000_000_000)),
            ("2026-01-02", Some(second - (3 * 3_600 + 4 * 60 + 5) * 1_000_000_000)),
            ("2026-01-02T03:04:05", None),
            ("", None),
            ("now", None),
            ("1.5", None),
            ("2026-13-01", None),
            ("9999-01-01T00:00:00Z", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn times_go_out_in_utc() {
        assert_eq!(with_nanoseconds(1_767_323_045_000_000_000), "2026-01-02T03:04:05.000000000Z");
        assert_eq!(with_nanoseconds(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(shortest(1_767_323_045_120_000_000), "2026-01-02T03:04:05.12Z");
        assert_eq!(shortest(i64::MIN).len(), "1677-09-21T00:12:43.145224192Z".len());
    }
}
