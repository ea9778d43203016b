//! Which files can hold rows that a query wants: plain functions over plain data (Q1).
//!
//! Pruning is conservative: a condition it does not understand keeps every file, so it never changes an answer.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use storage::reader::DataFile;

/// What the conditions of a query say about the columns that files have statistics of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Lowest and highest `time_ns` that can match, both inclusive.
    pub time_ns: (i64, i64),
    /// The sources that can match; `None` for any.
    pub sources: Option<Vec<String>>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { time_ns: (i64::MIN, i64::MAX), sources: None }
    }
}

impl Bounds {
    /// Reads the bounds off conditions that all must hold.
    #[must_use]
    pub fn of(filters: &[Expr]) -> Self {
        let mut bounds = Self::default();
        for filter in filters {
            bounds.narrow(filter);
        }
        bounds
    }

    /// Whether the file can hold a row within the bounds.
    #[must_use]
    pub fn can_match(&self, file: &DataFile) -> bool {
        let in_time = file.time_ns.1 >= self.time_ns.0 && file.time_ns.0 <= self.time_ns.1;
        let in_source = match (&self.sources, &file.source) {
            (Some(sources), Some((low, high))) => {
                sources.iter().any(|source| low <= source && source <= high)
            }
            _ => true,
        };
        in_time && in_source
    }

    fn narrow(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left);
                self.narrow(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(&column.name, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        self.compare(&column.name, op, value);
                    }
                }
                _ => {}
            },
            Expr::Between(between) if !between.negated => {
                if let Expr::Column(column) = &*between.expr {
                    for (op, bound) in [(Operator::GtEq, &between.low), (Operator::LtEq, &between.high)] {
                        if let Expr::Literal(value, _) = &**bound {
                            self.compare(&column.name, op, value);
                        }
                    }
                }
            }
            Expr::InList(list) if !list.negated => {
                if let Expr::Column(column) = &*list.expr
                    && column.name == "source"
                {
                    let sources: Option<Vec<String>> = list.list.iter().map(text_of).collect();
                    if let Some(sources) = sources {
                        self.only(sources);
                    }
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) {
        match column {
            "time_ns" => {
                if let ScalarValue::Int64(Some(ns)) = value {
                    self.compare_time(op, i128::from(*ns), 1);
                }
            }
            // The column holds microseconds, rounded down: one value stands for a thousand nanoseconds.
            "time" => {
                if let ScalarValue::TimestampMicrosecond(Some(us), _) = value {
                    self.compare_time(op, i128::from(*us) * 1_000, 1_000);
                }
            }
            "source" if op == Operator::Eq => {
                if let Some(Some(source)) = value.try_as_str() {
                    self.only(vec![source.to_owned()]);
                }
            }
            _ => {}
        }
    }

    fn compare_time(&mut self, op: Operator, ns: i128, width: i128) {
        let clamp = |ns: i128| i64::try_from(ns.clamp(i64::MIN.into(), i64::MAX.into())).expect("clamped");
        match op {
            Operator::GtEq => self.time_ns.0 = self.time_ns.0.max(clamp(ns)),
            Operator::Gt => self.time_ns.0 = self.time_ns.0.max(clamp(ns + width)),
            Operator::LtEq => self.time_ns.1 = self.time_ns.1.min(clamp(ns + width - 1)),
            Operator::Lt => self.time_ns.1 = self.time_ns.1.min(clamp(ns - 1)),
            Operator::Eq => {
                self.compare_time(Operator::GtEq, ns, width);
                self.compare_time(Operator::LtEq, ns, width);
            }
            _ => {}
        }
    }

    fn only(&mut self, sources: Vec<String>) {
        match &mut self.sources {
            Some(known) => known.retain(|source| sources.contains(source)),
            none => *none = Some(sources),
        }
    }
}

fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

/// The files that can hold rows within the bounds.
#[must_use]
pub fn files(all: &[Arc<DataFile>], bounds: &Bounds) -> Vec<Arc<DataFile>> {
    all.iter().filter(|file| bounds.can_match(file)).cloned().collect()
}

#[cfg(test)]
mod tests;
