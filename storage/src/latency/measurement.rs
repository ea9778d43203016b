//! What one chunk contributes to its tenant's latency histograms.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use hdrhistogram::Histogram;

use crate::record::Kind;

/// Length of a window, in nanoseconds. Chosen: a minute is what burn-rate alerts look at; longer ranges merge.
pub const WINDOW_NS: i64 = 60_000_000_000;

/// Series (source × operation × outcome × window) that one chunk may open; the rest is counted under
/// `_other` (B1).
pub const SERIES_MAX: usize = 4_096;

/// The longest duration that is told apart, in nanoseconds: 24 hours. Longer ones count as this.
pub const DURATION_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;

/// Measures a logged chunk. `ingest::measure` provides it; recovery calls it again.
pub type Measure = fn(Kind, &RecordBatch) -> Measurement;

/// An empty histogram of the one shape that is stored and merged: 1 ns to 24 h, three significant digits.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DURATION_NS_MAX, 3).expect("the bounds are valid")
}

/// One series in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The service.
    pub source: Box<str>,
    /// Span name or event type.
    pub operation: Box<str>,
    /// Whether these ended in an error.
    pub is_error: bool,
    /// Start of the window, nanoseconds since 1970 UTC, a multiple of [`WINDOW_NS`].
    pub window_start_ns: i64,
    /// Distinct durations (rounded to three digits) with their counts, rising.
    pub buckets: Vec<(u64, u32)>,
}

/// What one chunk contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurement {
    /// The chunk's series.
    pub series: Vec<Series>,
}

/// Collects durations of one chunk. Reused by its lane: nothing is allocated for a series seen before.
#[derive(Debug, Default)]
pub struct Recorder {
    series: Vec<Series>,
    index: HashMap<SeriesKey, usize>,
    last: Option<usize>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SeriesKey {
    source: Box<str>,
    operation: Box<str>,
    is_error: bool,
    window_start_ns: i64,
}

impl Recorder {
    /// Records one duration, in nanoseconds; negative ones count as zero.
    pub fn record(&mut self, source: &str, operation: &str, is_error: bool, time_ns: i64, duration_ns: i64) {
        let window_start_ns = time_ns.div_euclid(WINDOW_NS).saturating_mul(WINDOW_NS);
        let at = self.resolve(source, operation, is_error, window_start_ns);
        let duration = u64::try_from(duration_ns).unwrap_or(0).clamp(1, DURATION_NS_MAX);
        self.series[at].buckets.push((three_digits(duration), 1));
    }

    fn resolve(&mut self, source: &str, operation: &str, is_error: bool, window_start_ns: i64) -> usize {
        if let Some(last) = self.last {
            let series = &self.series[last];
            if series.window_start_ns == window_start_ns
                && series.is_error == is_error
                && &*series.operation == operation
                && &*series.source == source
            {
                return last;
            }
        }
        let (source, operation) =
            if self.series.len() >= SERIES_MAX { ("_other", "_other") } else { (source, operation) };
        let key = SeriesKey { source: source.into(), operation: operation.into(), is_error, window_start_ns };
        let next = self.series.len();
        let at = *self.index.entry(key).or_insert(next);
        if at == next {
            self.series.push(Series {
                source: source.into(),
                operation: operation.into(),
                is_error,
                window_start_ns,
                buckets: Vec::new(),
            });
        }
        self.last = Some(at);
        at
    }

    /// Closes the chunk's measurement and leaves the recorder empty.
    pub fn take(&mut self) -> Measurement {
        self.index.clear();
        self.last = None;
        let mut series = std::mem::take(&mut self.series);
        for one in &mut series {
            one.buckets.sort_unstable();
            one.buckets.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
        }
        Measurement { series }
    }
}

/// The lowest value that a histogram of three significant digits cannot tell from `value`:
/// 2,048 sub-buckets a power of two, as HdrHistogram lays them out.
fn three_digits(value: u64) -> u64 {
    let magnitude = 64 - value.leading_zeros();
    let shift = magnitude.saturating_sub(11);
    value >> shift << shift
}

#[cfg(test)]
mod tests {
    use super::{Recorder, three_digits};

    #[test]
    fn rounding_is_that_of_the_histogram() {
        let histogram = super::new_histogram();
        for value in [1, 1_000, 2_047, 2_048, 2_049, 4_097, 1_234_567, 86_399_999_999_999] {
            assert_eq!(three_digits(value), histogram.lowest_equivalent(value), "{value}");
        }
    }

    #[test]
    fn a_series_past_the_bound_is_counted_under_other() {
        let mut recorder = Recorder::default();
        for at in 0..5_000 {
            recorder.record("a", &at.to_string(), false, 0, 5);
        }
        let measurement = recorder.take();
        let count: u32 = measurement.series.iter().flat_map(|s| &s.buckets).map(|(_, n)| n).sum();
        assert_eq!((measurement.series.len(), count), (4_097, 5_000));
    }
}
