//! What ingest counts of itself: plain atomics that the engine renders on `/metrics`.
//!
//! A2: every record that a decoder saw is received, and becomes exactly one of accepted, rejected (with its
//! reason) or throttled. An [`Account`] follows one request's records, so no way out of the pipeline, not even
//! a dropped future, can leave one uncounted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use storage::record::Kind;

use crate::Route;
use crate::decode::Decoded;
use crate::scrub;

/// Classes of HTTP status: 1xx (unused) to 5xx.
const STATUS_CLASSES: usize = 6;

/// The counters of one process.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; STATUS_CLASSES]; Route::ALL.len()],
    kinds: [KindCounters; Kind::ALL.len()],
    /// Body bytes as sent.
    pub bytes_received: AtomicU64,
    /// Body bytes inflated.
    pub bytes_inflated: AtomicU64,
    /// Answers given again for an idempotency key.
    pub replayed: AtomicU64,
    /// Values that could not be scrubbed, and were masked whole.
    pub unscrubbed: AtomicU64,
    scrub_hits: [AtomicU64; scrub::DETECTORS],
}

/// The records of one kind.
#[derive(Debug, Default)]
pub struct KindCounters {
    /// Seen by a decoder.
    pub received: AtomicU64,
    /// Stored.
    pub accepted: AtomicU64,
    /// Refused because a limit, a budget or a dependency was in the way.
    pub throttled: AtomicU64,
    /// Refused for good, by code. A lock, because only bad records take it.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
}

impl KindCounters {
    /// Rejected records by code.
    #[must_use]
    pub fn rejected(&self) -> BTreeMap<&'static str, u64> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reject(&self, code: &'static str, count: u64) {
        if count > 0 {
            let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
            *rejected.entry(code).or_default() += count;
        }
    }
}

impl Counters {
    /// The counters of one kind of record.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> &KindCounters {
        let at = Kind::ALL.iter().position(|one| *one == kind).expect("ALL holds every kind");
        self.kinds.get(at).unwrap_or(&self.kinds[0])
    }

    /// Counts an answer.
    pub fn answered(&self, route: Route, status: u16) {
        let class = usize::from(status / 100).min(STATUS_CLASSES - 1);
        if let Some(count) = self.requests.get(route as usize).and_then(|classes| classes.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers on a route whose status begins with that digit.
    #[must_use]
    pub fn requests(&self, route: Route, status_class: usize) -> u64 {
        let count = self.requests.get(route as usize).and_then(|classes| classes.get(status_class));
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts what the detectors replaced in a chunk, and what they could not look at.
    pub fn scrubbed(&self, report: &scrub::Report) {
        if report.unscrubbed > 0 {
            self.unscrubbed.fetch_add(u64::from(report.unscrubbed), Ordering::Relaxed);
            tracing::error!(
                value_count = report.unscrubbed,
                "values could not be scrubbed and were masked whole"
            );
        }
        for (count, hits) in self.scrub_hits.iter().zip(report.hits) {
            if hits > 0 {
                count.fetch_add(u64::from(hits), Ordering::Relaxed);
            }
        }
    }

    /// Replacements by detector.
    pub fn scrub_hits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.scrub_hits.iter().map(|count| count.load(Ordering::Relaxed));
        scrub::detector_names().into_iter().zip(counts)
    }
}

/// The records of one request, from their decoding to their fate.
#[derive(Debug)]
#[must_use]
pub struct Account<'a> {
    counters: &'a KindCounters,
    accepted: u64,
    rejected: u64,
    codes: Vec<(&'static str, u64)>,
    is_settled: bool,
}

impl<'a> Account<'a> {
    /// Counts what the decoder saw as received.
    pub fn open(counters: &'a KindCounters, decoded: &Decoded) -> Self {
        let (accepted, rejected) = (u64::from(decoded.accepted), u64::from(decoded.rejected_count));
        counters.received.fetch_add(accepted + rejected, Ordering::Relaxed);
        let mut codes: Vec<(&'static str, u64)> = Vec::new();
        for one in &decoded.rejected {
            match codes.iter_mut().find(|(code, _)| *code == one.code) {
                Some((_, count)) => *count += 1,
                None => codes.push((one.code, 1)),
            }
        }
        // Only the first ones are listed with their code.
        codes.push(("unlisted", rejected.saturating_sub(decoded.rejected.len() as u64)));
        Self { counters, accepted, rejected, codes, is_settled: false }
    }

    /// The good records are stored, the bad ones rejected.
    pub fn accept(mut self) {
        self.settle();
    }

    /// Nothing is stored: the bad records by their own codes, the good ones by this.
    pub fn reject(mut self, code: &'static str) {
        let good = std::mem::take(&mut self.accepted);
        self.counters.reject(code, good);
        self.settle();
    }

    /// Nothing is stored now; all of it may come again.
    pub fn throttle(mut self) {
        self.counters.throttled.fetch_add(self.accepted + self.rejected, Ordering::Relaxed);
        self.is_settled = true;
    }

    fn settle(&mut self) {
        self.counters.accepted.fetch_add(self.accepted, Ordering::Relaxed);
        for (code, count) in self.codes.drain(..) {
            self.counters.reject(code, count);
        }
        self.is_settled = true;
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        // The future was dropped while its append was on the way, which that does not undo: stored, not
        // acknowledged.
        if !self.is_settled {
            self.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use storage::record::Kind;

    use super::{Account, Counters};
    use crate::decode::Decoded;

    fn decoded(accepted: u32, rejected: u32) -> Decoded {
        let mut decoded = Decoded { accepted, ..Decoded::default() };
        (0..rejected).for_each(|at| decoded.reject(at as usize, None, "too_deep", ""));
        decoded
    }

    /// A2: received = accepted + rejected + throttled, whichever way a request ends.
    #[test]
    fn every_way_out_keeps_the_sum() {
        let counters = Counters::default();
        let spans = counters.kind(Kind::Spans);
        Account::open(spans, &decoded(3, 2)).accept();
        Account::open(spans, &decoded(5, 0)).throttle();
        Account::open(spans, &decoded(1, 150)).reject("atomic");
        drop(Account::open(spans, &decoded(7, 0)));
        let rejected = spans.rejected();
        assert_eq!(rejected.get("too_deep"), Some(&102));
        assert_eq!(rejected.get("unlisted"), Some(&50));
        assert_eq!(rejected.get("atomic"), Some(&1));
        assert_eq!((spans.accepted.load(Relaxed), spans.throttled.load(Relaxed)), (10, 5));
        let sum = 10 + 5 + rejected.values().sum::<u64>();
        assert_eq!(spans.received.load(Relaxed), sum);
    }
}
