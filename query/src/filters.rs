//! The filters that lists share: from a query string to conditions on a table.
//!
//! All are equality but `from` (inclusive), `to` (exclusive) and `severity_min`. A filter that a kind has no
//! column for is the attribute of that name.

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, col, lit};
use storage::reader::Snapshot;
use storage::record::{Field, Kind, Type, schema};

use crate::cursor::Cursor;
use crate::params::Params;
use crate::plan::attr;
use crate::refusal::Refusal;

/// What a list is asked for.
#[derive(Debug)]
pub struct Filters {
    /// Lowest time, inclusive.
    pub from: Option<i64>,
    /// Highest time, exclusive.
    pub to: Option<i64>,
    /// Newest first unless asked otherwise.
    pub is_ascending: bool,
    /// Rows of a page.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
    equal: Vec<(&'static str, String)>,
    attributes: Vec<(String, String)>,
    severity: Option<Severity>,
    severity_min: Option<i64>,
}

#[derive(Debug)]
enum Severity {
    Numbers(i64, i64),
    Text(String),
}

/// Filters by name and the field that each compares; `user` is the actor's other name.
const EQUAL: &[(&str, Field)] = &[
    ("source", Field::Source),
    ("event_type", Field::EventType),
    ("correlation_id", Field::CorrelationId),
    ("trace_id", Field::TraceId),
    ("actor_id", Field::ActorId),
    ("user", Field::ActorId),
    ("decision_id", Field::DecisionId),
];

/// The numbers of a severity's name (OTel: 1–4 trace to 21–24 fatal); `None` for other names.
#[must_use]
pub fn severity_numbers(name: &str) -> Option<(i64, i64)> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" => (1, 4),
        "debug" => (5, 8),
        "info" | "information" | "informational" | "notice" => (9, 12),
        "warn" | "warning" => (13, 16),
        "error" | "err" => (17, 20),
        "fatal" | "critical" | "crit" | "alert" | "emergency" | "emerg" | "panic" => (21, 24),
        _ => return None,
    })
}

impl Filters {
    /// Takes the filters' parameters.
    ///
    /// # Errors
    /// 400 naming a parameter that is malformed.
    pub fn take(params: &mut Params) -> Result<Self, Refusal> {
        let (from, to) = params.take_range()?;
        let limit = params.take_limit()?;
        let is_ascending = match params.take("order").as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Refusal::parameter("order", "is neither asc nor desc")),
        };
        let cursor = match params.take("cursor") {
            None => None,
            Some(text) => {
                let cursor = Cursor::decode(&text);
                Some(cursor.ok_or_else(|| Refusal::parameter("cursor", "is none of ours"))?)
            }
        };
        let mut equal = Vec::new();
        for (name, _) in EQUAL {
            if let Some(mut value) = params.take(name) {
                if *name == "trace_id" {
                    value = trace_id(&value)
                        .ok_or_else(|| Refusal::parameter("trace_id", "is not 32 hexadecimal digits"))?;
                }
                equal.push((*name, value));
            }
        }
        let severity = params.take("severity").map(|text| match severity_numbers(&text) {
            Some((low, high)) => Severity::Numbers(low, high),
            None => match text.parse() {
                Ok(number) => Severity::Numbers(number, number),
                Err(_) => Severity::Text(text),
            },
        });
        let severity_min = match params.take("severity_min") {
            None => None,
            Some(text) => {
                let number = severity_numbers(&text).map(|(low, _)| low).or_else(|| text.parse().ok());
                Some(number.filter(|number| (1..=24).contains(number)).ok_or_else(|| {
                    Refusal::parameter(
                        "severity_min",
                        "is neither a severity's name nor a number from 1 to 24",
                    )
                })?)
            }
        };
        let attributes = params.take_prefixed("attr.");
        Ok(Self { from, to, is_ascending, limit, cursor, equal, attributes, severity, severity_min })
    }

    /// The conditions on a table of that snapshot, which all must hold; the cursor is not among them.
    #[must_use]
    pub fn conditions(&self, snapshot: &Snapshot) -> Vec<Expr> {
        let mut all = range(self.from, self.to);
        for (name, value) in &self.equal {
            let field = EQUAL.iter().find(|(known, _)| known == name).expect("taken from the list").1;
            all.push(match column(snapshot.kind, field) {
                Some(column) => col(column).eq(lit(value.as_str())),
                None => attribute(snapshot, name, value),
            });
        }
        match &self.severity {
            Some(Severity::Numbers(low, high)) if low == high => {
                all.push(col(Field::SeverityNumber.name()).eq(lit(*low)));
            }
            Some(Severity::Numbers(low, high)) => {
                all.push(col(Field::SeverityNumber.name()).between(lit(*low), lit(*high)));
            }
            Some(Severity::Text(text)) => all.push(col(Field::Severity.name()).eq(lit(text.as_str()))),
            None => {}
        }
        if let Some(number) = self.severity_min {
            all.push(col(Field::SeverityNumber.name()).gt_eq(lit(number)));
        }
        for (key, value) in &self.attributes {
            all.push(attribute(snapshot, key, value));
        }
        all
    }
}

/// Conditions for `from` (inclusive) and `to` (exclusive).
#[must_use]
pub fn range(from: Option<i64>, to: Option<i64>) -> Vec<Expr> {
    let mut all = Vec::new();
    all.extend(from.map(|from| col("time_ns").gt_eq(lit(from))));
    all.extend(to.map(|to| col("time_ns").lt(lit(to))));
    all
}

/// A trace id as it is kept; `None` for what is none.
#[must_use]
pub fn trace_id(text: &str) -> Option<String> {
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

/// The column that answers for a field in rows of that kind.
fn column(kind: Kind, field: Field) -> Option<&'static str> {
    if kind.fields().contains(&field) {
        return Some(field.name());
    }
    match (field, kind) {
        (Field::EventType, Kind::Spans) => Some(Field::Name.name()),
        (Field::EventType, Kind::Logs) => Some(Field::EventName.name()),
        _ => None,
    }
}

/// Whether an attribute equals that text, wherever it landed and whatever its type.
fn attribute(snapshot: &Snapshot, key: &str, text: &str) -> Expr {
    let landed_elsewhere = attr::value(snapshot, key).eq(lit(text));
    let Some(name) = attr::column_of(snapshot, key) else { return landed_elsewhere };
    let field = snapshot.schema.field_with_name(&name).expect("the column was just found");
    let column = Expr::Column(Column::new_unqualified(name));
    // Numbers compare as numbers, so that 1, 1.0 and 1e0 are one value.
    let as_number = match schema::type_of(field) {
        Some(Type::Int) => text.parse::<i64>().ok().map(|value| column.eq(lit(value))),
        Some(Type::Double) => text.parse::<f64>().ok().map(|value| column.eq(lit(value))),
        _ => None,
    };
    match as_number {
        Some(as_number) => as_number.or(landed_elsewhere),
        None => landed_elsewhere,
    }
}
