//! `Span`, with its events and links.

use storage::record::Field;

use super::any_value::{KeyValue, attribute, member};
use crate::decode::otlp::Refusing;
use crate::decode::otlp::sink::{self, Sink};
use crate::decode::otlp::wire::Reader;

pub(super) fn span(sink: &mut Sink<'_, '_>, message: &[u8]) -> Refusing<()> {
    let mut span = sink::Span::default();
    let (mut trace_id, mut span_id, mut parent_span_id, mut name) = (&[][..], &[][..], &[][..], "");
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => trace_id = payload.bytes()?,
            2 => span_id = payload.bytes()?,
            3 => sink.text_if_any(Field::TraceState, payload.text()?),
            4 => parent_span_id = payload.bytes()?,
            5 => name = payload.text()?,
            6 => span.kind = payload.int32()?,
            7 => span.start_ns = payload.fixed64()?,
            8 => span.end_ns = payload.fixed64()?,
            9 => attribute(sink, payload.bytes()?)?,
            10 => sink.number_if_any(Field::DroppedAttributes, payload.uint32()?),
            11 => event(sink, payload.bytes()?)?,
            12 => sink.number_if_any(Field::DroppedEvents, payload.uint32()?),
            13 => link(sink, payload.bytes()?)?,
            14 => sink.number_if_any(Field::DroppedLinks, payload.uint32()?),
            15 => status(sink, payload.bytes()?, &mut span)?,
            16 => sink.number_if_any(Field::Flags, payload.fixed32()?),
            _ => sink.notes.has_unknown = true,
        }
    }
    sink.text(Field::Name, name);
    sink.span_ids(trace_id, span_id, parent_span_id);
    sink.span(span)
}

fn status(sink: &mut Sink<'_, '_>, message: &[u8], span: &mut sink::Span) -> Refusing<()> {
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            2 => sink.text_if_any(Field::StatusMessage, payload.text()?),
            3 => span.status = payload.int32()?,
            _ => sink.notes.has_unknown = true,
        }
    }
    Ok(())
}

fn event(sink: &mut Sink<'_, '_>, message: &[u8]) -> Refusing<()> {
    let (mut time_ns, mut name, mut dropped) = (0, "", 0);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => time_ns = payload.fixed64()?,
            2 => name = payload.text()?,
            3 => (),
            4 => dropped = payload.uint32()?,
            _ => sink.notes.has_unknown = true,
        }
    }
    let object = sink.open_event(time_ns, name);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        if number == 3 {
            let attribute = KeyValue::read(payload.bytes()?, &mut sink.notes)?;
            member(&mut sink.events, &object, &mut sink.notes, attribute)?;
        }
    }
    sink.close_event(object, dropped)
}

fn link(sink: &mut Sink<'_, '_>, message: &[u8]) -> Refusing<()> {
    let (mut trace_id, mut span_id, mut trace_state) = (&[][..], &[][..], "");
    let (mut dropped, mut flags) = (0, 0);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => trace_id = payload.bytes()?,
            2 => span_id = payload.bytes()?,
            3 => trace_state = payload.text()?,
            4 => (),
            5 => dropped = payload.uint32()?,
            6 => flags = payload.fixed32()?,
            _ => sink.notes.has_unknown = true,
        }
    }
    let object = sink.open_link(trace_id, span_id, trace_state);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        if number == 4 {
            let attribute = KeyValue::read(payload.bytes()?, &mut sink.notes)?;
            member(&mut sink.links, &object, &mut sink.notes, attribute)?;
        }
    }
    sink.close_link(object, dropped, flags)
}
