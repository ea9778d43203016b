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

/// Minutes that one chunk may open beyond that, each with an `_other`; the rest is counted under the `_other` of the
/// first minute of its day (B1).
pub const OTHER_SERIES_MAX: usize = 2_048;

/// Bytes of names that one chunk's series may hold; the rest is counted under `_other` (B1).
pub const NAME_BYTES_MAX: usize = 1 << 20;

/// The source and operation of series that have no room of their own.
pub const OTHER: &str = "_other";

/// Length of a day, in nanoseconds.
const DAY_NS: i64 = 1_440 * WINDOW_NS;

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

impl Series {
    /// What tells series apart, in the order of windows.
    pub(super) fn key(&self) -> (i64, &str, &str, bool) {
        (self.window_start_ns, &self.source, &self.operation, self.is_error)
    }
}

/// What one chunk contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurement {
    /// The chunk's series.
    pub series: Vec<Series>,
}

impl Measurement {
    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let of_one = |series: &Series| {
            series.source.len() + series.operation.len() + series.buckets.capacity() * size_of::<(u64, u32)>()
        };
        self.series.capacity() * size_of::<Series>() + self.series.iter().map(of_one).sum::<usize>()
    }
}

/// Collects durations of one chunk. Reused by its lane: nothing is allocated for a series seen before.
#[derive(Debug, Default)]
pub struct Recorder {
    series: Vec<Series>,
    index: HashMap<SeriesKey, usize>,
    last: Option<usize>,
    name_bytes: usize,
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
        let mut key =
            SeriesKey { source: source.into(), operation: operation.into(), is_error, window_start_ns };
        let mut known = self.index.get(&key).copied();
        let bytes = source.len() + operation.len();
        if known.is_none() && (self.series.len() >= SERIES_MAX || self.name_bytes + bytes > NAME_BYTES_MAX) {
            key = SeriesKey { source: OTHER.into(), operation: OTHER.into(), ..key };
            known = self.index.get(&key).copied();
            if known.is_none() && self.series.len() >= SERIES_MAX + OTHER_SERIES_MAX {
                // Days are few: records that are too old or too new are refused.
                key.window_start_ns = window_start_ns.div_euclid(DAY_NS) * DAY_NS;
                known = self.index.get(&key).copied();
            }
        }
        let at = known.unwrap_or_else(|| self.open(key));
        self.last = Some(at);
        at
    }

    fn open(&mut self, key: SeriesKey) -> usize {
        let at = self.series.len();
        self.name_bytes += key.source.len() + key.operation.len();
        self.series.push(Series {
            source: key.source.clone(),
            operation: key.operation.clone(),
            is_error: key.is_error,
            window_start_ns: key.window_start_ns,
            buckets: Vec::new(),
        });
        self.index.insert(key, at);
        at
    }

    /// Closes the chunk's measurement and leaves the recorder empty.
    pub fn take(&mut self) -> Measurement {
        self.index.clear();
        self.last = None;
        self.name_bytes = 0;
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
            one.buckets.shrink_to_fit();
        }
        series.shrink_to_fit();
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
    use super::{Recorder, SERIES_MAX, WINDOW_NS, three_digits};

    #[test]
    fn rounding_is_that_of_the_histogram() {
        let histogram = super::new_histogram();
        for value in [1, 1_000, 2_047, 2_048, 2_049, 4_097, 1_234_567, 86_399_999_999_999] {
            assert_eq!(three_digits(value), histogram.lowest_equivalent(value), "{value}");
        }
    }

    // B1: whatever a client says that something took, it has a place in the stored histograms.
    #[test]
    fn a_duration_of_any_length_counts_as_a_day_at_most() {
        let mut recorder = Recorder::default();
        recorder.record("a", "b", false, 0, i64::MAX);
        let buckets = &recorder.take().series[0].buckets;
        assert_eq!(*buckets, [(three_digits(86_400_000_000_000), 1)]);
        assert!(super::new_histogram().record(buckets[0].0).is_ok());
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

    fn check_bound(record: impl Fn(&mut Recorder, i64), series_max: usize) -> usize {
        let mut recorder = Recorder::default();
        (0..20_000).for_each(|at| record(&mut recorder, at));
        let measurement = recorder.take();
        let count: u32 = measurement.series.iter().flat_map(|s| &s.buckets).map(|(_, n)| n).sum();
        assert_eq!(count, 20_000, "every duration counts");
        assert!(measurement.series.len() <= series_max, "{}", measurement.series.len());
        measurement.held_bytes()
    }

    // B1: neither names nor minutes make a chunk's measurement larger than a bound.
    #[test]
    fn minutes_and_names_past_their_bounds_are_counted_under_other() {
        let minutes = SERIES_MAX + 2_048 + 20_000 / 1_440 + 1;
        check_bound(|recorder, at| recorder.record("a", "b", false, at * WINDOW_NS, 5), minutes);
        let long = "n".repeat(4_096);
        let held = check_bound(
            |recorder, at| recorder.record("a", &format!("{long}{at}"), false, 0, 5),
            (1 << 20) / 4_096 + 1,
        );
        assert!(held < 2 << 20, "{held}");
    }
}
