//! Events, audit records and logs as JSON: the columns by name, then everything else under `attributes`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};
use storage::record::{Field, Kind, Type, json_text, schema};

use crate::render::json;
use crate::time::with_nanoseconds;

/// Appends one record as a JSON object.
pub fn record(out: &mut Vec<u8>, kind: Kind, batch: &RecordBatch, row: usize, attributes: &Attributes) {
    out.push(b'{');
    for field in kind.fields() {
        match field {
            Field::TimeNs => {
                key(out, "time");
                time(out, batch, row);
                key(out, "observed_time");
                plain(out, batch, schema::OBSERVED_TIME, row);
            }
            Field::ObservedNs | Field::BodyType | Field::ScopeVersion | Field::Scope => {}
            Field::Body => {
                key(out, "body");
                body(out, batch, row);
            }
            Field::Resource => {
                key(out, "resource");
                resource(out, batch, row);
            }
            Field::ScopeName => {
                key(out, "scope");
                scope(out, batch, row);
            }
            Field::DroppedAttributes | Field::DroppedEvents | Field::DroppedLinks => {
                non_zero(out, batch, field.name(), row);
            }
            _ => {
                key(out, field.name());
                if field.r#type() == Type::Json {
                    raw(out, batch, field.name(), row);
                } else {
                    plain(out, batch, field.name(), row);
                }
            }
        }
    }
    key(out, "attributes");
    attributes.write(out, batch, row);
    out.push(b'}');
}

/// The columns of a schema that are attributes, with their keys ready to write.
#[derive(Debug)]
pub struct Attributes {
    columns: Vec<(usize, Vec<u8>, Type)>,
    overflow: Option<usize>,
}

impl Attributes {
    /// Finds the attributes of that schema.
    #[must_use]
    pub fn of(kind: Kind, schema: &Schema) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| !schema::is_fixed(kind, field.name()))
            .filter_map(|(at, field)| {
                let mut key = Vec::new();
                json_text::string(&mut key, schema::attribute_key(kind, field.name()));
                key.push(b':');
                Some((at, key, schema::type_of(field)?))
            })
            .collect();
        Self { columns, overflow: schema.index_of(schema::OVERFLOW).ok() }
    }

    /// Appends one row's attributes as an object; absent ones are left out.
    pub fn write(&self, out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
        out.push(b'{');
        let mut is_first = true;
        let mut comma = |out: &mut Vec<u8>| {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
        };
        for (at, key, r#type) in &self.columns {
            let column = batch.column(*at);
            if column.is_null(row) {
                continue;
            }
            comma(out);
            out.extend_from_slice(key);
            match r#type {
                Type::Json => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
                // A double that JSON cannot spell keeps its name, as it does in the overflow.
                Type::Double => {
                    let value = column.as_primitive::<arrow::datatypes::Float64Type>().value(row);
                    json_text::double(out, value);
                }
                _ => json::value(out, column, row),
            }
        }
        if let Some(overflow) = self.overflow.map(|at| batch.column(at)).filter(|column| column.is_valid(row))
        {
            let object = overflow.as_string::<i32>().value(row).trim();
            if let Some(inner) = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
                && !inner.trim().is_empty()
            {
                comma(out);
                out.extend_from_slice(inner.as_bytes());
            }
        }
        out.push(b'}');
    }
}

/// Appends `"name":`, with a comma unless it is an object's first.
pub fn key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    json_text::string(out, name);
    out.push(b':');
}

/// A column of that name.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).expect("every table has the columns of its kind")
}

/// A text value.
pub fn text<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a str> {
    let column = column(batch, name).as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}

/// An integer value.
pub fn int(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = column(batch, name).as_primitive::<Int64Type>();
    column.is_valid(row).then(|| column.value(row))
}

/// Appends a value as its type says.
pub fn plain(out: &mut Vec<u8>, batch: &RecordBatch, name: &str, row: usize) {
    json::value(out, column(batch, name), row);
}

/// Appends JSON text as JSON; null where there is none.
pub fn raw(out: &mut Vec<u8>, batch: &RecordBatch, name: &str, row: usize) {
    out.extend_from_slice(
        text(batch, name, row).filter(|text| !text.is_empty()).unwrap_or("null").as_bytes(),
    );
}

/// Appends the event time with nanoseconds.
pub fn time(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    match int(batch, "time_ns", row) {
        Some(ns) => json_text::string(out, &with_nanoseconds(ns)),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `{"attributes":{…}}` of the resource.
pub fn resource(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    out.extend_from_slice(b"{\"attributes\":");
    object(out, batch, Field::Resource.name(), row);
    out.push(b'}');
}

/// Appends `{"name","version","attributes"}` of the scope.
pub fn scope(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    out.extend_from_slice(b"{\"name\":");
    plain(out, batch, Field::ScopeName.name(), row);
    out.extend_from_slice(b",\"version\":");
    plain(out, batch, Field::ScopeVersion.name(), row);
    out.extend_from_slice(b",\"attributes\":");
    object(out, batch, Field::Scope.name(), row);
    out.push(b'}');
}

fn object(out: &mut Vec<u8>, batch: &RecordBatch, name: &str, row: usize) {
    out.extend_from_slice(text(batch, name, row).filter(|text| !text.is_empty()).unwrap_or("{}").as_bytes());
}

/// Appends a count by its name where it is not zero.
pub fn non_zero(out: &mut Vec<u8>, batch: &RecordBatch, name: &str, row: usize) {
    if let Some(count) = int(batch, name, row).filter(|count| *count != 0) {
        key(out, name);
        json_text::int(out, count);
    }
}

/// A log's body: text unless `body_type` says that its text is JSON of another type.
fn body(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    match text(batch, Field::BodyType.name(), row) {
        None => plain(out, batch, Field::Body.name(), row),
        Some(_) => raw(out, batch, Field::Body.name(), row),
    }
}
