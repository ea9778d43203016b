//! `Span` in JSON, with its events and links.

use storage::record::Field;

use super::any_value::{attribute, attributes};
use super::fields::{Id, Members, Scratch, each, enumerator, refused, string, uint32, uint64};
use super::request::come_back;
use crate::decode::json::{Parser, Text};
use crate::decode::otlp::Refusing;
use crate::decode::otlp::sink::{self, Sink};

/// In the order most senders write them.
const SPAN: &[&str] = &[
    "traceId",
    "spanId",
    "traceState",
    "parentSpanId",
    "flags",
    "name",
    "kind",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "attributes",
    "droppedAttributesCount",
    "events",
    "droppedEventsCount",
    "links",
    "droppedLinksCount",
    "status",
];

pub(super) fn span(json: &mut Parser<'_>, sink: &mut Sink<'_, '_>, scratch: &mut Scratch) -> Refusing<()> {
    let mut span = sink::Span::default();
    let (mut trace_id, mut span_id, mut parent_span_id) = (Id::default(), Id::default(), Id::default());
    let mut name = Text::plain("");
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, SPAN, &mut sink.notes)? {
        match field {
            "traceId" => trace_id = Id::read(json, &mut scratch.text)?,
            "spanId" => span_id = Id::read(json, &mut scratch.text)?,
            "traceState" => sink.text_if_any(Field::TraceState, string(json, &mut scratch.text)?),
            "parentSpanId" => parent_span_id = Id::read(json, &mut scratch.text)?,
            "flags" => sink.number_if_any(Field::Flags, uint32(json)?),
            "name" => name = json.string().map_err(refused)?,
            "kind" => span.kind = enumerator(json)?,
            "startTimeUnixNano" => span.start_ns = uint64(json)?,
            "endTimeUnixNano" => span.end_ns = uint64(json)?,
            "attributes" => each(json, |json| attribute(json, sink, scratch))?,
            "droppedAttributesCount" => sink.number_if_any(Field::DroppedAttributes, uint32(json)?),
            "events" => each(json, |json| event(json, sink, scratch))?,
            "droppedEventsCount" => sink.number_if_any(Field::DroppedEvents, uint32(json)?),
            "links" => each(json, |json| link(json, sink, scratch))?,
            "droppedLinksCount" => sink.number_if_any(Field::DroppedLinks, uint32(json)?),
            _ => status(json, sink, scratch, &mut span)?,
        }
    }
    sink.text(Field::Name, name.text(&mut scratch.text));
    sink.span_ids(trace_id.bytes(), span_id.bytes(), parent_span_id.bytes());
    sink.span(span)
}

fn status(
    json: &mut Parser<'_>,
    sink: &mut Sink<'_, '_>,
    scratch: &mut Scratch,
    span: &mut sink::Span,
) -> Refusing<()> {
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, &["message", "code"], &mut sink.notes)? {
        match field {
            "message" => sink.text_if_any(Field::StatusMessage, string(json, &mut scratch.text)?),
            _ => span.status = enumerator(json)?,
        }
    }
    Ok(())
}

fn event(json: &mut Parser<'_>, sink: &mut Sink<'_, '_>, scratch: &mut Scratch) -> Refusing<()> {
    const EVENT: &[&str] = &["timeUnixNano", "name", "attributes", "droppedAttributesCount"];
    let (mut time_ns, mut name, mut dropped, mut members_at) = (0, Text::plain(""), 0, None);
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, EVENT, &mut sink.notes)? {
        match field {
            "timeUnixNano" => time_ns = uint64(json)?,
            "name" => name = json.string().map_err(refused)?,
            "attributes" => members_at = Some(come_back(json)?),
            _ => dropped = uint32(json)?,
        }
    }
    let object = sink.open_event(time_ns, name.text(&mut scratch.text));
    if let Some(mut json) = members_at {
        attributes(&mut json, &mut sink.events, &object, &mut sink.notes, scratch, None)?;
    }
    sink.close_event(object, dropped)
}

fn link(json: &mut Parser<'_>, sink: &mut Sink<'_, '_>, scratch: &mut Scratch) -> Refusing<()> {
    const LINK: &[&str] =
        &["traceId", "spanId", "traceState", "attributes", "droppedAttributesCount", "flags"];
    let (mut trace_id, mut span_id, mut trace_state) = (Id::default(), Id::default(), Text::plain(""));
    let (mut dropped, mut flags, mut members_at) = (0, 0, None);
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, LINK, &mut sink.notes)? {
        match field {
            "traceId" => trace_id = Id::read(json, &mut scratch.text)?,
            "spanId" => span_id = Id::read(json, &mut scratch.text)?,
            "traceState" => trace_state = json.string().map_err(refused)?,
            "attributes" => members_at = Some(come_back(json)?),
            "droppedAttributesCount" => dropped = uint32(json)?,
            _ => flags = uint32(json)?,
        }
    }
    let object = sink.open_link(trace_id.bytes(), span_id.bytes(), trace_state.text(&mut scratch.text));
    if let Some(mut json) = members_at {
        attributes(&mut json, &mut sink.links, &object, &mut sink.notes, scratch, None)?;
    }
    sink.close_link(object, dropped, flags)
}
