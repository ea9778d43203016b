//! Refuses work that no time limit makes sensible: products of whole tables under something that must see
//! all of it.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

use crate::refusal::Refusal;

/// Rows that a product of tables may come to. Chosen: an hour of one core at 10 million rows a second.
const PRODUCT_ROWS_MAX: f64 = 3.6e10;

/// Refuses an optimized plan in which tables are multiplied into too many rows.
///
/// # Errors
/// 422.
pub fn check(plan: &LogicalPlan, table_rows: &dyn Fn(&str) -> u64) -> Result<(), Refusal> {
    if product_rows(plan, table_rows) > PRODUCT_ROWS_MAX {
        return Err(Refusal::query_limit(
            "the query multiplies tables into too many rows; join them on a column",
        ));
    }
    Ok(())
}

/// Rows that the largest product of tables in an optimized plan comes to, at most; 0 where there is none, or
/// where nothing above it needs all of it (a limited or streamed result stops early).
fn product_rows(plan: &LogicalPlan, table_rows: &dyn Fn(&str) -> u64) -> f64 {
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::{LogicalPlanBuilder, table_scan};

    use super::check;

    fn scan(table: &str) -> LogicalPlanBuilder {
        let schema = Schema::new(vec![Field::new("c", DataType::Int64, true)]);
        table_scan(Some(table), &schema, None).unwrap()
    }

    // B1: what has to see a whole product of tables is refused by its rows, before it runs.
    #[test]
    fn products_of_tables_are_of_so_many_rows() {
        let product = || scan("a").cross_join(scan("b").build().unwrap()).unwrap();
        let whole = product().distinct().unwrap().build().unwrap();
        let rows = |of_each: u64| move |_: &str| of_each;
        assert!(check(&whole, &rows(189_000)).is_ok());
        let refusal = check(&whole, &rows(190_000)).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"));
        let streamed = product().build().unwrap();
        assert!(check(&streamed, &rows(190_000)).is_ok(), "its client may stop it at any row");
    }
}
