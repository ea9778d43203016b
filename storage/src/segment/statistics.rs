//! What the table's log says of a file, gathered as its rows pass.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

/// Longest source bounds that are kept, lowest and highest together, in bytes: a bound is worth its bytes only
/// while it is short.
const SOURCE_BYTES_MAX: usize = 256;

/// Rows of a file, and their bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    rows: u64,
    time_ns: Option<(i64, i64)>,
    source: Option<(String, String)>,
    /// Rows that have none.
    without_source: u64,
}

impl Statistics {
    /// Takes in rows of a table, or of its columns some: the rows count with their times.
    pub fn add(&mut self, rows: &RecordBatch) {
        if let Some(times) = rows.column_by_name("time_ns") {
            self.rows += rows.num_rows() as u64;
            let times = times.as_primitive::<Int64Type>();
            if let Some((low, high)) = arrow::compute::min(times).zip(arrow::compute::max(times)) {
                let (lowest, highest) = self.time_ns.unwrap_or((low, high));
                self.time_ns = Some((lowest.min(low), highest.max(high)));
            }
        }
        let Some(sources) = rows.column_by_name("source") else { return };
        let sources = sources.as_string::<i32>();
        self.without_source += sources.null_count() as u64;
        if let Some((low, high)) =
            arrow::compute::min_string(sources).zip(arrow::compute::max_string(sources))
        {
            let (lowest, highest) = self.source.get_or_insert_with(|| (low.to_owned(), high.to_owned()));
            if low < lowest.as_str() {
                *lowest = low.to_owned();
            }
            if high > highest.as_str() {
                *highest = high.to_owned();
            }
        }
    }

    /// Rows taken in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Lowest and highest `time_ns`.
    pub fn time_ns(&self) -> Option<(i64, i64)> {
        self.time_ns
    }

    /// Lowest and highest `source`, where every row has one and the bounds are short.
    pub fn source(&self) -> Option<&(String, String)> {
        let is_short = |(low, high): &&(String, String)| low.len() + high.len() <= SOURCE_BYTES_MAX;
        self.source.as_ref().filter(is_short).filter(|_| self.without_source == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Statistics;
    use crate::record::{Draft, Field, Kind};

    /// Whether the log of a table tells the bounds of two sources of so many bytes each.
    fn tells(bytes: usize) -> bool {
        let mut draft = Draft::new(Kind::Events);
        for source in ["a", "b"] {
            draft.begin_row();
            draft.set_int(Field::TimeNs, 1);
            draft.set_int(Field::ObservedNs, 1);
            draft.set_text(Field::Source, &source.repeat(bytes));
            draft.end_row();
        }
        let rows = draft.take();
        let mut statistics = Statistics::default();
        statistics.add(&rows);
        statistics.source().is_some()
    }

    // B1: what a client calls itself does not make the log of a table long.
    #[test]
    fn long_sources_are_not_told_as_bounds() {
        assert!(tells(128));
        assert!(!tells(129));
    }
}
