//! `GET /api/v1/traces`: one row a trace, newest first. Filters choose spans; a trace with one such span is
//! listed, and described by all of its spans.
//!
//! Two steps: which traces are on the page (grouped by the engine), then a few narrow columns of all their
//! spans, folded here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use datafusion::common::Result as EngineResult;
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use storage::reader::Snapshot;
use storage::record::{Field, Kind, json_text};

use super::event_out::{int, key, text};
use super::{Call, list};
use crate::cursor::Cursor;
use crate::filters::Filters;
use crate::query::Answer;
use crate::refusal::Refusal;
use crate::scan::Rows;
use crate::time::with_nanoseconds;

/// Spans that one page may fold: at 64 bytes each this is 128 MiB.
const SPANS_MAX: usize = 2_000_000;

/// Answers a page of traces.
///
/// # Errors
/// As for any list.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let mut params = call.params()?;
    let dataset = params.take("dataset");
    let filters = Filters::take(&mut params)?;
    params.finish()?;
    let snapshot = call.view.dataset(dataset.as_deref(), Kind::Spans)?;
    let mut page = ids(call, snapshot, &filters).await?;
    let next = (page.len() > filters.limit).then(|| {
        page.truncate(filters.limit);
        let (id, time_ns) = page.last().expect("a limit is at least one");
        Cursor { time_ns: *time_ns, key: id.clone(), seq: 0 }.encode()
    });
    let traces = summaries(call, snapshot, &page).await?;
    let mut out = Vec::new();
    for (id, _) in &page {
        if let Some(trace) = traces.get(id) {
            if !out.is_empty() {
                out.push(b',');
            }
            trace.write(&mut out, id);
        }
    }
    Ok(list(call, "traces", &out, next))
}

/// The ids of the page's traces with the start that they are ordered by, and one more where there is one.
async fn ids(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    filters: &Filters,
) -> Result<Vec<(String, i64)>, Refusal> {
    let planned = || -> EngineResult<DataFrame> {
        let trace_id = || col(Field::TraceId.name());
        let mut condition = trace_id().is_not_null();
        for one in filters.conditions(snapshot) {
            condition = condition.and(one);
        }
        let grouped = call
            .session
            .read(snapshot)?
            .filter(condition)?
            .aggregate(vec![trace_id()], vec![min(col(Field::TimeNs.name())).alias("start")])?;
        let grouped = match &filters.cursor {
            Some(cursor) => grouped.filter(past(cursor, filters.is_ascending))?,
            None => grouped,
        };
        let order = vec![
            col("start").sort(filters.is_ascending, false),
            trace_id().sort(filters.is_ascending, false),
        ];
        grouped.sort(order)?.limit(0, Some(filters.limit + 1))
    };
    let mut page = Vec::new();
    each(call, snapshot, planned(), |batch| {
        for row in 0..batch.num_rows() {
            let id = batch.column(0).as_string::<i32>().value(row).to_owned();
            page.push((id, int(batch, "start", row).unwrap_or_default()));
        }
        Ok(())
    })
    .await?;
    Ok(page)
}

fn past(cursor: &Cursor, is_ascending: bool) -> Expr {
    let beyond = |column: Expr, value: Expr| if is_ascending { column.gt(value) } else { column.lt(value) };
    let same = col("start").eq(lit(cursor.time_ns));
    beyond(col("start"), lit(cursor.time_ns))
        .or(same.and(beyond(col(Field::TraceId.name()), lit(cursor.key.as_str()))))
}

async fn each(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    planned: EngineResult<DataFrame>,
    mut take: impl FnMut(&RecordBatch) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let sources = call.sources(vec![Arc::clone(snapshot)]);
    let frame = match planned {
        Ok(frame) => frame,
        Err(error) => return Err(sources.refusal(&error).await),
    };
    let mut rows = Rows::start(frame, sources).await?;
    while let Some(batch) = rows.next().await? {
        take(&batch)?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Summary {
    root: Option<(i64, String, Option<String>)>,
    root_count: usize,
    start_ns: i64,
    end_ns: i64,
    span_count: usize,
    error_count: usize,
    ids: HashSet<String>,
    parents: HashSet<String>,
}

async fn summaries(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    page: &[(String, i64)],
) -> Result<HashMap<String, Summary>, Refusal> {
    if page.is_empty() {
        return Ok(HashMap::new());
    }
    let columns = [
        Field::TraceId,
        Field::SpanId,
        Field::ParentSpanId,
        Field::TimeNs,
        Field::DurationNs,
        Field::Source,
        Field::Name,
        Field::StatusCode,
    ]
    .map(Field::name);
    let planned = || -> EngineResult<DataFrame> {
        let ids = page.iter().map(|(id, _)| lit(id.as_str())).collect();
        call.session
            .read(snapshot)?
            .filter(col(Field::TraceId.name()).in_list(ids, false))?
            .select_columns(&columns)
    };
    let mut traces: HashMap<String, Summary> = HashMap::new();
    let mut span_count = 0;
    each(call, snapshot, planned(), |batch| {
        span_count += batch.num_rows();
        if span_count > SPANS_MAX {
            return Err(Refusal::query_limit(format!("these traces have more than {SPANS_MAX} spans")));
        }
        for row in 0..batch.num_rows() {
            let Some(id) = text(batch, Field::TraceId.name(), row) else { continue };
            match traces.get_mut(id) {
                Some(trace) => trace.add(batch, row),
                None => traces.entry(id.to_owned()).or_default().add(batch, row),
            }
        }
        Ok(())
    })
    .await?;
    Ok(traces)
}

impl Summary {
    fn add(&mut self, batch: &RecordBatch, row: usize) {
        let start_ns = int(batch, Field::TimeNs.name(), row).unwrap_or_default();
        let end_ns =
            start_ns.saturating_add(int(batch, Field::DurationNs.name(), row).unwrap_or_default().max(0));
        if self.span_count == 0 {
            (self.start_ns, self.end_ns) = (start_ns, end_ns);
        }
        self.start_ns = self.start_ns.min(start_ns);
        self.end_ns = self.end_ns.max(end_ns);
        self.span_count += 1;
        self.error_count += usize::from(text(batch, Field::StatusCode.name(), row) == Some("error"));
        self.ids.extend(text(batch, Field::SpanId.name(), row).map(str::to_owned));
        match text(batch, Field::ParentSpanId.name(), row) {
            Some(parent) => {
                self.parents.insert(parent.to_owned());
            }
            None => {
                self.root_count += 1;
                if self.root.as_ref().is_none_or(|(known, ..)| start_ns < *known) {
                    let source = text(batch, Field::Source.name(), row).unwrap_or_default().to_owned();
                    self.root =
                        Some((start_ns, source, text(batch, Field::Name.name(), row).map(str::to_owned)));
                }
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>, id: &str) {
        let text = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
            key(out, name);
            match value {
                Some(value) => json_text::string(out, value),
                None => out.extend_from_slice(b"null"),
            }
        };
        out.push(b'{');
        text(out, "trace_id", Some(id));
        text(out, "root_source", self.root.as_ref().map(|(_, source, _)| source.as_str()));
        text(out, "root_name", self.root.as_ref().and_then(|(_, _, name)| name.as_deref()));
        text(out, "start_time", Some(&with_nanoseconds(self.start_ns)));
        for (name, number) in [
            ("duration_ns", self.end_ns.saturating_sub(self.start_ns)),
            ("span_count", i64::try_from(self.span_count).unwrap_or(i64::MAX)),
            ("error_count", i64::try_from(self.error_count).unwrap_or(i64::MAX)),
        ] {
            key(out, name);
            json_text::int(out, number);
        }
        key(out, "complete");
        json_text::bool(out, self.root_count == 1 && self.parents.is_subset(&self.ids));
        out.push(b'}');
    }
}
