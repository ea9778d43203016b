//! Measurements to rows of the `latency` table, and back.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use super::measurement::{Measurement, WINDOW_NS, new_histogram};
use crate::record::{Clean, Draft, Field, Kind};

/// Merges measurements of one dataset into latency rows: one a window, source, operation and outcome.
///
/// `None` where nothing was measured.
pub fn rows(dataset: &str, measurements: &[&Measurement], now_ns: i64) -> Option<Clean> {
    let mut merged: BTreeMap<(i64, &str, &str, bool), Histogram<u64>> = BTreeMap::new();
    for series in measurements.iter().flat_map(|measurement| &measurement.series) {
        let key = (series.window_start_ns, &*series.source, &*series.operation, series.is_error);
        let histogram = merged.entry(key).or_insert_with(new_histogram);
        for (duration, count) in &series.buckets {
            histogram.saturating_record_n(*duration, u64::from(*count));
        }
    }
    if merged.is_empty() {
        return None;
    }
    let mut draft = Draft::new(Kind::Latency);
    let mut serializer = V2DeflateSerializer::new();
    let mut bytes = Vec::new();
    for ((window_start_ns, source, operation, is_error), histogram) in &merged {
        bytes.clear();
        serializer
            .serialize(histogram, &mut bytes)
            .expect("a histogram of our own shape serialises to memory");
        let count = i64::try_from(histogram.len()).expect("fewer than 2^63 durations");
        draft.begin_row();
        draft.set_int(Field::TimeNs, *window_start_ns);
        draft.set_int(Field::ObservedNs, now_ns);
        draft.set_text(Field::Source, source);
        draft.set_text(Field::SourceDataset, dataset);
        draft.set_text(Field::Operation, operation);
        draft.set_text(Field::Outcome, if *is_error { "error" } else { "ok" });
        draft.set_int(Field::WindowNs, WINDOW_NS);
        draft.set_int(Field::Count, count);
        draft.set_int(Field::ErrorCount, if *is_error { count } else { 0 });
        draft.set_bytes(Field::Histogram, &bytes);
        draft.end_row();
    }
    // Derived from chunks that passed the scrubber: sources and operations are clean already (P1).
    Some(Clean::attest(&mut draft, 0))
}
