//! `GET /api/v1/traces`: one row a trace, newest first. Filters choose spans; a trace with one such span is
//! listed, and described by all of its spans.
//!
//! Two steps: which traces are on the page, then a few narrow columns of all their spans, folded here. Neither looks
//! at more spans at once than it has memory for.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use datafusion::common::Result as EngineResult;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use storage::memory::{Charge, Short};
use storage::reader::Snapshot;
use storage::record::{Field, Kind, json_text};

use super::event_out::{int, key, text};
use super::{Call, begin_list, end_list};
use crate::budget::{self, PAGE_BYTES_MAX};
use crate::cursor::Cursor;
use crate::filters::Filters;
use crate::query::Answer;
use crate::refusal::Refusal;
use crate::scan::Rows;
use crate::time::with_nanoseconds;

/// What a span takes while its trace is folded: its id and its parent's, hashed.
const SPAN_BYTES: usize = 48;

/// What a trace takes beside its spans.
const TRACE_BYTES: usize = 512;

/// Spans of the first window that is searched for traces, for each trace of the page, and of the largest window.
/// Chosen: ten spans are a usual trace, and 100,000 ids take a few MiB.
const WINDOW_SPANS: (usize, usize) = (16, 100_000);

/// Traces of a window that are looked up together among earlier spans.
const CANDIDATES: usize = 256;

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
    let has_more = page.len() > filters.limit;
    page.truncate(filters.limit);
    let mut shown = page.len();
    // Traces of many spans are folded fewer at a time, so that what they take is bounded.
    let traces = loop {
        match summaries(call, snapshot, page.get(..shown).unwrap_or(&page)).await {
            Err(Trouble::Short(_)) if shown > 1 => shown /= 2,
            Err(Trouble::Short(short)) => return Err(budget::refusal(short)),
            Err(Trouble::Refused(refusal)) => return Err(refusal),
            Ok(traces) => break traces,
        }
    };
    let mut out = begin_list(call, "traces")?;
    let (mut row, mut written) = (Vec::new(), 0_usize);
    for (id, _) in page.iter().take(shown) {
        let Some(trace) = traces.by_id.get(id) else { continue };
        row.clear();
        if written > 0 {
            row.push(b',');
        }
        trace.write(&mut row, id);
        if written > 0 && out.len() + row.len() > PAGE_BYTES_MAX {
            break;
        }
        match out.push(&row) {
            Ok(()) => written += 1,
            Err(_) if written > 0 => break,
            Err(short) => return Err(budget::refusal(short)),
        }
    }
    let last = page.get(written.wrapping_sub(1)).filter(|_| has_more || written < page.len());
    let next = last.map(|(id, time_ns)| Cursor { time_ns: *time_ns, key: id.clone(), seq: 0 }.encode());
    Ok(end_list(call, out, next))
}

/// The ids of the page's traces with the start that they are ordered by, and one more where there is one.
///
/// A trace's start is its first span's, which only a look at all spans would tell. So the spans are searched in
/// windows of time from where the page begins: what starts in a window has all of its spans there or later, and what
/// has a span before the window is left to the window in which it starts.
async fn ids(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    filters: &Filters,
) -> Result<Vec<(String, i64)>, Refusal> {
    let wanted = filters.limit + 1;
    let conditions = filters.conditions(snapshot);
    let mut page: Vec<(String, i64)> = Vec::new();
    let mut spans = wanted.saturating_mul(WINDOW_SPANS.0).min(WINDOW_SPANS.1);
    let mut edge = filters.cursor.as_ref().map(|cursor| cursor.time_ns);
    loop {
        let Some(far) = window(call, snapshot, &conditions, edge, filters.is_ascending, spans).await? else {
            return Ok(page);
        };
        // The window, its bounds among it; what is beyond its lower bound was not seen.
        let (low, high) = if filters.is_ascending { (edge, far.end) } else { (far.end, edge) };
        let found = starts(call, snapshot, filters, &conditions, (low, high)).await?;
        for some in found.chunks(wanted.max(CANDIDATES)) {
            let earlier = match low {
                Some(low) => earlier(call, snapshot, &conditions, low, some).await?,
                None => HashSet::new(),
            };
            page.extend(some.iter().filter(|(id, _)| !earlier.contains(id)).cloned());
            if page.len() >= wanted {
                break;
            }
        }
        if far.end.is_none() || page.len() >= wanted {
            page.truncate(wanted);
            return Ok(page);
        }
        edge = far
            .end
            .and_then(|end| if filters.is_ascending { end.checked_add(1) } else { end.checked_sub(1) });
        if edge.is_none() {
            return Ok(page);
        }
        spans = (spans * 2).min(WINDOW_SPANS.1);
    }
}

/// How far a window goes.
struct Far {
    /// The time of its farthest span; `None` where it holds every span that is left.
    end: Option<i64>,
}

/// The window of so many spans from `edge` on; `None` where no span is left.
async fn window(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    conditions: &[Expr],
    edge: Option<i64>,
    is_ascending: bool,
    spans: usize,
) -> Result<Option<Far>, Refusal> {
    let (low, high) = if is_ascending { (edge, None) } else { (None, edge) };
    let planned = || -> EngineResult<DataFrame> {
        let time = || col(Field::TimeNs.name());
        let farthest = if is_ascending { max(time()) } else { min(time()) };
        call.session
            .read(snapshot)?
            .filter(spans_of(conditions, low, high))?
            .select(vec![time()])?
            .sort(vec![time().sort(is_ascending, false)])?
            .limit(0, Some(spans))?
            .aggregate(vec![], vec![farthest.alias("far"), count(time()).alias("spans")])
    };
    let mut far = None;
    each(call, snapshot, planned(), |batch| {
        let found = int(batch, "spans", 0).and_then(|found| usize::try_from(found).ok()).unwrap_or(0);
        if found > 0 {
            far = Some(Far { end: int(batch, "far", 0).filter(|_| found >= spans) });
        }
        Ok(())
    })
    .await?;
    Ok(far)
}

/// Spans that meet the conditions between two times, both inclusive, and have a trace.
fn spans_of(conditions: &[Expr], low: Option<i64>, high: Option<i64>) -> Expr {
    let time = || col(Field::TimeNs.name());
    let low = low.map(|low| time().gt_eq(lit(low)));
    let high = high.map(|high| time().lt_eq(lit(high)));
    let bounds = conditions.iter().cloned().chain(low).chain(high);
    bounds.fold(col(Field::TraceId.name()).is_not_null(), Expr::and)
}

/// The first traces of a window, in order, by their first span in it.
async fn starts(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    filters: &Filters,
    conditions: &[Expr],
    window: (Option<i64>, Option<i64>),
) -> Result<Vec<(String, i64)>, Refusal> {
    let planned = || -> EngineResult<DataFrame> {
        let trace_id = || col(Field::TraceId.name());
        let grouped = call
            .session
            .read(snapshot)?
            .filter(spans_of(conditions, window.0, window.1))?
            .aggregate(vec![trace_id()], vec![min(col(Field::TimeNs.name())).alias("start")])?;
        let grouped = match &filters.cursor {
            Some(cursor) => grouped.filter(past(cursor, filters.is_ascending))?,
            None => grouped,
        };
        let order = vec![
            col("start").sort(filters.is_ascending, false),
            trace_id().sort(filters.is_ascending, false),
        ];
        grouped.sort(order)
    };
    let mut found = Vec::new();
    let mut charge = call.budget.take(0).map_err(budget::refusal)?;
    each(call, snapshot, planned(), |batch| {
        charge.grow((batch.num_rows() * TRACE_BYTES / 4) as u64).map_err(budget::refusal)?;
        for row in 0..batch.num_rows() {
            let id = batch.column(0).as_string::<i32>().value(row).to_owned();
            found.push((id, int(batch, "start", row).unwrap_or_default()));
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Those of the traces that have a matching span before `low`: they start there.
async fn earlier(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    conditions: &[Expr],
    low: i64,
    found: &[(String, i64)],
) -> Result<HashSet<String>, Refusal> {
    let mut earlier = HashSet::new();
    let Some(high) = low.checked_sub(1).filter(|_| !found.is_empty()) else { return Ok(earlier) };
    let planned = || -> EngineResult<DataFrame> {
        let ids = found.iter().map(|(id, _)| lit(id.as_str())).collect();
        let trace_id = || col(Field::TraceId.name());
        let condition = spans_of(conditions, None, Some(high)).and(trace_id().in_list(ids, false));
        call.session.read(snapshot)?.filter(condition)?.aggregate(vec![trace_id()], vec![])
    };
    each(call, snapshot, planned(), |batch| {
        let ids = batch.column(0).as_string::<i32>();
        earlier.extend(ids.iter().flatten().map(str::to_owned));
        Ok(())
    })
    .await?;
    Ok(earlier)
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

enum Trouble {
    Short(Short),
    Refused(Refusal),
}

#[derive(Debug, Default)]
struct Summary {
    root: Option<(i64, String, Option<String>)>,
    root_count: usize,
    start_ns: i64,
    end_ns: i64,
    span_count: usize,
    error_count: usize,
    /// Ids of spans and of their parents, hashed.
    ids: HashSet<u64>,
    parents: HashSet<u64>,
}

/// The traces of a page, folded.
struct Traces {
    by_id: HashMap<String, Summary>,
    _charge: Charge,
}

async fn summaries(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    page: &[(String, i64)],
) -> Result<Traces, Trouble> {
    let mut charge = call.budget.take(page.len() * TRACE_BYTES).map_err(Trouble::Short)?;
    let mut traces: HashMap<String, Summary> = HashMap::new();
    if page.is_empty() {
        return Ok(Traces { by_id: traces, _charge: charge });
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
    let hasher = RandomState::new();
    let mut short = None;
    let done = each(call, snapshot, planned(), |batch| {
        if let Err(why) = charge.grow((batch.num_rows() * SPAN_BYTES) as u64) {
            short = Some(why);
            return Err(budget::refusal(why));
        }
        for row in 0..batch.num_rows() {
            let Some(id) = text(batch, Field::TraceId.name(), row) else { continue };
            match traces.get_mut(id) {
                Some(trace) => trace.add(batch, row, &hasher),
                None => traces.entry(id.to_owned()).or_default().add(batch, row, &hasher),
            }
        }
        Ok(())
    })
    .await;
    match (done, short) {
        (Ok(()), _) => Ok(Traces { by_id: traces, _charge: charge }),
        (Err(_), Some(short)) => Err(Trouble::Short(short)),
        (Err(refusal), None) => Err(Trouble::Refused(refusal)),
    }
}

impl Summary {
    fn add(&mut self, batch: &RecordBatch, row: usize, hasher: &RandomState) {
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
        self.ids.extend(text(batch, Field::SpanId.name(), row).map(|id| hasher.hash_one(id)));
        match text(batch, Field::ParentSpanId.name(), row) {
            Some(parent) => {
                self.parents.insert(hasher.hash_one(parent));
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
