//! `attr('key')`: an attribute's value as text, wherever it landed.
//!
//! A key may stand in a column of its own and, where a row's value had another type, in `_overflow`. The
//! statement is rewritten before planning: `attr('k')` becomes `attr_value("k", "_overflow", 'k')` where the
//! query's table has that column, else `attr_value(NULL, "_overflow", 'k')`.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr as Logical, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col,
    lit,
};
use serde_json::value::RawValue;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, Select, SetExpr, TableFactor, Value, VisitMut, VisitorMut,
};
use storage::reader::Snapshot;
use storage::record::{Kind, schema};

use super::guard::folded;

/// A table as far as a plan needs to know it before it is read.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What its rows are.
    pub kind: Kind,
    /// Its columns.
    pub schema: SchemaRef,
    /// Rows in it, before any condition.
    pub rows: u64,
}

/// Rewrites every `attr('key')` of a checked query for the tables it reads.
///
/// # Errors
/// A sentence, where `attr` is called with anything but one literal.
pub fn rewrite(query: &mut Box<Query>, tables: &BTreeMap<String, Shape>) -> Result<(), &'static str> {
    let mut visitor = Rewrite { tables, scopes: Vec::new() };
    match query.visit(&mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(problem) => Err(problem),
    }
}

struct Rewrite<'a> {
    tables: &'a BTreeMap<String, Shape>,
    /// Names of the tables in the FROM of each query around the current expression.
    scopes: Vec<Vec<String>>,
}

impl Rewrite<'_> {
    fn column(&self, key: &str) -> Option<String> {
        self.scopes.last()?.iter().find_map(|name| {
            let table = self.tables.get(name)?;
            column_in(table.kind, &table.schema, key)
        })
    }
}

/// The name of the attribute's column in that table, where it has one.
#[must_use]
pub fn column_of(snapshot: &Snapshot, key: &str) -> Option<String> {
    column_in(snapshot.kind, &snapshot.schema, key)
}

fn column_in(kind: Kind, schema: &Schema, key: &str) -> Option<String> {
    let column = schema::attribute_column_name(kind, key);
    schema.field_with_name(&column).is_ok().then_some(column)
}

/// The attribute's value as text, as a logical expression over that table.
#[must_use]
pub fn value(snapshot: &Snapshot, key: &str) -> Logical {
    let column = match column_of(snapshot, key) {
        Some(name) => Logical::Column(datafusion::common::Column::new_unqualified(name)),
        None => lit(datafusion::common::ScalarValue::Utf8(None)),
    };
    udf().call(vec![column, col(schema::OVERFLOW), lit(key)])
}

impl VisitorMut for Rewrite<'_> {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let mut body = &*query.body;
        let scope = loop {
            match body {
                SetExpr::Select(select) => break names(select),
                SetExpr::SetOperation { left, .. } => body = left,
                SetExpr::Query(inner) => body = &inner.body,
                _ => break Vec::new(),
            }
        };
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        self.scopes.push(names(select));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<Self::Break> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        if folded(name) != "attr" {
            return ControlFlow::Continue(());
        }
        let Some(key) = literal(function) else {
            return ControlFlow::Break("attr takes one literal, the attribute's key");
        };
        let column = match self.column(&key) {
            Some(column) => Expr::Identifier(Ident::with_quote('"', column)),
            None => Expr::value(Value::Null),
        };
        let overflow = Expr::Identifier(Ident::with_quote('"', schema::OVERFLOW));
        let key = Expr::value(Value::SingleQuotedString(key));
        function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(NAME))]);
        function.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: [column, overflow, key]
                .into_iter()
                .map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)))
                .collect(),
            clauses: Vec::new(),
        });
        ControlFlow::Continue(())
    }
}

fn literal(function: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] = list.args.as_slice() else {
        return None;
    };
    match &value.value {
        Value::SingleQuotedString(key) => Some(key.clone()),
        _ => None,
    }
}

fn names(select: &Select) -> Vec<String> {
    let mut names = Vec::new();
    let mut factors: Vec<&TableFactor> = Vec::new();
    for table in select.from.iter().rev() {
        factors.extend(table.joins.iter().rev().map(|join| &join.relation));
        factors.push(&table.relation);
    }
    while let Some(factor) = factors.pop() {
        match factor {
            TableFactor::Table { name, .. } => {
                if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() {
                    names.push(folded(ident));
                }
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                factors.push(&table_with_joins.relation);
                factors.extend(table_with_joins.joins.iter().map(|join| &join.relation));
            }
            _ => {}
        }
    }
    names
}

const NAME: &str = "attr_value";

/// The function behind `attr('key')`: (column or null, overflow, key) to text.
#[must_use]
pub fn udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(AttrValue { signature: Signature::any(3, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AttrValue {
    signature: Signature,
}

impl ScalarUDFImpl for AttrValue {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [column, overflow, key] = arrays.as_slice() else {
            return exec_err!("attr_value takes three arguments");
        };
        let column = as_text(column)?;
        let overflow = cast(overflow, &DataType::Utf8)?;
        let key = cast(key, &DataType::Utf8)?;
        let (column, overflow, key) =
            (column.as_string::<i32>(), overflow.as_string::<i32>(), key.as_string::<i32>());
        let mut out = StringBuilder::with_capacity(column.len(), column.value_data().len());
        for row in 0..column.len() {
            if column.is_valid(row) {
                out.append_value(column.value(row));
            } else if overflow.is_valid(row) && key.is_valid(row) {
                out.append_option(look_up(overflow.value(row), key.value(row)));
            } else {
                out.append_null();
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef> {
    if *column.data_type() == DataType::Binary {
        let bytes = column.as_binary::<i32>();
        return Ok(Arc::new(
            bytes.iter().map(|one| one.map(|one| STANDARD.encode(one))).collect::<StringArray>(),
        ));
    }
    Ok(cast(column, &DataType::Utf8)?)
}

/// The text of one entry of a JSON object: strings without quotes, bytes as base64, anything else as JSON.
fn look_up(object: &str, key: &str) -> Option<String> {
    let entries: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    let raw = entries.get(key)?.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'n' => None,
        b'{' if raw.starts_with("{\"$bytes\":") || raw.starts_with("{\"$double\":") => {
            let inner: HashMap<String, String> = serde_json::from_str(raw).ok()?;
            inner.into_values().next()
        }
        _ => Some(raw.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::look_up;

    #[test]
    fn an_entry_is_found_by_its_whole_key() {
        let object = r#"{"a b":2.0,"n":"clash\"","big":18446744073709551615,"l":[1,"x"],"raw":{"$bytes":"AQI="},"nan":{"$double":"NaN"},"o":{"a b":1}}"#;
        for (key, expected) in [
            ("a b", Some("2.0")),
            ("n", Some("clash\"")),
            ("big", Some("18446744073709551615")),
            ("l", Some("[1,\"x\"]")),
            ("raw", Some("AQI=")),
            ("nan", Some("NaN")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(look_up(object, key).as_deref(), expected, "{key}");
        }
        assert_eq!(look_up("not json", "a"), None);
    }
}
