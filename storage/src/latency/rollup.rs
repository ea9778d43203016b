//! Measurements to rows of the `latency` table, and back.
//!
//! A client chooses how many series there are: a span name with an id in it is a series of its own. So many a minute
//! are kept, the busiest ones; the durations of all others are counted in one series by the name of `_other`.

use std::cmp::Reverse;

use super::measurement::{OTHER, Series, WINDOW_NS};
use super::sparse::Encoder;
use crate::record::{Clean, Draft, Field, Kind};

/// Series that one seal keeps of a dataset and minute; the rest is counted in `_other` (B1). Chosen: several times
/// what a service has of operations, and some 300 bytes each while they are sealed.
pub const WINDOW_SERIES_MAX: usize = 1_024;

/// What a row takes beside its names and histogram while rows are gathered: its fixed columns, and their growth.
const ROW_BYTES: usize = 256;

/// What a distinct duration takes at most in an encoded histogram: a run of zeros, a count.
const BUCKET_BYTES: usize = 12;

/// Bytes that [`rows`] takes at most for these.
pub fn bytes(all: &[&Series]) -> u64 {
    let bytes: usize = all
        .iter()
        .map(|series| {
            let names = series.source.len() + series.operation.len();
            2 * (ROW_BYTES + names + series.buckets.len() * BUCKET_BYTES)
        })
        .sum();
    bytes as u64
}

/// Merges series of one dataset into latency rows: one a window, source, operation and outcome.
///
/// `None` where nothing was measured. Every duration is in one row.
pub fn rows(dataset: &str, mut all: Vec<&Series>, now_ns: i64) -> Option<Clean> {
    if all.is_empty() {
        return None;
    }
    all.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    let mut rows = Rows {
        dataset,
        now_ns,
        draft: Draft::new(Kind::Latency),
        encoder: Encoder::new(),
        histogram: Vec::new(),
    };
    for window in all.chunk_by(|a, b| a.window_start_ns == b.window_start_ns) {
        rows.window(window);
    }
    // Derived from chunks that passed the scrubber: sources and operations are clean already (P1).
    Some(Clean::attest(&mut rows.draft, 0))
}

/// Rows that are being made.
struct Rows<'a> {
    dataset: &'a str,
    now_ns: i64,
    draft: Draft,
    encoder: Encoder,
    histogram: Vec<u8>,
}

impl Rows<'_> {
    /// The rows of one minute; `all` are sorted by key.
    fn window(&mut self, all: &[&Series]) {
        let mut named: Vec<&[&Series]> = all.chunk_by(|a, b| a.key() == b.key()).collect();
        let mut others: Vec<&[&Series]> = Vec::new();
        if named.len() > WINDOW_SERIES_MAX {
            // The busiest stay, `_other` is one series of each outcome; of equals the first by name.
            named.sort_by_key(|same| Reverse((is_other(same), count(same))));
            let is_kept = |same: &&[&Series]| !is_other(same);
            let first = named.iter().position(is_kept).unwrap_or(named.len());
            others = named.split_off((first + WINDOW_SERIES_MAX - 2).min(named.len()));
            others.extend(named.drain(..first));
        }
        for same in named {
            self.row(same[0].source.as_ref(), same[0].operation.as_ref(), same[0].is_error, &[same]);
        }
        for is_error in [false, true] {
            let of_outcome: Vec<_> =
                others.iter().copied().filter(|same| same[0].is_error == is_error).collect();
            if !of_outcome.is_empty() {
                self.row(OTHER, OTHER, is_error, &of_outcome);
            }
        }
    }

    fn row(&mut self, source: &str, operation: &str, is_error: bool, of: &[&[&Series]]) {
        for series in of.iter().copied().flatten() {
            self.encoder.add(&series.buckets);
        }
        let count = self.encoder.take(&mut self.histogram);
        let count = i64::try_from(count).expect("fewer than 2^63 durations");
        let draft = &mut self.draft;
        draft.begin_row();
        draft.set_int(Field::TimeNs, of[0][0].window_start_ns);
        draft.set_int(Field::ObservedNs, self.now_ns);
        draft.set_text(Field::Source, source);
        draft.set_text(Field::SourceDataset, self.dataset);
        draft.set_text(Field::Operation, operation);
        draft.set_text(Field::Outcome, if is_error { "error" } else { "ok" });
        draft.set_int(Field::WindowNs, WINDOW_NS);
        draft.set_int(Field::Count, count);
        draft.set_int(Field::ErrorCount, if is_error { count } else { 0 });
        draft.set_bytes(Field::Histogram, &self.histogram);
        draft.end_row();
    }
}

fn is_other(same: &[&Series]) -> bool {
    &*same[0].source == OTHER && &*same[0].operation == OTHER
}

fn count(same: &[&Series]) -> u64 {
    same.iter().flat_map(|series| &series.buckets).map(|(_, count)| u64::from(*count)).sum()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::{WINDOW_SERIES_MAX, bytes, rows};
    use crate::latency::{Measurement, Recorder, Series, WINDOW_NS};

    fn measured(names: std::ops::Range<usize>, each: usize) -> Measurement {
        let mut recorder = Recorder::default();
        for name in names {
            for n in 0..each {
                let minute = (n % 2) as i64 * WINDOW_NS;
                recorder.record("checkout", &name.to_string(), name % 2 == 0, minute, 1_000 + n as i64);
            }
        }
        recorder.take()
    }

    fn series<'a>(of: impl IntoIterator<Item = &'a Measurement>) -> Vec<&'a Series> {
        of.into_iter().flat_map(|measurement| &measurement.series).collect()
    }

    fn sum(rows: &arrow::array::RecordBatch, of: &str) -> i64 {
        rows.column_by_name(of).unwrap().as_primitive::<Int64Type>().values().iter().sum()
    }

    // B1: a key chooses the names; what a minute and seal keep of them is bounded, and every duration counts.
    #[test]
    fn series_past_the_bound_of_a_minute_are_counted_in_one_and_the_busiest_are_kept() {
        let storms: Vec<Measurement> =
            (0..6).map(|n| measured(100 + n * 1_000..1_100 + n * 1_000, 2)).collect();
        let busy = measured(0..10, 40);
        let all = series(storms.iter().chain([&busy]));
        let clean = rows("spans", all.clone(), 1).unwrap();
        let found = clean.batch();
        assert_eq!(found.num_rows(), 2 * WINDOW_SERIES_MAX, "of two minutes");
        assert_eq!((sum(found, "count"), sum(found, "errors")), (12_400, 6_200));
        let operations = found.column_by_name("operation").unwrap().as_string::<i32>();
        for name in 0..10 {
            let name = name.to_string();
            assert_eq!(operations.iter().flatten().filter(|other| *other == name).count(), 2, "{name}");
        }
        assert_eq!(operations.iter().flatten().filter(|name| *name == "_other").count(), 4);
        // What is stated before is what it takes: rows, names and histograms, not dense buckets of 311 KB.
        let held = found.get_array_memory_size() as u64;
        assert!(held <= bytes(&all) && bytes(&all) < 12_000 * 1_024, "{held} of {}", bytes(&all));
    }

    #[test]
    fn up_to_the_bound_every_series_has_its_row() {
        let one = measured(0..WINDOW_SERIES_MAX, 1);
        let clean = rows("spans", series([&one, &one]), 1).unwrap();
        assert_eq!(clean.batch().num_rows(), WINDOW_SERIES_MAX);
        assert_eq!(sum(clean.batch(), "count"), 2 * WINDOW_SERIES_MAX as i64);
        assert!(rows("spans", Vec::new(), 1).is_none());
    }
}
