//! How many of a tenant's traces arrive whole: the root was seen, and every parent that a span names.
//!
//! Spans of one trace come over many lanes, so the tracker is shared; it is split by trace so that lanes
//! rarely meet. Nothing is held back for it, and its memory is bounded: so many open traces a shard, so many
//! spans a trace. A trace is judged when it was quiet for a while or when its shard needs the room.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use smallvec::SmallVec;
use storage::record::{Column, Draft, Field, Kind, Tenant, TextColumn};

const SHARDS: usize = 16;

/// Open traces in one shard. With [`SPANS_MAX`] this bounds the tracker to some 15 MiB, reached only by 14,336 open traces
/// of 128 spans each.
const OPEN_MAX: usize = 896;

/// Spans and missing parents remembered of one trace; a longer one is not judged.
const SPANS_MAX: usize = 128;

/// A trace this old is judged. Chosen: exporters flush every 5 s by default, retries take up to half a minute.
const SETTLED_S: i32 = 60;

/// A tenant's traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Judged, and whole.
    pub complete: u64,
    /// Judged; root or parents were missing.
    pub incomplete: u64,
    /// Had more spans than are remembered.
    pub too_long: u64,
}

impl Tally {
    /// Whole traces among those judged; `None` before the first.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let judged = self.complete + self.incomplete;
        (judged > 0).then(|| self.complete as f64 / judged as f64)
    }
}

/// What is remembered of an open trace. There are thousands, for a minute each: it is small.
#[derive(Debug)]
struct Trace {
    /// Of a hash of its id, the half that names it in its shard.
    key: u32,
    /// Which of the shard's tenants it is of.
    tenant: u32,
    /// Second in which its first span came, of those since 1970 UTC; the lowest 32 bits.
    first_seen_s: u32,
    has_root: bool,
    is_too_long: bool,
    /// Hashes of span ids seen; with [`MISSING`], of parents that were named and not seen yet. The first ones in place: most
    /// traces have few spans here, and a piece of their own for each would lie between those of bodies, and keep a page of
    /// them.
    ids: SmallVec<[u32; 4]>,
}

/// Marks the hash of a parent that was not seen yet; hashes have the other 31 bits.
const MISSING: u32 = 1 << 31;

#[derive(Debug, Default)]
struct Shard {
    /// In order of appearance.
    open: VecDeque<Trace>,
    /// The number of each by its key, as they were begun; numbers start again after the last. A map alone of what is large
    /// would have room for twice as many: one that is full, with as many taken from it as put into it, doubles.
    numbers: HashMap<u32, u32>,
    /// The number of the first in `open`.
    first: u32,
    /// Where a tenant's tally is.
    tenants: HashMap<Tenant, u32>,
    tallies: Vec<Tally>,
}

/// The tracker of all tenants.
#[derive(Debug)]
pub struct Completeness {
    /// Keyed, so that no sender can choose ids that meet.
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Completeness {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Completeness {
    /// Takes note of the spans of a chunk; of any other kind of record, nothing.
    pub fn observe(&self, tenant: &Tenant, draft: &Draft, now_ns: i64) {
        if draft.kind() != Kind::Spans {
            return;
        }
        let (traces, spans) = (text(draft, Field::TraceId), text(draft, Field::SpanId));
        let parents = text(draft, Field::ParentSpanId);
        let mut row = 0;
        while row < draft.row_count() {
            let Some(trace_id) = traces.get(row) else {
                row += 1;
                continue;
            };
            // Spans of one trace usually stand together: one lock for all of them.
            let key = self.hasher.hash_one((tenant, trace_id));
            let mut shard = self.shard(key);
            let trace = shard.open(half(key), tenant, now_ns);
            while row < draft.row_count() && traces.get(row) == Some(trace_id) {
                let span = spans.get(row).map(|id| self.hasher.hash_one(id));
                trace.see(span, parents.get(row).map(|id| self.hasher.hash_one(id)));
                row += 1;
            }
        }
    }

    /// Judges what has settled by now and returns the tenant's tally since start.
    #[must_use]
    pub fn tally(&self, tenant: &Tenant, now_ns: i64) -> Tally {
        let mut sum = Tally::default();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.judge_settled(now_ns);
            if let Some(tally) = shard.tenants.get(tenant).and_then(|at| shard.tallies.get(*at as usize)) {
                sum.complete += tally.complete;
                sum.incomplete += tally.incomplete;
                sum.too_long += tally.too_long;
            }
        }
        sum
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, Shard> {
        let at = usize::try_from(key % SHARDS as u64).expect("below the number of shards");
        // A panic elsewhere leaves counts that are at most one trace off.
        self.shards.get(at).unwrap_or(&self.shards[0]).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn open(&mut self, key: u32, tenant: &Tenant, now_ns: i64) -> &mut Trace {
        self.judge_settled(now_ns);
        let at = match self.numbers.get(&key) {
            Some(number) => number.wrapping_sub(self.first) as usize,
            None => {
                if self.open.len() >= OPEN_MAX {
                    self.judge_oldest();
                }
                let tenant = self.place_of(tenant);
                self.numbers.insert(key, self.first.wrapping_add(self.open.len() as u32));
                self.open.push_back(Trace {
                    key,
                    tenant,
                    first_seen_s: second_of(now_ns),
                    has_root: false,
                    is_too_long: false,
                    ids: SmallVec::new(),
                });
                self.open.len() - 1
            }
        };
        self.open.get_mut(at).expect("a trace with a number is open")
    }

    fn place_of(&mut self, tenant: &Tenant) -> u32 {
        if let Some(at) = self.tenants.get(tenant) {
            return *at;
        }
        let at = u32::try_from(self.tallies.len()).expect("a deployment has fewer tenants");
        self.tallies.push(Tally::default());
        self.tenants.insert(tenant.clone(), at);
        at
    }

    fn judge_settled(&mut self, now_ns: i64) {
        while let Some(oldest) = self.open.front()
            && second_of(now_ns).wrapping_sub(oldest.first_seen_s).cast_signed() >= SETTLED_S
        {
            self.judge_oldest();
        }
        if self.open.is_empty() {
            self.open = VecDeque::new();
            self.numbers = HashMap::new();
        }
    }

    fn judge_oldest(&mut self) {
        let Some(trace) = self.open.pop_front() else { return };
        self.first = self.first.wrapping_add(1);
        self.numbers.remove(&trace.key);
        let Some(tally) = self.tallies.get_mut(trace.tenant as usize) else { return };
        if trace.is_too_long {
            tally.too_long += 1;
        } else if trace.has_root && trace.ids.iter().all(|id| id & MISSING == 0) {
            tally.complete += 1;
        } else {
            tally.incomplete += 1;
        }
    }
}

impl Trace {
    fn see(&mut self, span: Option<u64>, parent: Option<u64>) {
        if let Some(span) = span.map(short)
            && !self.ids.contains(&span)
        {
            self.ids.retain(|id| *id != span | MISSING);
            self.remember(span);
        }
        match parent.map(short) {
            None => self.has_root = true,
            Some(parent) if self.ids.contains(&parent) || self.ids.contains(&(parent | MISSING)) => {}
            Some(parent) => self.remember(parent | MISSING),
        }
    }

    /// Remembers a span, or a parent that is missing, unless there are as many of its like as there may be.
    fn remember(&mut self, id: u32) {
        let alike = self.ids.iter().filter(|other| (*other ^ id) & MISSING == 0).count();
        match alike < SPANS_MAX {
            true => self.ids.push(id),
            false => self.is_too_long = true,
        }
    }
}

/// The second of a time, of those since 1970 UTC; the lowest 32 bits.
fn second_of(now_ns: i64) -> u32 {
    (now_ns.div_euclid(1_000_000_000) & i64::from(u32::MAX)) as u32
}

/// The half of a hash that did not choose the shard: two open traces are one in one of five million.
fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// 31 bits of a hash: of 128 spans in a trace, two have the same in one of 260,000 traces.
fn short(hash: u64) -> u32 {
    (hash >> 33) as u32
}

fn text(draft: &Draft, field: Field) -> &TextColumn {
    match draft.column(field) {
        Column::Text(column) => column,
        _ => unreachable!("ids are text"),
    }
}

#[cfg(test)]
mod tests {
    use storage::record::{Draft, Field, Kind, Tenant};

    use super::{Completeness, SETTLED_S, Tally, Trace};

    const SETTLED_NS: i64 = SETTLED_S as i64 * 1_000_000_000;

    /// Open traces of all shards at most.
    const OPEN: usize = 16 * 896;

    fn spans(rows: &[(&str, &str, Option<&str>)]) -> Draft {
        let mut draft = Draft::new(Kind::Spans);
        for (trace, span, parent) in rows {
            draft.begin_row();
            draft.set_text(Field::TraceId, trace);
            draft.set_text(Field::SpanId, span);
            if let Some(parent) = parent {
                draft.set_text(Field::ParentSpanId, parent);
            }
            draft.end_row();
        }
        draft
    }

    #[test]
    fn a_trace_is_whole_with_its_root_and_every_parent() {
        let tenant = Tenant::parse("acme").expect("a good id");
        let other = Tenant::parse("other").expect("a good id");
        let tracker = Completeness::default();
        tracker.observe(&tenant, &spans(&[("a", "2", Some("1")), ("b", "9", Some("8"))]), 0);
        tracker.observe(&tenant, &spans(&[("a", "1", None), ("c", "1", None)]), 5);
        tracker.observe(&other, &spans(&[("b", "8", None)]), 5);
        assert_eq!(tracker.tally(&tenant, 10), Tally::default(), "nothing has settled");
        let tally = tracker.tally(&tenant, SETTLED_NS + 5);
        assert_eq!(tally, Tally { complete: 2, incomplete: 1, too_long: 0 });
        assert!(tally.ratio().is_some_and(|ratio| (ratio - 2.0 / 3.0).abs() < 1e-9));
        assert_eq!(tracker.tally(&other, SETTLED_NS + 5).complete, 1, "tenants never mix");
    }

    /// B1: whatever ids come, so many traces are open and so many spans remembered.
    #[test]
    fn memory_is_bounded() {
        let tenant = Tenant::parse("acme").expect("a good id");
        let tracker = Completeness::default();
        let rows: Vec<String> = (0..OPEN * 2).map(|n| n.to_string()).collect();
        let rows: Vec<_> = rows.iter().map(|id| (id.as_str(), "1", None)).collect();
        tracker.observe(&tenant, &spans(&rows), 0);
        let open: usize = tracker.shards.iter().map(|s| s.lock().expect("no panic").open.len()).sum();
        assert!(open <= OPEN, "{open}");
        let ids: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let rows: Vec<_> = ids.iter().map(|id| ("long", id.as_str(), None)).collect();
        tracker.observe(&tenant, &spans(&rows), 0);
        let tally = tracker.tally(&tenant, SETTLED_NS);
        assert_eq!((tally.too_long, tally.complete), (1, (OPEN * 2) as u64));
        // The places of all shards are a megabyte, however many traces came and went.
        for shard in &tracker.shards {
            let shard = shard.lock().expect("no panic");
            assert_eq!(shard.open.len(), shard.numbers.len());
            assert!(shard.open.capacity() <= 1_024 && shard.numbers.capacity() <= 1_792);
        }
        assert!(size_of::<Trace>() <= 48);
    }
}
