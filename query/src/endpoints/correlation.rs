//! `GET /api/v1/correlations/{correlation_id}`: everything that carries one correlation id, oldest first: events, then
//! spans, logs and, for who may read them, audit records. What does not fit one page follows its cursor; the lists
//! before the cursor are empty then.

use arrow::array::RecordBatch;
use datafusion::logical_expr::{col, lit};
use storage::record::{Field, Kind, json_text};

use super::event_out::{self, Attributes};
use super::page::{Asked, Listed};
use super::{Call, begin, end, page, span_out, trace};
use crate::budget::{self, PAGE_BYTES_MAX};
use crate::cursor::Cursor;
use crate::query::Answer;
use crate::refusal::Refusal;

/// Rows of one page where no limit is asked for, and the most that one may ask for.
const LIMIT: usize = 10_000;

const LISTS: [Kind; 4] = [Kind::Events, Kind::Spans, Kind::Logs, Kind::Audit];

/// Answers one correlation; its lists are empty where nothing carries the id.
///
/// # Errors
/// As for any query.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let mut params = call.params()?;
    let mut left = params.take_limit_or(LIMIT)?;
    let cursor = params.take_cursor()?;
    params.finish()?;
    let mut after = cursor.as_ref().map(within).transpose()?;
    let id = call.path_id();
    let mut head = b"{\"correlation_id\":".to_vec();
    json_text::string(&mut head, id);
    let mut out = begin(call, "")?;
    out.push(&head).map_err(budget::refusal)?;
    let mut next = None;
    for kind in LISTS.into_iter().filter(|kind| call.view.reads(*kind)) {
        out.push(format!(",\"{}\":[", kind.as_str()).as_bytes()).map_err(budget::refusal)?;
        let is_before = after.as_ref().is_some_and(|(list, _)| *list != kind);
        if next.is_none() && !is_before {
            let inside = after.take().map(|(_, cursor)| cursor);
            let page = one_list(call, kind, id, left, inside, &mut out).await?;
            left -= page.row_count;
            next = page.next;
        }
        out.end(b"]");
    }
    Ok(end(call, out, next.map(|cursor| cursor.encode())))
}

/// How much of a list the page holds, and where it ends.
struct Part {
    row_count: usize,
    next: Option<Cursor>,
}

async fn one_list(
    call: &Call<'_>,
    kind: Kind,
    id: &str,
    limit: usize,
    after: Option<Cursor>,
    out: &mut budget::Out,
) -> Result<Part, Refusal> {
    let of_id = || vec![col(Field::CorrelationId.name()).eq(lit(id))];
    let tables: Vec<Listed<'_>> =
        call.view.of_kind(kind).map(|snapshot| Listed { snapshot, conditions: of_id() }).collect();
    // A page that is full says where the next list begins: at its first row, which follows every time and name.
    if limit == 0 || out.len() >= PAGE_BYTES_MAX {
        let first = Cursor { time_ns: i64::MIN, key: String::new(), seq: i64::MIN };
        return Ok(Part { row_count: 0, next: Some(in_list(kind, &first)) });
    }
    let attributes: Vec<_> =
        tables.iter().map(|table| Attributes::of(kind, &table.snapshot.schema)).collect();
    let render = |row: &mut Vec<u8>, table: usize, batch: &RecordBatch, at: usize| {
        let Some(attributes) = attributes.get(table) else { return };
        if kind == Kind::Spans {
            span_out::span(row, batch, at, attributes);
        } else {
            event_out::record(row, kind, batch, at, attributes);
        }
    };
    let asked =
        Asked { is_ascending: true, limit, after: after.as_ref().map(|cursor| trace::key(&tables, cursor)) };
    let whole = if after.is_none() { page::whole(call, &tables).await? } else { None };
    let page = match whole {
        Some(whole) => page::render(whole, &asked, out, render).await?,
        None => page::read(call, &tables, &asked, out, render).await?,
    };
    let next = page.next.map(|key| in_list(kind, &trace::cursor_of(&tables, &key)));
    Ok(Part { row_count: page.row_count, next })
}

/// A cursor within a list: `list/dataset/writer`.
fn in_list(kind: Kind, cursor: &Cursor) -> Cursor {
    let key = format!("{}/{}", kind.as_str(), cursor.key);
    Cursor { time_ns: cursor.time_ns, key, seq: cursor.seq }
}

/// The list that a cursor stands in, and its place there.
fn within(cursor: &Cursor) -> Result<(Kind, Cursor), Refusal> {
    let (list, key) = cursor.key.split_once('/').unwrap_or_default();
    let kind = LISTS.into_iter().find(|kind| kind.as_str() == list);
    let kind = kind.ok_or_else(|| Refusal::parameter("cursor", "is none of ours"))?;
    Ok((kind, Cursor { key: key.to_owned(), ..cursor.clone() }))
}
