//! Connections that have not shown a valid key: how many there may be, and which one makes room for the next.
//!
//! Whoever can reach the listener can open connections, and each costs memory before anything is known of it. So
//! strangers are few: so many of one address, so many in all. A newcomer past a bound takes the place of the one that
//! has waited longest without asking anything; a key that is good makes an ordinary client of a connection, which is
//! then its tenant's matter. One thread accepts and alone keeps the list; a [`Pass`] is what lane and acceptor share
//! of a connection, one atomic word.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use storage::memory::{Charge, Memory, Pool, Short};
use storage::record::Tenant;
use tokio::sync::Notify;

use crate::identity::network;

/// What a connection of a stranger may take, in bytes: its task, and a head up to its bound in a read buffer.
pub const STRANGER_BYTES: u64 = 48 << 10;

/// What a connection of a known client takes, in bytes, its bodies aside: its task, hyper's buffers and header map, the
/// allocator's rounding. Measured: 30 KiB in a debug build (`an_idle_connection_costs_what_it_is_charged`).
pub const CLIENT_BYTES: u64 = 24 << 10;

/// The part of the edge's memory that strangers may take together: half. Chosen: a body still fits beside them, and a
/// client that opens a hundred connections at once is no flood yet.
const STRANGERS_SHARE: u64 = 2;

/// How long a stranger is waited for before another may have its place, in milliseconds: a client that connects and
/// asks at once is not cut off by its own neighbours.
const YOUNG_MS: u64 = 100;

/// Words of a pass that are no time: nobody waits for this connection's next request; it showed a key; it ended.
const AT_WORK: u64 = 0;
const PROVEN: u64 = u64::MAX - 1;
const GONE: u64 = u64::MAX;

/// One connection, as acceptor and lane share it.
pub struct Pass {
    peer: IpAddr,
    /// Since when the connection has waited for its client, in milliseconds from 1, or one of the words above.
    word: AtomicU64,
    evicted: Notify,
    charge: Mutex<Option<Charge>>,
}

impl Pass {
    fn new(peer: IpAddr, charge: Charge) -> Self {
        Self { peer, word: AtomicU64::new(AT_WORK), evicted: Notify::new(), charge: Mutex::new(Some(charge)) }
    }

    /// Where its client is.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Notes that the connection waits for its client to ask something whole. Bytes of a head do not end that.
    pub fn waits(&self, now_ms: u64) {
        let _ = self.word.compare_exchange(AT_WORK, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that a request is being answered; `false` where the connection was given to another meanwhile.
    pub fn works(&self) -> bool {
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| match word {
                PROVEN | AT_WORK => Some(word),
                GONE => None,
                _ => Some(AT_WORK),
            })
            .is_ok()
    }

    /// Whether it showed a valid key.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.word.load(Ordering::Relaxed) == PROVEN
    }

    /// Makes an ordinary client of it, at its tenant's cost from now on.
    ///
    /// # Errors
    /// [`Short`] where the tenant holds its share of connections, or the edge has no memory left: the request is to
    /// be refused and the connection closed.
    pub fn prove(&self, memory: &Arc<Memory>, tenant: &Tenant) -> Result<(), Short> {
        if self.is_proven() {
            return Ok(());
        }
        let charge = memory.take(Pool::Edge, Some(tenant), CLIENT_BYTES)?;
        self.word.store(PROVEN, Ordering::Relaxed);
        *self.charge.lock().unwrap_or_else(PoisonError::into_inner) = Some(charge);
        Ok(())
    }

    /// Waits until the connection's place is another's.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Gives back what the connection held.
    pub fn end(&self) {
        self.word.store(GONE, Ordering::Relaxed);
        *self.charge.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_stranger(&self) -> bool {
        !matches!(self.word.load(Ordering::Relaxed), PROVEN | GONE)
    }

    /// Takes its place, if it has waited for so long.
    fn evict(&self, now_ms: u64, waited_ms: u64) -> bool {
        let waits = |word: u64| !matches!(word, AT_WORK | PROVEN | GONE) && word + waited_ms <= now_ms;
        let taken =
            self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| waits(word).then_some(GONE));
        if taken.is_ok() {
            // What it holds is given back when its task has ended.
            self.evicted.notify_one();
        }
        taken.is_ok()
    }
}

/// Whether a newcomer may come in.
pub enum Admission {
    /// It may.
    In(Arc<Pass>),
    /// Not now, but soon: everybody is young or at work.
    Wait,
    /// Its address floods the listener: not now, and soon only if its own connections are heard meanwhile.
    Flood,
    /// It may not.
    Refused,
}

/// Everybody who has shown no valid key yet, in the order of their coming. The acceptor's own.
pub struct Strangers {
    memory: Arc<Memory>,
    all: Vec<Arc<Pass>>,
    max: usize,
    per_address_max: usize,
}

impl Strangers {
    /// At most `max` at once, and `per_address_max` of one address (0 = as many as all). Less than `max` where the
    /// edge's memory is less.
    #[must_use]
    pub fn new(memory: &Arc<Memory>, max: usize, per_address_max: usize) -> Self {
        let affordable = memory.max(Pool::Edge) / STRANGERS_SHARE / STRANGER_BYTES;
        let max = max.min(usize::try_from(affordable).unwrap_or(usize::MAX)).max(1);
        let per_address_max = if per_address_max == 0 { max } else { per_address_max.min(max) };
        Self { memory: Arc::clone(memory), all: Vec::new(), max, per_address_max }
    }

    /// Lets one more in, in another's place where a bound is met.
    /// Where its address floods the listener, `is_last` says that it waits no more.
    pub fn admit(&mut self, peer: IpAddr, now_ms: u64, is_last: bool) -> Admission {
        self.all.retain(|pass| pass.is_stranger());
        let of = network(peer);
        let same = self.all.iter().filter(|pass| network(pass.peer) == of).count();
        if same >= self.per_address_max {
            let evict = |waited_ms: u64| {
                self.all
                    .iter()
                    .filter(|pass| network(pass.peer) == of)
                    .any(|pass| pass.evict(now_ms, waited_ms))
            };
            // A burst of one address may exceed its bound while it is young, and never take half of all places.
            let is_flood = same >= self.per_address_max.max(self.max / 2);
            if !evict(YOUNG_MS) && is_flood {
                if !is_last {
                    return Admission::Flood;
                }
                if !evict(0) {
                    return Admission::Refused;
                }
            }
        }
        self.all.retain(|pass| pass.is_stranger());
        if self.all.len() >= self.max && !self.all.iter().any(|pass| pass.evict(now_ms, YOUNG_MS)) {
            return Admission::Wait;
        }
        match self.memory.take(Pool::Edge, None, STRANGER_BYTES) {
            Ok(charge) => {
                let pass = Arc::new(Pass::new(peer, charge));
                self.all.push(Arc::clone(&pass));
                Admission::In(pass)
            }
            // The edge's memory is with bodies: they end soon.
            Err(_) => {
                let _ = self.all.iter().any(|pass| pass.evict(now_ms, YOUNG_MS));
                Admission::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use storage::memory::{Memory, Pool};
    use storage::record::Tenant;

    use super::{Admission, CLIENT_BYTES, Pass, STRANGER_BYTES, Strangers, YOUNG_MS};

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn strangers(max: usize, per_address_max: usize) -> (Arc<Memory>, Strangers) {
        let memory = Memory::new(1 << 30, 0);
        let strangers = Strangers::new(&memory, max, per_address_max);
        (memory, strangers)
    }

    fn admit(strangers: &mut Strangers, peer: IpAddr, now_ms: u64) -> Option<Arc<Pass>> {
        match strangers.admit(peer, now_ms, true) {
            Admission::In(pass) => Some(pass),
            Admission::Wait | Admission::Flood | Admission::Refused => None,
        }
    }

    #[test]
    fn a_newcomer_past_its_addresss_bound_takes_the_place_of_the_oldest_that_waits() {
        let (memory, mut strangers) = strangers(100, 3);
        let passes: Vec<_> = (0..3).map(|_| admit(&mut strangers, address(1), 1).expect("room")).collect();
        let other = admit(&mut strangers, address(2), 1).expect("another address");
        passes.iter().skip(1).for_each(|pass| pass.waits(1));
        other.waits(1);
        let newest = admit(&mut strangers, address(1), 1 + YOUNG_MS).expect("in another's place");
        assert!(passes[0].works() && !passes[1].works() && passes[2].works(), "the first is at work");
        assert!(other.works() && newest.works());
        passes[1].end();
        assert_eq!(memory.used(Pool::Edge), 4 * STRANGER_BYTES);
    }

    #[test]
    fn a_young_burst_comes_in_and_never_takes_half_of_all_places() {
        let (_memory, mut strangers) = strangers(40, 3);
        let burst: Vec<_> = (0..40).filter_map(|_| admit(&mut strangers, address(1), 5)).collect();
        assert_eq!(burst.len(), 20);
        assert!(admit(&mut strangers, address(2), 5).is_some(), "there is room for others");
        burst.iter().for_each(|pass| pass.waits(5));
        // Once they have waited, each newcomer takes a place, and the address comes down to its bound.
        assert!(admit(&mut strangers, address(1), 5 + YOUNG_MS).is_some());
        assert_eq!(burst.iter().filter(|pass| !pass.works()).count(), 1);
    }

    #[test]
    fn strangers_in_all_are_bounded_and_the_oldest_that_waits_leaves() {
        let (memory, mut strangers) = strangers(4, 0);
        let passes: Vec<_> = (0..4).map(|at| admit(&mut strangers, address(at), 1).expect("room")).collect();
        assert!(matches!(strangers.admit(address(9), 1, true), Admission::Wait), "everybody is at work");
        passes[2].waits(1);
        assert!(matches!(strangers.admit(address(9), YOUNG_MS, true), Admission::Wait), "young");
        assert!(admit(&mut strangers, address(9), 1 + YOUNG_MS).is_some());
        assert!(!passes[2].works());
        // Who shows a key is none of them any more.
        let acme = Tenant::parse("acme").expect("a good id");
        passes[0].prove(&memory, &acme).expect("there is memory");
        assert!(admit(&mut strangers, address(10), 1).is_some());
        assert!(passes[0].is_proven() && passes[0].works());
        assert_eq!(memory.used_by(Pool::Edge, &acme), CLIENT_BYTES);
        passes[0].end();
        assert_eq!(memory.used_by(Pool::Edge, &acme), 0);
    }

    /// X2: connections are a share like any other.
    #[test]
    fn connections_of_one_tenant_leave_room_for_another() {
        let memory = Memory::new(64 << 20, 0);
        let mut strangers = Strangers::new(&memory, 1_000, 0);
        let [acme, other] = ["acme", "other"].map(|id| Tenant::parse(id).expect("a good id"));
        let mut held = Vec::new();
        let refused = loop {
            let pass = admit(&mut strangers, address(1), 1).expect("each is proven at once");
            match pass.prove(&memory, &acme) {
                Ok(()) => held.push(pass),
                Err(short) => break short,
            }
        };
        assert_eq!(refused, storage::memory::Short::Share, "{} connections", held.len());
        let pass = admit(&mut strangers, address(2), 1).expect("room for a stranger");
        assert!(pass.prove(&memory, &other).is_ok());
    }

    #[test]
    fn strangers_take_half_of_the_edges_memory_at_most() {
        let memory = Memory::new(64 << 20, 0);
        let mut strangers = Strangers::new(&memory, 1_000_000, 0);
        let held: Vec<_> = (0..10_000_u32)
            .map_while(|at| admit(&mut strangers, IpAddr::from((at << 8).to_be_bytes()), 1))
            .collect();
        assert!(held.len() > 10);
        assert!(memory.used(Pool::Edge) <= memory.max(Pool::Edge) / 2, "{} strangers", held.len());
    }
}
