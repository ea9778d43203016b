//! `GET /api/v1/services`: which sources sent what, and when first and last.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use datafusion::common::Result as EngineResult;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use storage::memory::Charge;
use storage::reader::Snapshot;
use storage::record::{Field, Kind, json_text};

use super::event_out::{int, key};
use super::{Call, begin_list, end_list};
use crate::budget::{self, PAGE_BYTES_MAX};
use crate::cursor::Cursor;
use crate::filters;
use crate::query::Answer;
use crate::refusal::Refusal;
use crate::scan::Rows;
use crate::time::with_nanoseconds;

const KINDS: [(Kind, &str); 3] =
    [(Kind::Spans, "span_count"), (Kind::Logs, "log_count"), (Kind::Events, "event_count")];

#[derive(Debug)]
struct Service {
    counts: [i64; KINDS.len()],
    first_ns: i64,
    last_ns: i64,
}

/// Answers a page of services by name.
///
/// # Errors
/// As for any list.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let mut params = call.params()?;
    let (from, to) = params.take_range()?;
    let limit = params.take_limit()?;
    let cursor = params.take_cursor()?;
    params.finish()?;
    let mut conditions = filters::range(from, to);
    if let Some(cursor) = cursor {
        conditions.push(col("source").gt(lit(cursor.key)));
    }
    let mut services = BTreeMap::new();
    let mut charge = call.budget.take(0).map_err(budget::refusal)?;
    for (at, (kind, _)) in KINDS.into_iter().enumerate() {
        for snapshot in call.view.of_kind(kind) {
            add(call, snapshot, &conditions, limit + 1, at, &mut services, &mut charge).await?;
            while services.len() > limit + 1 {
                services.pop_last();
            }
        }
    }
    let mut out = begin_list(call, "services")?;
    let (mut row, mut last) = (Vec::new(), None);
    for (source, service) in services.iter().take(limit) {
        row.clear();
        if last.is_some() {
            row.push(b',');
        }
        service.write(&mut row, source);
        if last.is_some() && out.len() + row.len() > PAGE_BYTES_MAX {
            break;
        }
        match out.push(&row) {
            Ok(()) => last = Some(source),
            Err(_) if last.is_some() => break,
            Err(short) => return Err(budget::refusal(short)),
        }
    }
    let has_more = services.last_key_value().map(|(source, _)| source) != last;
    let next = last.filter(|_| has_more).map(|key| Cursor { time_ns: 0, key: key.clone(), seq: 0 }.encode());
    Ok(end_list(call, out, next))
}

async fn add(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    conditions: &[Expr],
    limit: usize,
    at: usize,
    services: &mut BTreeMap<String, Service>,
    charge: &mut Charge,
) -> Result<(), Refusal> {
    let planned = || -> EngineResult<DataFrame> {
        let time = || col(Field::TimeNs.name());
        let mut frame = call.session.read(snapshot)?;
        if let Some(condition) = conditions.iter().cloned().reduce(Expr::and) {
            frame = frame.filter(condition)?;
        }
        frame
            .aggregate(
                vec![col("source")],
                vec![count(time()).alias("rows"), min(time()).alias("first"), max(time()).alias("last")],
            )?
            .sort(vec![col("source").sort(true, false)])?
            .limit(0, Some(limit))
    };
    let sources = call.sources(vec![Arc::clone(snapshot)]);
    let frame = match planned() {
        Ok(frame) => frame,
        Err(error) => return Err(sources.refusal(&error).await),
    };
    let mut rows = Rows::start(frame, sources).await?;
    while let Some(batch) = rows.next().await? {
        charge.grow(batch.get_array_memory_size() as u64).map_err(budget::refusal)?;
        let names = batch.column(0).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let name = if names.is_null(row) { "unknown" } else { names.value(row) };
            let first_ns = int(&batch, "first", row).unwrap_or_default();
            let last_ns = int(&batch, "last", row).unwrap_or_default();
            let service = services.entry(name.to_owned()).or_insert(Service {
                counts: [0; KINDS.len()],
                first_ns,
                last_ns,
            });
            if let Some(count) = service.counts.get_mut(at) {
                *count += int(&batch, "rows", row).unwrap_or_default();
            }
            service.first_ns = service.first_ns.min(first_ns);
            service.last_ns = service.last_ns.max(last_ns);
        }
    }
    Ok(())
}

impl Service {
    fn write(&self, out: &mut Vec<u8>, source: &str) {
        out.push(b'{');
        key(out, "source");
        json_text::string(out, source);
        for ((_, name), count) in KINDS.iter().zip(self.counts) {
            key(out, name);
            json_text::int(out, count);
        }
        for (name, time_ns) in [("first_seen", self.first_ns), ("last_seen", self.last_ns)] {
            key(out, name);
            json_text::string(out, &with_nanoseconds(time_ns));
        }
        out.push(b'}');
    }
}
