//! The request's envelope in JSON: resources, their scopes, their records.

use storage::record::Draft;

use super::any_value::attributes;
use super::fields::{Members, Scratch, refused, skip, string, uint32};
use super::{log, span};
use crate::decode::json::{Parser, Text};
use crate::decode::otlp::sink::{Sink, fill};
use crate::decode::otlp::{NESTING_MAX, Refusing};
use crate::decode::pace::{Pace, at_once};
use crate::decode::{Context, Decoded, Refused};

/// Brackets that may be open at once: a level of a map takes four, the envelope and a record twelve.
const BRACKETS_MAX: usize = 4 * NESTING_MAX + 12;

/// What tells the signals' envelopes apart.
struct Signal {
    resources: &'static str,
    scopes: &'static str,
    records: &'static str,
    record: fn(&mut Parser<'_>, &mut Sink<'_, '_>, &mut Scratch) -> Refusing<()>,
}

const TRACES: Signal =
    Signal { resources: "resourceSpans", scopes: "scopeSpans", records: "spans", record: span::span };
const LOGS: Signal =
    Signal { resources: "resourceLogs", scopes: "scopeLogs", records: "logRecords", record: log::log };

/// Appends the spans of an `ExportTraceServiceRequest` in JSON to the draft.
///
/// Cost: one pass over each record, and two over brackets and quotes alone to find the resources and scopes; nothing is allocated per span
/// but for keys that are escaped.
///
/// # Errors
/// 400 where the bytes are not that message or nest without end; 413 for more than `records_max` spans,
/// or resources that grow past bounds when they stand in every row. The draft is empty then.
pub fn traces_json(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(paced(body, ctx, draft, &mut Pace::default(), true))
}

/// Appends the records of an `ExportLogsServiceRequest` in JSON to the draft.
///
/// # Errors
/// As [`traces_json`].
pub fn logs_json(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(paced(body, ctx, draft, &mut Pace::default(), false))
}

/// As [`traces_json`] or [`logs_json`], in slices.
pub(crate) async fn paced(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
    are_traces: bool,
) -> Result<Decoded, Refused> {
    let signal = if are_traces { &TRACES } else { &LOGS };
    fill(ctx, draft, body.len(), async |sink| request(body, sink, signal, pace).await).await
}

async fn request(body: &[u8], sink: &mut Sink<'_, '_>, signal: &Signal, pace: &mut Pace<'_>) -> Refusing<()> {
    if body.is_empty() {
        return Ok(());
    }
    let mut json = Parser::from_bytes(body, BRACKETS_MAX).map_err(refused)?;
    let mut scratch = Scratch::default();
    let mut members = Members::open(&mut json)?;
    while members.next(&mut json, &[signal.resources], &mut sink.notes)?.is_some() {
        json.array().map_err(refused)?;
        while json.element().map_err(refused)? {
            resource_group(&mut json, sink, &mut scratch, signal, pace).await?;
        }
    }
    json.end().map_err(refused)
}

/// `ResourceSpans` or `ResourceLogs`.
async fn resource_group<'t>(
    json: &mut Parser<'t>,
    sink: &mut Sink<'_, '_>,
    scratch: &mut Scratch,
    signal: &Signal,
    pace: &mut Pace<'_>,
) -> Refusing<()> {
    let object = sink.open_resource();
    let (mut schema_url, mut dropped, mut groups) = (Text::plain(""), 0, None);
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, &["resource", signal.scopes, "schemaUrl"], &mut sink.notes)? {
        match field {
            "resource" => {
                const RESOURCE: &[&str] = &["attributes", "droppedAttributesCount", "entityRefs"];
                let mut members = Members::open(json)?;
                while let Some(field) = members.next(json, RESOURCE, &mut sink.notes)? {
                    match field {
                        "attributes" => attributes(
                            json,
                            &mut sink.group.resource,
                            &object,
                            &mut sink.notes,
                            scratch,
                            Some(&mut sink.group.source),
                        )?,
                        "droppedAttributesCount" => dropped = uint32(json)?,
                        // Entity references name attributes that stand beside them.
                        _ => skip(json, sink.notes.limits)?,
                    }
                }
            }
            "schemaUrl" => schema_url = json.string().map_err(refused)?,
            // The resource may stand behind the records that need it: they are come back to.
            _ => groups = Some(come_back(json)?),
        }
    }
    sink.close_resource(object, dropped, schema_url.text(&mut scratch.text));
    if let Some(mut json) = groups {
        json.array().map_err(refused)?;
        while json.element().map_err(refused)? {
            scope_group(&mut json, sink, scratch, signal, pace).await?;
        }
    }
    Ok(())
}

/// `ScopeSpans` or `ScopeLogs`.
async fn scope_group<'t>(
    json: &mut Parser<'t>,
    sink: &mut Sink<'_, '_>,
    scratch: &mut Scratch,
    signal: &Signal,
    pace: &mut Pace<'_>,
) -> Refusing<()> {
    let object = sink.open_scope();
    let (mut schema_url, mut dropped, mut records) = (Text::plain(""), 0, None);
    let mut members = Members::open(json)?;
    while let Some(field) = members.next(json, &["scope", signal.records, "schemaUrl"], &mut sink.notes)? {
        match field {
            "scope" => {
                const SCOPE: &[&str] = &["name", "version", "attributes", "droppedAttributesCount"];
                let mut members = Members::open(json)?;
                while let Some(field) = members.next(json, SCOPE, &mut sink.notes)? {
                    match field {
                        "name" => replace(&mut sink.group.scope_name, string(json, &mut scratch.text)?),
                        "version" => replace(&mut sink.group.scope_version, string(json, &mut scratch.text)?),
                        "attributes" => {
                            attributes(json, &mut sink.group.scope, &object, &mut sink.notes, scratch, None)?;
                        }
                        _ => dropped = uint32(json)?,
                    }
                }
            }
            "schemaUrl" => schema_url = json.string().map_err(refused)?,
            _ => records = Some(come_back(json)?),
        }
    }
    sink.close_scope(object, dropped, schema_url.text(&mut scratch.text));
    if let Some(mut json) = records {
        json.array().map_err(refused)?;
        while json.element().map_err(refused)? {
            let start = json.offset();
            sink.begin()?;
            (signal.record)(&mut json, sink, scratch)?;
            sink.end();
            if pace.record(sink.shared_bytes() + json.offset() - start) {
                pace.rest(sink.held_bytes()).await.map_err(Box::new)?;
            }
        }
    }
    Ok(())
}

/// Passes over the value that comes next and gives back a parser that stands before it; its caller reads it.
pub(super) fn come_back<'t>(json: &mut Parser<'t>) -> Refusing<Parser<'t>> {
    let before = *json;
    json.pass_over().map_err(refused)?;
    Ok(before)
}

fn replace(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}
