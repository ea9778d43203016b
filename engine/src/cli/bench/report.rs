//! What a run found, as a table with ratios to the baseline, or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::load::Seen;
use crate::cli::table::Table;

/// One measured server.
#[derive(Debug)]
pub struct Run {
    /// `server` or `baseline`.
    pub name: &'static str,
    /// What the generator saw.
    pub seen: Seen,
    /// CPU seconds the server took until the last answer, where they are known.
    pub cpu_seconds: Option<f64>,
    /// The same after it was given time to settle.
    pub cpu_seconds_settled: Option<f64>,
    /// The server's largest resident memory.
    pub memory_bytes_max: Option<u64>,
    /// Bytes by which the live files of the server's tables grew.
    pub rest_bytes: Option<u64>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Run {
    /// Returns CPU seconds a million records acknowledged, settled where that was measured.
    fn cpu_per_million(&self) -> Option<f64> {
        let seconds = self.cpu_seconds_settled.or(self.cpu_seconds)?;
        (self.seen.accepted > 0).then(|| seconds * 1e6 / self.seen.accepted as f64)
    }

    /// Returns bytes at rest a record acknowledged.
    fn rest_per_record(&self) -> Option<f64> {
        let bytes = self.rest_bytes?;
        (self.seen.accepted > 0).then(|| bytes as f64 / self.seen.accepted as f64)
    }

    fn json(&self) -> Value {
        let latency: serde_json::Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, quantile)| ((*name).to_owned(), json!(self.seen.latency_ms(*quantile))))
            .collect();
        json!({
            "name": self.name,
            "records": self.seen.accepted,
            "records_per_second": self.seen.records_per_second(),
            "requests": self.seen.answered,
            "bytes": self.seen.bytes,
            "elapsed_seconds": self.seen.elapsed.as_secs_f64(),
            "latency_ms": latency,
            "generator_lag_p99_ms": self.seen.lag.value_at_quantile(0.99) as f64 / 1_000.0,
            "errors": self.seen.errors,
            "cpu_seconds": self.cpu_seconds,
            "cpu_seconds_settled": self.cpu_seconds_settled,
            "cpu_seconds_per_million": self.cpu_per_million(),
            "memory_bytes_max": self.memory_bytes_max,
            "rest_bytes": self.rest_bytes,
            "rest_bytes_per_record": self.rest_per_record(),
        })
    }
}

/// Writes `runs` as JSON.
pub fn to_json(runs: &[Run]) -> Value {
    json!({ "runs": runs.iter().map(Run::json).collect::<Vec<_>>() })
}

/// Writes `runs` as a table; with a baseline, the last row is the first run's ratio to it.
pub fn to_text(runs: &[Run]) -> String {
    let mut table =
        Table::new(["", "records/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "CPU-s per million"]);
    let rows: Vec<[f64; 7]> = runs.iter().map(row).collect();
    for (run, row) in runs.iter().zip(&rows) {
        table.row(std::iter::once(run.name.to_owned()).chain(row.iter().map(|value| number(*value))));
    }
    if let [server, baseline] = rows.as_slice() {
        let ratios = server.iter().zip(baseline).map(|(ours, floor)| number(ours / floor));
        table.row(std::iter::once("ratio".to_owned()).chain(ratios));
    }
    let mut text = table.render();
    for run in runs {
        for (what, count) in &run.seen.errors {
            let _ = writeln!(text, "{}: {count} requests failed: {what}", run.name);
        }
        if !run.seen.lag.is_empty() {
            let lag_ms = run.seen.lag.value_at_quantile(0.99) as f64 / 1_000.0;
            let _ = writeln!(text, "{}: the generator itself was late by {lag_ms:.1} ms at p99", run.name);
        }
        if let Some(bytes) = run.memory_bytes_max {
            let _ = writeln!(text, "{}: peak memory {:.0} MB", run.name, bytes as f64 / 1e6);
        }
        if let Some(bytes) = run.rest_per_record() {
            let _ = writeln!(text, "{}: {bytes:.1} bytes a record at rest", run.name);
        }
        if let (Some(replied), Some(settled)) = (run.cpu_seconds, run.cpu_seconds_settled) {
            let _ =
                writeln!(text, "{}: {replied:.2} CPU-s until the last reply, {settled:.2} settled", run.name);
        }
    }
    text
}

fn row(run: &Run) -> [f64; 7] {
    let seen = &run.seen;
    let [p50, p99, p999, max] = QUANTILES.map(|(_, quantile)| seen.latency_ms(quantile));
    let megabytes = seen.bytes as f64 / 1e6 / seen.elapsed.as_secs_f64().max(1e-9);
    [seen.records_per_second(), megabytes, p50, p99, p999, max, run.cpu_per_million().unwrap_or(f64::NAN)]
}

/// Writes a figure with three digits that mean something; what is not known stays empty.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return String::new();
    }
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        for (value, expected) in
            [(123456.7, "123457"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (f64::NAN, "")]
        {
            assert_eq!(number(value), expected);
        }
    }
}
