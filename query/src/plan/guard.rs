//! What a statement may be: exactly one query over plain table names (F29).
//!
//! The guard depends on the SQL parser alone, so that it can be fuzzed by itself. Three passes, each cheap
//! enough for the next: bytes (length), tokens (nesting, list length, chains of operators: what would make a
//! recursive parser or planner deep), syntax tree (an allow-list; what is not named here is refused). It never
//! looks a table up: the caller learns which names the query uses.

#[path = "guard/expand.rs"]
mod expand;
#[path = "guard/types.rs"]
mod types;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Query,
    Select, SetExpr, Statement, TableFactor, Value, Visit, Visitor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use expand::{Expansion, Past};

/// The longest statement, in bytes.
pub const SQL_BYTES_MAX: usize = 1 << 20;
/// Brackets within brackets.
pub const NESTING_MAX: usize = 64;
/// Items of one list.
pub const LIST_ITEMS_MAX: usize = 10_000;
/// Operators in a statement: a chain `a + b + …` becomes a tree as deep as it is long. Chosen: a thousand
/// comparisons joined by OR are better written as IN, and the planner's stack holds ten times as many.
pub const OPERATORS_MAX: usize = 1_000;
/// Tables, subqueries and joins in a statement: planning grows faster than linear with them.
pub const RELATIONS_MAX: usize = 64;
/// The largest length that functions which blow a value up may be given.
pub const REPEAT_MAX: u64 = 10_000;

/// Functions that make much of little, outside the memory pool; they need a literal length.
const GROWING: &[(&str, usize)] = &[
    ("repeat", 1),
    ("lpad", 1),
    ("rpad", 1),
    ("array_repeat", 1),
    ("list_repeat", 1),
    ("array_resize", 1),
    ("list_resize", 1),
];
/// Functions that are refused: they make rows or values from nothing.
const REFUSED: &[&str] = &["generate_series", "range", "unnest"];

/// A statement that passed.
#[derive(Debug)]
pub struct Checked {
    /// The one query.
    pub query: Box<Query>,
    /// Names of the tables it reads, as resolved (folded unless quoted), without its own common table
    /// expressions.
    pub tables: BTreeSet<String>,
}

/// Why a statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is longer than [`SQL_BYTES_MAX`].
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It nests or chains deeper than the bounds, or has too many of something.
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// It is no SQL; where, without quoting it.
    Syntax(String),
    /// It is something else than exactly one query.
    NotOneQuery(&'static str),
    /// A file, a URL or a function stands where a table should.
    NotATable(&'static str),
    /// It names a schema or catalog: there is none to name.
    Qualified,
    /// It calls a function that is not open here.
    Function(&'static str),
    /// It casts to a type that is not open here.
    Type,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "statement of {bytes} bytes exceeds {SQL_BYTES_MAX}"),
            Self::TooComplex { what, limit } => write!(f, "the statement has more than {limit} {what}"),
            Self::Syntax(at) => write!(f, "the statement is not valid SQL{at}"),
            Self::NotOneQuery(what) => write!(f, "only one query is allowed, not {what}"),
            Self::NotATable(what) => write!(f, "{what} is not a table"),
            Self::Qualified => f.write_str("there is no such table: names have no schema"),
            Self::Function(name) => write!(f, "function {name} is not open in this form"),
            Self::Type => f.write_str(
                "casts go to numbers, text, bytes, booleans, dates, times, intervals and lists of them, without a length",
            ),
        }
    }
}

/// Checks a statement against the allow-list and parses it.
///
/// # Errors
/// The first reason to refuse it.
pub fn check(sql: &str) -> Result<Checked, Refused> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(Refused::TooLong { bytes: sql.len() });
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| {
        Refused::Syntax(format!(" at line {}, column {}", error.location.line, error.location.column))
    })?;
    scan(&tokens)?;
    let mut statements = Parser::new(&dialect)
        .with_tokens_with_locations(tokens)
        .with_recursion_limit(NESTING_MAX)
        .parse_statements()
        .map_err(|error| syntax(&error))?;
    if statements.len() != 1 {
        return Err(Refused::NotOneQuery(if statements.is_empty() {
            "nothing"
        } else {
            "several statements"
        }));
    }
    let statement = statements.remove(0);
    if !matches!(statement, Statement::Query(_)) {
        return Err(Refused::NotOneQuery("another statement"));
    }
    let mut visitor = AllowList::default();
    if let ControlFlow::Break(refused) = statement.visit(&mut visitor) {
        return Err(refused);
    }
    let Statement::Query(query) = statement else { unreachable!("matched above") };
    let AllowList { mut tables, own, .. } = visitor;
    tables.retain(|name| !own.contains(name));
    Ok(Checked { query, tables })
}

fn syntax(error: &ParserError) -> Refused {
    match error {
        ParserError::RecursionLimitExceeded => {
            Refused::TooComplex { what: "levels of nesting", limit: NESTING_MAX }
        }
        // The parser's text ends in "at Line: 1, Column: 8"; the rest may quote values (P2).
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => Refused::Syntax(
            text.rsplit_once(" at Line: ")
                .map(|(_, at)| format!(" at line {}", at.to_lowercase()))
                .filter(|at| at.len() < 64)
                .unwrap_or_default(),
        ),
    }
}

/// The token pass: bounds what recursion and planning would have to bear.
fn scan(tokens: &[TokenWithSpan]) -> Result<(), Refused> {
    let too_many = |what, limit| Err(Refused::TooComplex { what, limit });
    let mut commas = vec![0_usize];
    let mut operators = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if commas.len() > NESTING_MAX {
                    return too_many("levels of nesting", NESTING_MAX);
                }
                commas.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if commas.len() > 1 {
                    commas.pop();
                }
            }
            Token::Comma => {
                let level = commas.last_mut().expect("the outermost level is never popped");
                *level += 1;
                if *level >= LIST_ITEMS_MAX {
                    return too_many("items in a list", LIST_ITEMS_MAX);
                }
            }
            Token::Word(word) if word.quote_style.is_none() => {
                operators += usize::from(is_operator(word.keyword));
            }
            Token::Word(_)
            | Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::SemiColon
            | Token::EOF => {}
            _ => operators += 1,
        }
        if operators > OPERATORS_MAX {
            return too_many("operators", OPERATORS_MAX);
        }
    }
    Ok(())
}

fn is_operator(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::NOT
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::RLIKE
            | Keyword::REGEXP
            | Keyword::IS
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::CASE
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV
            | Keyword::OVERLAPS
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::MINUS
            | Keyword::INTERSECT
            | Keyword::JOIN
            | Keyword::SELECT
            | Keyword::INTERVAL
            | Keyword::PRIOR
    )
}

#[derive(Default)]
struct AllowList {
    tables: BTreeSet<String>,
    own: BTreeSet<String>,
    relations: usize,
    expansion: Expansion,
}

fn bounded(past: Past) -> ControlFlow<Refused> {
    match past {
        Ok(()) => ControlFlow::Continue(()),
        Err((what, limit)) => ControlFlow::Break(Refused::TooComplex {
            what,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }),
    }
}

impl Visitor for AllowList {
    type Break = Refused;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Refused> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(Refused::NotOneQuery("another statement")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refused> {
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return ControlFlow::Break(Refused::NotOneQuery("a locking query"));
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.own.insert(folded(&cte.alias.name));
        }
        self.expansion.enter(query, folded);
        let mut bodies = vec![&*query.body];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
                SetExpr::SetOperation { left, right, .. } => {
                    self.relations += 1;
                    bodies.extend([&**left, &**right]);
                }
                _ => return ControlFlow::Break(Refused::NotOneQuery("another statement")),
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Refused> {
        bounded(self.expansion.leave(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refused> {
        if select.into.is_some() {
            return ControlFlow::Break(Refused::NotOneQuery("SELECT INTO"));
        }
        bounded(expand::grouping_sets(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Refused> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return ControlFlow::Break(Refused::TooComplex {
                what: "tables and subqueries",
                limit: RELATIONS_MAX,
            });
        }
        // A table counts where its name is met; what has none counts here.
        if !matches!(factor, TableFactor::Table { .. }) {
            bounded(self.expansion.relation(None))?;
        }
        match factor {
            TableFactor::Table { args: Some(_), .. } => ControlFlow::Break(Refused::NotATable("a function")),
            TableFactor::Table { version: Some(_), .. } | TableFactor::Table { json_path: Some(_), .. } => {
                ControlFlow::Break(Refused::NotATable("a version of a table"))
            }
            TableFactor::Table { .. } | TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => {
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(Refused::NotATable("a function")),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Refused> {
        let mut last = None;
        for part in &name.0 {
            let ObjectNamePart::Identifier(ident) = part else {
                return ControlFlow::Break(Refused::NotATable("a function"));
            };
            if ident.quote_style == Some('\'') || ident.value.contains(['/', ':', '\\']) {
                return ControlFlow::Break(Refused::NotATable("a file or URL"));
            }
            last = Some(ident);
        }
        match last {
            Some(ident) if name.0.len() == 1 => {
                let name = folded(ident);
                let past = self.expansion.relation(Some(&name));
                self.tables.insert(name);
                bounded(past)
            }
            _ => ControlFlow::Break(Refused::Qualified),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refused> {
        bounded(self.expansion.expression())?;
        match expr {
            Expr::Cast { data_type, .. } if !types::is_open(data_type) => ControlFlow::Break(Refused::Type),
            Expr::Convert { data_type: Some(data_type), .. } if !types::is_open(data_type) => {
                ControlFlow::Break(Refused::Type)
            }
            Expr::TypedString(text) if !types::is_open(&text.data_type) => ControlFlow::Break(Refused::Type),
            Expr::Function(function) => function_allowed(function),
            Expr::InList { list, .. } if list.len() > LIST_ITEMS_MAX => {
                ControlFlow::Break(Refused::TooComplex { what: "items in a list", limit: LIST_ITEMS_MAX })
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn function_allowed(function: &Function) -> ControlFlow<Refused> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return ControlFlow::Break(Refused::Function("with a schema"));
    };
    let name = name.value.to_lowercase();
    if let Some(refused) = REFUSED.iter().find(|refused| **refused == name) {
        return ControlFlow::Break(Refused::Function(refused));
    }
    if matches!(name.as_str(), "arrow_cast" | "arrow_try_cast") && !types::is_open_arrow(&function.args) {
        return ControlFlow::Break(Refused::Type);
    }
    if let Some((growing, at)) = GROWING.iter().find(|(growing, _)| *growing == name)
        && !length_is_small(&function.args, *at)
    {
        return ControlFlow::Break(Refused::Function(growing));
    }
    ControlFlow::Continue(())
}

fn length_is_small(args: &FunctionArguments, at: usize) -> bool {
    let FunctionArguments::List(list) = args else { return false };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) = list.args.get(at) else {
        return false;
    };
    matches!(&value.value, Value::Number(text, _) if text.parse::<u64>().is_ok_and(|n| n <= REPEAT_MAX))
}

/// A name as the planner resolves it: folded to lower case unless it is quoted.
pub fn folded(ident: &sqlparser::ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

#[cfg(test)]
mod tests;
