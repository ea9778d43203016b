//! What a tenant is told that is over a limit or out of memory: which bound, and what to do.

use storage::memory::Short;
use storage::record::Tenant;

use super::{Class, Denied, Limiter};
use crate::reply::Refusal;

/// Seconds after which memory that is short is likely free again.
const MEMORY_RETRY_S: u32 = 1;

impl Limiter {
    /// The refusal of a request that is over a limit (429).
    #[must_use]
    pub fn refusal(&self, tenant: &Tenant, class: Class, denied: &Denied) -> Refusal {
        let (measure, limit, window) = (denied.measure.as_str(), denied.limit, denied.window_s);
        let detail = if denied.is_for_good() {
            format!(
                "request of {} {measure} exceeds the limit of {limit} in {window} s on its own: split it",
                denied.asked
            )
        } else {
            format!(
                "request of {} {measure} is over the limit of {limit} in {window} s, {} of them used",
                denied.asked, denied.used
            )
        };
        let mut refusal = Refusal::retry(429, "rate_limited", detail, denied.retry_after_s);
        refusal.retryable = !denied.is_for_good();
        refusal.headers = self.denial_headers(tenant, class, denied);
        refusal
    }
}

/// The refusal of what needs `bytes` of memory that were not lent: 413 where they never will be, 503
/// `share_exceeded` for the tenant that holds its share, 503 `pressure` for everybody.
#[must_use]
pub fn short_of_memory(short: Short, bytes: u64) -> Refusal {
    match short {
        Short::Never { alone_max } => Refusal::new(
            413,
            "body_too_large",
            format!(
                "a body of {bytes} bytes exceeds the {alone_max} that one tenant may hold under memory_max: send \
                 smaller requests"
            ),
        ),
        Short::Share => Refusal::retry(
            503,
            "share_exceeded",
            "this tenant holds its share of memory, and others need the rest: send less at once",
            MEMORY_RETRY_S,
        ),
        Short::Whole => Refusal::retry(503, "pressure", "a memory budget is full", MEMORY_RETRY_S),
    }
}
