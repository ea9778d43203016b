//! One token bucket in one atomic word (GCRA): the word is the time at which the bucket is full again.
//!
//! A spend moves that time on by what the tokens take to refill; it is denied when the time would lie more
//! than a window ahead. So the quota is also the burst, and no window ever sees more than twice the quota.
//! Time comes in from a monotonic clock (F9); all sums saturate, so a suspended machine is no overflow.

use super::sync::{AtomicU64, Ordering};

/// Parts of a nanosecond that are told apart, so that a token worth less than one is not rounded up to it.
/// 2^4 leaves 36 years of nanoseconds since start in 64 bits.
const PARTS: u64 = 16;

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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Bucket, PARTS, Rate};

    /// The bucket as rational arithmetic: `level` counts token·nanoseconds, a token being `window_ns` of them.
    struct Exact {
        rate: Rate,
        level: u128,
        at: u64,
    }

    impl Exact {
        fn window_ns(&self) -> u128 {
            u128::from(self.rate.window_s) * 1_000_000_000
        }

        /// Spends with each request made dearer by `more` 1/16 ns of refill.
        fn spend(&mut self, tokens: u64, now: u64, more: u128) -> bool {
            let quota = u128::from(self.rate.quota);
            let parts = u128::from(PARTS);
            self.level = self.level.saturating_sub(u128::from(now - self.at) * quota * parts);
            self.at = now;
            let next = self.level + u128::from(tokens) * self.window_ns() * parts + more * quota;
            let fits = tokens == 0 || next <= quota * self.window_ns() * parts;
            if fits {
                self.level = next;
            }
            fits
        }
    }

    /// F9: never more than the exact bucket gives, never less than one whose spends cost 1/16 ns more.
    #[test]
    fn it_decides_as_exact_arithmetic_does() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for (quota, window_s) in
            [(1, 1), (3, 1), (7, 60), (1_000, 1), (10 << 20, 1), (1 << 40, 1), (999_983, 86_400)]
        {
            let rate = Rate { quota, window_s };
            let bucket = Bucket::new(rate);
            let mut upper = Exact { rate, level: 0, at: 0 };
            let mut now = 0;
            let (mut passed, mut denied) = (0, 0);
            for _ in 0..20_000 {
                now += random(2 * u64::from(window_s) * 1_000_000_000 / 10);
                let tokens = random(quota.min(1 << 50) / 3 + 2);
                let got = bucket.spend(tokens, now).is_ok();
                let exact_before = upper.level;
                let exact = upper.spend(tokens, now, 0);
                assert!(!got || exact, "{rate:?} gave {tokens} that it did not have");
                if exact && !got {
                    // Rounding may refuse a spend that fits to the last part; then both go on as refused.
                    let left = u128::from(quota) * upper.window_ns() * u128::from(PARTS) - upper.level;
                    assert!(left <= 20_000 * u128::from(quota), "{rate:?} refused what it had");
                    upper.level = exact_before;
                }
                if got { passed += 1 } else { denied += 1 }
            }
            assert!(passed > 0 && denied > 0, "{rate:?}: {passed} passed, {denied} denied");
        }
    }

    #[test]
    fn a_denial_names_the_wait_after_which_the_same_spend_passes() {
        let bucket = Bucket::new(Rate { quota: 10, window_s: 1 });
        assert_eq!(bucket.spend(10, 5).map(|left| left.tokens), Ok(0));
        let short = bucket.spend(3, 5).expect_err("empty");
        assert_eq!((short.used, short.wait_ns), (10, 300_000_000));
        assert!(bucket.spend(3, 5 + short.wait_ns - 1).is_err());
        assert!(bucket.spend(3, 5 + short.wait_ns).is_ok());
        assert_eq!(bucket.spend(11, u64::MAX / 32).expect_err("beyond the quota").wait_ns, 1_000_000_000);
    }

    #[test]
    fn ends_of_the_number_range_saturate() {
        let bucket = Bucket::new(Rate { quota: u64::MAX, window_s: u32::MAX });
        for now in [0, u64::MAX / 2, u64::MAX, 0, u64::MAX] {
            let _ = bucket.spend(u64::MAX, now);
            bucket.refund(u64::MAX);
        }
        let nothing = Bucket::new(Rate { quota: 0, window_s: 0 });
        assert!(nothing.spend(1, 0).is_err());
        assert!(nothing.spend(0, 0).is_ok());
    }

    /// F9: a clock that jumps back gives nothing away and takes nothing for good.
    #[test]
    fn a_clock_that_stands_still_or_returns_is_harmless() {
        let bucket = Bucket::new(Rate { quota: 2, window_s: 1 });
        assert!(bucket.spend(2, 1_000_000_000).is_ok());
        assert!(bucket.spend(1, 0).is_err());
        assert!(bucket.spend(2, 2_000_000_000).is_ok());
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p ingest --lib loom`.
#[cfg(all(test, loom))]
mod loom_model {
    use loom::sync::Arc;
    use loom::thread;

    use super::{Bucket, Rate};

    /// F9: no interleaving loses a spend or gives a token twice, refunds included.
    #[test]
    fn three_spends_share_two_tokens() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(Rate { quota: 2, window_s: 1 }));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let bucket = Arc::clone(&bucket);
                    thread::spawn(move || u32::from(bucket.spend(1, 0).is_ok()))
                })
                .collect();
            let own = u32::from(bucket.spend(1, 0).is_ok());
            let passed: u32 = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
            assert_eq!(own + passed, 2);
            assert!(bucket.spend(1, 0).is_err());
        });
    }

    #[test]
    fn a_refund_restores_what_its_spend_took() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(Rate { quota: 4, window_s: 1 }));
            let other = Arc::clone(&bucket);
            let refunding = thread::spawn(move || {
                if other.spend(2, 0).is_ok() {
                    other.refund(2);
                }
            });
            let passed = bucket.spend(1, 0).is_ok();
            refunding.join().expect("no panic");
            assert!(passed);
            assert_eq!(bucket.spend(3, 0).map(|left| left.tokens), Ok(0));
        });
    }
}
