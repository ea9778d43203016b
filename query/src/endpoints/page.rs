//! One page of a table's rows in order of time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::logical_expr::{Expr, col, lit};
use storage::reader::Snapshot;

use super::Call;
use crate::cursor::Cursor;
use crate::filters::Filters;
use crate::refusal::Refusal;
use crate::scan::Rows;

/// Rows in order, and where they end if there are more.
#[derive(Debug)]
pub struct Page {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// The key of the last row, where rows follow it.
    pub next: Option<Cursor>,
}

/// Reads the page that the filters ask for.
///
/// # Errors
/// As for any query.
pub async fn read(call: &Call<'_>, snapshot: &Arc<Snapshot>, filters: &Filters) -> Result<Page, Refusal> {
    let mut conditions = filters.conditions(snapshot);
    conditions.extend(filters.cursor.as_ref().map(|cursor| past(cursor, filters.is_ascending)));
    let mut batches = collect(call, snapshot, conditions, filters.is_ascending, filters.limit + 1).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let next = if rows > filters.limit {
        // The one row too many is the last of the last batch.
        let last = batches.last_mut().expect("there are rows");
        *last = last.slice(0, last.num_rows() - 1);
        if last.num_rows() == 0 {
            batches.pop();
        }
        batches.last().map(key_of_last)
    } else {
        None
    };
    Ok(Page { batches, next })
}

/// The first `limit` rows in order of time that meet all conditions.
///
/// # Errors
/// As for any query.
pub async fn collect(
    call: &Call<'_>,
    snapshot: &Arc<Snapshot>,
    conditions: Vec<Expr>,
    is_ascending: bool,
    limit: usize,
) -> Result<Vec<RecordBatch>, Refusal> {
    let sources = call.sources(vec![Arc::clone(snapshot)]);
    let planned = (|| {
        let mut frame = call.session.read(snapshot)?;
        if let Some(condition) = conditions.into_iter().reduce(Expr::and) {
            frame = frame.filter(condition)?;
        }
        let order = ["time_ns", "writer", "seq"].map(|name| col(name).sort(is_ascending, false)).to_vec();
        frame.sort(order)?.limit(0, Some(limit))
    })();
    let frame = match planned {
        Ok(frame) => frame,
        Err(error) => return Err(sources.refusal(&error).await),
    };
    let mut rows = Rows::start(frame, sources).await?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The rows past a key: (`time_ns`, `writer`, `seq`) compared as one.
fn past(cursor: &Cursor, is_ascending: bool) -> Expr {
    let beyond = |column: &str, value: Expr| {
        if is_ascending { col(column).gt(value) } else { col(column).lt(value) }
    };
    let time = lit(cursor.time_ns);
    let writer = lit(cursor.key.as_str());
    // The first condition is implied; it is what files are pruned by.
    let reachable =
        if is_ascending { col("time_ns").gt_eq(time.clone()) } else { col("time_ns").lt_eq(time.clone()) };
    let same_time = col("time_ns").eq(time.clone());
    let same_writer = col("writer").eq(writer.clone());
    reachable.and(
        beyond("time_ns", time)
            .or(same_time.clone().and(beyond("writer", writer)))
            .or(same_time.and(same_writer).and(beyond("seq", lit(cursor.seq)))),
    )
}

fn key_of_last(batch: &RecordBatch) -> Cursor {
    let row = batch.num_rows() - 1;
    let int = |name: &str| {
        let column = batch.column_by_name(name).expect("every table has its coordinates");
        let column = column.as_primitive::<Int64Type>();
        if column.is_null(row) { 0 } else { column.value(row) }
    };
    let writer = batch.column_by_name("writer").expect("every table has its coordinates").as_string::<i32>();
    let key = if writer.is_null(row) { String::new() } else { writer.value(row).to_owned() };
    Cursor { time_ns: int("time_ns"), key, seq: int("seq") }
}
