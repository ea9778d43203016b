//! The bucket under every interleaving that loom can think of (F9).
//!
//! The very same source is compiled once more here, on loom's atomics: no special build is needed to run it.

#[path = "bucket.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, on other atomics")]
#[allow(dead_code, reason = "the model calls what can race")]
mod bucket;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::sync::Arc;
use loom::thread;

use bucket::{Bucket, Rate};

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
