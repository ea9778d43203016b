//! `KeyValue` and `AnyValue`: attributes, bodies and what nests in them.
//!
//! A scalar is borrowed as it is; an array or a map becomes JSON text. Of a `oneof` sent twice the last
//! stands.

use storage::record::Value;

use crate::decode::Refused;
use crate::decode::otlp::notes::{Fault, Notes};
use crate::decode::otlp::sink::Sink;
use crate::decode::otlp::text::{JsonText, Object};
use crate::decode::otlp::wire::Reader;
use crate::decode::otlp::{NESTING_MAX, Refusing};

/// An `AnyValue` whose members are still to be walked where it has any.
#[derive(Clone, Copy, Debug)]
pub(super) enum Any<'a> {
    Scalar(Value<'a>),
    Array(&'a [u8]),
    Map(&'a [u8]),
}

/// A `KeyValue`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyValue<'a> {
    pub(super) key: &'a str,
    pub(super) value: Any<'a>,
}

impl<'a> Any<'a> {
    /// What an empty `AnyValue`, or none at all, stands for.
    pub(super) const NULL: Self = Self::Scalar(Value::Json("null"));

    pub(super) fn read(message: &'a [u8], notes: &mut Notes<'_>) -> Refusing<Self> {
        let mut value = Self::NULL;
        let mut fields = Reader::new(message);
        while let Some((number, payload)) = fields.next()? {
            value = match number {
                1 => Self::Scalar(Value::Text(payload.text()?)),
                2 => Self::Scalar(Value::Bool(payload.varint()? != 0)),
                3 => Self::Scalar(Value::Int(payload.varint()?.cast_signed())),
                4 => Self::Scalar(Value::Double(f64::from_bits(payload.fixed64()?))),
                5 => Self::Array(payload.bytes()?),
                6 => Self::Map(payload.bytes()?),
                7 => Self::Scalar(Value::Bytes(payload.bytes()?)),
                _ => {
                    notes.has_unknown = true;
                    value
                }
            };
        }
        Ok(value)
    }
}

impl<'a> KeyValue<'a> {
    pub(super) fn read(message: &'a [u8], notes: &mut Notes<'_>) -> Refusing<Self> {
        let mut attribute = Self { key: "", value: Any::NULL };
        let mut fields = Reader::new(message);
        while let Some((number, payload)) = fields.next()? {
            match number {
                1 => attribute.key = payload.text()?,
                2 => attribute.value = Any::read(payload.bytes()?, notes)?,
                _ => notes.has_unknown = true,
            }
        }
        Ok(attribute)
    }
}

/// Writes an attribute of the open row.
pub(super) fn attribute(sink: &mut Sink<'_, '_>, message: &[u8]) -> Refusing<()> {
    let KeyValue { key, value } = KeyValue::read(message, &mut sink.notes)?;
    whole(sink, value, |sink, value| sink.attribute(key, value))
}

/// Writes a log record's body.
pub(super) fn body(sink: &mut Sink<'_, '_>, value: Any<'_>) -> Refusing<()> {
    whole(sink, value, |sink, value| sink.body(value))
}

/// Hands on a value as one: a scalar as it is, anything else as JSON text.
fn whole<'s, 'c>(
    sink: &mut Sink<'s, 'c>,
    value: Any<'_>,
    then: impl FnOnce(&mut Sink<'s, 'c>, &Value<'_>),
) -> Refusing<()> {
    if let Any::Scalar(value) = value {
        sink.notes.check_depth(1);
        then(sink, &value);
        return Ok(());
    }
    let mut nested = std::mem::take(&mut sink.nested);
    nested.clear();
    write(&mut nested, &mut sink.notes, value, 1)?;
    then(sink, &Value::Json(nested.as_str()));
    sink.nested = nested;
    Ok(())
}

/// Writes an attribute as a member of the object of an event, a link, a resource or a scope.
pub(super) fn member(
    text: &mut JsonText,
    object: &Object,
    notes: &mut Notes<'_>,
    attribute: KeyValue<'_>,
) -> Refusing<()> {
    text.key(object, attribute.key);
    notes.check_attribute(attribute.key, text.entry_count(object));
    let start = text.len();
    write(text, notes, attribute.value, 1)?;
    if !matches!(attribute.value, Any::Scalar(_)) {
        notes.check_len(text.len() - start);
    }
    bound_object(text, object, notes);
    Ok(())
}

/// Gives up an object that is far longer than a value may be: what is left of it is walked, and not written.
fn bound_object(text: &mut JsonText, object: &Object, notes: &mut Notes<'_>) {
    if text.len_of(object) > notes.object_bytes_max() {
        notes.fault(Fault::ValueTooLarge);
        text.forget_entries(object);
    }
}

/// Appends a value that lies `depth` values deep as JSON text.
fn write(text: &mut JsonText, notes: &mut Notes<'_>, value: Any<'_>, depth: usize) -> Refusing<()> {
    notes.check_depth(depth);
    if depth > NESTING_MAX {
        let detail = format!("a value nests deeper than {NESTING_MAX}");
        return Err(Box::new(Refused::invalid("too_deep", detail)));
    }
    match value {
        Any::Scalar(value) => {
            notes.check_value(&value);
            text.value(&value);
        }
        Any::Array(message) => {
            let open_at = text.len();
            let mut fields = Reader::new(message);
            while let Some((number, payload)) = fields.next()? {
                if number != 1 {
                    notes.has_unknown = true;
                    continue;
                }
                let element = Any::read(payload.bytes()?, notes)?;
                text.element(open_at);
                write(text, notes, element, depth + 1)?;
                if text.len() - open_at > notes.object_bytes_max() {
                    notes.fault(Fault::ValueTooLarge);
                    text.forget_elements(open_at);
                }
            }
            text.close_array(open_at);
        }
        Any::Map(message) => {
            let object = text.open_object();
            let mut fields = Reader::new(message);
            while let Some((number, payload)) = fields.next()? {
                if number != 1 {
                    notes.has_unknown = true;
                    continue;
                }
                let KeyValue { key, value } = KeyValue::read(payload.bytes()?, notes)?;
                notes.check_key(key);
                text.key(&object, key);
                write(text, notes, value, depth + 1)?;
                bound_object(text, &object, notes);
            }
            notes.has_duplicate |= text.close_object(object);
        }
    }
    Ok(())
}
