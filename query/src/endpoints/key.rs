//! Where a row stands in a list of one table or of several, and the conditions on a table that say so.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::logical_expr::{Expr, col, lit};

/// The columns of a key.
pub const KEY: [&str; 3] = ["time_ns", "writer", "seq"];

/// Where a row stands in the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its time, nanoseconds since 1970 UTC.
    pub time_ns: i64,
    /// Its table's place in the list.
    pub table: usize,
    /// Its log.
    pub writer: Arc<str>,
    /// Its number there.
    pub seq: i64,
}

/// Sorts keys in the order of the list.
pub fn sort(keys: &mut [Key], is_ascending: bool) {
    keys.sort_unstable_by(|a, b| if is_ascending { a.cmp(b) } else { b.cmp(a) });
}

/// The keys of a batch's rows, with their places in it.
pub fn keys_of(batch: &RecordBatch, table: usize, mut take: impl FnMut(Key, usize)) {
    let int = |name: &str| {
        batch.column_by_name(name).expect("every table has its coordinates").as_primitive::<Int64Type>()
    };
    let (times, seqs) = (int("time_ns"), int("seq"));
    let writers = batch.column_by_name("writer").expect("every table has its coordinates").as_string::<i32>();
    let mut last: Arc<str> = "".into();
    for row in 0..batch.num_rows() {
        // Files of other programs may have nulls there.
        let writer = if writers.is_null(row) { "" } else { writers.value(row) };
        if *last != *writer {
            last = writer.into();
        }
        let value =
            |column: &arrow::array::Int64Array| if column.is_null(row) { 0 } else { column.value(row) };
        take(Key { time_ns: value(times), table, writer: Arc::clone(&last), seq: value(seqs) }, row);
    }
}

/// The rows between two keys of one table, both inclusive.
#[must_use]
pub fn between(low: &Key, high: &Key) -> Expr {
    let bound = |key: &Key, is_low: bool| {
        let beyond =
            |column: &str, value: Expr| if is_low { col(column).gt(value) } else { col(column).lt(value) };
        let (time, writer) = (lit(key.time_ns), lit(&*key.writer));
        // The first condition is implied; it is what files are pruned by.
        let reachable =
            if is_low { col("time_ns").gt_eq(time.clone()) } else { col("time_ns").lt_eq(time.clone()) };
        let last = if is_low { col("seq").gt_eq(lit(key.seq)) } else { col("seq").lt_eq(lit(key.seq)) };
        reachable.and(
            beyond("time_ns", time.clone())
                .or(col("time_ns").eq(time.clone()).and(beyond("writer", writer.clone())))
                .or(col("time_ns").eq(time).and(col("writer").eq(writer)).and(last)),
        )
    };
    bound(low, true).and(bound(high, false))
}

/// The rows of the table at that place past a key: (`time_ns`, table, `writer`, `seq`) compared as one.
#[must_use]
pub fn past(after: &Key, table: usize, is_ascending: bool) -> Expr {
    let beyond = |column: &str, value: Expr| {
        if is_ascending { col(column).gt(value) } else { col(column).lt(value) }
    };
    let (time, writer) = (lit(after.time_ns), lit(&*after.writer));
    let reachable =
        if is_ascending { col("time_ns").gt_eq(time.clone()) } else { col("time_ns").lt_eq(time.clone()) };
    let is_behind = if is_ascending { table > after.table } else { table < after.table };
    if is_behind {
        return reachable;
    }
    if table != after.table {
        return beyond("time_ns", time);
    }
    let same_time = col("time_ns").eq(time.clone());
    let same_writer = col("writer").eq(writer.clone());
    reachable.and(
        beyond("time_ns", time)
            .or(same_time.clone().and(beyond("writer", writer)))
            .or(same_time.and(same_writer).and(beyond("seq", lit(after.seq)))),
    )
}
