//! When to ask again, and after how long. Asked again are 429, 502, 503 and 504, a conflict with our own
//! earlier attempt, and a missing answer where doing it twice is the same as once; `Retry-After` is
//! obeyed to the second.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use super::ErrorKind;

/// How patient a caller is.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts in all, at least one.
    pub attempts_max: u32,
    /// First wait where the server names none; doubled with each further attempt.
    pub wait_first: Duration,
    /// Longest wait, also of those the server names.
    pub wait_max: Duration,
}

impl Retry {
    /// Patient enough for a restart of the server.
    pub const PATIENT: Self =
        Self { attempts_max: 8, wait_first: Duration::from_millis(250), wait_max: Duration::from_secs(30) };
    /// One attempt.
    pub const NEVER: Self = Self { attempts_max: 1, wait_first: Duration::ZERO, wait_max: Duration::ZERO };

    /// Returns how long to wait after attempt `attempt` (from 1) met `status`, none when it is final.
    pub fn after_status(
        &self,
        attempt: u32,
        status: StatusCode,
        headers: &HeaderMap,
        now_ns: i64,
    ) -> Option<Duration> {
        // A conflict on a repeat says that the first attempt is still under way.
        let busy = matches!(status.as_u16(), 429 | 502 | 503 | 504) || (status == 409 && attempt > 1);
        if !busy || attempt >= self.attempts_max {
            return None;
        }
        let wait = named_wait(headers, now_ns).unwrap_or_else(|| self.own_wait(attempt));
        Some(wait.min(self.wait_max))
    }

    /// Returns how long to wait after attempt `attempt` (from 1) brought no answer, none when it is final.
    ///
    /// What was never sent can always be sent again; what may have arrived only if `repeatable`.
    pub fn after_error(&self, attempt: u32, kind: ErrorKind, repeatable: bool) -> Option<Duration> {
        let again = match kind {
            ErrorKind::Unreachable => true,
            ErrorKind::TimedOut | ErrorKind::Broken => repeatable,
            ErrorKind::Usage | ErrorKind::TooLarge => false,
        };
        (again && attempt < self.attempts_max).then(|| self.own_wait(attempt).min(self.wait_max))
    }

    fn own_wait(&self, attempt: u32) -> Duration {
        self.wait_first.saturating_mul(1 << attempt.saturating_sub(1).min(16))
    }
}

/// Reads `Retry-After`: whole seconds, or an HTTP date.
fn named_wait(headers: &HeaderMap, now_ns: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait_ns = at.as_nanosecond().saturating_sub(i128::from(now_ns)).max(0);
    Some(Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: i64 = 1_767_225_600_000_000_000; // 2026-01-01T00:00:00Z, a Thursday

    fn check(status: u16, retry_after: Option<&'static str>, attempt: u32, expected: Option<Duration>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, http::HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let found = Retry::PATIENT.after_status(attempt, status, &headers, NOW_NS);
        assert_eq!(found, expected, "{status} {retry_after:?} attempt {attempt}");
    }

    #[test]
    fn waits_follow_the_server_then_double() {
        let ms = Duration::from_millis;
        check(429, Some("2"), 1, Some(ms(2_000)));
        check(503, Some("Thu, 01 Jan 2026 00:00:05 GMT"), 1, Some(ms(5_000)));
        check(503, Some("Wed, 31 Dec 2025 23:59:59 GMT"), 1, Some(ms(0)));
        check(503, Some("soon"), 1, Some(ms(250)));
        check(503, None, 1, Some(ms(250)));
        check(503, None, 3, Some(ms(1_000)));
        check(429, Some("86400"), 1, Some(ms(30_000)));
        check(503, None, 8, None);
        check(400, Some("1"), 1, None);
        check(200, None, 1, None);
        check(500, None, 1, None);
        check(409, None, 1, None);
        check(409, None, 2, Some(ms(500)));
    }

    #[test]
    fn what_may_have_arrived_is_repeated_only_with_a_key() {
        let retry = Retry::PATIENT;
        assert!(retry.after_error(1, ErrorKind::Unreachable, false).is_some());
        assert!(retry.after_error(1, ErrorKind::Broken, false).is_none());
        assert!(retry.after_error(1, ErrorKind::TimedOut, true).is_some());
        assert!(retry.after_error(8, ErrorKind::Unreachable, true).is_none());
        assert!(Retry::NEVER.after_error(1, ErrorKind::Unreachable, true).is_none());
    }
}
