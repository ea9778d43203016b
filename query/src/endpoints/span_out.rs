//! A span as JSON, in the shape of DESIGN 11.

use arrow::array::RecordBatch;
use storage::record::{Field, json_text};

use super::event_out::{self, Attributes, int, key, non_zero, plain, text};
use crate::time::with_nanoseconds;

/// Appends one span.
pub fn span(out: &mut Vec<u8>, batch: &RecordBatch, row: usize, attributes: &Attributes) {
    let plain_key = |out: &mut Vec<u8>, name: &str, field: Field| {
        key(out, name);
        plain(out, batch, field.name(), row);
    };
    out.push(b'{');
    plain_key(out, "trace_id", Field::TraceId);
    plain_key(out, "span_id", Field::SpanId);
    plain_key(out, "parent_span_id", Field::ParentSpanId);
    plain_key(out, "name", Field::Name);
    plain_key(out, "source", Field::Source);
    key(out, "kind");
    json_text::string(out, text(batch, Field::SpanKind.name(), row).unwrap_or("unspecified"));
    let start_ns = int(batch, Field::TimeNs.name(), row);
    let duration_ns = int(batch, Field::DurationNs.name(), row);
    key(out, "start_time");
    event_out::time(out, batch, row);
    key(out, "end_time");
    match start_ns.and_then(|start| start.checked_add(duration_ns.unwrap_or(0))) {
        Some(end) => json_text::string(out, &with_nanoseconds(end)),
        None => out.extend_from_slice(b"null"),
    }
    plain_key(out, "duration_ns", Field::DurationNs);
    key(out, "status");
    out.extend_from_slice(b"{\"code\":");
    json_text::string(out, text(batch, Field::StatusCode.name(), row).unwrap_or("unset"));
    out.extend_from_slice(b",\"message\":");
    plain(out, batch, Field::StatusMessage.name(), row);
    out.push(b'}');
    plain_key(out, "correlation_id", Field::CorrelationId);
    key(out, "attributes");
    attributes.write(out, batch, row);
    for field in [Field::Events, Field::Links] {
        key(out, field.name());
        let items = text(batch, field.name(), row).filter(|items| !items.is_empty()).unwrap_or("[]");
        out.extend_from_slice(items.as_bytes());
    }
    key(out, "resource");
    event_out::resource(out, batch, row);
    key(out, "scope");
    event_out::scope(out, batch, row);
    plain_key(out, "flags", Field::Flags);
    plain_key(out, "trace_state", Field::TraceState);
    for field in [Field::DroppedAttributes, Field::DroppedEvents, Field::DroppedLinks] {
        non_zero(out, batch, field.name(), row);
    }
    out.push(b'}');
}
