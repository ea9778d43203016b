//! One token bucket in one atomic word (GCRA): the word is the time at which the bucket is full again.
//!
//! A spend moves that time on by what the tokens take to refill; it is denied when the time would lie more
//! than a window ahead. So the quota is also the burst, and no window ever sees more than twice the quota.
//! Time comes in from a monotonic clock (F9); all sums saturate, so a suspended machine is no overflow.

use super::sync::{AtomicU64, Ordering};

/// Parts of a nanosecond that are told apart, so that a token worth less than one is not rounded up to it.
/// 2^4 leaves 36 years of nanoseconds since start in 64 bits.
pub(super) const PARTS: u64 = 16;

const SECOND_NS: u64 = 1_000_000_000;

/// So many tokens a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Tokens a window, which is also how many may go at once; 0 refuses everything.
    pub quota: u64,
    /// Length of the window, in seconds; 0 counts as 1.
    pub window_s: u32,
}

impl Rate {
    fn window_parts(self) -> u64 {
        u64::from(self.window_s.max(1)).saturating_mul(SECOND_NS * PARTS)
    }

    /// What `tokens` take to refill, rounded up: a bucket never gives more than its rate.
    fn cost_parts(self, tokens: u64) -> u64 {
        let parts = u128::from(tokens) * u128::from(self.window_parts());
        u64::try_from(parts.div_ceil(u128::from(self.quota.max(1)))).unwrap_or(u64::MAX)
    }

    /// How many tokens refill in that time, rounded down.
    fn tokens(self, parts: u64) -> u64 {
        let tokens = u128::from(parts) * u128::from(self.quota) / u128::from(self.window_parts());
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Whether so many tokens can never be had at once.
    pub(super) fn is_beyond(self, tokens: u64) -> bool {
        tokens > self.quota
    }
}

/// What a bucket holds after a spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Tokens that may still go at once.
    pub tokens: u64,
    /// Until the bucket is full again, in nanoseconds.
    pub full_in_ns: u64,
}

/// Why a spend was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    /// Tokens in use now.
    pub used: u64,
    /// Until the same spend would pass, in nanoseconds.
    pub wait_ns: u64,
}

/// One bucket; it starts full.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket is full again, in parts of nanoseconds of the monotonic clock.
    full_at: AtomicU64,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_at: AtomicU64::new(0) }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes so many tokens, all or none, at `now_ns` of the monotonic clock.
    ///
    /// Orderings are relaxed: the word itself is all that is shared, nothing is published by it.
    pub(super) fn spend(&self, tokens: u64, now_ns: u64) -> Result<Left, Short> {
        let now = now_ns.saturating_mul(PARTS);
        let cost = self.rate.cost_parts(tokens);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = self.after(full_at, tokens, cost, now)?;
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(self.left(next, now)),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Whether a spend would pass now, without spending.
    pub(super) fn would_pass(&self, tokens: u64, now_ns: u64) -> Result<(), Short> {
        let now = now_ns.saturating_mul(PARTS);
        let full_at = self.full_at.load(Ordering::Relaxed);
        self.after(full_at, tokens, self.rate.cost_parts(tokens), now).map(drop)
    }

    /// Gives back what a spend took, because a sibling bucket refused the request.
    pub(super) fn refund(&self, tokens: u64) {
        let cost = self.rate.cost_parts(tokens);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        while let Err(seen) = self.full_at.compare_exchange_weak(
            full_at,
            full_at.saturating_sub(cost),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            full_at = seen;
        }
    }

    /// Where the word stands after a spend.
    fn after(&self, full_at: u64, tokens: u64, cost: u64, now: u64) -> Result<u64, Short> {
        let base = full_at.max(now);
        let next = base.saturating_add(cost);
        let latest = now.saturating_add(self.rate.window_parts());
        if tokens > 0 && (self.rate.is_beyond(tokens) || next > latest) {
            let wait = if self.rate.is_beyond(tokens) { self.rate.window_parts() } else { next - latest };
            let used = self.rate.quota - self.left(base, now).tokens;
            return Err(Short { used, wait_ns: wait.div_ceil(PARTS) });
        }
        Ok(next)
    }

    fn left(&self, full_at: u64, now: u64) -> Left {
        let used = full_at.saturating_sub(now);
        let tokens = self.rate.tokens(self.rate.window_parts().saturating_sub(used)).min(self.rate.quota);
        Left { tokens, full_in_ns: used.div_ceil(PARTS) }
    }
}
