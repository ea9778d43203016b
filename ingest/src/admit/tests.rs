use storage::record::Tenant;

use super::{Class, Limiter, Measure, Policy, Rate};

fn tenant(id: &str) -> Tenant {
    Tenant::parse(id).expect("a good id")
}

fn rate(quota: u64) -> Option<Rate> {
    Some(Rate { quota, window_s: 1 })
}

#[test]
fn nobody_is_limited_until_a_policy_is_set() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    assert!(limiter.spend_request(&acme, Class::Ingest, 0).is_ok());
    let remaining = limiter.spend_stored(&acme, u64::MAX, u64::MAX, 0).expect("no limit");
    assert!(remaining.headers().is_empty());
}

/// C40: what one bucket refuses takes nothing from the others.
#[test]
fn a_denial_spends_nothing() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    limiter.set(&acme, Policy { requests: rate(10), records: rate(100), bytes: rate(1_000) });
    let denied = limiter.spend_stored(&acme, 50, 1_001, 0).expect_err("over the bytes");
    assert_eq!((denied.measure, denied.limit, denied.used), (Measure::Bytes, 1_000, 0));
    assert!(denied.is_for_good());
    let remaining = limiter.spend_stored(&acme, 100, 1_000, 0).expect("everything is still there");
    let left: Vec<u64> = remaining.buckets.iter().map(|(_, _, left)| left.tokens).collect();
    assert_eq!(left, [10, 0, 0]);
    let denied = limiter.spend_stored(&acme, 1, 0, 0).expect_err("no record left");
    assert_eq!((denied.measure, denied.retry_after_s, denied.is_for_good()), (Measure::Records, 1, false));
    assert!(limiter.spend_stored(&tenant("other"), 1, 1, 0).is_ok(), "another tenant's buckets are its own");
    limiter.refund_stored(&acme, 1, 0);
    assert!(limiter.spend_stored(&acme, 1, 0, 0).is_ok(), "what was not stored is given back");
}

#[test]
fn a_new_policy_holds_at_once_and_an_unchanged_rate_keeps_its_level() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    limiter.set(&acme, Policy { requests: rate(1), ..Policy::default() });
    assert!(limiter.spend_request(&acme, Class::Ingest, 0).is_ok());
    limiter.set(&acme, Policy { requests: rate(1), bytes: rate(5), ..Policy::default() });
    assert!(
        limiter.spend_request(&acme, Class::Ingest, 0).is_err(),
        "the request bucket is as empty as before"
    );
    limiter.set(&acme, Policy { requests: rate(2), ..Policy::default() });
    assert!(limiter.spend_request(&acme, Class::Ingest, 0).is_ok());
    limiter.set(&acme, Policy::default());
    assert!(limiter.spend_stored(&acme, 1_000, 0, 0).is_ok());
    assert_eq!(limiter.get(&acme), Policy::default());
}

#[test]
fn headers_state_policy_and_remainder() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    limiter.set(
        &acme,
        Policy { requests: rate(10), records: None, bytes: Some(Rate { quota: 100, window_s: 60 }) },
    );
    let text = |headers: Vec<(http::HeaderName, http::HeaderValue)>| -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect()
    };
    limiter.spend_request(&acme, Class::Ingest, 0).expect("within");
    let remaining = limiter.spend_stored(&acme, 7, 40, 0).expect("within");
    assert_eq!(
        text(remaining.headers()),
        [
            "ratelimit-policy: \"ingest-req\";q=10;w=1, \"ingest-bytes\";q=100;qu=\"content-bytes\";w=60",
            "ratelimit: \"ingest-req\";r=9;t=1, \"ingest-bytes\";r=60;t=24",
        ]
    );
    let denied = limiter.spend_stored(&acme, 0, 90, 0).expect_err("over the bytes");
    assert_eq!(denied.retry_after_s, 18);
    assert_eq!(
        text(limiter.denial_headers(&acme, Class::Ingest, &denied))[1],
        "ratelimit: \"ingest-bytes\";r=60;t=18"
    );
}

/// F9: four threads never spend more than the quota, and lose none of it.
#[test]
fn threads_share_a_quota_exactly() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    limiter.set(&acme, Policy { requests: rate(1_000), records: rate(5_000), bytes: None });
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let passes = || {
                        limiter.spend_request(&acme, Class::Ingest, 7).is_ok()
                            && limiter.spend_stored(&acme, 5, 0, 7).is_ok()
                    };
                    (0..1_000).filter(|_| passes()).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(passed, 1_000);
}

/// Reading spends its own requests: neither class is in the other's way.
#[test]
fn each_class_has_its_own_requests() {
    let limiter = Limiter::default();
    let acme = tenant("acme");
    limiter.set(&acme, Policy { requests: rate(1), ..Policy::default() });
    for class in Class::ALL {
        assert!(limiter.spend_request(&acme, class, 0).is_ok(), "{class:?}");
        let denied = limiter.spend_request(&acme, class, 0).expect_err("spent");
        let refusal = limiter.refusal(&acme, class, &denied);
        assert_eq!((refusal.status, refusal.retry_after), (429, Some(1)));
        let (_, value) = &refusal.headers[0];
        let named = value.to_str().expect("ASCII").contains(class.as_str());
        assert!(named, "{class:?} {value:?}");
    }
}
