//! Whose turn it is: queries wait per tenant, and tenants are served in turn (X2, B1).
//!
//! Plain data, no clock. A tenant that runs nothing may take the last free place; one that runs something leaves as
//! many places free as it holds. So one tenant alone gets half of the places, and the next one never waits for it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Queries of one tenant that may wait.
pub const WAITING_PER_TENANT_MAX: usize = 32;
/// Queries that may wait in all.
pub const WAITING_MAX: usize = 256;
/// Bytes of statements of one tenant that may wait.
pub const WAITING_BYTES_PER_TENANT_MAX: usize = 2 << 20;
/// Bytes of statements that may wait in all.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Why a query may not even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its tenant has enough waiting.
    Share,
    /// There is enough waiting.
    Whole,
}

/// Who runs and who waits.
#[derive(Debug)]
pub struct Turns<K, T> {
    running_max: usize,
    running: HashMap<K, usize>,
    running_total: usize,
    waiting: HashMap<K, VecDeque<(u64, usize, T)>>,
    /// Tenants that wait, the next one first.
    order: VecDeque<K>,
    waiting_total: usize,
    waiting_bytes: usize,
    next_id: u64,
}

impl<K: Clone + Eq + Hash, T> Turns<K, T> {
    /// Turns of that many places.
    #[must_use]
    pub fn new(running_max: usize) -> Self {
        Self {
            running_max: running_max.max(1),
            running: HashMap::new(),
            running_total: 0,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            waiting_total: 0,
            waiting_bytes: 0,
            next_id: 0,
        }
    }

    /// Queues a query of `bytes`; gives the number it waits under.
    ///
    /// # Errors
    /// [`Full`]: it does not wait.
    pub fn wait(&mut self, tenant: &K, bytes: usize, ticket: T) -> Result<u64, Full> {
        let own = self.waiting.get(tenant);
        let own_bytes: usize = own.into_iter().flatten().map(|(_, bytes, _)| bytes).sum();
        if own.map_or(0, VecDeque::len) >= WAITING_PER_TENANT_MAX
            || own_bytes + bytes > WAITING_BYTES_PER_TENANT_MAX
        {
            return Err(Full::Share);
        }
        if self.waiting_total >= WAITING_MAX || self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            return Err(Full::Whole);
        }
        self.next_id += 1;
        let queue = self.waiting.entry(tenant.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(tenant.clone());
        }
        queue.push_back((self.next_id, bytes, ticket));
        self.waiting_total += 1;
        self.waiting_bytes += bytes;
        Ok(self.next_id)
    }

    /// The next query that may run, which then runs.
    pub fn next(&mut self) -> Option<(K, T)> {
        let at = self.order.iter().position(|tenant| self.may_run(tenant))?;
        let tenant = self.order.remove(at)?;
        let queue = self.waiting.get_mut(&tenant)?;
        let (_, bytes, ticket) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.order.push_back(tenant.clone());
        }
        self.waiting_total -= 1;
        self.waiting_bytes -= bytes;
        *self.running.entry(tenant.clone()).or_default() += 1;
        self.running_total += 1;
        Some((tenant, ticket))
    }

    fn may_run(&self, tenant: &K) -> bool {
        if self.running_total >= self.running_max {
            return false;
        }
        let free_after = self.running_max - self.running_total - 1;
        let held = self.running.get(tenant).copied().unwrap_or(0);
        held == 0 || held < free_after
    }

    /// A query that waits no longer; it may have been given its turn already.
    pub fn leave(&mut self, tenant: &K, id: u64) {
        let Some(queue) = self.waiting.get_mut(tenant) else { return };
        let Some(at) = queue.iter().position(|(one, ..)| *one == id) else { return };
        if let Some((_, bytes, _)) = queue.remove(at) {
            self.waiting_total -= 1;
            self.waiting_bytes -= bytes;
        }
        if queue.is_empty() {
            self.waiting.remove(tenant);
            self.order.retain(|one| one != tenant);
        }
    }

    /// A query that ran ended.
    pub fn end(&mut self, tenant: &K) {
        if let Some(running) = self.running.get_mut(tenant) {
            *running -= 1;
            self.running_total -= 1;
            if *running == 0 {
                self.running.remove(tenant);
            }
        }
    }

    /// Queries that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running_total
    }

    /// Queries that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting_total
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Turns};

    fn granted(turns: &mut Turns<&'static str, u32>) -> Vec<(&'static str, u32)> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    // X2
    #[test]
    fn one_tenant_gets_half_and_the_next_one_never_waits_for_it() {
        let mut turns = Turns::new(4);
        for ticket in 0..10 {
            turns.wait(&"heavy", 1, ticket).unwrap();
        }
        assert_eq!(granted(&mut turns), [("heavy", 0), ("heavy", 1)]);
        turns.wait(&"small", 1, 100).unwrap();
        turns.wait(&"other", 1, 200).unwrap();
        assert_eq!(granted(&mut turns), [("small", 100), ("other", 200)]);
        turns.end(&"heavy");
        assert_eq!(granted(&mut turns), []);
        turns.end(&"small");
        turns.end(&"other");
        assert_eq!(granted(&mut turns), [("heavy", 2)]);
        assert_eq!((turns.running(), turns.waiting()), (2, 7));
    }

    #[test]
    fn two_places_are_one_for_each() {
        let mut turns = Turns::new(2);
        for ticket in 0..3 {
            turns.wait(&"heavy", 1, ticket).unwrap();
        }
        assert_eq!(granted(&mut turns), [("heavy", 0)]);
        turns.wait(&"small", 1, 9).unwrap();
        assert_eq!(granted(&mut turns), [("small", 9)]);
        turns.end(&"heavy");
        turns.end(&"small");
        assert_eq!(granted(&mut turns), [("heavy", 1)]);
        let mut one = Turns::new(1);
        one.wait(&"a", 1, 0).unwrap();
        one.wait(&"b", 1, 1).unwrap();
        assert_eq!(granted(&mut one), [("a", 0)]);
        one.end(&"a");
        assert_eq!(granted(&mut one), [("b", 1)]);
    }

    #[test]
    fn tenants_are_served_in_turn() {
        let mut turns = Turns::new(2);
        for ticket in 0..3 {
            turns.wait(&"a", 1, ticket).unwrap();
            turns.wait(&"b", 1, 10 + ticket).unwrap();
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            let round = granted(&mut turns);
            for (tenant, _) in &round {
                turns.end(tenant);
            }
            order.extend(round.into_iter().map(|(_, ticket)| ticket));
        }
        assert_eq!(order, [0, 10, 1, 11, 2, 12]);
    }

    // B1
    #[test]
    fn what_waits_is_bounded_for_a_tenant_and_in_all() {
        let mut turns = Turns::new(1);
        for _ in 0..32 {
            turns.wait(&0, 1, ()).unwrap();
        }
        assert_eq!(turns.wait(&0, 1, ()), Err(Full::Share));
        for at in 32..256 {
            turns.wait(&at, 1, ()).unwrap();
        }
        assert_eq!(turns.wait(&9_999, 1, ()), Err(Full::Whole));
        turns.leave(&0, 1);
        assert_eq!(turns.waiting(), 255);
        turns.wait(&9_999, 1, ()).unwrap();

        let mut turns = Turns::new(1);
        turns.wait(&0, 2 << 20, ()).unwrap();
        assert_eq!(turns.wait(&0, 1, ()), Err(Full::Share));
        for at in 1..4 {
            turns.wait(&at, 2 << 20, ()).unwrap();
        }
        assert_eq!(turns.wait(&9_999, 1, ()), Err(Full::Whole));
    }
}
