use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};
use storage::reader::DataFile;

use super::{Bounds, files};

fn file(time_ns: (i64, i64), source: Option<(&str, &str)>) -> Arc<DataFile> {
    Arc::new(DataFile {
        path: format!("{}-{}", time_ns.0, time_ns.1),
        bytes: 1,
        rows: 1,
        time_ns,
        source: source.map(|(low, high)| (low.into(), high.into())),
        digest: None,
        blocks: None,
        stats: None,
    })
}

fn us(value: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into())))
}

// Q1: what is left out cannot match; what is not understood keeps every file.
#[test]
fn only_files_that_cannot_match_are_left_out() {
    let all = [
        file((0, 999), Some(("a", "c"))),
        file((1_000, 1_999), Some(("d", "f"))),
        file((2_000, 2_999), None),
    ];
    for (filter, expected) in [
        (col("time_ns").gt_eq(lit(1_000_i64)), vec![1, 2]),
        (col("time_ns").gt(lit(1_999_i64)), vec![2]),
        (col("time_ns").lt(lit(1_000_i64)), vec![0]),
        (lit(1_000_i64).gt(col("time_ns")), vec![0]),
        (col("time_ns").eq(lit(1_500_i64)), vec![1]),
        (col("time_ns").between(lit(999_i64), lit(1_000_i64)), vec![0, 1]),
        (col("time_ns").not_eq(lit(5_i64)), vec![0, 1, 2]),
        (col("time").gt(us(0)), vec![1, 2]),
        (col("time").lt_eq(us(1)), vec![0, 1]),
        (col("time").eq(us(2)), vec![2]),
        (col("source").eq(lit("b")), vec![0, 2]),
        (col("source").in_list(vec![lit("b"), lit("e")], false), vec![0, 1, 2]),
        (col("source").in_list(vec![lit("b")], true), vec![0, 1, 2]),
        (col("source").eq(lit("b")).and(col("source").eq(lit("e"))), vec![2]),
        (col("source").eq(lit("b")).or(col("time_ns").lt(lit(0_i64))), vec![0, 1, 2]),
        (col("time_ns").lt(lit(i64::MIN)), vec![]),
        (col("trace_id").eq(lit("x")), vec![0, 1, 2]),
    ] {
        let kept = files(&all, &Bounds::of(std::slice::from_ref(&filter)));
        let expected: Vec<_> = expected.into_iter().map(|at: usize| Arc::clone(&all[at])).collect();
        assert_eq!(kept, expected, "{filter}");
    }
}
