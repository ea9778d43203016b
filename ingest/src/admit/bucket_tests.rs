//! The bucket against rational arithmetic and odd clocks.

use super::bucket::{Bucket, PARTS, Rate};

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
