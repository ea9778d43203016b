//! How many rows a plan works on at once: many where each of them is small, whatever is stored (B1).

use arrow::datatypes::{DataType, Field as ArrowField, Fields};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use storage::record::Field;

/// Rows at once where a value may be long. Chosen: log lines of eight kilobytes are eight megabytes, which every operator
/// of a plan can hold within a worker's memory; with the engine's own 8,192 they are not.
pub const ROWS: usize = 1_024;

/// Rows at once where all texts are names. Nothing bounds one, yet few are longer than two hundred bytes: a batch of those is
/// a megabyte. One of names of eight kilobytes is 32, which a query may still hold.
const NAMED_ROWS: usize = 4_096;

/// Rows at once of values that have a size of their own: the query engine's own number.
const FIXED_ROWS: usize = 8_192;

/// Columns of one step up to which its rows are small. Chosen: such a value is 32 bytes at most, so that a batch is no larger
/// than one of those log lines.
const FIXED_COLUMNS_MAX: usize = 32;

/// Columns of one step up to which its rows of names are small. Chosen: of eight kilobytes each they are what log lines are.
const NAMED_COLUMNS_MAX: usize = 4;

/// The longest text of the statement's own of which each row may have one. Chosen: as long as names are.
const LITERAL_BYTES_MAX: usize = 256;

/// The columns whose texts name what there are few of, or are ids.
const NAMES: &[Field] = &[
    Field::Id,
    Field::Source,
    Field::EventType,
    Field::Name,
    Field::Severity,
    Field::CorrelationId,
    Field::TraceId,
    Field::SpanId,
    Field::ParentSpanId,
    Field::SpanKind,
    Field::StatusCode,
    Field::ScopeName,
    Field::EventName,
    Field::ActorType,
    Field::ActorId,
    Field::Action,
    Field::ResourceType,
    Field::ResourceId,
    Field::DecisionId,
    Field::Outcome,
    Field::RequestId,
    Field::Operation,
];

/// What the values of a plan are, from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Values {
    Fixed,
    Names,
    Any,
}

/// Rows that an optimized plan is to work on at once.
#[must_use]
pub fn rows(plan: &LogicalPlan) -> usize {
    let mut largest = Values::Fixed;
    let walked = plan.apply_with_subqueries(|node| {
        largest = largest.max(of_columns(node.schema().fields()));
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                largest = largest.max(of_part(part));
                Ok(if largest == Values::Any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })?;
        Ok(if largest == Values::Any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walked.is_ok(), "the closure never fails");
    match largest {
        Values::Fixed => FIXED_ROWS,
        Values::Names => NAMED_ROWS,
        Values::Any => ROWS,
    }
}

/// What the rows of one step are.
fn of_columns(fields: &Fields) -> Values {
    let named = fields.iter().filter(|field| !has_size(field.data_type())).count();
    let are_names = || fields.iter().all(|field| has_size(field.data_type()) || is_name(field));
    if fields.len() > FIXED_COLUMNS_MAX || named > NAMED_COLUMNS_MAX || !are_names() {
        Values::Any
    } else if named > 0 {
        Values::Names
    } else {
        Values::Fixed
    }
}

fn is_name(field: &ArrowField) -> bool {
    is_text(field.data_type()) && NAMES.iter().any(|name| name.name() == field.name())
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether every value of a type takes as much as any other.
fn has_size(kind: &DataType) -> bool {
    kind.is_null() || kind.is_primitive() || *kind == DataType::Boolean
}

/// What a part of an expression makes, beside what it is made of. A function may make a text of a number, and another a
/// number of that.
fn of_part(part: &Expr) -> Values {
    let sized = |is_sized| if is_sized { Values::Fixed } else { Values::Any };
    match part {
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(text) if text.is_none_or(|text| text.len() <= LITERAL_BYTES_MAX) => Values::Names,
            Some(_) => Values::Any,
            None => sized(has_size(&value.data_type())),
        },
        Expr::Cast(cast) => sized(has_size(cast.field.data_type())),
        // Two texts side by side are a longer one.
        Expr::BinaryExpr(binary) => sized(binary.op != Operator::StringConcat),
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::Not(_)
        | Expr::Negative(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Like(_)
        | Expr::AggregateFunction(_) => Values::Fixed,
        _ => Values::Any,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::functions::expr_fn::{length, repeat};
    use datafusion::functions_aggregate::expr_fn::{array_agg, max, sum};
    use datafusion::logical_expr::{
        LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, col, lit, table_scan,
    };

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

    fn texts(names: &[&str]) -> LogicalPlanBuilder {
        let fields = names.iter().map(|name| Field::new(*name, DataType::Utf8View, true));
        let schema = Schema::new(fields.chain([Field::new("c", DataType::Int64, true)]).collect::<Vec<_>>());
        table_scan(Some("t"), &schema, None).unwrap()
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
            ("a text", texts(&["message"])),
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

    // B1
    #[test]
    fn more_rows_at_once_where_all_texts_are_names() {
        let names = texts(&["source", "event_type"]);
        let pattern =
            names.clone().filter(col("event_type").like(lit("%er%")).and(col("c").gt(lit(5)))).unwrap();
        assert_eq!(rows_of(pattern), 4_096);
        assert_eq!(
            rows_of(names.clone().aggregate(vec![col("source")], vec![sum(col("c"))]).unwrap()),
            4_096
        );
        assert_eq!(rows_of(texts(&["source", "event_type", "severity", "id"])), 4_096);
        let listed = col("source").in_list(vec![lit("a".repeat(256)), lit("b")], false);
        assert_eq!(rows_of(names.clone().filter(listed).unwrap()), 4_096);
        let is_same = names.clone().filter(col("source").eq(col("event_type"))).unwrap();
        for (name, plan) in [
            ("many names", texts(&["source", "event_type", "severity", "id", "trace_id"])),
            ("a text beside them", texts(&["source", "message"])),
            ("a long text of the statement", names.clone().project(vec![lit("x".repeat(257))]).unwrap()),
            ("a function of one", names.filter(length(col("source")).gt(lit(1))).unwrap()),
            ("one beside the other", {
                let both = binary_expr(col("source"), Operator::StringConcat, col("event_type"));
                is_same.clone().filter(both.eq(lit("x"))).unwrap()
            }),
            (
                "one that an aggregate makes",
                is_same.aggregate(vec![col("c")], vec![max(col("source"))]).unwrap(),
            ),
        ] {
            assert_eq!(rows_of(plan), 1_024, "{name}");
        }
    }
}
