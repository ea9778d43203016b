//! The textbook's line protocol: lines, `split`, a `String` a key and a map a line.
//!
//! It reads what the bodies here hold and no more: a split cannot tell an escaped comma from a plain one.

use std::collections::HashMap;

use ingest::decode::{Context, Decoded, Refused};
use storage::record::{Draft, Field, Value};

enum Parsed {
    Text(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Bool(bool),
}

/// Decodes a body the way a first version would.
pub fn textbook(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    let text =
        std::str::from_utf8(body).map_err(|_| Refused::invalid("invalid_utf8", "the body is not UTF-8"))?;
    let mut decoded = Decoded::default();
    for (index, line) in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).enumerate() {
        match record(line) {
            Some(record) => {
                write(record, ctx, draft);
                decoded.accepted += 1;
            }
            None => decoded.reject(index, Some(index + 1), "line_invalid", "the line cannot be read"),
        }
    }
    Ok(decoded)
}

struct Record {
    measurement: String,
    tags: HashMap<String, String>,
    fields: HashMap<String, Parsed>,
    time_ns: i64,
}

fn record(line: &str) -> Option<Record> {
    let (head, rest) = line.split_once(' ')?;
    let (fields, time) = rest.rsplit_once(' ')?;
    let mut head = head.split(',');
    let measurement = head.next()?.to_owned();
    let mut tags = HashMap::new();
    for tag in head {
        let (key, value) = tag.split_once('=')?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    let mut parsed = HashMap::new();
    for field in fields.split(',') {
        let (key, value) = field.split_once('=')?;
        parsed.insert(key.to_owned(), self::value(value)?);
    }
    Some(Record { measurement, tags, fields: parsed, time_ns: time.parse().ok()? })
}

fn value(text: &str) -> Option<Parsed> {
    if let Some(text) = text.strip_prefix('"') {
        return Some(Parsed::Text(text.strip_suffix('"')?.to_owned()));
    }
    match text {
        "t" | "true" => return Some(Parsed::Bool(true)),
        "f" | "false" => return Some(Parsed::Bool(false)),
        _ => {}
    }
    if let Some(int) = text.strip_suffix('i') {
        return int.parse().ok().map(Parsed::Int);
    }
    if let Some(uint) = text.strip_suffix('u') {
        return uint.parse().ok().map(Parsed::Uint);
    }
    text.parse().ok().map(Parsed::Double)
}

fn write(mut record: Record, ctx: &mut Context<'_>, draft: &mut Draft) {
    draft.begin_row();
    draft.set_text(Field::Id, ctx.ids.next(ctx.now_ns));
    draft.set_int(Field::TimeNs, record.time_ns);
    draft.set_int(Field::ObservedNs, ctx.now_ns);
    draft.set_text(Field::EventType, &record.measurement);
    let source = ["source", "service", "service.name"].iter().find_map(|key| record.tags.remove(*key));
    draft.set_text(Field::Source, source.as_deref().unwrap_or("unknown"));
    for (key, field) in
        [("correlation_id", Field::CorrelationId), ("trace_id", Field::TraceId), ("span_id", Field::SpanId)]
    {
        if let Some(id) = record.tags.remove(key) {
            draft.set_text(field, &id.to_lowercase());
        }
    }
    if let Some(Parsed::Double(duration_ms)) = record.fields.remove("duration_ms") {
        draft.set_int(Field::DurationNs, (duration_ms * 1e6).round() as i64);
    }
    for (key, value) in &record.tags {
        let _ = draft.attribute(key, Value::Text(value));
    }
    for (key, value) in &record.fields {
        let value = match value {
            Parsed::Text(text) => Value::Text(text),
            Parsed::Int(int) => Value::Int(*int),
            Parsed::Uint(uint) => Value::Uint(*uint),
            Parsed::Double(double) => Value::Double(*double),
            Parsed::Bool(bool) => Value::Bool(*bool),
        };
        let _ = draft.attribute(key, value);
    }
    draft.end_row();
}
