//! The textbook's OTLP: the whole request as structs (`prost`, `serde_json`), then its spans one by one.

use ingest::decode::{Context, Decoded, Refused};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use storage::record::{Draft, Field, Value};

/// Decodes protobuf the way a first version would.
pub fn textbook_proto(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|_| Refused::invalid("protobuf_invalid", "the body is no export request"))?;
    Ok(write(&request, ctx, draft))
}

/// Decodes JSON the way a first version would.
pub fn textbook_json(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    let request = serde_json::from_slice(body)
        .map_err(|_| Refused::invalid("json_invalid", "the body is no export request"))?;
    Ok(write(&request, ctx, draft))
}

fn write(request: &ExportTraceServiceRequest, ctx: &mut Context<'_>, draft: &mut Draft) -> Decoded {
    let mut decoded = Decoded::default();
    for resource_spans in &request.resource_spans {
        let attributes = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let resource = object(attributes);
        let source = attributes.iter().find(|attribute| attribute.key == "service.name");
        let source = source.and_then(string).unwrap_or("unknown");
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.clone().unwrap_or_default();
            for span in &scope_spans.spans {
                draft.begin_row();
                draft.set_text(Field::Id, ctx.ids.next(ctx.now_ns));
                draft.set_int(Field::ObservedNs, ctx.now_ns);
                draft.set_text(Field::Source, source);
                draft.set_text(Field::Resource, &resource);
                draft.set_text(Field::ScopeName, &scope.name);
                draft.set_text(Field::ScopeVersion, &scope.version);
                write_span(span, draft);
                draft.end_row();
                decoded.accepted += 1;
            }
        }
    }
    decoded
}

fn write_span(span: &Span, draft: &mut Draft) {
    draft.set_text(Field::TraceId, &hex::encode(&span.trace_id));
    draft.set_text(Field::SpanId, &hex::encode(&span.span_id));
    if !span.parent_span_id.is_empty() {
        draft.set_text(Field::ParentSpanId, &hex::encode(&span.parent_span_id));
    }
    draft.set_text(Field::Name, &span.name);
    let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    let at = |index: i32| usize::try_from(index).unwrap_or(0);
    draft.set_text(Field::SpanKind, kinds.get(at(span.kind)).unwrap_or(&kinds[0]));
    draft.set_int(Field::TimeNs, span.start_time_unix_nano.cast_signed());
    let duration_ns = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    draft.set_int(Field::DurationNs, duration_ns.cast_signed());
    let status = span.status.clone().unwrap_or_default();
    draft.set_text(Field::StatusCode, ["unset", "ok", "error"].get(at(status.code)).unwrap_or(&"unset"));
    draft.set_int(Field::Flags, i64::from(span.flags));
    for attribute in &span.attributes {
        let key = &attribute.key;
        let _ = match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(Any::StringValue(text)) => draft.attribute(key, Value::Text(text)),
            Some(Any::IntValue(int)) => draft.attribute(key, Value::Int(*int)),
            Some(Any::DoubleValue(double)) => draft.attribute(key, Value::Double(*double)),
            Some(Any::BoolValue(bool)) => draft.attribute(key, Value::Bool(*bool)),
            _ => continue,
        };
    }
}

fn object(attributes: &[KeyValue]) -> String {
    let pairs =
        attributes.iter().filter_map(|attribute| Some((attribute.key.clone(), string(attribute)?.into())));
    serde_json::Value::Object(pairs.collect()).to_string()
}

fn string(attribute: &KeyValue) -> Option<&str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}
