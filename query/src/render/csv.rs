//! CSV (RFC 4180) that a spreadsheet cannot be made to execute.
//!
//! A text that begins with `=`, `+`, `-`, `@` (or one of their wide forms), a tab or a line's end could be a formula:
//! it gets a leading quote `'`. Numbers are written as they are, also where they are text. Null is an empty field, empty text is `""`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json;

/// The columns of a result.
#[derive(Debug)]
pub struct Columns {
    names: Vec<String>,
}

impl Columns {
    /// Prepares the columns of that schema.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        Self { names: super::column_names(schema) }
    }

    /// Appends the line of names.
    pub fn header(&self, out: &mut Vec<u8>) {
        for (at, name) in self.names.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text(out, name);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a batch's rows.
    pub fn rows(&self, out: &mut Vec<u8>, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            for (at, column) in batch.columns().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                field(out, column, row);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn field(out: &mut Vec<u8>, array: &ArrayRef, row: usize) {
    if array.is_null(row) {
        return;
    }
    match array.data_type() {
        DataType::Utf8 => text(out, array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(out, array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(out, array.as_string_view().value(row)),
        DataType::Binary => text(out, &STANDARD.encode(array.as_binary::<i32>().value(row))),
        DataType::Timestamp(unit, _) => {
            if let Some(ns) = json::nanoseconds(array, *unit, row) {
                out.extend_from_slice(crate::time::shortest(ns).as_bytes());
            }
        }
        r#type if r#type.is_numeric() || *r#type == DataType::Boolean => {
            let mut value = Vec::new();
            json::value(&mut value, array, row);
            if value != b"null" {
                out.extend_from_slice(&value);
            }
        }
        r#type if r#type.is_nested() => {
            let mut value = Vec::new();
            json::value(&mut value, array, row);
            text(out, &String::from_utf8_lossy(&value));
        }
        _ => text(out, &json::display(array, row)),
    }
}

/// What a formula begins with, or what spreadsheets skip before it.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Whether a text is a number and nothing else: digits, a sign, a point, an exponent.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.parse::<f64>().is_ok()
}

fn text(out: &mut Vec<u8>, value: &str) {
    let is_formula = value.starts_with(FORMULA) && !is_number(value);
    let needs_quotes = value.is_empty() || value.contains(['"', ',', '\n', '\r']);
    if needs_quotes {
        out.push(b'"');
    }
    if is_formula {
        out.push(b'\'');
    }
    for byte in value.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    if needs_quotes {
        out.push(b'"');
    }
}
