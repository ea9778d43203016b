//! Whether a tenant may send this much now, by token buckets.
//!
//! A request is spent at its head, as soon as its role is known and whatever becomes of it: bad bodies cost work
//! too. Records and bytes are spent together or not at all, after decoding, when they are known, and before anything
//! is kept (C40); what is not stored after all is given back. Nobody is limited until a policy is set. The table of
//! tenants is sharded, so a look-up waits for nobody but a change of that very shard, and a new policy holds from the
//! next request on. It holds tenants that exist, and is bounded as they are.

mod bucket;
mod headers;
mod refusal;
mod sync;

use std::sync::Arc;

use dashmap::DashMap;
use storage::record::Tenant;

use bucket::Bucket;
pub use bucket::{Left, Rate};
pub use refusal::short_of_memory;

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

/// What a request asks for. Each class has a bucket of requests of its own, so that reading never stops ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Records are sent.
    Ingest,
    /// Data is read.
    Read,
    /// The engine itself is asked or changed.
    Operate,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Operate];

    /// The class's name in headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A tenant's limits; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Requests a window, of each class.
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
    /// Requests, by class.
    requests: [Option<Arc<Bucket>>; Class::ALL.len()],
    records: Option<Arc<Bucket>>,
    bytes: Option<Arc<Bucket>>,
}

impl Buckets {
    /// The limited measures of what is stored.
    fn stored(&self) -> impl Iterator<Item = (Measure, &Bucket)> {
        let all = [(Measure::Records, &self.records), (Measure::Bytes, &self.bytes)];
        all.into_iter().filter_map(|(measure, bucket)| Some((measure, bucket.as_deref()?)))
    }
}

/// The limits of all tenants.
#[derive(Debug, Default)]
pub struct Limiter {
    tenants: DashMap<Tenant, Arc<Buckets>>,
}

impl Limiter {
    /// Sets a tenant's limits from the next request on.
    ///
    /// A measure whose rate stays keeps what is spent of it; a new rate starts full.
    #[expect(clippy::indexing_slicing, reason = "one bucket a class, indexed by the class")]
    pub fn set(&self, tenant: &Tenant, policy: Policy) {
        if policy == Policy::default() {
            self.tenants.remove(tenant);
            return;
        }
        let old = self.buckets(tenant);
        let made = |rate: Option<Rate>, kept: Option<&Arc<Bucket>>| {
            rate.map(|rate| match kept {
                Some(bucket) if bucket.rate() == rate => Arc::clone(bucket),
                _ => Arc::new(Bucket::new(rate)),
            })
        };
        let requests = Class::ALL.map(|class| {
            made(policy.requests, old.as_ref().and_then(|old| old.requests[class as usize].as_ref()))
        });
        let records = made(policy.records, old.as_ref().and_then(|old| old.records.as_ref()));
        let bytes = made(policy.bytes, old.as_ref().and_then(|old| old.bytes.as_ref()));
        self.tenants.insert(tenant.clone(), Arc::new(Buckets { policy, requests, records, bytes }));
    }

    fn buckets(&self, tenant: &Tenant) -> Option<Arc<Buckets>> {
        self.tenants.get(tenant).map(|buckets| Arc::clone(&buckets))
    }

    /// A tenant's limits.
    #[must_use]
    pub fn get(&self, tenant: &Tenant) -> Policy {
        self.tenants.get(tenant).map(|buckets| buckets.policy).unwrap_or_default()
    }

    /// Spends one request of that class, at its head.
    ///
    /// `now_ns` is monotonic time since any fixed start (F9).
    ///
    /// # Errors
    /// [`Denied`]: the tenant's requests of this window are spent.
    #[expect(clippy::indexing_slicing, reason = "one bucket a class, indexed by the class")]
    pub fn spend_request(&self, tenant: &Tenant, class: Class, now_ns: u64) -> Result<(), Denied> {
        let Some(buckets) = self.buckets(tenant) else { return Ok(()) };
        let Some(bucket) = &buckets.requests[class as usize] else { return Ok(()) };
        bucket.spend(1, now_ns).map(drop).map_err(|short| denied(Measure::Requests, bucket, 1, short))
    }

    /// Spends records and bytes that are about to be stored, both or neither; says what is left, of ingest's requests
    /// too.
    ///
    /// # Errors
    /// [`Denied`] with the measure that is over. What alone exceeds a quota is denied each time it comes
    /// ([`Denied::is_for_good`]): its sender must split it.
    #[expect(clippy::indexing_slicing, reason = "one bucket a class, indexed by the class")]
    pub fn spend_stored(
        &self,
        tenant: &Tenant,
        records: u64,
        bytes: u64,
        now_ns: u64,
    ) -> Result<Remaining, Denied> {
        let Some(buckets) = self.buckets(tenant) else { return Ok(Remaining::default()) };
        let asked = |measure| if measure == Measure::Records { records } else { bytes };
        // Asked first, so that what one bucket refuses does not take from the other even for a moment; the refund
        // below is left for the rare race.
        for (measure, bucket) in buckets.stored() {
            let asked = asked(measure);
            bucket.would_pass(asked, now_ns).map_err(|short| denied(measure, bucket, asked, short))?;
        }
        let mut remaining = Remaining::default();
        if let Some(bucket) = &buckets.requests[Class::Ingest as usize]
            && let Ok(left) = bucket.spend(0, now_ns)
        {
            remaining.buckets.push((Measure::Requests, bucket.rate(), left));
        }
        for (measure, bucket) in buckets.stored() {
            match bucket.spend(asked(measure), now_ns) {
                Ok(left) => remaining.buckets.push((measure, bucket.rate(), left)),
                Err(short) => {
                    for (before, bucket) in buckets.stored().take_while(|(before, _)| *before != measure) {
                        bucket.refund(asked(before));
                    }
                    return Err(denied(measure, bucket, asked(measure), short));
                }
            }
        }
        Ok(remaining)
    }

    /// Gives back records and bytes that were not stored after all.
    pub fn refund_stored(&self, tenant: &Tenant, records: u64, bytes: u64) {
        let Some(buckets) = self.buckets(tenant) else { return };
        for (measure, bucket) in buckets.stored() {
            bucket.refund(if measure == Measure::Records { records } else { bytes });
        }
    }
}

fn denied(measure: Measure, bucket: &Bucket, asked: u64, short: bucket::Short) -> Denied {
    Denied {
        measure,
        limit: bucket.rate().quota,
        used: short.used,
        asked,
        retry_after_s: whole_seconds(short.wait_ns).max(1),
        window_s: bucket.rate().window_s.max(1),
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
