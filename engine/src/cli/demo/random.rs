//! SplitMix64: a few lines, the same numbers on every machine, good enough for a shop that is not real.

/// A stream of numbers told by its seed alone.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is far below what a demo shows.
        self.bits() % bound
    }

    /// Returns a number from 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns true with `probability`.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns one of `items`, which are not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Returns a time around `mean`, now and then several times it: the shape of real latencies.
    pub fn latency_ns(&mut self, mean_ns: f64) -> u64 {
        let body = 0.4 + 0.6 * -(1.0 - self.unit()).ln();
        let tail = if self.chance(0.01) { 4.0 } else { 1.0 };
        (mean_ns * body * tail).max(1_000.0) as u64
    }

    /// Returns a trace id.
    pub fn trace_id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.bits() | 1).to_be_bytes());
        id[8..].copy_from_slice(&self.bits().to_be_bytes());
        id
    }

    /// Returns a span id.
    pub fn span_id(&mut self) -> [u8; 8] {
        (self.bits() | 1).to_be_bytes()
    }
}

/// Spreads `bits`: neighbours in, nothing alike out.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs of SplitMix64 for seed 0.
    #[test]
    fn the_stream_is_splitmix64() {
        let mut random = Random::new(0);
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn ranges_hold() {
        let mut random = Random::new(7);
        for _ in 0..1000 {
            assert!(random.below(3) < 3);
            assert!((0.0..1.0).contains(&random.unit()));
            assert!(random.latency_ns(1e6) >= 1_000);
            assert_ne!(random.trace_id(), [0; 16]);
        }
    }
}
