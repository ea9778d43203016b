//! Timestamps: from the sender's unit to nanoseconds, and never past what 64 bits hold.

use super::Fault;
use crate::decode::Precision;

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// Reads an integer timestamp.
pub(super) fn parse(token: &[u8]) -> Result<i64, Fault> {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::new("timestamp_invalid", "a timestamp is an integer"));
    }
    let text = std::str::from_utf8(token).expect("a sign and digits are ASCII");
    text.parse().map_err(|_| out_of_range())
}

/// The time in nanoseconds; without one the time of receipt, truncated to the precision.
pub(super) fn resolve(sent: Option<i64>, precision: Precision, now_ns: i64) -> Result<i64, Fault> {
    match sent {
        Some(sent) => sent.checked_mul(unit(precision, sent)).ok_or_else(out_of_range),
        None if precision == Precision::Auto => Ok(now_ns),
        None => Ok(now_ns - now_ns.rem_euclid(unit(precision, now_ns))),
    }
}

fn out_of_range() -> Fault {
    Fault::new("timestamp_out_of_range", "a timestamp in nanoseconds does not fit 64 bits")
}

/// Nanoseconds in one unit. `Auto` goes by magnitude, with v3's own bounds: seconds until the year 2128.
fn unit(precision: Precision, sent: i64) -> i64 {
    match precision {
        Precision::Auto => match sent.unsigned_abs() / 1_000_000_000 {
            0..5 => SECOND,
            5..5_000 => MILLISECOND,
            5_000..5_000_000 => MICROSECOND,
            _ => 1,
        },
        Precision::Nanosecond => 1,
        Precision::Microsecond => MICROSECOND,
        Precision::Millisecond => MILLISECOND,
        Precision::Second => SECOND,
        Precision::Minute => 60 * SECOND,
        Precision::Hour => 3_600 * SECOND,
    }
}
