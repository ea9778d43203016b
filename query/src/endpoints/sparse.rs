//! A histogram that holds only the buckets that are used.
//!
//! Its buckets are those of [`storage::latency::new_histogram`] (three significant digits), so merging is
//! adding counts and loses nothing; one full histogram is 300 KB, and an answer may need thousands (B1).

use std::collections::BTreeMap;

/// Counts by the lowest value of their bucket, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    buckets: BTreeMap<u64, u64>,
    count: u64,
}

/// Sub-buckets of a power of two: 2,048, as HdrHistogram lays out three digits.
const SUB_BUCKET_BITS: u32 = 11;

impl Sparse {
    /// Adds `count` durations of `value` nanoseconds.
    pub fn add(&mut self, value: u64, count: u64) {
        *self.buckets.entry(lowest(value)).or_default() += count;
        self.count += count;
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (value, count) in &other.buckets {
            *self.buckets.entry(*value).or_default() += count;
        }
        self.count += other.count;
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many buckets it uses.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// The value at or below which the share `quantile` (0 to 1) of the durations lies, as HdrHistogram has
    /// it: the highest value of the bucket. 0 where there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (value, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return highest(*value);
            }
        }
        0
    }

    /// The highest value, as HdrHistogram has it; 0 where there are none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.buckets.last_key_value().map_or(0, |(value, _)| highest(*value))
    }
}

fn shift(value: u64) -> u32 {
    (64 - value.leading_zeros()).saturating_sub(SUB_BUCKET_BITS)
}

fn lowest(value: u64) -> u64 {
    value >> shift(value) << shift(value)
}

fn highest(value: u64) -> u64 {
    value | ((1 << shift(value)) - 1)
}

#[cfg(test)]
mod tests {
    use super::Sparse;

    // F32: merged sparse histograms say what one full histogram of all values says.
    #[test]
    fn it_agrees_with_the_full_histogram() {
        let mut full = storage::latency::new_histogram();
        let mut parts = vec![Sparse::default(); 3];
        let mut value = 1_u64;
        for at in 0..20_000_u64 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let duration = (value >> (17 + at % 40)).clamp(1, 86_400_000_000_000);
            full.record(duration).unwrap();
            parts[(at % 3) as usize].add(duration, 1);
        }
        let mut merged = Sparse::default();
        for part in &parts {
            merged.merge(part);
        }
        assert_eq!(merged.count(), full.len());
        assert_eq!(merged.max(), full.max());
        for quantile in [0.0, 0.001, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
            assert_eq!(merged.quantile(quantile), full.value_at_quantile(quantile), "{quantile}");
        }
    }
}
