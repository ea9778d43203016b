//! Times of events: RFC 3339 text and integers by magnitude, as nanoseconds since 1970 UTC.

/// A time that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds since 1970 UTC. What lies past the year 2262 stands at the last nanosecond that fits.
    pub ns: i64,
    /// It was the leap second `23:59:60`, which stands as the last nanosecond of `23:59:59`.
    pub leap: bool,
}

const NS_PER_S: i64 = 1_000_000_000;

/// Turns an integer in s, ms, µs or ns, told apart by magnitude, into nanoseconds.
///
/// The bounds (5e9, 5e12, 5e15) are those of the HTTP contract; each unit covers the years up to 2128.
#[must_use]
pub fn by_magnitude(value: i64) -> i64 {
    let unit = match value.unsigned_abs() {
        0..5_000_000_000 => NS_PER_S,
        5_000_000_000..5_000_000_000_000 => 1_000_000,
        5_000_000_000_000..5_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    // Each bound times its unit is 5e18, which fits.
    value * unit
}

/// Reads an RFC 3339 date and time: `2026-01-02T03:04:05[.123…](Z|±hh:mm)`.
///
/// Digits past the ninth of the fraction are cut off. `None` for what is not RFC 3339, for days and times
/// that the calendar does not have, and for years before 1678.
#[must_use]
pub fn rfc3339(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| head[*at] != *separator)
        || !matches!(head[10], b'T' | b't' | b' ')
    {
        return None;
    }
    let (year, month, day) = (number(&head[..4])?, number(&head[5..7])?, number(&head[8..10])?);
    let (hour, minute, second) = (number(&head[11..13])?, number(&head[14..16])?, number(&head[17..])?);
    if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ns, rest) = fraction(rest)?;
    let offset_s = offset(rest)?;
    let minutes_s = day_number(year, month, day) * 86_400 + hour * 3_600 + minute * 60 - offset_s;
    let leap = second == 60;
    if leap && minutes_s.rem_euclid(86_400) != 86_340 {
        // A leap second ends a day, and days end in UTC.
        return None;
    }
    let (second, fraction_ns) = if leap { (59, NS_PER_S - 1) } else { (second, fraction_ns) };
    let ns = i128::from(minutes_s + second) * i128::from(NS_PER_S) + i128::from(fraction_ns);
    if ns < i128::from(i64::MIN) {
        return None;
    }
    Some(Time { ns: i64::try_from(ns).unwrap_or(i64::MAX), leap })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let ns = (0..9).fold(0, |ns, at| ns * 10 + if at < len { i64::from(rest[at] - b'0') } else { 0 });
    Some((ns, &rest[len..]))
}

/// Seconds that the local time is ahead of UTC.
fn offset(rest: &[u8]) -> Option<i64> {
    match rest {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), hour @ .., b':', m1, m2] if hour.len() == 2 => {
            let (hour, minute) = (number(hour)?, number(&[*m1, *m2])?);
            if hour > 23 || minute > 59 {
                return None;
            }
            let seconds = hour * 3_600 + minute * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, by whole 400-year eras that begin in March.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_the_calendar() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-02T03:04:05.123456789Z", 1_767_323_045_123_456_789),
            ("2026-01-02T03:04:05.1234567899Z", 1_767_323_045_123_456_789),
            ("2026-01-02t03:04:05.1z", 1_767_323_045_100_000_000),
            ("2026-01-02 03:04:05Z", 1_767_323_045_000_000_000),
            ("2026-01-02T05:34:05+02:30", 1_767_323_045_000_000_000),
            ("2026-01-01T19:04:05-08:00", 1_767_323_045_000_000_000),
            ("2026-01-02T03:04:05-00:00", 1_767_323_045_000_000_000),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000_000_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("1678-01-01T00:00:00Z", -9_214_560_000_000_000_000),
            ("2262-04-11T23:47:16.854775807Z", i64::MAX),
            ("9999-12-31T23:59:59Z", i64::MAX),
        ] {
            assert_eq!(rfc3339(text), Some(Time { ns, leap: false }), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-02-30T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+01:60",
            "2026-01-01T00:00:00+1:000",
            "2026-01-01T00:00:00Z ",
            " 2026-01-01T00:00:00Z",
            "2026-1-1T00:00:00Z",
            "26-01-01T00:00:00Z",
            "-026-01-01T00:00:00Z",
            "2026-01-01T0é:00:00Z",
            "0001-01-01T00:00:00Z",
            "23:59:60",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn leap_second_is_the_last_nanosecond_of_its_day() {
        let leap = Some(Time { ns: 1_483_228_799_999_999_999, leap: true });
        for text in ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.5Z", "2017-01-01T00:59:60+01:00"] {
            assert_eq!(rfc3339(text), leap, "{text}");
        }
        for text in ["2016-12-31T23:58:60Z", "2016-12-31T12:00:60Z", "2016-12-31T23:59:60+01:00"] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = day_number(1600, 1, 1);
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=days_of_month(year, month) {
                    assert_eq!(day_number(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
        assert_eq!(day_number(1970, 1, 1), 0);
    }

    #[test]
    fn integers_are_told_apart_by_magnitude() {
        for (value, ns) in [
            (0, 0),
            (1_700_000_000, 1_700_000_000_000_000_000),
            (1_700_000_000_123, 1_700_000_000_123_000_000),
            (1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
            (4_999_999_999, 4_999_999_999_000_000_000),
            (5_000_000_000, 5_000_000_000_000_000),
            (4_999_999_999_999, 4_999_999_999_999_000_000),
            (5_000_000_000_000, 5_000_000_000_000_000),
            (4_999_999_999_999_999, 4_999_999_999_999_999_000),
            (5_000_000_000_000_000, 5_000_000_000_000_000),
            (-1, -1_000_000_000),
            (i64::MAX, i64::MAX),
            (i64::MIN, i64::MIN),
        ] {
            assert_eq!(by_magnitude(value), ns, "{value}");
        }
    }
}
