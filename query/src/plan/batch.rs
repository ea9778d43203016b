//! How many rows a plan works on at once: many where each of them is small, whatever is stored (B1).

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Rows at once where a value may be long. Chosen: log lines of eight kilobytes are eight megabytes, which every operator
/// of a plan can hold within a worker's memory; with the engine's own 8,192 they are not.
pub const ROWS: usize = 1_024;

/// Rows at once of values that have a size of their own: the query engine's own number.
const FIXED_ROWS: usize = 8_192;

/// Columns of one step up to which its rows are small. Chosen: such a value is 32 bytes at most, so that a batch is no larger
/// than one of those log lines.
const FIXED_COLUMNS_MAX: usize = 32;

/// Rows that an optimized plan is to work on at once.
#[must_use]
pub fn rows(plan: &LogicalPlan) -> usize {
    let mut is_fixed = true;
    let walked = plan.apply_with_subqueries(|node| {
        let fields = node.schema().fields();
        is_fixed &=
            fields.len() <= FIXED_COLUMNS_MAX && fields.iter().all(|field| has_size(field.data_type()));
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                is_fixed &= is_plain(part);
                Ok(if is_fixed { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if is_fixed { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    if is_fixed { FIXED_ROWS } else { ROWS }
}

/// Whether every value of a type takes as much as any other.
fn has_size(kind: &DataType) -> bool {
    kind.is_null() || kind.is_primitive() || *kind == DataType::Boolean
}

/// Whether what a part of an expression makes is no larger than what it is made of. A function may make a text of a
/// number, and another a number of that.
fn is_plain(part: &Expr) -> bool {
    match part {
        Expr::Literal(value, _) => has_size(&value.data_type()),
        Expr::Cast(cast) => has_size(cast.field.data_type()),
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::BinaryExpr(_)
        | Expr::Not(_)
        | Expr::Negative(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::AggregateFunction(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::functions::expr_fn::{length, repeat};
    use datafusion::functions_aggregate::expr_fn::{array_agg, sum};
    use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, cast, col, lit, table_scan};

    use super::rows;

    fn scan(columns: usize) -> LogicalPlanBuilder {
        let fields = (0..columns).map(|at| Field::new(format!("c{at}"), DataType::Int64, true));
        let text = Field::new("text", DataType::Utf8, true);
        let schema = Schema::new(fields.chain([text]).collect::<Vec<_>>());
        table_scan(Some("t"), &schema, Some((0..columns).collect())).unwrap()
    }

    fn rows_of(plan: LogicalPlanBuilder) -> usize {
        rows(&plan.build().unwrap())
    }

    // B1
    #[test]
    fn many_rows_at_once_only_where_every_value_has_a_size() {
        let no_group = Vec::<datafusion::logical_expr::Expr>::new();
        let plain = scan(2).filter(col("c0").gt(lit(5)).and(col("c1").is_not_null())).unwrap();
        assert_eq!(rows_of(plain.clone()), 8_192);
        assert_eq!(rows_of(plain.clone().aggregate(vec![col("c1")], vec![sum(col("c0"))]).unwrap()), 8_192);
        assert_eq!(rows_of(scan(32)), 8_192);
        let small: Vec<(&str, LogicalPlan)> = [
            ("many columns", scan(33)),
            (
                "a text",
                table_scan(Some("t"), &Schema::new(vec![Field::new("s", DataType::Utf8, true)]), None)
                    .unwrap(),
            ),
            ("a text within", plain.clone().project(vec![length(repeat(lit("x"), col("c0")))]).unwrap()),
            (
                "a text of a number",
                plain.clone().filter(cast(col("c0"), DataType::Utf8).eq(lit("1"))).unwrap(),
            ),
            ("a list", plain.aggregate(no_group, vec![array_agg(col("c0"))]).unwrap()),
        ]
        .into_iter()
        .map(|(name, plan)| (name, plan.build().unwrap()))
        .collect();
        for (name, plan) in small {
            assert_eq!(rows(&plan), 1_024, "{name}");
        }
    }
}
