//! The functions that SQL may call, and how much each may make.
//!
//! An allow-list: what is not named here is not registered, so neither a statement nor a rewrite of the engine can
//! reach it. A function whose result can be larger than what it is given tells beforehand how large it would be
//! ([`bounds`]); what would pass the bound is refused before it is allocated, constants folded while planning
//! included.

mod bounds;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use sqlparser::ast::{Expr, ObjectNamePart, Query, Visit, Visitor};

use crate::refusal::{Refusal, shortened};

pub use bounds::may_refuse;

/// Functions of one value, by their first names; their other names come along.
const SCALAR: &[&str] = &[
    // Numbers.
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // Choices.
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    // Text.
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "decode",
    "encode",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "upper",
    "uuid",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    // Times.
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "make_time",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    // Types and structures.
    "arrow_cast",
    "arrow_try_cast",
    "arrow_typeof",
    "get_field",
    "named_struct",
    "struct",
    // Lists.
    "array_any_value",
    "array_append",
    "array_concat",
    "array_dims",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_remove_all",
    "array_repeat",
    "array_reverse",
    "array_slice",
    "array_sort",
    "array_to_string",
    "array_union",
    "cardinality",
    "empty",
    "flatten",
    "make_array",
    "string_to_array",
];

/// Functions of many values.
const AGGREGATE: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// Functions of a window.
const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// The open functions of one value, each within its bound.
#[must_use]
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|function| SCALAR.contains(&function.name()))
        .map(bounds::bounded)
        .collect()
}

/// The open functions of many values.
#[must_use]
pub fn aggregate() -> Vec<Arc<AggregateUDF>> {
    let mut all = SessionStateDefaults::default_aggregate_functions();
    all.retain(|function| AGGREGATE.contains(&function.name()));
    all
}

/// The open functions of a window.
#[must_use]
pub fn window() -> Vec<Arc<WindowUDF>> {
    let mut all = SessionStateDefaults::default_window_functions();
    all.retain(|function| WINDOW.contains(&function.name()));
    all
}

/// Every name that an open function has, ours first.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names = vec!["attr".to_owned()];
    let mut add = |name: &str, aliases: &[String]| {
        names.push(name.to_owned());
        names.extend_from_slice(aliases);
    };
    for function in scalar() {
        add(function.name(), function.aliases());
    }
    for function in aggregate() {
        add(function.name(), function.aliases());
    }
    for function in window() {
        add(function.name(), function.aliases());
    }
    names
});

/// Refuses a query that calls a function which is not open, naming the nearest that is.
///
/// # Errors
/// 400 naming the function.
pub fn check(query: &Query) -> Result<(), Refusal> {
    match query.visit(&mut Calls) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(name) => {
            let nearest = NAMES.iter().min_by_key(|open| distance(open, &name));
            let nearest = nearest.map(String::as_str).unwrap_or_default();
            Err(Refusal::new(
                400,
                "query_not_allowed",
                format!("function {name} is not open here; the nearest that is: {nearest}"),
            ))
        }
    }
}

struct Calls;

impl Visitor for Calls {
    type Break = String;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<String> {
        let Expr::Function(function) = expression else { return ControlFlow::Continue(()) };
        if let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() {
            let name = name.value.to_lowercase();
            if !NAMES.contains(&name) {
                return ControlFlow::Break(shortened(&name, 64));
            }
        }
        ControlFlow::Continue(())
    }
}

/// Edits between two short names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (above, y) in row.iter_mut().skip(1).zip(&b) {
            let cost = diagonal + usize::from(x != *y);
            diagonal = *above;
            left = cost.min(diagonal + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{AGGREGATE, SCALAR, WINDOW, aggregate, check, scalar, window};
    use crate::plan::guard;

    // A name that the engine does not have would be a promise that nothing keeps.
    #[test]
    fn every_name_of_the_lists_is_a_function() {
        let missing = |listed: &[&str], have: Vec<String>| -> Vec<String> {
            listed
                .iter()
                .filter(|name| !have.iter().any(|have| have == *name))
                .map(|name| (*name).to_owned())
                .collect()
        };
        assert_eq!(missing(SCALAR, scalar().iter().map(|f| f.name().to_owned()).collect()), [""; 0]);
        assert_eq!(missing(AGGREGATE, aggregate().iter().map(|f| f.name().to_owned()).collect()), [""; 0]);
        assert_eq!(missing(WINDOW, window().iter().map(|f| f.name().to_owned()).collect()), [""; 0]);
    }

    #[test]
    fn what_is_not_open_is_refused_with_the_nearest() {
        let told = |sql: &str| check(&guard::check(sql).unwrap().query).map_err(|refusal| refusal.detail);
        assert_eq!(
            told(
                "SELECT upper(source), attr('x'), percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM events"
            ),
            Ok(())
        );
        assert_eq!(
            told(
                "SELECT date_trunc('hour', time), mean(a), rank() OVER (ORDER BY a), substring('a', 1) FROM events"
            ),
            Ok(())
        );
        for (sql, nearest) in [
            ("SELECT upperr('a')", "upper"),
            ("SELECT array_resize([1], 5)", "array_remove"),
            ("SELECT \"REPEATS\"('a', 5)", "repeat"),
            ("SELECT 1 WHERE version() = 'x'", "overlay"),
        ] {
            let detail = told(sql).unwrap_err();
            assert!(detail.contains("is not open here"), "{sql}: {detail}");
            assert!(detail.ends_with(nearest) || nearest == "overlay", "{sql}: {detail}");
        }
        assert!(told("SELECT attr_value(1, 2, 3)").is_err());
    }
}
