//! `KeyValue` and `AnyValue` in JSON: attributes, bodies and what nests in them.
//!
//! Nested values are written while they are walked, once, whichever order their fields come in: going back
//! to a value at each level would cost the square of its depth.

use storage::record::Value;

use super::fields::{Members, Scratch, base64, boolean, double, each, int64, refuse, refused};
use crate::decode::Refused;
use crate::decode::json::{Parser, Text};
use crate::decode::otlp::notes::{Fault, Notes};
use crate::decode::otlp::sink::Sink;
use crate::decode::otlp::text::{JsonText, Object};
use crate::decode::otlp::{NESTING_MAX, Refusing};

const KEY_VALUE: &[&str] = &["key", "value"];
const ANY_VALUE: &[&str] =
    &["stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue"];
const VALUES: &[&str] = &["values"];

/// An `AnyValue` that has been walked.
#[derive(Clone, Copy, Debug)]
enum Any<'t> {
    Null,
    Text(Text<'t>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Text<'t>),
    /// An array or a map: its JSON text stands at the end of the text given.
    Written,
}

impl<'t> Any<'t> {
    /// Walks the value that comes next and lies `depth` values deep.
    fn read(
        json: &mut Parser<'t>,
        text: &mut JsonText,
        notes: &mut Notes<'_>,
        scratch: &mut Scratch,
        depth: usize,
    ) -> Refusing<Self> {
        notes.check_depth(depth);
        if depth > NESTING_MAX {
            let detail = format!("a value nests deeper than {NESTING_MAX}");
            return Err(Box::new(Refused::invalid("too_deep", detail)));
        }
        let mut value = None;
        let mut members = Members::open(json)?;
        while let Some(field) = members.next(json, ANY_VALUE, notes)? {
            if value.is_some() {
                return Err(refuse(json, "a value of two types"));
            }
            value = Some(match field {
                "stringValue" => Self::Text(json.string().map_err(refused)?),
                "boolValue" => Self::Bool(boolean(json)?),
                "intValue" => Self::Int(int64(json)?),
                "doubleValue" => Self::Double(double(json)?),
                "bytesValue" => Self::Bytes(json.string().map_err(refused)?),
                "arrayValue" => {
                    write_array(json, text, notes, scratch, depth)?;
                    Self::Written
                }
                _ => {
                    write_map(json, text, notes, scratch, depth)?;
                    Self::Written
                }
            });
        }
        Ok(value.unwrap_or(Self::Null))
    }

    /// The value as it goes to a column; `written` is where a nested one stands.
    fn value<'s>(
        self,
        json: &Parser<'_>,
        written: &'s str,
        text: &'s mut String,
        bytes: &'s mut Vec<u8>,
    ) -> Refusing<Value<'s>>
    where
        't: 's,
    {
        Ok(match self {
            Self::Null => Value::Json("null"),
            Self::Text(string) => Value::Text(string.text(text)),
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Bytes(string) => {
                base64(json, string.text(text), bytes)?;
                Value::Bytes(bytes)
            }
            Self::Written => Value::Json(written),
        })
    }

    /// Appends a value that is not written yet.
    fn write(
        self,
        json: &Parser<'_>,
        out: &mut JsonText,
        notes: &mut Notes<'_>,
        scratch: &mut Scratch,
    ) -> Refusing<()> {
        if !matches!(self, Self::Written) {
            let value = self.value(json, "", &mut scratch.text, &mut scratch.bytes)?;
            notes.check_value(&value);
            out.value(&value);
        }
        Ok(())
    }
}

/// Writes an attribute of the open row.
pub(super) fn attribute(
    json: &mut Parser<'_>,
    sink: &mut Sink<'_, '_>,
    scratch: &mut Scratch,
) -> Refusing<()> {
    let (mut key, mut value) = (Text::plain(""), Any::Null);
    let mut nested = std::mem::take(&mut sink.nested);
    nested.clear();
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, KEY_VALUE, &mut sink.notes)? {
        match field {
            "key" => key = json.string().map_err(refused)?,
            _ => value = Any::read(json, &mut nested, &mut sink.notes, scratch, 1)?,
        }
    }
    let Scratch { key: key_scratch, text, bytes } = scratch;
    sink.attribute(key.text(key_scratch), &value.value(json, nested.as_str(), text, bytes)?);
    sink.nested = nested;
    Ok(())
}

/// Writes a log record's body.
pub(super) fn body(json: &mut Parser<'_>, sink: &mut Sink<'_, '_>, scratch: &mut Scratch) -> Refusing<()> {
    let mut nested = std::mem::take(&mut sink.nested);
    nested.clear();
    let value = Any::read(json, &mut nested, &mut sink.notes, scratch, 1)?;
    sink.body(&value.value(json, nested.as_str(), &mut scratch.text, &mut scratch.bytes)?);
    sink.nested = nested;
    Ok(())
}

/// Writes the attributes that come next as members of the object of an event, link, resource or scope.
///
/// A text under `service.name` goes to `service_name` besides, where that is wanted.
pub(super) fn attributes(
    json: &mut Parser<'_>,
    text: &mut JsonText,
    object: &Object,
    notes: &mut Notes<'_>,
    scratch: &mut Scratch,
    mut service_name: Option<&mut String>,
) -> Refusing<()> {
    each(json, |json| {
        let value = member(json, text, object, notes, scratch, 1)?;
        notes.check_attribute(&scratch.key, text.entry_count(object));
        bound_object(text, object, notes);
        if let (Some(name), Any::Text(value), "service.name") = (&mut service_name, value, &*scratch.key) {
            name.clear();
            value.push_to(name);
        }
        Ok(())
    })
}

/// Gives up an object that is far longer than a value may be: what is left of it is walked, and not kept.
fn bound_object(text: &mut JsonText, object: &Object, notes: &mut Notes<'_>) {
    if text.len_of(object) > notes.object_bytes_max() {
        notes.fault(Fault::ValueTooLarge);
        text.forget_entries(object);
    }
}

/// Writes one `KeyValue` as a member; its key is in `scratch.key` then.
fn member<'t>(
    json: &mut Parser<'t>,
    text: &mut JsonText,
    object: &Object,
    notes: &mut Notes<'_>,
    scratch: &mut Scratch,
    depth: usize,
) -> Refusing<Any<'t>> {
    let start = text.len();
    let (mut key, mut value, mut is_keyed) = (None, Any::Null, false);
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, KEY_VALUE, notes)? {
        if field == "key" {
            key = Some(json.string().map_err(refused)?);
            continue;
        }
        if let Some(key) = key {
            text.key(object, key.text(&mut scratch.key));
            is_keyed = true;
        }
        let value_start = text.len();
        value = Any::read(json, text, notes, scratch, depth)?;
        value.write(json, text, notes, scratch)?;
        if depth == 1 && matches!(value, Any::Written) {
            notes.check_len(text.len() - value_start);
        }
    }
    // The values nested in this one have used the scratch since.
    scratch.key.clear();
    key.unwrap_or(Text::plain("")).push_to(&mut scratch.key);
    if !is_keyed {
        if text.len() == start {
            text.raw("null");
        }
        text.key_before(object, &scratch.key, start);
    }
    Ok(value)
}

fn write_array(
    json: &mut Parser<'_>,
    text: &mut JsonText,
    notes: &mut Notes<'_>,
    scratch: &mut Scratch,
    depth: usize,
) -> Refusing<()> {
    let open_at = text.len();
    let mut members = Members::open(json)?;
    while members.next(json, VALUES, notes)?.is_some() {
        each(json, |json| {
            text.element(open_at);
            Any::read(json, text, notes, scratch, depth + 1)?.write(json, text, notes, scratch)?;
            if text.len() - open_at > notes.object_bytes_max() {
                notes.fault(Fault::ValueTooLarge);
                text.forget_elements(open_at);
            }
            Ok(())
        })?;
    }
    text.close_array(open_at);
    Ok(())
}

fn write_map(
    json: &mut Parser<'_>,
    text: &mut JsonText,
    notes: &mut Notes<'_>,
    scratch: &mut Scratch,
    depth: usize,
) -> Refusing<()> {
    let object = text.open_object();
    let mut members = Members::open(json)?;
    while members.next(json, VALUES, notes)?.is_some() {
        each(json, |json| {
            member(json, text, &object, notes, scratch, depth + 1)?;
            notes.check_key(&scratch.key);
            bound_object(text, &object, notes);
            Ok(())
        })?;
    }
    notes.has_duplicate |= text.close_object(object);
    Ok(())
}
