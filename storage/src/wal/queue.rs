//! What waits for a log: of tenants that wait at the same time, each is written as many bytes (X2).
//!
//! Start-time fair queueing: an entry is to begin where its tenant's last one ends, or where the queue is by now. The
//! entry that begins first is next. Whoever sends little waits for one group at most, whatever others have queued; a
//! tenant's own entries stay in order.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use crate::record::Tenant;

/// What waits, by tenant.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: BinaryHeap<Place<T>>,
    /// Where each tenant's last entry ends; empty when nothing waits.
    ends: HashMap<Tenant, u64>,
    /// Where the entry that was taken last began.
    now: u64,
    pushed: u64,
}

#[derive(Debug)]
struct Place<T> {
    begins: u64,
    number: u64,
    bytes: u64,
    entry: T,
}

impl<T> Place<T> {
    fn key(&self) -> (u64, u64) {
        (self.begins, self.number)
    }
}

/// The greatest of a heap is its next: what begins first.
impl<T> Ord for Place<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> PartialOrd for Place<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Place<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Place<T> {}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BinaryHeap::new(), ends: HashMap::new(), now: 0, pushed: 0 }
    }
}

impl<T> Queue<T> {
    /// Queues an entry of `bytes` behind the tenant's others.
    pub fn push(&mut self, tenant: &Tenant, bytes: u64, entry: T) {
        let begins = self.ends.get(tenant).map_or(self.now, |end| self.now.max(*end));
        match self.ends.get_mut(tenant) {
            Some(end) => *end = begins + bytes,
            None => drop(self.ends.insert(tenant.clone(), begins + bytes)),
        }
        self.waiting.push(Place { begins, number: self.pushed, bytes, entry });
        self.pushed += 1;
    }

    /// Takes the next entries, `bytes_max` together at most; one alone may be larger.
    pub fn take(&mut self, bytes_max: u64) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.peek() {
            if !taken.is_empty() && bytes + next.bytes > bytes_max {
                break;
            }
            let place = self.waiting.pop().expect("it was there");
            bytes += place.bytes;
            self.now = place.begins;
            taken.push(place.entry);
        }
        if self.waiting.is_empty() {
            // Nobody is ahead of anybody.
            self.ends.clear();
            self.now = 0;
        }
        taken
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<T> {
        self.take(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use crate::record::Tenant;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn a_tenant_that_sends_little_waits_for_one_group_at_most() {
        let (heavy, light) = (tenant("heavy"), tenant("light"));
        let mut queue = Queue::default();
        (0..20).for_each(|n| queue.push(&heavy, 100, ("heavy", n)));
        assert_eq!(queue.take(100), [("heavy", 0)]);
        (0..5).for_each(|n| queue.push(&light, 10, ("light", n)));
        // What is on its way is not taken back, and what waits behind it comes later.
        let next = queue.take(160);
        assert_eq!(next[..5], [0, 1, 2, 3, 4].map(|n| ("light", n)));
        assert_eq!(next[5..], [("heavy", 1)]);
        assert_eq!(queue.take_all().len(), 18);
    }

    #[test]
    fn those_who_wait_at_the_same_time_are_written_as_much_and_each_in_order() {
        let mut queue = Queue::default();
        for n in 0..100 {
            queue.push(&tenant("a"), 100, ("a", n));
            queue.push(&tenant("b"), 10, ("b", n));
        }
        let mut bytes = [0_u64; 2];
        let mut next = [0; 2];
        while bytes[1] < 1_000 {
            for (name, n) in queue.take(150) {
                let which = usize::from(name == "b");
                assert_eq!(n, next[which], "{name} in order");
                next[which] += 1;
                bytes[which] += [100, 10][which];
            }
        }
        assert!(bytes[0].abs_diff(bytes[1]) <= 200, "{bytes:?}");
    }

    #[test]
    fn an_entry_larger_than_a_group_is_one() {
        let mut queue = Queue::default();
        queue.push(&tenant("a"), 1_000, 1);
        queue.push(&tenant("a"), 1, 2);
        assert_eq!(queue.take(10), [1]);
        assert_eq!(queue.take(10), [2]);
        assert!(queue.take(10).is_empty());
        assert!(queue.ends.is_empty(), "nothing is kept of tenants that wait for nothing");
    }
}
