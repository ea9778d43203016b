//! Writing JSON text for what is kept as JSON: overflow, arrays, nested maps.
//!
//! Types survive the text: a double always shows a point or an exponent (`1.0`), an integer never
//! does; bytes are `{"$bytes":"<base64>"}`, and doubles that JSON cannot spell are
//! `{"$double":"NaN" | "Infinity" | "-Infinity"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::draft::Value;

/// Appends a JSON string with its quotes.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[clean_from..at]);
        clean_from = at + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

/// Appends an integer.
pub fn int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double; one that JSON cannot spell as `{"$double":…}`.
pub fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        let name = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        out.extend_from_slice(b"{\"$double\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\"}");
    }
}

/// Appends bytes as `{"$bytes":"<base64>"}`.
pub fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b"{\"$bytes\":\"");
    out.extend_from_slice(STANDARD.encode(value).as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Appends a boolean.
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends any attribute value.
pub fn value(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Text(text) => string(out, text),
        Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        Value::Int(value) => int(out, value),
        Value::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Value::Double(value) => double(out, value),
        Value::Bool(value) => bool(out, value),
        Value::Bytes(value) => bytes(out, value),
    }
}
