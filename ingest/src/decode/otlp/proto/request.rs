//! The request's envelope: resources, their scopes, their records.

use storage::record::{Draft, Value};

use super::any_value::{Any, KeyValue, member};
use super::{log, span};
use crate::decode::otlp::Refusing;
use crate::decode::otlp::sink::{Sink, fill};
use crate::decode::otlp::wire::Reader;
use crate::decode::pace::{Pace, at_once};
use crate::decode::{Context, Decoded, Refused};

/// Walks the records of a scope; the envelopes of both signals are alike, field by field.
type Record = fn(&mut Sink<'_, '_>, &[u8]) -> Refusing<()>;

/// Appends the spans of an `ExportTraceServiceRequest` to the draft.
///
/// Cost: one pass over each record, two over the envelope; nothing is allocated per span.
///
/// # Errors
/// 400 where the bytes are not that message or nest without end; 413 for more than `records_max` spans,
/// or resources that grow past bounds when they stand in every row. The draft is empty then.
pub fn traces_proto(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(traces(body, ctx, draft, &mut Pace::default()))
}

/// Appends the records of an `ExportLogsServiceRequest` to the draft.
///
/// # Errors
/// As [`traces_proto`].
pub fn logs_proto(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(logs(body, ctx, draft, &mut Pace::default()))
}

/// As [`traces_proto`], in slices.
pub(crate) async fn traces(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    fill(ctx, draft, body.len(), async |sink| request(body, sink, span::span, pace).await).await
}

/// As [`logs_proto`], in slices.
pub(crate) async fn logs(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    fill(ctx, draft, body.len(), async |sink| request(body, sink, log::log, pace).await).await
}

async fn request(body: &[u8], sink: &mut Sink<'_, '_>, record: Record, pace: &mut Pace<'_>) -> Refusing<()> {
    let mut fields = Reader::new(body);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => resource_group(payload.bytes()?, sink, record, pace).await?,
            _ => sink.notes.has_unknown = true,
        }
    }
    Ok(())
}

/// `ResourceSpans` or `ResourceLogs`.
async fn resource_group(
    message: &[u8],
    sink: &mut Sink<'_, '_>,
    record: Record,
    pace: &mut Pace<'_>,
) -> Refusing<()> {
    let object = sink.open_resource();
    let (mut schema_url, mut dropped) = ("", 0);
    // The resource may stand behind the records that need it: this pass skips over them by their length.
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => {
                let mut resource = Reader::new(payload.bytes()?);
                while let Some((number, payload)) = resource.next()? {
                    match number {
                        1 => {
                            let attribute = KeyValue::read(payload.bytes()?, &mut sink.notes)?;
                            if let ("service.name", Any::Scalar(Value::Text(name))) =
                                (attribute.key, attribute.value)
                            {
                                replace(&mut sink.group.source, name);
                            }
                            member(&mut sink.group.resource, &object, &mut sink.notes, attribute)?;
                        }
                        2 => dropped = payload.uint32()?,
                        // Entity references name attributes that stand beside them.
                        3 => drop(payload.bytes()?),
                        _ => sink.notes.has_unknown = true,
                    }
                }
            }
            3 => schema_url = payload.text()?,
            _ => (),
        }
    }
    sink.close_resource(object, dropped, schema_url);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            2 => scope_group(payload.bytes()?, sink, record, pace).await?,
            1 | 3 => (),
            _ => sink.notes.has_unknown = true,
        }
    }
    Ok(())
}

/// `ScopeSpans` or `ScopeLogs`.
async fn scope_group(
    message: &[u8],
    sink: &mut Sink<'_, '_>,
    record: Record,
    pace: &mut Pace<'_>,
) -> Refusing<()> {
    let object = sink.open_scope();
    let (mut schema_url, mut dropped) = ("", 0);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => {
                let mut scope = Reader::new(payload.bytes()?);
                while let Some((number, payload)) = scope.next()? {
                    match number {
                        1 => replace(&mut sink.group.scope_name, payload.text()?),
                        2 => replace(&mut sink.group.scope_version, payload.text()?),
                        3 => {
                            let attribute = KeyValue::read(payload.bytes()?, &mut sink.notes)?;
                            member(&mut sink.group.scope, &object, &mut sink.notes, attribute)?;
                        }
                        4 => dropped = payload.uint32()?,
                        _ => sink.notes.has_unknown = true,
                    }
                }
            }
            3 => schema_url = payload.text()?,
            _ => (),
        }
    }
    sink.close_scope(object, dropped, schema_url);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            2 => {
                let message = payload.bytes()?;
                sink.begin()?;
                record(sink, message)?;
                sink.end();
                if pace.record(sink.shared_bytes() + message.len()) {
                    pace.rest(sink.held_bytes()).await.map_err(Box::new)?;
                }
            }
            1 | 3 => (),
            _ => sink.notes.has_unknown = true,
        }
    }
    Ok(())
}

fn replace(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}
