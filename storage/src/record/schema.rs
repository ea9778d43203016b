//! Names and types of columns, as Arrow and Delta see them.
//!
//! A JSON column is text with the metadata `floodmark.type = json`; Delta keeps field metadata, so a
//! reader can tell `[1,2]` the array from `"[1,2]"` the text.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, FieldRef, Schema, SchemaRef, TimeUnit};

use super::kind::{Field, Kind, Type};
use super::sparse;

/// The column for what has no column of its own: one JSON object a row.
pub const OVERFLOW: &str = "_overflow";
/// Event time in microseconds, for readers of the table.
pub const TIME: &str = "time";
/// Time of receipt in microseconds, for readers of the table.
pub const OBSERVED_TIME: &str = "observed_time";
/// Which log the row was acknowledged in.
pub const WRITER: &str = "writer";
/// The row's number in that log, contiguous per tenant, dataset and writer.
pub const SEQ: &str = "seq";
/// The partition column: UTC date of event time.
pub const DATE: &str = "date";

const TYPE_KEY: &str = "floodmark.type";

/// The Arrow type of timestamps in tables: Delta holds microseconds, UTC.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Whether a batch is a chunk as drafts make them: columns of our own types, and both times in every row.
#[must_use]
pub fn is_chunk(kind: Kind, batch: &RecordBatch) -> bool {
    let is_ours = |field: &ArrowField| {
        let known = kind.fields().iter().find(|known| known.name() == field.name());
        let expected = match known {
            Some(known) => Some(known.r#type()),
            None if field.name() == OVERFLOW => Some(Type::Json),
            None => return type_of(field).is_some(),
        };
        // Attributes' columns, and those that records of one resource or scope share, may be run-end encoded.
        let found = match known {
            Some(Field::Source | Field::Resource | Field::Scope | Field::ScopeName | Field::ScopeVersion) => {
                sparse::values_type(field.data_type()).unwrap_or(field.data_type())
            }
            _ => field.data_type(),
        };
        expected.is_some_and(|r#type| arrow_field(field.name(), r#type).data_type() == found)
    };
    let has_times = ["time_ns", "observed_time_ns"]
        .iter()
        .all(|name| batch.column_by_name(name).is_some_and(|times| times.null_count() == 0));
    has_times && batch.schema_ref().fields().iter().all(|field| is_ours(field))
}

/// A nullable Arrow field for a column of `type`.
#[must_use]
pub fn arrow_field(name: &str, r#type: Type) -> ArrowField {
    let data_type = match r#type {
        Type::Text | Type::Json => DataType::Utf8,
        Type::Int => DataType::Int64,
        Type::Double => DataType::Float64,
        Type::Bool => DataType::Boolean,
        Type::Bytes => DataType::Binary,
    };
    let field = ArrowField::new(name, data_type, true);
    if r#type == Type::Json {
        field.with_metadata(HashMap::from([(TYPE_KEY.into(), "json".into())]))
    } else {
        field
    }
}

/// The field of an attribute's column in a chunk: as [`arrow_field`], run-end encoded where its array is.
#[must_use]
pub fn chunk_field(name: &str, r#type: Type, array: &dyn Array) -> ArrowField {
    arrow_field(name, r#type).with_data_type(array.data_type().clone())
}

/// The type of an Arrow field that [`arrow_field`] or [`chunk_field`] made; `None` for any other.
#[must_use]
pub fn type_of(field: &ArrowField) -> Option<Type> {
    Some(match sparse::values_type(field.data_type()).unwrap_or(field.data_type()) {
        DataType::Utf8 if field.metadata().get(TYPE_KEY).is_some_and(|value| value == "json") => Type::Json,
        DataType::Utf8 => Type::Text,
        DataType::Int64 => Type::Int,
        DataType::Float64 => Type::Double,
        DataType::Boolean => Type::Bool,
        DataType::Binary => Type::Bytes,
        _ => return None,
    })
}

/// Whether `name` is a column that rows of this kind have apart from attributes.
#[must_use]
pub fn is_fixed(kind: Kind, name: &str) -> bool {
    matches!(name, TIME | OBSERVED_TIME | WRITER | SEQ | DATE | OVERFLOW)
        || kind.fields().iter().any(|field| field.name() == name)
}

/// The name of an attribute's column: its key, or `attr.<key>` where a fixed column has that name.
#[must_use]
pub fn attribute_column_name(kind: Kind, key: &str) -> String {
    if is_fixed(kind, key) { format!("attr.{key}") } else { key.to_owned() }
}

/// The key of the attribute in a column that is no fixed one.
#[must_use]
pub fn attribute_key(kind: Kind, column: &str) -> &str {
    match column.strip_prefix("attr.") {
        Some(key) if is_fixed(kind, key) => key,
        _ => column,
    }
}

/// The fixed columns of a table of this kind, in table order, `time` first and `date` left out
/// (a partition column is not in the files).
#[must_use]
fn fixed_columns(kind: Kind) -> Vec<ArrowField> {
    let mut columns =
        vec![ArrowField::new(TIME, timestamp(), true), ArrowField::new(OBSERVED_TIME, timestamp(), true)];
    for field in kind.fields() {
        if *field != Field::ObservedNs {
            columns.push(arrow_field(field.name(), field.r#type()));
        }
    }
    columns.push(ArrowField::new(WRITER, DataType::Utf8, true));
    columns.push(ArrowField::new(SEQ, DataType::Int64, true));
    columns.push(arrow_field(OVERFLOW, Type::Json));
    columns
}

/// A table's schema: the fixed columns, then the attributes in order of first appearance. All tables of a kind share
/// what says of the fixed ones.
#[must_use]
pub fn table_schema(kind: Kind, attributes: &[(String, Type)]) -> SchemaRef {
    static FIXED: LazyLock<HashMap<Kind, Vec<FieldRef>>> = LazyLock::new(|| {
        let fixed = |kind| fixed_columns(kind).into_iter().map(Arc::new).collect();
        Kind::ALL.into_iter().map(|kind| (kind, fixed(kind))).collect()
    });
    let mut fields = FIXED[&kind].clone();
    fields.extend(attributes.iter().map(|(name, r#type)| Arc::new(arrow_field(name, *r#type))));
    Arc::new(Schema::new(fields))
}
