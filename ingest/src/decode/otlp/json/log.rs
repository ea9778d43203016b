//! `LogRecord` in JSON.

use storage::record::Field;

use super::any_value::{attribute, body};
use super::fields::{Id, Members, Scratch, each, enumerator, string, uint32, uint64};
use crate::decode::json::Parser;
use crate::decode::otlp::Refusing;
use crate::decode::otlp::sink::{self, Sink};

/// In the order most senders write them.
const LOG: &[&str] = &[
    "timeUnixNano",
    "observedTimeUnixNano",
    "severityNumber",
    "severityText",
    "eventName",
    "body",
    "attributes",
    "droppedAttributesCount",
    "flags",
    "traceId",
    "spanId",
];

pub(super) fn log(json: &mut Parser<'_>, sink: &mut Sink<'_, '_>, scratch: &mut Scratch) -> Refusing<()> {
    let mut log = sink::Log::default();
    let (mut trace_id, mut span_id) = (Id::default(), Id::default());
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, LOG, &mut sink.notes)? {
        match field {
            "timeUnixNano" => log.time_ns = uint64(json)?,
            "observedTimeUnixNano" => log.observed_ns = uint64(json)?,
            "severityNumber" => log.severity_number = enumerator(json)?,
            "severityText" => sink.text_if_any(Field::Severity, string(json, &mut scratch.text)?),
            "eventName" => sink.text_if_any(Field::EventName, string(json, &mut scratch.text)?),
            "body" => body(json, sink, scratch)?,
            "attributes" => each(json, |json| attribute(json, sink, scratch))?,
            "droppedAttributesCount" => sink.number_if_any(Field::DroppedAttributes, uint32(json)?),
            "flags" => sink.number_if_any(Field::Flags, uint32(json)?),
            "traceId" => trace_id = Id::read(json, &mut scratch.text)?,
            _ => span_id = Id::read(json, &mut scratch.text)?,
        }
    }
    sink.log_ids(trace_id.bytes(), span_id.bytes());
    sink.log(log);
    Ok(())
}
