//! How large a plan may be once it is expanded: what a short statement can grow to (B1).
//!
//! A common table expression stands once in a statement and once for each use in its plan; a star is as many columns
//! as its table has. The guard bounds what can be counted in the statement; here the plan itself is counted. What
//! grows past these bounds before it can be counted meets the limit of the worker's memory.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

use crate::refusal::Refusal;

/// Steps of a plan: scans, joins, filters, projections.
pub const NODES_MAX: usize = 2_000;
/// Columns of all steps together.
pub const COLUMNS_MAX: usize = 100_000;
/// Expressions of all steps together, with the expressions in them.
pub const EXPRESSIONS_MAX: usize = 100_000;

/// Refuses a plan past its bounds.
///
/// # Errors
/// 422 naming what there is too much of.
pub fn check(plan: &LogicalPlan) -> Result<(), Refusal> {
    let (mut nodes, mut columns, mut expressions) = (0, 0, 0);
    let mut past = BTreeSet::new();
    let walked = plan.apply_with_subqueries(|node| {
        nodes += 1;
        columns += node.schema().fields().len();
        node.apply_expressions(|expression| {
            expression.apply(|_| {
                expressions += 1;
                Ok(if expressions > EXPRESSIONS_MAX {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })?;
        for (count, max, what) in [
            (nodes, NODES_MAX, "steps"),
            (columns, COLUMNS_MAX, "columns"),
            (expressions, EXPRESSIONS_MAX, "expressions"),
        ] {
            if count > max {
                past.insert((what, max));
            }
        }
        Ok(if past.is_empty() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    match past.first() {
        None => Ok(()),
        Some((what, max)) => Err(Refusal::query_limit(format!(
            "the query has more than {max} {what} once its stars, views and common table expressions are expanded"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit, table_scan};

    use super::check;

    fn scan(columns: usize) -> LogicalPlanBuilder {
        let fields: Vec<Field> =
            (0..columns).map(|at| Field::new(format!("c{at}"), DataType::Int64, true)).collect();
        table_scan(Some("t"), &Schema::new(fields), None).unwrap()
    }

    fn limited(plan: LogicalPlanBuilder, times: usize) -> LogicalPlan {
        (0..times).fold(plan, |plan, _| plan.limit(0, Some(1)).unwrap()).build().unwrap()
    }

    // B1
    #[test]
    fn steps_columns_and_expressions_are_bounded() {
        let run = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
            assert!(check(&limited(scan(1), 100)).is_ok());
            let told = |plan: &LogicalPlan| check(plan).unwrap_err();
            let long = limited(scan(1), 2_000);
            assert!(told(&long).detail.contains("steps"), "{}", told(&long).detail);
            let wide = limited(scan(10_000), 10);
            assert!(told(&wide).detail.contains("columns"), "{}", told(&wide).detail);
            assert_eq!(told(&wide).status, 422);
            let list = (0..100_000_i64).map(lit).collect();
            let many = scan(1).filter(col("c0").in_list(list, false)).unwrap().build().unwrap();
            assert!(told(&many).detail.contains("expressions"), "{}", told(&many).detail);
        });
        run.unwrap().join().unwrap();
    }
}
