//! What a chunk contributes to latency: durations per source, operation, outcome and minute.
//!
//! Measured from the scrubbed columns, so that recovery, which has nothing else, measures the same again.
//! Spans count under their name, events and audit records under their type where they have a duration; logs
//! have none.

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, RunArray, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use storage::latency::{Measurement, Recorder};
use storage::record::{Field, Kind};

/// The lowest OTel severity number that is an error.
const SEVERITY_ERROR: i64 = 17;

/// Measures a chunk; the same chunk always gives the same.
#[must_use]
pub fn measure(kind: Kind, batch: &RecordBatch) -> Measurement {
    let operation = match kind {
        Kind::Spans => Field::Name,
        Kind::Events | Kind::Audit => Field::EventType,
        Kind::Logs | Kind::Latency | Kind::System => return Measurement::default(),
    };
    let (Some(durations), Some(times)) = (ints(batch, Field::DurationNs), ints(batch, Field::TimeNs)) else {
        return Measurement::default();
    };
    let sources = texts(batch, Field::Source);
    let operations = texts(batch, operation);
    let statuses = texts(batch, Field::StatusCode).filter(|_| kind == Kind::Spans);
    let severities = ints(batch, Field::SeverityNumber).filter(|_| kind != Kind::Spans);
    let mut recorder = Recorder::default();
    for row in (0..batch.num_rows()).filter(|row| durations.is_valid(*row)) {
        let is_error = statuses.is_some_and(|column| text(Some(column), row) == "error")
            || severities.is_some_and(|column| column.is_valid(row) && column.value(row) >= SEVERITY_ERROR);
        recorder.record(
            text(sources, row),
            text(operations, row),
            is_error,
            times.value(row),
            durations.value(row),
        );
    }
    recorder.take()
}

fn ints(batch: &RecordBatch, field: Field) -> Option<&Int64Array> {
    batch.column_by_name(field.name())?.as_primitive_opt::<Int64Type>()
}

/// A text column, plain or a value for each run of rows.
#[derive(Clone, Copy)]
struct Texts<'a> {
    values: &'a StringArray,
    runs: Option<&'a RunArray<Int32Type>>,
}

fn texts(batch: &RecordBatch, field: Field) -> Option<Texts<'_>> {
    let column = batch.column_by_name(field.name())?;
    match column.as_run_opt::<Int32Type>() {
        Some(runs) => Some(Texts { values: runs.values().as_string_opt::<i32>()?, runs: Some(runs) }),
        None => Some(Texts { values: column.as_string_opt::<i32>()?, runs: None }),
    }
}

fn text(column: Option<Texts<'_>>, row: usize) -> &str {
    let Some(Texts { values, runs }) = column else { return "unknown" };
    let at = runs.map_or(row, |runs| runs.get_physical_index(row));
    if values.is_valid(at) { values.value(at) } else { "unknown" }
}

#[cfg(test)]
mod tests {
    use storage::record::{Clean, Draft, Field, Kind};

    use super::measure;

    struct Row<'a> {
        source: &'a str,
        operation: &'a str,
        duration_ns: Option<i64>,
        status: &'a str,
        severity: i64,
    }

    fn chunk(kind: Kind, rows: &[Row<'_>]) -> Clean {
        let mut draft = Draft::new(kind);
        for (at, row) in (0..).zip(rows) {
            draft.begin_row();
            draft.set_int(Field::TimeNs, 120_000_000_000 + at);
            draft.set_text(Field::Source, row.source);
            if kind == Kind::Spans {
                draft.set_text(Field::Name, row.operation);
                draft.set_text(Field::StatusCode, row.status);
            } else if draft.has(Field::EventType) {
                draft.set_text(Field::EventType, row.operation);
            }
            draft.set_int(Field::SeverityNumber, row.severity);
            if let Some(duration_ns) = row.duration_ns.filter(|_| draft.has(Field::DurationNs)) {
                draft.set_int(Field::DurationNs, duration_ns);
            }
            draft.end_row();
        }
        Clean::attest(&mut draft, 1)
    }

    fn check(kind: Kind, rows: &[Row<'_>], expected: &[(&str, &str, bool, u32)]) {
        let measurement = measure(kind, chunk(kind, rows).batch());
        let mut got: Vec<_> = measurement
            .series
            .iter()
            .map(|series| {
                assert_eq!(series.window_start_ns, 120_000_000_000);
                let count = series.buckets.iter().map(|(_, count)| count).sum();
                (&*series.source, &*series.operation, series.is_error, count)
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, expected, "{kind:?}");
    }

    #[test]
    fn series_are_source_operation_and_outcome() {
        let row = |duration_ns, status, severity| Row {
            source: "api",
            operation: "GET /",
            duration_ns,
            status,
            severity,
        };
        let rows =
            [row(Some(5), "ok", 17), row(Some(6), "error", 9), row(Some(7), "unset", 9), row(None, "ok", 9)];
        check(Kind::Spans, &rows, &[("api", "GET /", false, 2), ("api", "GET /", true, 1)]);
        check(Kind::Events, &rows, &[("api", "GET /", false, 2), ("api", "GET /", true, 1)]);
        check(Kind::Audit, &rows[..1], &[("api", "GET /", true, 1)]);
        check(Kind::Logs, &rows, &[]);
        check(Kind::Events, &[row(None, "", 9)], &[]);
    }

    /// Quantiles of what is recorded lie within 0.1 % of the exact ones.
    #[test]
    fn durations_keep_three_digits() {
        let mut value = 17_i64;
        let durations: Vec<i64> = (0..5_000)
            .map(|_| {
                value = (value * 48_271) % 2_147_483_647;
                value * 13 % 9_000_000_000 + 1
            })
            .collect();
        let rows: Vec<_> = durations
            .iter()
            .map(|d| Row { source: "s", operation: "o", duration_ns: Some(*d), status: "ok", severity: 9 })
            .collect();
        let measurement = measure(Kind::Spans, chunk(Kind::Spans, &rows).batch());
        let mut histogram = storage::latency::new_histogram();
        for (value, count) in &measurement.series[0].buckets {
            histogram.record_n(*value, u64::from(*count)).expect("within the bounds");
        }
        let mut sorted = durations;
        sorted.sort_unstable();
        assert_eq!(histogram.len(), sorted.len() as u64);
        for quantile in [0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1] as f64;
            let got = histogram.value_at_quantile(quantile) as f64;
            assert!((got - exact).abs() <= exact * 0.001, "{quantile}: {got} against {exact}");
        }
    }
}
