//! Refuses work that no time limit makes sensible: products of whole tables under something that must see
//! all of it.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

/// Rows that a product of tables may come to. Chosen: an hour of one core at 10 million rows a second.
pub const PRODUCT_ROWS_MAX: f64 = 3.6e10;

/// Rows that the largest product of tables in an optimized plan comes to, at most; 0 where there is none, or
/// where nothing above it needs all of it (a limited or streamed result stops early).
#[must_use]
pub fn product_rows(plan: &LogicalPlan, table_rows: &dyn Fn(&str) -> u64) -> f64 {
    let mut largest = 0.0_f64;
    let walked = plan.apply(|node| {
        if matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Distinct(_)
        ) {
            for input in node.inputs() {
                largest = largest.max(estimate(input, table_rows).1);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    largest
}

/// (rows that come out, rows of the largest product below).
fn estimate(plan: &LogicalPlan, table_rows: &dyn Fn(&str) -> u64) -> (f64, f64) {
    let inputs: Vec<(f64, f64)> =
        plan.inputs().into_iter().map(|input| estimate(input, table_rows)).collect();
    let product = inputs.iter().map(|(_, product)| *product).fold(0.0, f64::max);
    let most = inputs.iter().map(|(rows, _)| *rows).fold(0.0, f64::max);
    match plan {
        LogicalPlan::TableScan(scan) => {
            let rows = table_rows(scan.table_name.table()) as f64;
            // A condition on a scan is taken to keep one row of a hundred.
            let rows = if scan.filters.is_empty() { rows } else { (rows / 100.0).ceil() };
            (scan.fetch.map_or(rows, |fetch| rows.min(fetch as f64)), 0.0)
        }
        LogicalPlan::Join(join) if join.on.is_empty() => {
            let rows = inputs.iter().map(|(rows, _)| rows.max(1.0)).product();
            (rows, product.max(rows))
        }
        LogicalPlan::Filter(_) => ((most / 100.0).ceil(), product),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => (1.0, product),
        LogicalPlan::Values(values) => (values.values.len() as f64, 0.0),
        LogicalPlan::EmptyRelation(_) => (1.0, 0.0),
        LogicalPlan::Limit(_) => (most.min(10_000.0), 0.0),
        LogicalPlan::Union(_) => (inputs.iter().map(|(rows, _)| rows).sum(), product),
        _ => (most, product),
    }
}
