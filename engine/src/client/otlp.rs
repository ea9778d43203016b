//! OTLP export requests: written for the demo and the load generator, counted and cut for `send`.
//! Field numbers are those of opentelemetry-proto 1.x.
//!
//! Traces and logs share one shape, `request.1 = resource group`, `group.2 = scope group`, `scope
//! group.2 = record`, so counting and cutting know no difference between them.

use super::protobuf::{Reader, Wire, Writer};

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// Integer.
    Int(i64),
    /// Double.
    Double(f64),
    /// Bool.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Named values in the order they are written.
pub type Attributes = Vec<(&'static str, Value)>;

/// Writes a repeated `KeyValue` field.
pub fn attributes(writer: &mut Writer, field: u32, attributes: &[(&'static str, Value)]) {
    for (key, value) in attributes {
        writer.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any_value(any, value));
        });
    }
}

/// Fills an `AnyValue`.
pub fn any_value(any: &mut Writer, value: &Value) {
    match value {
        Value::Text(text) => any.text(1, text),
        Value::Bool(bool) => any.varint(2, u64::from(*bool)),
        // Two's complement is how the format writes a negative int64.
        Value::Int(int) => any.varint(3, int.cast_unsigned()),
        Value::Double(double) => any.double(4, *double),
    }
}

/// A span as the demo and the load generator make them.
#[derive(Clone, Debug)]
pub struct Span {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
    /// Parent's span id, none at a root.
    pub parent_span_id: Option<[u8; 8]>,
    /// Name.
    pub name: String,
    /// `SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u8,
    /// Start, nanoseconds since 1970 UTC.
    pub start_ns: u64,
    /// End, nanoseconds since 1970 UTC.
    pub end_ns: u64,
    /// Attributes.
    pub attributes: Attributes,
    /// Time, name and attributes of what happened within.
    pub events: Vec<(u64, &'static str, Attributes)>,
    /// The error's message where the span failed.
    pub error: Option<String>,
}

/// Fills a `Span`.
pub fn span(writer: &mut Writer, span: &Span) {
    writer.bytes(1, &span.trace_id);
    writer.bytes(2, &span.span_id);
    if let Some(parent) = &span.parent_span_id {
        writer.bytes(4, parent);
    }
    writer.text(5, &span.name);
    writer.varint(6, u64::from(span.kind));
    writer.fixed64(7, span.start_ns);
    writer.fixed64(8, span.end_ns);
    attributes(writer, 9, &span.attributes);
    for (time_ns, name, of_event) in &span.events {
        writer.message(11, |event| {
            event.fixed64(1, *time_ns);
            event.text(2, name);
            attributes(event, 3, of_event);
        });
    }
    if let Some(message) = &span.error {
        writer.message(15, |status| {
            status.text(2, message);
            status.varint(3, 2);
        });
    }
    // Sampled: the one W3C flag there is.
    writer.fixed32(16, 1);
}

/// A log record as the demo makes them.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Time, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Severity: 1–4 trace, 5–8 debug, 9–12 info, 13–16 warn, 17–20 error, 21–24 fatal.
    pub severity_number: u8,
    /// Severity's name.
    pub severity_text: &'static str,
    /// Body.
    pub body: String,
    /// Attributes.
    pub attributes: Attributes,
    /// The span it was written in.
    pub trace: Option<([u8; 16], [u8; 8])>,
}

/// Fills a `LogRecord`.
pub fn log_record(writer: &mut Writer, record: &LogRecord) {
    writer.fixed64(1, record.time_ns);
    writer.varint(2, u64::from(record.severity_number));
    writer.text(3, record.severity_text);
    writer.message(5, |any| any.text(1, &record.body));
    attributes(writer, 6, &record.attributes);
    if let Some((trace_id, span_id)) = &record.trace {
        writer.bytes(9, trace_id);
        writer.bytes(10, span_id);
    }
    writer.fixed64(11, record.time_ns);
}

/// Writes one resource group with one scope group into an export request of traces or logs.
pub fn group(
    request: &mut Writer,
    resource: &[(&'static str, Value)],
    scope: &str,
    records: impl FnOnce(&mut Writer),
) {
    request.message(1, |group| {
        group.message(1, |message| attributes(message, 1, resource));
        group.message(2, |scope_group| {
            scope_group.message(1, |message| {
                message.text(1, scope);
                message.text(2, env!("CARGO_PKG_VERSION"));
            });
            records(scope_group);
        });
    });
}

/// Number of the record field within a scope group.
pub const RECORD: u32 = 2;

/// Returns how many spans or log records an export request holds, none if it is no protobuf.
pub fn record_count(request: &[u8]) -> Option<u64> {
    let mut count = 0;
    for group in nested(request, 1)? {
        for scope in nested(group, 2)? {
            count += nested(scope, RECORD)?.len() as u64;
        }
    }
    Some(count)
}

/// Cuts an export request into several of at most `records_max` records and about `bytes_max` bytes,
/// each with its count; none if it is no protobuf.
///
/// Resource and scope are repeated in each part, as is every field we do not know. A single record
/// over `bytes_max` stands alone.
pub fn cut(request: &[u8], records_max: usize, bytes_max: usize) -> Option<Vec<(Vec<u8>, u64)>> {
    let mut parts = Vec::new();
    let mut part = Writer::new();
    let mut part_count = 0;
    for group in nested(request, 1)? {
        let group_head = without(group, 2);
        for scope in nested(group, 2)? {
            let scope_head = without(scope, RECORD);
            let head_len = group_head.len() + scope_head.len();
            let mut records = nested(scope, RECORD)?.into_iter().peekable();
            while let Some(first) = records.peek() {
                let over = part.len() + head_len + first.len() > bytes_max;
                if part_count > 0 && (part_count >= records_max || over) {
                    parts.push((std::mem::take(&mut part).into_bytes(), part_count as u64));
                    part_count = 0;
                }
                let mut taken = Writer::new();
                taken.raw(&scope_head);
                while part_count < records_max.max(1)
                    && let Some(record) = records.next_if(|record| {
                        taken.len() == scope_head.len()
                            || part.len() + head_len + taken.len() + record.len() <= bytes_max
                    })
                {
                    taken.bytes(RECORD, record);
                    part_count += 1;
                }
                part.message(1, |message| {
                    message.raw(&group_head);
                    message.bytes(2, &taken.into_bytes());
                });
            }
        }
    }
    if part_count > 0 {
        parts.push((part.into_bytes(), part_count as u64));
    }
    Some(parts)
}

/// Reads `partial_success` from an export response: rejected records and the message.
pub fn partial_success(response: &[u8]) -> Option<(u64, String)> {
    let partial = *nested(response, 1)?.first()?;
    let mut rejected = 0;
    let mut message = String::new();
    for (field, wire) in Reader::new(partial) {
        match (field, wire) {
            (1, Wire::Varint(count)) => rejected = count,
            (2, Wire::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Some((rejected, message))
}

/// Reads the message of a `google.rpc.Status`.
pub fn status_message(status: &[u8]) -> Option<String> {
    let text = *nested(status, 2)?.first()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Collects the messages that stand under `field`, none if the bytes are no protobuf.
fn nested(message: &[u8], field: u32) -> Option<Vec<&[u8]>> {
    let mut reader = Reader::new(message);
    let mut found = Vec::new();
    for (number, wire) in reader.by_ref() {
        match wire {
            Wire::Bytes(bytes) if number == field => found.push(bytes),
            _ => {}
        }
    }
    (!reader.is_broken()).then_some(found)
}

/// Copies a message without the fields numbered `field`.
fn without(message: &[u8], field: u32) -> Vec<u8> {
    let mut copy = Writer::new();
    for (number, wire) in Reader::new(message) {
        match wire {
            _ if number == field => {}
            Wire::Varint(value) => copy.varint(number, value),
            Wire::Fixed64(value) => copy.fixed64(number, value),
            Wire::Bytes(value) => copy.bytes(number, value),
            Wire::Fixed32(value) => copy.fixed32(number, value),
        }
    }
    copy.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: u8, parent: Option<u8>) -> Span {
        Span {
            trace_id: [7; 16],
            span_id: [id; 8],
            parent_span_id: parent.map(|parent| [parent; 8]),
            name: "GET /cart".into(),
            kind: 2,
            start_ns: 1_767_225_600_000_000_000,
            end_ns: 1_767_225_600_001_000_000,
            attributes: vec![
                ("http.route", "/cart".into()),
                ("http.response.status_code", Value::Int(-1)),
                ("cache.hit", Value::Bool(true)),
                ("load", Value::Double(0.25)),
            ],
            events: vec![(1_767_225_600_000_500_000, "retry", vec![])],
            error: Some("payment declined".into()),
        }
    }

    fn request(span_counts: &[u8]) -> Vec<u8> {
        let mut request = Writer::new();
        for &count in span_counts {
            group(&mut request, &[("service.name", "cart".into())], "shop", |scope| {
                for id in 1..=count {
                    scope.message(RECORD, |message| span(message, &example(id, None)));
                }
            });
        }
        request.into_bytes()
    }

    fn field(message: &[u8], wanted: u32) -> Option<Wire<'_>> {
        Reader::new(message).find(|(number, _)| *number == wanted).map(|(_, wire)| wire)
    }

    #[test]
    fn a_span_reads_back() {
        let mut writer = Writer::new();
        span(&mut writer, &example(2, Some(1)));
        let bytes = writer.into_bytes();
        assert_eq!(field(&bytes, 1), Some(Wire::Bytes(&[7; 16])));
        assert_eq!(field(&bytes, 2), Some(Wire::Bytes(&[2; 8])));
        assert_eq!(field(&bytes, 4), Some(Wire::Bytes(&[1; 8])));
        assert_eq!(field(&bytes, 5), Some(Wire::Bytes(b"GET /cart")));
        assert_eq!(field(&bytes, 6), Some(Wire::Varint(2)));
        assert_eq!(field(&bytes, 8), Some(Wire::Fixed64(1_767_225_600_001_000_000)));
        let pairs = nested(&bytes, 9).expect("own bytes");
        assert_eq!(pairs.len(), 4);
        let Some(Wire::Bytes(value)) = field(pairs[1], 2) else { panic!("no value") };
        assert_eq!(field(value, 3), Some(Wire::Varint(u64::MAX)));
        let Some(Wire::Bytes(status)) = field(&bytes, 15) else { panic!("no status") };
        assert_eq!(field(status, 3), Some(Wire::Varint(2)));
    }

    #[test]
    fn records_are_counted() {
        for (counts, expected) in [(&[][..], 0), (&[3][..], 3), (&[1, 0, 4][..], 5)] {
            assert_eq!(record_count(&request(counts)), Some(expected), "{counts:?}");
        }
        assert_eq!(record_count(b"\x0a\x7f"), None);
    }

    /// Nothing is lost and no part is over the bounds.
    #[test]
    fn cuts_keep_every_record() {
        let whole = request(&[3, 1, 9]);
        let one = request(&[1]).len();
        for (records_max, bytes_max) in [(100, 1 << 20), (4, 1 << 20), (1, 1 << 20), (100, one * 2), (100, 1)]
        {
            let parts = cut(&whole, records_max, bytes_max).expect("own bytes");
            let mut total = 0;
            for (part, count) in &parts {
                assert_eq!(record_count(part), Some(*count));
                assert!(*count <= records_max as u64, "{count} records of {records_max}");
                assert!(part.len() <= bytes_max + 32 || *count == 1, "{} bytes of {bytes_max}", part.len());
                total += count;
            }
            assert_eq!(total, 13, "{records_max} {bytes_max}");
        }
        assert!(cut(b"", 1, 1).expect("empty is a message").is_empty());
    }

    #[test]
    fn partial_success_is_read() {
        let mut response = Writer::new();
        response.message(1, |partial| {
            partial.varint(1, 3);
            partial.text(2, "span id is empty");
        });
        assert_eq!(partial_success(&response.into_bytes()), Some((3, "span id is empty".into())));
        assert_eq!(partial_success(b""), None);
    }
}
