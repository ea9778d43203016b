//! What the table's log says of a file, gathered as its rows pass.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use serde_json::{Map, Value, json};

use crate::record::schema;

/// Longest source bounds that are kept, lowest and highest together, in bytes: a bound is worth its bytes only
/// while it is short.
const SOURCE_BYTES_MAX: usize = 256;

/// Counts and bounds of a file's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    schema: SchemaRef,
    rows: u64,
    nulls: Vec<u64>,
    time_ns: Option<(i64, i64)>,
    source: Option<(String, String)>,
}

impl Statistics {
    /// Of no rows yet.
    pub fn new(schema: &SchemaRef) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            rows: 0,
            nulls: vec![0; schema.fields().len()],
            time_ns: None,
            source: None,
        }
    }

    /// Takes in rows of the schema.
    pub fn add(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows() as u64;
        for (nulls, column) in self.nulls.iter_mut().zip(rows.columns()) {
            *nulls += column.null_count() as u64;
        }
        let times =
            rows.column_by_name("time_ns").expect("every table has its time").as_primitive::<Int64Type>();
        if let Some((low, high)) = arrow::compute::min(times).zip(arrow::compute::max(times)) {
            let (lowest, highest) = self.time_ns.unwrap_or((low, high));
            self.time_ns = Some((lowest.min(low), highest.max(high)));
        }
        let sources = rows.column_by_name("source").expect("every table has its source").as_string::<i32>();
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
        let (at, _) = self.schema.column_with_name("source")?;
        self.source
            .as_ref()
            .filter(|(low, high)| low.len() + high.len() <= SOURCE_BYTES_MAX && self.nulls[at] == 0)
    }

    /// The statistics as Delta keeps them.
    pub fn json(&self) -> String {
        let mut low = Map::new();
        let mut high = Map::new();
        if let Some((lowest, highest)) = self.time_ns {
            low.insert("time_ns".into(), lowest.into());
            high.insert("time_ns".into(), highest.into());
            low.insert(schema::TIME.into(), timestamp(lowest).into());
            // Delta keeps timestamps in statistics at millisecond precision: the maximum is rounded up, so that
            // a reader that skips by it never skips a row.
            high.insert(schema::TIME.into(), timestamp(highest.saturating_add(999_999)).into());
        }
        if let Some((lowest, highest)) = self.source() {
            low.insert("source".into(), lowest.clone().into());
            high.insert("source".into(), highest.clone().into());
        }
        let fields = self.schema.fields().iter();
        let nulls: Map<String, Value> =
            fields.zip(&self.nulls).map(|(field, nulls)| (field.name().clone(), (*nulls).into())).collect();
        json!({"numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": nulls}).to_string()
    }
}

fn timestamp(ns: i64) -> String {
    let at =
        jiff::Timestamp::from_millisecond(ns.div_euclid(1_000_000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
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
        let mut statistics = Statistics::new(&rows.schema());
        statistics.add(&rows);
        let json = statistics.json();
        assert_eq!(statistics.source().is_some(), json.contains(&"b".repeat(bytes)));
        statistics.source().is_some()
    }

    // B1: what a client calls itself does not make the log of a table long.
    #[test]
    fn long_sources_are_not_told_as_bounds() {
        assert!(tells(128));
        assert!(!tells(129));
    }
}
