//! Values of any Arrow type as JSON, exactly: integers never gain a point, doubles never lose it, what JSON
//! cannot spell is null.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use storage::record::json_text;

/// The columns of a result, ready to write rows.
#[derive(Debug)]
pub struct Columns {
    /// `"name":`, once a column.
    keys: Vec<Vec<u8>>,
}

impl Columns {
    /// Prepares the columns of that schema.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        let keys = super::column_names(schema)
            .iter()
            .map(|name| {
                let mut key = Vec::new();
                json_text::string(&mut key, name);
                key.push(b':');
                key
            })
            .collect();
        Self { keys }
    }

    /// Appends one row as an object.
    pub fn row(&self, out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
        out.push(b'{');
        for (at, (key, column)) in self.keys.iter().zip(batch.columns()).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key);
            value(out, column, row);
        }
        out.push(b'}');
    }
}

/// The name of a column's type in replies: a plain word for the types tables have, Arrow's name for others.
#[must_use]
pub fn type_name(r#type: &DataType) -> String {
    let word = match r#type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes"
        }
        DataType::Boolean => "bool",
        DataType::Int64 => "int",
        DataType::Float64 => "double",
        DataType::Timestamp(..) => "timestamp",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Null => "null",
        other => return other.to_string().to_lowercase(),
    };
    word.to_owned()
}

/// Appends one value.
pub fn value(out: &mut Vec<u8>, array: &ArrayRef, row: usize) {
    if array.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    match array.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Boolean => json_text::bool(out, array.as_boolean().value(row)),
        DataType::Int8 => json_text::int(out, array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => json_text::int(out, array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => json_text::int(out, array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => json_text::int(out, array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => json_text::int(out, array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => json_text::int(out, array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => json_text::int(out, array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => {
            out.extend_from_slice(array.as_primitive::<UInt64Type>().value(row).to_string().as_bytes());
        }
        DataType::Float16 => double(out, array.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => double(out, array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => double(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            let text = array.as_primitive::<Decimal128Type>().value_as_string(row);
            out.extend_from_slice(text.as_bytes());
        }
        DataType::Decimal256(..) => {
            let text = array.as_primitive::<Decimal256Type>().value_as_string(row);
            out.extend_from_slice(text.as_bytes());
        }
        DataType::Utf8 => json_text::string(out, array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => json_text::string(out, array.as_string::<i64>().value(row)),
        DataType::Utf8View => json_text::string(out, array.as_string_view().value(row)),
        DataType::Binary => json_text::bytes(out, array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => json_text::bytes(out, array.as_binary::<i64>().value(row)),
        DataType::BinaryView => json_text::bytes(out, array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => json_text::bytes(out, array.as_fixed_size_binary().value(row)),
        DataType::Timestamp(unit, _) => match nanoseconds(array, *unit, row) {
            Some(ns) => json_text::string(out, &crate::time::shortest(ns)),
            None => out.extend_from_slice(b"null"),
        },
        DataType::List(_) => list(out, &array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(out, &array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(out, &array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let object = array.as_struct();
            out.push(b'{');
            for (at, (field, column)) in fields.iter().zip(object.columns()).enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json_text::string(out, field.name());
                out.push(b':');
                value(out, column, row);
            }
            out.push(b'}');
        }
        _ => json_text::string(out, &display(array, row)),
    }
}

/// A double; null where JSON cannot spell it.
fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() { json_text::double(out, value) } else { out.extend_from_slice(b"null") }
}

fn list(out: &mut Vec<u8>, items: &ArrayRef) {
    out.push(b'[');
    for at in 0..items.len() {
        if at > 0 {
            out.push(b',');
        }
        value(out, items, at);
    }
    out.push(b']');
}

/// Nanoseconds since 1970; `None` outside of 1677 to 2262.
pub(super) fn nanoseconds(array: &ArrayRef, unit: TimeUnit, row: usize) -> Option<i64> {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).checked_mul(1_000_000_000),
        TimeUnit::Millisecond => {
            array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000_000)
        }
        TimeUnit::Microsecond => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).checked_mul(1_000)
        }
        TimeUnit::Nanosecond => Some(array.as_primitive::<TimestampNanosecondType>().value(row)),
    }
}

/// Arrow's own text of a value, for types without one in JSON: dates, intervals, dictionaries, maps.
pub(super) fn display(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new().with_display_error(true);
    ArrayFormatter::try_new(array, &options)
        .map_or_else(|_| String::new(), |text| text.value(row).to_string())
}
