//! Slows down whoever tries keys: so many failures at once, then one a second, by address.
//!
//! Only failures are counted, so a good key is never in the way of a bad neighbour. The table is bounded; when
//! it is full of addresses that failed lately, the rest share one entry.

use std::net::IpAddr;

use dashmap::DashMap;

/// Failures of one address that are answered at once.
const BURST: u64 = 50;

/// Until one failure is forgotten, in nanoseconds.
const REFILL_NS: u64 = 1_000_000_000;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 16_384;

/// Failed credentials by address.
#[derive(Debug, Default)]
pub struct Failures {
    /// When each address' failures are all forgotten, on the monotonic clock.
    until: DashMap<IpAddr, u64>,
}

impl Failures {
    /// Counts a failure; past the bound, returns after how many seconds to try again.
    pub fn count(&self, address: IpAddr, now_ns: u64) -> Option<u32> {
        let mut address = network(address);
        if !self.until.contains_key(&address) && self.until.len() >= ADDRESSES_MAX {
            self.until.retain(|_, until| *until > now_ns);
            if self.until.len() >= ADDRESSES_MAX {
                address = IpAddr::from([0, 0, 0, 0]);
            }
        }
        let mut forgotten = self.until.entry(address).or_insert(now_ns);
        let next = (*forgotten).max(now_ns) + REFILL_NS;
        let wait = next.saturating_sub(now_ns + BURST * REFILL_NS);
        if wait > 0 {
            return Some(u32::try_from(wait.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1));
        }
        *forgotten = next;
        None
    }
}

/// One holder of IPv6 has at least a /64 of addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut bytes = v6.octets();
            bytes[8..].fill(0);
            IpAddr::from(bytes)
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{BURST, Failures};

    /// RELIABILITY A18.
    #[test]
    fn an_address_is_slowed_and_its_neighbours_are_not() {
        let failures = Failures::default();
        let [one, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        for _ in 0..BURST {
            assert_eq!(failures.count(one, 0), None);
        }
        assert_eq!(failures.count(one, 0), Some(1));
        assert_eq!(failures.count(other, 0), None);
        assert_eq!(failures.count(one, 1_000_000_000), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let failures = Failures::default();
        for at in 0..2 * 16_384_u32 {
            failures.count(IpAddr::from(at.to_be_bytes()), 0);
        }
        assert!(failures.until.len() <= 16_385, "{}", failures.until.len());
    }
}
