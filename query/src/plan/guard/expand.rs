//! How large a statement is once its common table expressions are written out at each of their uses.
//!
//! `WITH a AS (…), b AS (SELECT … FROM a, a), c AS (SELECT … FROM b, b) …` doubles with each line: the planner writes
//! every use out. This counts what it would come to, without writing anything out.

use std::collections::HashMap;

use sqlparser::ast::{Expr, GroupByExpr, GroupByWithModifier, Query, Select};

/// Tables, subqueries and common table expressions of a statement, each counted as often as it is used.
pub const EXPANDED_RELATIONS_MAX: u64 = 256;
/// Expressions of a statement, each counted as often as what it stands in is used.
pub const EXPANDED_EXPRESSIONS_MAX: u64 = 100_000;
/// Grouping sets of one query: `cube` of six columns has as many.
pub const GROUPING_SETS_MAX: u64 = 64;

/// What a query, or a common table expression, comes to.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    relations: u64,
    expressions: u64,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.relations = self.relations.saturating_add(other.relations);
        self.expressions = self.expressions.saturating_add(other.expressions);
    }
}

/// A query that is being walked.
#[derive(Debug, Default)]
struct Frame {
    weight: Weight,
    /// What its common table expressions come to, by name.
    own: HashMap<String, Weight>,
    /// Names of those that are not walked yet, by the address of their query.
    to_come: HashMap<*const Query, String>,
}

/// Counts while a statement is walked.
#[derive(Debug, Default)]
pub struct Expansion {
    frames: Vec<Frame>,
}

/// What there is too much of, and its bound.
pub type Past = Result<(), (&'static str, u64)>;

impl Expansion {
    /// Enters a query.
    pub fn enter(&mut self, query: &Query, folded: impl Fn(&sqlparser::ast::Ident) -> String) {
        let mut frame = Frame::default();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            frame.to_come.insert(&raw const *cte.query, folded(&cte.alias.name));
        }
        self.frames.push(frame);
    }

    /// Leaves a query: a common table expression counts where it is used, any other where it stands.
    pub fn leave(&mut self, query: &Query) -> Past {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if let Some(around) = self.frames.last_mut() {
            match around.to_come.remove(&(&raw const *query)) {
                Some(name) => drop(around.own.insert(name, frame.weight)),
                None => around.weight.add(frame.weight),
            }
        }
        self.check()
    }

    /// Meets a table's name.
    pub fn relation(&mut self, name: Option<&str>) -> Past {
        let one = Weight { relations: 1, expressions: 0 };
        let own = name.and_then(|name| self.frames.iter().rev().find_map(|frame| frame.own.get(name)));
        let mut weight = own.copied().unwrap_or_default();
        weight.add(one);
        if let Some(frame) = self.frames.last_mut() {
            frame.weight.add(weight);
        }
        self.check()
    }

    /// Meets an expression.
    pub fn expression(&mut self) -> Past {
        if let Some(frame) = self.frames.last_mut() {
            frame.weight.add(Weight { relations: 0, expressions: 1 });
        }
        self.check()
    }

    fn check(&self) -> Past {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        if frame.weight.relations > EXPANDED_RELATIONS_MAX {
            return Err((
                "tables and subqueries, each counted as often as it is used",
                EXPANDED_RELATIONS_MAX,
            ));
        }
        if frame.weight.expressions > EXPANDED_EXPRESSIONS_MAX {
            return Err(("expressions, each counted as often as it is used", EXPANDED_EXPRESSIONS_MAX));
        }
        Ok(())
    }
}

/// Counts the grouping sets of a query's `GROUP BY`.
pub fn grouping_sets(select: &Select) -> Past {
    let (listed, modifiers): (&[Expr], _) = match &select.group_by {
        GroupByExpr::All(modifiers) => (&[], modifiers),
        GroupByExpr::Expressions(listed, modifiers) => (listed, modifiers),
    };
    let mut sets = product(listed);
    for modifier in modifiers {
        let count = listed.len() as u64;
        sets = sets.saturating_mul(match modifier {
            GroupByWithModifier::Rollup => count + 1,
            GroupByWithModifier::Cube => power_of_two(count),
            GroupByWithModifier::Totals => 2,
            GroupByWithModifier::GroupingSets(inner) => product(std::slice::from_ref(inner)),
        });
    }
    if sets > GROUPING_SETS_MAX { Err(("grouping sets", GROUPING_SETS_MAX)) } else { Ok(()) }
}

fn product(listed: &[Expr]) -> u64 {
    listed.iter().fold(1, |sets: u64, expression| {
        let (own, inner) = match expression {
            Expr::Cube(inner) => (power_of_two(inner.len() as u64), inner),
            Expr::Rollup(inner) => (inner.len() as u64 + 1, inner),
            Expr::GroupingSets(inner) => (inner.len() as u64, inner),
            _ => return sets,
        };
        let nested = inner.iter().map(|one| product(one)).fold(1, u64::saturating_mul);
        sets.saturating_mul(own.max(1)).saturating_mul(nested)
    })
}

fn power_of_two(exponent: u64) -> u64 {
    u32::try_from(exponent).ok().and_then(|exponent| 1_u64.checked_shl(exponent)).unwrap_or(u64::MAX)
}
