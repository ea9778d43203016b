//! Declared keys: what a client wants stored at most once.
//!
//! A key is reserved while its request is on the way, and stands with its fingerprint and reply once the frame
//! that carries it is durable. It outlives its log segment in a small file [`beside`] the log. Everywhere it is its keyed
//! hash ([`crate::declared`]); in memory its 16 bytes and no text, for a tenant may have many.

pub mod beside;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use crate::declared::{DeclaredKeySecret, Name};
use crate::memory::{Charge, Memory, Pool};
use crate::record::Tenant;
use crate::wal::log::Remembered;
use crate::writer::{Idempotency, Known};

/// The declared keys of all tenants.
#[derive(Debug)]
pub struct Keys {
    secret: DeclaredKeySecret,
    keys_max: usize,
    bytes_max: u64,
    memory: Arc<Memory>,
    kept_ns: i64,
    tenants: Mutex<HashMap<Tenant, TenantKeys>>,
}

#[derive(Debug)]
struct TenantKeys {
    /// Fingerprints of requests that are on the way.
    in_flight: HashMap<Name, [u8; 16]>,
    /// Those that stand, the oldest first.
    standing: VecDeque<Standing>,
    /// The number of the first of them: how many were forgotten.
    first: u32,
    /// The number of each.
    numbers: HashMap<Name, u32>,
    /// Keys that are kept as they came.
    clear: HashMap<Name, Box<str>>,
    /// The last that differ: most replies of a client are the same.
    replies: VecDeque<Weak<Reply>>,
    /// What those that stand take of the process's memory.
    charge: Charge,
}

/// A key that stands.
#[derive(Debug)]
struct Standing {
    name: Name,
    fingerprint: [u8; 16],
    at_ns: i64,
    reply: Arc<Reply>,
}

/// The reply to be given again, of one key or of many.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Box<[u8]>,
}

/// Bytes that a key takes beside its reply: its place among those that stand, of which an eighth may be empty, and its
/// number, in a map that may have just doubled.
const KEY_BYTES: u64 = 104;

/// Bytes that a reply takes beside its body: its counters, its length, and what the allocator rounds up.
const REPLY_BYTES: u64 = 80;

/// Bytes that a key which is kept as it came takes beside its text: its place in a map that may have just doubled.
const CLEAR_BYTES: u64 = 96;

/// Replies that a new one is compared with. Chosen: few, as each is looked at under the lock, and enough for batches of
/// some sizes in turn.
const REPLIES: usize = 8;

/// Places among those that stand that are made at once, at least.
const PLACES: usize = 64;

impl Reply {
    fn held_bytes(&self) -> u64 {
        REPLY_BYTES + self.body.len() as u64
    }
}

impl Keys {
    /// Remembers at most `keys_max` keys a tenant, hashed under `secret`, which take at most `bytes_max`, each for
    /// `hours`. All together take at most what `memory` has for what is kept: above it, the tenant that has the most
    /// forgets its oldest.
    pub fn new(
        secret: DeclaredKeySecret,
        keys_max: usize,
        bytes_max: u64,
        hours: u64,
        memory: Arc<Memory>,
    ) -> Self {
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Self {
            secret,
            keys_max,
            bytes_max,
            memory,
            kept_ns: hours.saturating_mul(3_600_000_000_000),
            tenants: Mutex::new(HashMap::new()),
        }
    }

    fn tenants(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, TenantKeys>> {
        self.tenants.lock().expect("no panic happens under this lock")
    }

    fn of<'a>(&self, tenants: &'a mut HashMap<Tenant, TenantKeys>, tenant: &Tenant) -> &'a mut TenantKeys {
        let charge = || self.memory.count(Pool::Kept, Some(tenant), 0);
        tenants.entry(tenant.clone()).or_insert_with(|| TenantKeys::new(charge()))
    }

    /// A record as it is kept, in the log and here.
    pub fn seal(&self, tenant: &Tenant, record: Idempotency) -> Idempotency {
        self.secret.seal(tenant, record)
    }

    /// Records that were read back, as they are kept: an older build kept keys as they came.
    pub fn sealed(&self, remembered: Vec<Remembered>) -> Vec<Remembered> {
        let seal = |(tenant, at_ns, record): Remembered| {
            let record = match self.secret.seals(&record) {
                true => Arc::new(self.seal(&tenant, Arc::unwrap_or_clone(record))),
                false => record,
            };
            (tenant, at_ns, record)
        };
        remembered.into_iter().map(seal).collect()
    }

    /// Reserves a key, or tells what is known of it.
    pub fn reserve(&self, tenant: &Tenant, key: &str, fingerprint: [u8; 16]) -> Known {
        let (name, fingerprint) =
            (self.secret.name(tenant, key), self.secret.fingerprint(tenant, fingerprint));
        let mut tenants = self.tenants();
        let keys = self.of(&mut tenants, tenant);
        if let Some(standing) = keys.get(&name) {
            return match standing.fingerprint == fingerprint {
                true => Known::Replayed(Arc::new(keys.record(standing))),
                false => Known::Mismatch,
            };
        }
        match keys.in_flight.get(&name) {
            Some(other) if *other == fingerprint => Known::InFlight,
            Some(_) => Known::Mismatch,
            None => {
                keys.in_flight.insert(name, fingerprint);
                Known::New
            }
        }
    }

    /// Gives a reserved key back, as it came or as it is kept.
    pub fn release(&self, tenant: &Tenant, key: &str) {
        if let Some(keys) = self.tenants().get_mut(tenant) {
            keys.in_flight.remove(&self.secret.name(tenant, key));
        }
    }

    /// Every key that stands, of each tenant in the order of its acknowledgement.
    pub fn standing(&self) -> Vec<Remembered> {
        let tenants = self.tenants();
        let standing = tenants.iter().flat_map(|(tenant, keys)| {
            keys.standing
                .iter()
                .map(|standing| (tenant.clone(), standing.at_ns, Arc::new(keys.record(standing))))
        });
        standing.collect()
    }

    /// Makes keys stand, as [`Self::sealed`] gives them, each for the first time; forgets the oldest over the bounds.
    pub fn remember(&self, now_ns: i64, remembered: impl IntoIterator<Item = Remembered>) {
        let mut tenants = self.tenants();
        for (tenant, at_ns, record) in remembered {
            let keys = self.of(&mut tenants, &tenant);
            // They were acknowledged: what is too much goes below.
            keys.stand(self.secret.name(&tenant, &record.key), at_ns, &record);
            while let Some(oldest) = keys.standing.front() {
                let is_old = now_ns.saturating_sub(oldest.at_ns) > self.kept_ns;
                // The newest stands whatever it takes: it was just acknowledged.
                let is_within = keys.standing.len() <= self.keys_max && keys.charge.bytes() <= self.bytes_max;
                if !is_old && (is_within || keys.standing.len() == 1) {
                    break;
                }
                keys.forget_oldest();
            }
            let all_max = self.memory.max(Pool::Kept);
            while self.memory.used(Pool::Kept) > all_max {
                let heaviest = tenants.values_mut().filter(|keys| keys.standing.len() > 1);
                let Some(keys) = heaviest.max_by_key(|keys| keys.charge.bytes()) else { break };
                keys.forget_oldest();
            }
        }
    }
}

impl TenantKeys {
    fn new(charge: Charge) -> Self {
        Self {
            in_flight: HashMap::new(),
            standing: VecDeque::new(),
            first: 0,
            numbers: HashMap::new(),
            clear: HashMap::new(),
            replies: VecDeque::new(),
            charge,
        }
    }

    fn get(&self, name: &Name) -> Option<&Standing> {
        let number = self.numbers.get(name)?;
        self.standing.get(number.wrapping_sub(self.first) as usize)
    }

    /// What stands, as it is kept elsewhere.
    fn record(&self, standing: &Standing) -> Idempotency {
        let Standing { name, fingerprint, reply, .. } = standing;
        let key = self.clear.get(name).cloned().unwrap_or_else(|| DeclaredKeySecret::text(*name));
        Idempotency { key, fingerprint: *fingerprint, status: reply.status, reply: reply.body.clone() }
    }

    fn stand(&mut self, name: Name, at_ns: i64, record: &Idempotency) {
        self.in_flight.remove(&name);
        let reply = self.reply(record);
        if DeclaredKeySecret::is_clear(&record.key) && self.clear.insert(name, record.key.clone()).is_none() {
            self.charge.count(CLEAR_BYTES + record.key.len() as u64);
        }
        if self.standing.len() == self.standing.capacity() {
            // By an eighth: what doubles is half empty.
            self.standing.reserve_exact(PLACES.max(self.standing.len() / 8));
        }
        let number =
            self.first.wrapping_add(u32::try_from(self.standing.len()).expect("fewer than 2^32 stand"));
        self.numbers.insert(name, number);
        self.charge.count(KEY_BYTES);
        self.standing.push_back(Standing { name, fingerprint: record.fingerprint, at_ns, reply });
    }

    /// A reply: one of the last that is the same, or a new one.
    fn reply(&mut self, record: &Idempotency) -> Arc<Reply> {
        let is_same = |reply: &Arc<Reply>| reply.status == record.status && reply.body == record.reply;
        if let Some(same) = self.replies.iter().rev().filter_map(Weak::upgrade).find(is_same) {
            return same;
        }
        let reply = Arc::new(Reply { status: record.status, body: record.reply.clone() });
        self.charge.count(reply.held_bytes());
        if self.replies.len() == REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(Arc::downgrade(&reply));
        reply
    }

    fn forget_oldest(&mut self) {
        let Some(Standing { name, reply, .. }) = self.standing.pop_front() else { return };
        let mut freed = KEY_BYTES;
        // One that stands anew since has another number.
        if self.numbers.get(&name) == Some(&self.first) {
            self.numbers.remove(&name);
            freed += self.clear.remove(&name).map_or(0, |key| CLEAR_BYTES + key.len() as u64);
        }
        self.first = self.first.wrapping_add(1);
        if let Some(reply) = Arc::into_inner(reply) {
            freed += reply.held_bytes();
        }
        self.charge.shrink_to(self.charge.bytes().saturating_sub(freed));
        if self.standing.capacity() > 2 * self.standing.len() + PLACES {
            self.standing.shrink_to_fit();
            self.numbers.shrink_to_fit();
        }
    }
}

/// Keys of several logs, each in the order it acknowledged them in, as one: the newest of all are last, each key once.
///
/// Within a log its order counts and no clock: one that was set back must not make the newest the oldest.
pub fn in_order(logs: Vec<Vec<Remembered>>) -> Vec<Remembered> {
    let mut all: Vec<Remembered> = Vec::with_capacity(logs.iter().map(Vec::len).sum());
    for log in logs {
        let mut newest_ns = i64::MIN;
        all.extend(log.into_iter().map(|(tenant, at_ns, key)| {
            newest_ns = newest_ns.max(at_ns);
            (tenant, newest_ns, key)
        }));
    }
    all.sort_by_key(|(_, at_ns, _)| *at_ns);
    let mut seen = HashSet::with_capacity(all.len());
    let mut once: Vec<Remembered> = all
        .into_iter()
        .rev()
        .filter(|(tenant, _, key)| seen.insert((tenant.clone(), key.key.clone())))
        .collect();
    once.reverse();
    once
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KEY_BYTES, Keys, REPLY_BYTES, Standing, in_order};
    use crate::declared::DeclaredKeySecret;
    use crate::memory::{Memory, Pool};
    use crate::record::Tenant;
    use crate::writer::{Idempotency, Known};

    fn keys(keys_max: usize, bytes_max: u64, memory_max: u64) -> Keys {
        Keys::new(DeclaredKeySecret::default(), keys_max, bytes_max, 1, Memory::new(memory_max, 0))
    }

    fn done(key: &str) -> Arc<Idempotency> {
        Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply: (*b"{}").into() })
    }

    #[test]
    fn a_key_is_reserved_then_stands_then_ages_out() {
        let keys = keys(2, 1 << 20, 1 << 30);
        let tenant = Tenant::parse("acme").unwrap();
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::New);
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::InFlight);
        keys.release(&tenant, "a");
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::New);
        keys.remember(0, [(tenant.clone(), 0, done("a"))]);
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::Replayed(done("a")));
        assert_eq!(keys.reserve(&tenant, "a", [8; 16]), Known::Mismatch);
        keys.remember(0, [(tenant.clone(), 0, done("b")), (tenant.clone(), 0, done("c"))]);
        assert_eq!(keys.reserve(&tenant, "a", [8; 16]), Known::New, "the oldest over the bound is forgotten");
        keys.remember(4_000_000_000_000, [(tenant.clone(), 4_000_000_000_000, done("d"))]);
        assert_eq!(keys.reserve(&tenant, "c", [8; 16]), Known::New, "an hour is over");
    }

    #[test]
    fn large_replies_push_out_the_tenants_own_oldest_keys_alone() {
        let large = |key: &str, bytes: usize| {
            let reply = key.bytes().cycle().take(bytes).collect();
            Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply })
        };
        let keys = keys(100_000, 64 << 10, 1 << 30);
        let (heavy, small) = (Tenant::parse("heavy").unwrap(), Tenant::parse("small").unwrap());
        keys.remember(0, [(small.clone(), 0, large("s", 10))]);
        for number in 0..100 {
            keys.remember(0, [(heavy.clone(), 0, large(&format!("h{number}"), 8 << 10))]);
        }
        let bytes = |tenant: &Tenant| keys.tenants()[tenant].charge.bytes();
        assert!((48 << 10..=64 << 10).contains(&bytes(&heavy)), "{}", bytes(&heavy));
        assert_eq!(bytes(&heavy) + bytes(&small), keys.memory.used(Pool::Kept));
        assert!(matches!(keys.reserve(&small, "s", [7; 16]), Known::Replayed(_)));
        assert!(matches!(keys.reserve(&heavy, "h99", [7; 16]), Known::Replayed(_)));
        // One that takes more than all may is the only one then.
        keys.remember(0, [(heavy.clone(), 0, large("all", 1 << 20))]);
        assert!(matches!(keys.reserve(&heavy, "all", [7; 16]), Known::Replayed(_)));
        keys.remember(0, [(heavy.clone(), 0, large("next", 10))]);
        assert!(bytes(&heavy) < 1 << 10, "the large one is the oldest, and goes");
    }

    /// X2: what all keep is bounded, and the heavy one pays.
    #[test]
    fn where_all_keep_too_much_the_heaviest_forgets() {
        let keys = keys(100_000, 1 << 30, 1 << 20);
        let all_max = keys.memory.max(Pool::Kept);
        let (heavy, small) = (Tenant::parse("heavy").unwrap(), Tenant::parse("small").unwrap());
        keys.remember(0, (0..5).map(|number| (small.clone(), 0, done(&format!("s{number}")))));
        keys.remember(0, (0..1_000).map(|number| (heavy.clone(), 0, done(&format!("h{number}")))));
        assert!(keys.memory.used(Pool::Kept) <= all_max);
        assert!(matches!(keys.reserve(&small, "s0", [7; 16]), Known::Replayed(_)));
        assert!(matches!(keys.reserve(&heavy, "h0", [7; 16]), Known::New));
        assert!(matches!(keys.reserve(&heavy, "h999", [7; 16]), Known::Replayed(_)));
    }

    #[test]
    fn keys_of_several_logs_are_in_the_order_of_their_time() {
        let tenant = Tenant::parse("acme").unwrap();
        let log = |keys: &[(i64, &str)]| -> Vec<_> {
            keys.iter().map(|(at_ns, key)| (tenant.clone(), *at_ns, done(key))).collect()
        };
        // The second log's clock was set back behind `d`; `b` stands in a file and in a frame.
        let logs =
            vec![log(&[(1, "a"), (5, "b"), (5, "b"), (40, "c")]), log(&[(30, "d"), (2, "e"), (41, "f")])];
        let keys: Vec<_> = in_order(logs).into_iter().map(|(_, _, key)| key.key.to_string()).collect();
        assert_eq!(keys, ["a", "b", "d", "e", "c", "f"]);
    }

    /// With what the default cap keeps, a client that sends a thousand batches a second may send again for most of a minute.
    #[test]
    fn a_key_takes_little_and_equal_replies_are_held_once() {
        assert_eq!(size_of::<Standing>(), 48);
        let keys = keys(100_000, 64 << 20, 5_741_708 * 50);
        let tenant = Tenant::parse("acme").unwrap();
        for number in 0..50_000 {
            let (key, reply) = (format!("k{number}"), format!("{{\"accepted\":{}}}", number % 3));
            let record = Idempotency {
                key: DeclaredKeySecret::text(*blake3::hash(key.as_bytes()).as_bytes().first_chunk().unwrap()),
                fingerprint: [7; 16],
                status: 200,
                reply: reply.into_bytes().into(),
            };
            keys.remember(0, [(tenant.clone(), 0, Arc::new(record))]);
        }
        let bytes = keys.memory.used(Pool::Kept);
        assert_eq!(bytes, 50_000 * KEY_BYTES + 3 * (REPLY_BYTES + 14));
        assert!(bytes <= keys.memory.max(Pool::Kept));
        let standing = keys.standing();
        assert_eq!(standing.len(), 50_000);
        for (_, _, record) in [&standing[0], &standing[49_999]] {
            assert_eq!(keys.reserve(&tenant, &record.key, [7; 16]), Known::Replayed(Arc::clone(record)));
        }
        keys.remember(4_000_000_000_000, [(tenant.clone(), 4_000_000_000_000, done("last"))]);
        let left = &keys.tenants()[&tenant];
        assert_eq!((left.standing.len(), left.numbers.len(), left.clear.len()), (1, 1, 1));
        assert!(left.standing.capacity() <= 66, "what is forgotten is given back");
    }

    /// A key that stands anew is not forgotten with its first record.
    #[test]
    fn of_two_records_of_a_key_the_newer_counts() {
        let keys = keys(2, 1 << 20, 1 << 30);
        let tenant = Tenant::parse("acme").unwrap();
        for key in ["a", "a", "b"] {
            keys.remember(0, [(tenant.clone(), 0, done(key))]);
        }
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::Replayed(done("a")));
        keys.remember(0, [(tenant.clone(), 0, done("c"))]);
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::New);
    }
}
