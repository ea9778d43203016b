//! Whether a tenant may send this much now: three token buckets, spent together or not at all.
//!
//! A request spends once, after decoding, when its records and bytes are known, and before anything is kept
//! (C40). Nobody is limited until a policy is set. The table of tenants is an immutable map behind an atomic
//! pointer, so a look-up takes no lock, and a new policy holds from the next request on.

mod bucket;
mod headers;
mod sync;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use storage::record::Tenant;

use bucket::Bucket;
pub use bucket::{Left, Rate};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Records, good and bad.
    Records,
    /// Bytes of the inflated body.
    Bytes,
}

impl Measure {
    /// Every measure, in the order they are spent.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Records, Self::Bytes];

    /// The measure's name in limits, errors and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Records => "records",
            Self::Bytes => "bytes",
        }
    }
}

/// A tenant's limits; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Requests a window.
    pub requests: Option<Rate>,
    /// Records a window.
    pub records: Option<Rate>,
    /// Inflated bytes a window.
    pub bytes: Option<Rate>,
}

impl Policy {
    fn rates(&self) -> [Option<Rate>; 3] {
        [self.requests, self.records, self.bytes]
    }
}

/// What each limited measure has left after a spend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// The limited measures, with their rates.
    pub buckets: Vec<(Measure, Rate, Left)>,
}

/// A request that was over a limit; nothing was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which measure.
    pub measure: Measure,
    /// Its quota.
    pub limit: u64,
    /// How much of it is in use.
    pub used: u64,
    /// How much the request asked for.
    pub asked: u64,
    /// After how many seconds the same request would pass, at least 1.
    pub retry_after_s: u32,
    /// Length of the window, in seconds.
    pub window_s: u32,
}

impl Denied {
    /// Whether the request alone is over the quota: it will never pass, however long its sender waits.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        self.asked > self.limit
    }
}

#[derive(Debug)]
struct Buckets {
    policy: Policy,
    by_measure: [Option<Arc<Bucket>>; 3],
}

/// The limits of all tenants.
#[derive(Debug, Default)]
pub struct Limiter {
    tenants: ArcSwap<HashMap<Tenant, Arc<Buckets>>>,
}

impl Limiter {
    /// Sets a tenant's limits from the next request on.
    ///
    /// A measure whose rate stays keeps what is spent of it; a new rate starts full.
    #[expect(clippy::indexing_slicing, reason = "arrays of one length, indexed by their own enumeration")]
    pub fn set(&self, tenant: &Tenant, policy: Policy) {
        self.tenants.rcu(|tenants| {
            let mut next = HashMap::clone(tenants);
            if policy == Policy::default() {
                next.remove(tenant);
                return next;
            }
            let old = tenants.get(tenant);
            let mut rates = policy.rates().into_iter().enumerate();
            let by_measure = std::array::from_fn(|_| {
                let (at, rate) = rates.next().expect("as many rates as buckets");
                let kept = old.and_then(|buckets| buckets.by_measure[at].clone());
                rate.map(|rate| {
                    kept.filter(|bucket| bucket.rate() == rate).unwrap_or_else(|| Arc::new(Bucket::new(rate)))
                })
            });
            next.insert(tenant.clone(), Arc::new(Buckets { policy, by_measure }));
            next
        });
    }

    /// A tenant's limits.
    #[must_use]
    pub fn get(&self, tenant: &Tenant) -> Policy {
        self.tenants.load().get(tenant).map(|buckets| buckets.policy).unwrap_or_default()
    }

    /// Takes one request's share from all of the tenant's buckets, or from none.
    ///
    /// `now_ns` is monotonic time since any fixed start (F9).
    ///
    /// # Errors
    /// [`Denied`] with the measure that is over. A request that alone exceeds a quota is denied each time it
    /// comes ([`Denied::is_for_good`]): its sender must split it.
    #[expect(clippy::indexing_slicing, reason = "arrays of one length, indexed by their own enumeration")]
    pub fn spend(
        &self,
        tenant: &Tenant,
        requests: u64,
        records: u64,
        bytes: u64,
        now_ns: u64,
    ) -> Result<Remaining, Denied> {
        let tenants = self.tenants.load();
        let Some(buckets) = tenants.get(tenant) else { return Ok(Remaining::default()) };
        let asked = [requests, records, bytes];
        let limited = || {
            buckets.by_measure.iter().enumerate().filter_map(|(at, bucket)| Some((at, bucket.as_deref()?)))
        };
        let denied = |at: usize, bucket: &Bucket, short: bucket::Short| Denied {
            measure: Measure::ALL[at],
            limit: bucket.rate().quota,
            used: short.used,
            asked: asked[at],
            retry_after_s: whole_seconds(short.wait_ns).max(1),
            window_s: bucket.rate().window_s.max(1),
        };
        // Asked first, so that a request which one bucket refuses does not take from the others even for a
        // moment; the refund below is left for the rare race.
        for (at, bucket) in limited() {
            bucket.would_pass(asked[at], now_ns).map_err(|short| denied(at, bucket, short))?;
        }
        let mut remaining = Remaining::default();
        for (at, bucket) in limited() {
            match bucket.spend(asked[at], now_ns) {
                Ok(left) => remaining.buckets.push((Measure::ALL[at], bucket.rate(), left)),
                Err(short) => {
                    for (before, bucket) in limited().take_while(|(before, _)| *before < at) {
                        bucket.refund(asked[before]);
                    }
                    return Err(denied(at, bucket, short));
                }
            }
        }
        Ok(remaining)
    }
}

/// Nanoseconds as seconds, rounded up: a client that waits them is not early.
fn whole_seconds(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
