//! From what an encoding yields to a row: the half of the decoders that is the same for both encodings.
//!
//! ```text
//!   proto ─┐                                                       ┌─ end_row, counted as accepted
//!          ├─► begin, text, attribute, event, … , span | log ─► end ┤
//!   json  ─┘                                                       └─ abort_row, listed as rejected
//! ```
//! What a record may not be (table C of the bad inputs) is decided here and nowhere else, so protobuf and
//! JSON of the same content make the same row, or the same refusal.

use storage::record::{Column, Draft, Field, Taken, Value};

use super::Refusing;
use super::group::Group;
use super::notes::{Fault, Notes};
use super::severity;
use super::span_text::{SPAN_TEXT_BYTES_FREE, SPAN_TEXT_PER_BYTE_MAX};
use super::text::JsonText;
use crate::decode::{Context, Decoded, IdSource, REJECTED_LISTED_MAX, Refused};

/// How many times `inflated_bytes_max` a body may grow to when its resources and scopes stand in every
/// row. A resource is sent once and repeated per record, so without a bound a body of 64 MiB could ask
/// for terabytes. Chosen: a legal 100,000 records with 2 KiB of resource each still pass.
const EXPANSION_MAX: usize = 4;

/// The source of records whose resource names no service.
const UNKNOWN_SOURCE: &str = "unknown";

/// A span's fields that make a row only together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) kind: i32,
    pub(super) status: i32,
}

/// A log record's fields that make a row only together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log {
    pub(super) time_ns: u64,
    pub(super) observed_ns: u64,
    pub(super) severity_number: i32,
}

/// The draft being filled, and everything that lives as long as one body.
pub(super) struct Sink<'s, 'c> {
    pub(super) notes: Notes<'c>,
    pub(super) group: Group,
    /// Scratch for one nested value.
    pub(super) nested: JsonText,
    /// The open span's events, as the elements of a JSON array.
    pub(super) events: JsonText,
    /// The open span's links, as the elements of a JSON array.
    pub(super) links: JsonText,
    /// Scratch for a body that is no text.
    scalar: JsonText,
    draft: &'s mut Draft,
    ids: &'s mut IdSource,
    now_ns: i64,
    oldest_ns: i64,
    decoded: Decoded,
    seen: usize,
    attribute_count: usize,
    expanded_bytes: usize,
    /// Text of events and links that the spans of this body may still become.
    pub(super) span_text_left: usize,
}

/// Runs a walk over a body, and leaves no row behind where the body is refused.
pub(super) async fn fill<'c>(
    ctx: &mut Context<'c>,
    draft: &mut Draft,
    body_bytes: usize,
    walk: impl AsyncFnOnce(&mut Sink<'_, 'c>) -> Refusing<()>,
) -> Result<Decoded, Refused> {
    let mut sink = Sink {
        notes: Notes::new(ctx.limits),
        group: Group::default(),
        nested: JsonText::default(),
        scalar: JsonText::default(),
        events: JsonText::default(),
        links: JsonText::default(),
        draft,
        ids: &mut *ctx.ids,
        now_ns: ctx.now_ns,
        oldest_ns: ctx.oldest_ns,
        decoded: Decoded::default(),
        seen: 0,
        attribute_count: 0,
        expanded_bytes: 0,
        span_text_left: SPAN_TEXT_BYTES_FREE + body_bytes.saturating_mul(SPAN_TEXT_PER_BYTE_MAX),
    };
    match walk(&mut sink).await {
        Ok(()) => {
            if sink.seen == 0 && sink.notes.has_unknown {
                sink.decoded.warn("no_records");
            }
            Ok(sink.decoded)
        }
        Err(refused) => {
            sink.draft.reset();
            Err(*refused)
        }
    }
}

impl Sink<'_, '_> {
    /// Opens a row for the body's next record and writes what its group shares.
    pub(super) fn begin(&mut self) -> Refusing<()> {
        let records_max = self.notes.limits.records_max;
        if self.seen >= records_max {
            let detail = format!("the body's records exceed records_max {records_max}");
            return Err(Box::new(Refused::too_large("too_many_records", detail)));
        }
        self.seen += 1;
        self.attribute_count = 0;
        self.events.clear();
        self.links.clear();
        self.notes.take();
        self.draft.begin_row();
        let group = &self.group;
        self.notes.has_duplicate = group.resource_has_duplicate || group.scope_has_duplicate;
        if let Some(fault) = group.resource_fault.or(group.scope_fault) {
            self.notes.fault(fault);
            return Ok(());
        }
        self.draft.set_text(Field::Id, self.ids.next(self.now_ns));
        let source = if group.source.is_empty() { UNKNOWN_SOURCE } else { &group.source };
        self.draft.set_shared(Field::Source, source.as_bytes());
        let mut repeated_bytes = source.len();
        for (field, bytes) in [
            (Field::Resource, group.resource.bytes()),
            (Field::ScopeName, group.scope_name.as_bytes()),
            (Field::ScopeVersion, group.scope_version.as_bytes()),
            (Field::Scope, group.scope.bytes()),
        ] {
            if !bytes.is_empty() {
                self.draft.set_shared(field, bytes);
                repeated_bytes += bytes.len();
            }
        }
        self.expand(repeated_bytes)
    }

    /// Closes the row, or takes it back where a fault was noted.
    pub(super) fn end(&mut self) {
        let (fault, has_duplicate) = self.notes.take();
        if let Some(fault) = fault {
            self.draft.abort_row();
            let is_listed = self.decoded.rejected.len() < REJECTED_LISTED_MAX;
            let detail = if is_listed { fault.detail(self.notes.limits) } else { String::new() };
            self.decoded.reject(self.seen - 1, None, fault.code(), detail);
            return;
        }
        if has_duplicate {
            self.decoded.warn("duplicate_attribute");
        }
        self.draft.end_row();
        self.decoded.accepted += 1;
    }

    /// Bytes that the open group writes into each of its rows.
    pub(super) fn shared_bytes(&self) -> usize {
        self.group.source.len() + self.group.resource.len() + self.group.scope.len()
    }

    /// What the rows and the buffers of this body hold, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let texts = [&self.group.resource, &self.group.scope, &self.nested, &self.events, &self.links];
        self.draft.held_bytes() + texts.iter().map(|text| text.held_bytes()).sum::<usize>()
    }

    /// Writes a text field of the open row.
    #[inline]
    pub(super) fn text(&mut self, field: Field, text: &str) {
        self.notes.check_len(text.len());
        if !self.notes.is_faulty() {
            self.draft.set_text(field, text);
        }
    }

    /// Writes a text field of the open row unless it is empty, which OTLP does not tell from absent.
    #[inline]
    pub(super) fn text_if_any(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            self.text(field, text);
        }
    }

    /// Writes a count or flags of the open row unless zero, which OTLP does not tell from absent.
    #[inline]
    pub(super) fn number_if_any(&mut self, field: Field, number: u32) {
        if number != 0 {
            self.draft.set_int(field, i64::from(number));
        }
    }

    /// Writes an attribute of the open row.
    #[inline]
    pub(super) fn attribute(&mut self, key: &str, value: &Value<'_>) {
        self.attribute_count += 1;
        self.notes.check_attribute(key, self.attribute_count);
        self.notes.check_value(value);
        if !self.notes.is_faulty() && self.draft.attribute(key, *value) == Taken::Duplicate {
            self.notes.has_duplicate = true;
        }
    }

    /// Writes a log record's body; an empty value is no body.
    pub(super) fn body(&mut self, value: &Value<'_>) {
        self.notes.check_value(value);
        let r#type = match value {
            Value::Json("null") => return,
            Value::Text(text) => return self.text(Field::Body, text),
            Value::Int(_) | Value::Uint(_) => "int",
            Value::Double(_) => "double",
            Value::Bool(_) => "bool",
            Value::Bytes(_) => "bytes",
            Value::Json(_) => "json",
        };
        if self.notes.is_faulty() {
            return;
        }
        self.scalar.clear();
        self.scalar.value(value);
        self.draft.set_bytes(Field::Body, self.scalar.bytes());
        self.draft.set_text(Field::BodyType, r#type);
    }

    /// Writes a span's ids: as sent in protobuf, unhexed from JSON.
    pub(super) fn span_ids(&mut self, trace_id: &[u8], span_id: &[u8], parent_span_id: &[u8]) {
        self.id::<16>(Field::TraceId, trace_id, Fault::TraceId);
        self.id::<8>(Field::SpanId, span_id, Fault::SpanId);
        if !is_zero(parent_span_id) {
            self.id::<8>(Field::ParentSpanId, parent_span_id, Fault::ParentSpanId);
        } else if !matches!(parent_span_id.len(), 0 | 8) {
            self.notes.fault(Fault::ParentSpanId);
        }
    }

    /// Writes a log record's ids. Zero means, as absent does, that it belongs to no span.
    pub(super) fn log_ids(&mut self, trace_id: &[u8], span_id: &[u8]) {
        if !(is_zero(trace_id) && matches!(trace_id.len(), 0 | 16)) {
            self.id::<16>(Field::TraceId, trace_id, Fault::TraceId);
        }
        if !(is_zero(span_id) && matches!(span_id.len(), 0 | 8)) {
            self.id::<8>(Field::SpanId, span_id, Fault::SpanId);
        }
    }

    fn id<const LEN: usize>(&mut self, field: Field, id: &[u8], fault: Fault) {
        if id.len() != LEN || is_zero(id) {
            return self.notes.fault(fault);
        }
        let mut text = [0; 32];
        let text = &mut text[..2 * LEN];
        hex::encode_to_slice(id, text).expect("two digits a byte");
        self.draft.set_bytes(field, text);
    }

    /// Writes what a span's fields mean together, its events and its links.
    pub(super) fn span(&mut self, span: Span) -> Refusing<()> {
        let time_ns = self.time(span.start_ns);
        let end_ns = self.time(span.end_ns);
        self.check_time(time_ns);
        let (time_ns, end_ns) = if time_ns == 0 {
            self.warn_unless_faulty("time_missing");
            (self.now_ns, end_ns.max(self.now_ns))
        } else {
            (time_ns, end_ns)
        };
        if end_ns < time_ns {
            self.warn_unless_faulty("end_before_start");
        }
        self.draft.set_int(Field::TimeNs, time_ns);
        self.draft.set_int(Field::ObservedNs, self.now_ns);
        self.draft.set_int(Field::DurationNs, end_ns.saturating_sub(time_ns).max(0));
        let kind = match span.kind {
            1 => "internal",
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "unspecified",
        };
        self.draft.set_text(Field::SpanKind, kind);
        let status = match span.status {
            1 => "ok",
            2 => "error",
            _ => "unset",
        };
        self.draft.set_text(Field::StatusCode, status);
        if span.status == 2 {
            self.draft.set_text(Field::Severity, "error");
            self.draft.set_int(Field::SeverityNumber, 17);
        }
        let written_bytes = self.events.len() + self.links.len();
        self.span_text_left = self.span_text_left.saturating_sub(written_bytes);
        for (field, text) in [(Field::Events, &mut self.events), (Field::Links, &mut self.links)] {
            if !text.is_empty() {
                text.close_array(0);
                self.draft.set_bytes(field, text.bytes());
                text.clear();
            }
        }
        self.expand(written_bytes)
    }

    /// Writes what a log record's fields mean together.
    pub(super) fn log(&mut self, log: Log) {
        let time_ns = self.time(log.time_ns);
        let observed_ns = self.time(log.observed_ns);
        if time_ns == 0 && observed_ns == 0 {
            self.warn_unless_faulty("time_missing");
        }
        let observed_ns = if observed_ns == 0 { self.now_ns } else { observed_ns };
        let time_ns = if time_ns == 0 { observed_ns } else { time_ns };
        self.check_time(time_ns);
        self.draft.set_int(Field::TimeNs, time_ns);
        self.draft.set_int(Field::ObservedNs, observed_ns);
        let row = self.draft.row_count();
        let text = match self.draft.column(Field::Severity) {
            Column::Text(column) => column.get(row),
            _ => None,
        };
        let mut number = i64::from(log.severity_number);
        if number == 0 {
            number = text
                .and_then(|text| severity::number(std::str::from_utf8(text).ok()?.trim()))
                .unwrap_or_default();
        }
        if text.is_none()
            && let Some(name) = severity::name(number)
        {
            self.draft.set_text(Field::Severity, name);
        }
        if number != 0 {
            self.draft.set_int(Field::SeverityNumber, number);
        }
    }

    /// A time that fits its column: what does not lies after 2262, which is a fault.
    fn time(&mut self, unix_ns: u64) -> i64 {
        i64::try_from(unix_ns).unwrap_or_else(|_| {
            self.notes.fault(Fault::TooNew);
            0
        })
    }

    /// Checks that the event's own time is neither in the future nor past the dataset's retention.
    fn check_time(&mut self, time_ns: i64) {
        if time_ns > self.now_ns.saturating_add(self.notes.limits.future_ns_max) {
            self.notes.fault(Fault::TooNew);
        }
        if time_ns < self.oldest_ns {
            self.notes.fault(Fault::TooOld);
        }
    }

    fn warn_unless_faulty(&mut self, code: &'static str) {
        if !self.notes.is_faulty() {
            self.decoded.warn(code);
        }
    }

    /// Counts bytes that stand in the draft beyond those that were sent.
    pub(super) fn expand(&mut self, bytes: usize) -> Refusing<()> {
        self.expanded_bytes += bytes;
        let expanded_max = self.notes.limits.inflated_bytes_max.saturating_mul(EXPANSION_MAX);
        if self.expanded_bytes + self.events.len() + self.links.len() > expanded_max {
            let detail = format!("the body's rows with resource and scope exceed {expanded_max} bytes");
            return Err(Box::new(Refused::too_large("rows_too_large", detail)));
        }
        Ok(())
    }
}

fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|byte| *byte == 0)
}
