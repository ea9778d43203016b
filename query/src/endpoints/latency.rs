//! `GET /api/v1/latency`: percentiles from merged histograms, stored ones and those of chunks that are not
//! sealed yet; no record is read for it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use hdrhistogram::serialization::Deserializer;
use storage::latency::WINDOW_NS;
use storage::memory::Charge;
use storage::reader::Snapshot;
use storage::record::{Field, json_text};

use super::event_out::{int, key, text};
use super::sparse::Sparse;
use super::{Call, begin, end_list};
use crate::budget::{self, PAGE_BYTES_MAX};
use crate::cursor::Cursor;
use crate::filters;
use crate::params::Params;
use crate::query::Answer;
use crate::refusal::Refusal;
use crate::scan::Rows;
use crate::time::{shortest, with_nanoseconds};

/// Series of one reply at most.
const SERIES_MAX: usize = 10_000;
/// Points of one series at most, so that a small step over a long range is refused and not truncated.
const POINTS_MAX: i64 = 11_000;
/// Buckets of all histograms of one reply at most: about 128 MiB.
const BUCKETS_MAX: usize = 4_000_000;
/// What a bucket takes in memory, a series' names and a point's head.
const BUCKET_BYTES: usize = 32;
const SERIES_BYTES: usize = 256;
/// Buckets by which the charge of a reply grows.
const STEP_BUCKETS: usize = 4_096;
/// Quantiles of one request at most.
const QUANTILES_MAX: usize = 32;

#[derive(Debug)]
struct Asked {
    from: Option<i64>,
    to: Option<i64>,
    source: Option<String>,
    operation: Option<String>,
    dataset: Option<String>,
    /// As the client wrote them, which is how the reply names them.
    quantiles: Vec<(String, f64)>,
    step_ns: Option<i64>,
    /// The source and operation of the last series of the page before.
    after: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct Series {
    all: Sparse,
    error_count: u64,
    points: BTreeMap<i64, Sparse>,
}

/// Answers percentiles by source and operation.
///
/// # Errors
/// 400 for parameters, 422 where the reply would pass its bounds.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let asked = Asked::take(call.params()?)?;
    let charge = call.budget.take(0).map_err(budget::refusal)?;
    let mut merged =
        Merged { asked: &asked, series: BTreeMap::new(), bucket_count: 0, name_bytes: 0, charge };
    let snapshot = call.view.latency();
    if let Some(stored) = &snapshot.stored {
        merged.add_stored(call, &Arc::new(stored.clone())).await?;
    }
    for measurement in &snapshot.hot {
        for one in &measurement.series {
            // Measurements that are not stored yet do not know their dataset.
            if asked.dataset.is_none() && asked.wants(&one.source, &one.operation, one.window_start_ns) {
                let histogram = one.buckets.iter().fold(Sparse::default(), |mut sum, (value, count)| {
                    sum.add(*value, u64::from(*count));
                    sum
                });
                let errors = if one.is_error { histogram.count() } else { 0 };
                merged.add(&one.source, &one.operation, one.window_start_ns, &histogram, errors)?;
            }
        }
    }
    let mut head = b"{".to_vec();
    for (name, bound) in [("from", asked.from), ("to", asked.to)] {
        key(&mut head, name);
        match bound {
            Some(time_ns) => json_text::string(&mut head, &shortest(time_ns)),
            None => head.extend_from_slice(b"null"),
        }
    }
    key(&mut head, "series");
    head.push(b'[');
    let mut out = begin(call, "")?;
    out.push(&head).map_err(budget::refusal)?;
    let (mut row, mut last) = (Vec::new(), None);
    for (name, series) in &merged.series {
        row.clear();
        if last.is_some() {
            row.push(b',');
        }
        series.write(&mut row, &name.0, &name.1, &asked);
        if last.is_some() && out.len() + row.len() > PAGE_BYTES_MAX {
            break;
        }
        match out.push(&row) {
            Ok(()) => last = Some(name),
            Err(_) if last.is_some() => break,
            Err(short) => return Err(budget::refusal(short)),
        }
        tokio::task::consume_budget().await;
    }
    let has_more = merged.series.last_key_value().map(|(name, _)| name) != last;
    let next = last.filter(|_| has_more).map(|(source, operation)| {
        let seq = i64::try_from(source.len()).unwrap_or(i64::MAX);
        Cursor { time_ns: 0, key: format!("{source}{operation}"), seq }.encode()
    });
    Ok(end_list(call, out, next))
}

impl Asked {
    fn take(mut params: Params) -> Result<Self, Refusal> {
        let (from, to) = params.take_range()?;
        let quantiles = params.take("q").unwrap_or_else(|| "0.5,0.95,0.99".into());
        let quantiles = quantiles
            .split(',')
            .map(|text| {
                let value: f64 = text.trim().parse().ok()?;
                (0.0..=1.0).contains(&value).then(|| (text.trim().to_owned(), value))
            })
            .collect::<Option<Vec<_>>>()
            .filter(|quantiles| quantiles.len() <= QUANTILES_MAX)
            .ok_or_else(|| {
                Refusal::parameter(
                    "q",
                    format!("is not a list of at most {QUANTILES_MAX} numbers from 0 to 1"),
                )
            })?;
        let step_ns = params.take("step").map(|text| step(&text)).transpose()?;
        let asked = Self {
            // A window counts if any of it is asked for.
            from: from.map(|from| from.div_euclid(WINDOW_NS).saturating_mul(WINDOW_NS)),
            to,
            source: params.take("source"),
            operation: params.take("operation"),
            dataset: params.take("dataset"),
            quantiles,
            step_ns,
            after: params.take_cursor()?.as_ref().map(after).transpose()?,
        };
        params.finish()?;
        if let (Some(from), Some(to), Some(step)) = (asked.from, asked.to, asked.step_ns)
            && to.saturating_sub(from) / step > POINTS_MAX
        {
            return Err(Refusal::parameter("step", format!("gives more than {POINTS_MAX} points a series")));
        }
        Ok(asked)
    }

    fn wants(&self, source: &str, operation: &str, window_start_ns: i64) -> bool {
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.operation.as_deref().is_none_or(|wanted| wanted == operation)
            && self.from.is_none_or(|from| window_start_ns >= from)
            && self.to.is_none_or(|to| window_start_ns < to)
            && self.after.as_ref().is_none_or(|(s, o)| (source, operation) > (s.as_str(), o.as_str()))
    }

    fn conditions(&self) -> Vec<Expr> {
        let mut all = filters::range(self.from, self.to);
        for (column, value) in [
            (Field::Source, &self.source),
            (Field::Operation, &self.operation),
            (Field::SourceDataset, &self.dataset),
        ] {
            all.extend(value.as_ref().map(|value| col(column.name()).eq(lit(value.as_str()))));
        }
        all
    }
}

/// The names in a cursor: the source, and behind its length the operation.
fn after(cursor: &Cursor) -> Result<(String, String), Refusal> {
    let names = usize::try_from(cursor.seq).ok().and_then(|at| cursor.key.split_at_checked(at));
    let (source, operation) = names.ok_or_else(|| Refusal::parameter("cursor", "is none of ours"))?;
    Ok((source.to_owned(), operation.to_owned()))
}

/// A step: a number of seconds, or with `s`, `m`, `h` or `d`; whole windows.
fn step(text: &str) -> Result<i64, Refusal> {
    let window_s = WINDOW_NS / 1_000_000_000;
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let (digits, factor) = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .unwrap_or((text, 1));
    let seconds = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| *seconds > 0 && seconds % window_s == 0)
        .and_then(|seconds| seconds.checked_mul(1_000_000_000))
        .ok_or_else(|| {
            Refusal::parameter(
                "step",
                format!("is not a multiple of the window of {window_s} s, such as 60s or 1h"),
            )
        })
}

struct Merged<'a> {
    asked: &'a Asked,
    series: BTreeMap<(String, String), Series>,
    bucket_count: usize,
    name_bytes: usize,
    charge: Charge,
}

impl Merged<'_> {
    async fn add_stored(&mut self, call: &Call<'_>, stored: &Arc<Snapshot>) -> Result<(), Refusal> {
        let planned = || -> EngineResult<DataFrame> {
            let mut frame = call.session.read(stored)?;
            if let Some(condition) = self.asked.conditions().into_iter().reduce(Expr::and) {
                frame = frame.filter(condition)?;
            }
            frame.select_columns(
                &[
                    Field::TimeNs,
                    Field::Source,
                    Field::Operation,
                    Field::Outcome,
                    Field::Count,
                    Field::ErrorCount,
                    Field::Histogram,
                ]
                .map(Field::name),
            )
        };
        let sources = call.sources(vec![Arc::clone(stored)]);
        let frame = match planned() {
            Ok(frame) => frame,
            Err(error) => return Err(sources.refusal(&error).await),
        };
        let mut deserializer = Deserializer::new();
        let mut rows = Rows::start(frame, sources.clone()).await?;
        while let Some(batch) = rows.next().await? {
            for row in 0..batch.num_rows() {
                let Some(histogram) = histogram(&mut deserializer, &batch, row) else {
                    return Err(sources.corrupt().await);
                };
                tokio::task::consume_budget().await;
                let source = text(&batch, Field::Source.name(), row).unwrap_or("unknown");
                let operation = text(&batch, Field::Operation.name(), row).unwrap_or_default();
                let window_start_ns = int(&batch, Field::TimeNs.name(), row).unwrap_or_default();
                if !self.asked.wants(source, operation, window_start_ns) {
                    continue;
                }
                let is_error = text(&batch, Field::Outcome.name(), row) == Some("error");
                let errors = int(&batch, Field::ErrorCount.name(), row)
                    .and_then(|errors| u64::try_from(errors).ok())
                    .unwrap_or(if is_error { histogram.count() } else { 0 });
                self.add(source, operation, window_start_ns, &histogram, errors)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        source: &str,
        operation: &str,
        window_start_ns: i64,
        histogram: &Sparse,
        errors: u64,
    ) -> Result<(), Refusal> {
        let too_much =
            || Refusal::query_limit("the latency asked for has too many series; narrow it by source or time");
        let is_full = self.series.len() >= SERIES_MAX;
        let series = match self.series.entry((source.to_owned(), operation.to_owned())) {
            Entry::Vacant(_) if is_full => return Err(too_much()),
            Entry::Vacant(entry) => {
                self.name_bytes += source.len() + operation.len() + SERIES_BYTES;
                entry.insert(Series::default())
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        let before = series.all.bucket_count();
        series.all.merge(histogram);
        series.error_count += errors;
        self.bucket_count += series.all.bucket_count() - before;
        if let Some(step) = self.asked.step_ns {
            let point =
                series.points.entry(window_start_ns.div_euclid(step).saturating_mul(step)).or_default();
            let before = point.bucket_count();
            point.merge(histogram);
            self.bucket_count += point.bucket_count() - before;
        }
        if self.bucket_count > BUCKETS_MAX {
            return Err(too_much());
        }
        let held = self.name_bytes + self.bucket_count.next_multiple_of(STEP_BUCKETS) * BUCKET_BYTES;
        self.charge.grow((held as u64).saturating_sub(self.charge.bytes())).map_err(budget::refusal)
    }
}

fn histogram(deserializer: &mut Deserializer, batch: &RecordBatch, row: usize) -> Option<Sparse> {
    let column = batch.column_by_name(Field::Histogram.name())?.as_binary::<i32>();
    let mut sum = Sparse::default();
    if column.is_null(row) {
        return Some(sum);
    }
    let full: hdrhistogram::Histogram<u64> = deserializer.deserialize(&mut column.value(row)).ok()?;
    for bucket in full.iter_recorded() {
        sum.add(bucket.value_iterated_to(), bucket.count_at_value());
    }
    Some(sum)
}

impl Series {
    fn write(&self, out: &mut Vec<u8>, source: &str, operation: &str, asked: &Asked) {
        out.push(b'{');
        for (name, value) in [("source", source), ("operation", operation)] {
            key(out, name);
            json_text::string(out, value);
        }
        number(out, "count", self.all.count());
        number(out, "error_count", self.error_count);
        quantiles(out, &self.all, asked);
        number(out, "max_ns", self.all.max());
        if asked.step_ns.is_some() {
            key(out, "points");
            out.push(b'[');
            for (position, (time_ns, point)) in self.points.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                out.push(b'{');
                key(out, "time");
                json_text::string(out, &with_nanoseconds(*time_ns));
                number(out, "count", point.count());
                quantiles(out, point, asked);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    json_text::int(out, i64::try_from(value).unwrap_or(i64::MAX));
}

fn quantiles(out: &mut Vec<u8>, histogram: &Sparse, asked: &Asked) {
    key(out, "quantiles");
    out.push(b'{');
    for (name, quantile) in &asked.quantiles {
        number(out, name, histogram.quantile(*quantile));
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use storage::memory::{Memory, Pool};

    use super::{Asked, Merged, Params, Sparse};

    // B1: whatever memory a tenant has, one reply takes a part of it.
    #[test]
    fn histograms_of_one_reply_have_so_many_buckets() {
        let asked = Asked::take(Params::parse(None).unwrap()).unwrap();
        // Counted, not held.
        let charge = Memory::new(1 << 40, 0).take(Pool::Read, None, 0).unwrap();
        let mut merged =
            Merged { asked: &asked, series: BTreeMap::new(), bucket_count: 3_999_999, name_bytes: 0, charge };
        let mut one = Sparse::default();
        one.add(1, 1);
        merged.add("s", "a", 0, &one, 0).unwrap();
        let refusal = merged.add("s", "b", 0, &one, 0).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"), "{}", refusal.detail);
    }
}
