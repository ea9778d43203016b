//! `GET /api/v1/services`: which sources sent what, and when first and last.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use datafusion::common::Result as EngineResult;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use storage::reader::Snapshot;
use storage::record::{Field, Kind, json_text};

use super::event_out::{int, key};
use super::{Call, list};
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
    let cursor = params.take("cursor");
    params.finish()?;
    let mut conditions = filters::range(from, to);
    if let Some(text) = cursor {
        let cursor = Cursor::decode(&text).ok_or_else(|| Refusal::parameter("cursor", "is none of ours"))?;
        conditions.push(col("source").gt(lit(cursor.key)));
    }
    let mut services = BTreeMap::new();
    for (at, (kind, _)) in KINDS.into_iter().enumerate() {
        for snapshot in call.view.of_kind(kind) {
            add(call, snapshot, &conditions, limit + 1, at, &mut services).await?;
        }
    }
    let next = (services.len() > limit).then(|| {
        let key = services.keys().nth(limit - 1).cloned().unwrap_or_default();
        Cursor { time_ns: 0, key, seq: 0 }.encode()
    });
    let mut out = Vec::new();
    for (source, service) in services.iter().take(limit) {
        if !out.is_empty() {
            out.push(b',');
        }
        service.write(&mut out, source);
    }
    Ok(list(call, "services", &out, next))
}

async fn add(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    conditions: &[Expr],
    limit: usize,
    at: usize,
    services: &mut BTreeMap<String, Service>,
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
