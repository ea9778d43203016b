//! Request bodies for the load: made once, then copied and patched in place, so that making a request
//! costs a copy and a few stores a record and the generator stays out of the server's way.
//!
//! A record's ids, time and duration change with each request; the rest repeats every few requests. The
//! sizes are those of the figures in the goals: events of about 391 bytes and 20 fields, spans of about
//! 392 bytes and 10 attributes with 20 spans a trace, lines of about 308 bytes with 10 tags and 8 fields.

use super::records;
use crate::cli::demo::random::{Random, mix};

/// What the load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// OTLP/HTTP protobuf spans
    Otlp,
    /// OTLP/HTTP JSON spans
    OtlpJson,
    /// OTLP/HTTP protobuf log records
    OtlpLogs,
    /// NDJSON events
    Ndjson,
    /// NDJSON audit records
    Audit,
    /// Line protocol
    Lines,
    /// Load E: service events, each drawn anew
    #[value(skip)]
    E,
    /// Load E without an e-mail address
    #[value(skip)]
    E0,
    /// Load S: spans, each drawn anew
    #[value(skip)]
    S,
    /// Load L: lines that walk
    #[value(skip)]
    L,
}

/// Spans of one trace.
pub const SPANS_PER_TRACE: u64 = 20;
/// Bodies that take turns, so that what repeats is not what the last request held.
pub const VARIANTS: usize = 8;

/// What is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// 32 hex digits of the trace.
    TraceHex,
    /// 16 hex digits of the span.
    SpanHex,
    /// 16 hex digits of the span before it in its trace.
    ParentHex,
    /// 16 bytes of the trace.
    TraceBytes,
    /// 8 bytes of the span.
    SpanBytes,
    /// 8 bytes of the span before it in its trace.
    ParentBytes,
    /// `2026-01-02T03:04:05.123456`.
    TimeText,
    /// 19 digits of nanoseconds, the start.
    TimeDigits,
    /// 19 digits of nanoseconds, the end.
    EndDigits,
    /// `fixed64` nanoseconds of the start.
    StartFixed,
    /// `fixed64` nanoseconds of the end.
    EndFixed,
    /// Seven digits of nanoseconds.
    Duration,
}

/// One body and where it is patched.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    slots: Vec<(usize, u64, Patch)>,
    /// Records in it.
    pub records: u64,
}

impl Load {
    /// Returns the path that takes it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Otlp | Self::OtlpJson | Self::S => "/v1/traces",
            Self::OtlpLogs => "/v1/logs",
            Self::Ndjson | Self::E | Self::E0 => "/api/v1/events",
            Self::Audit => "/api/v1/audit",
            Self::Lines | Self::L => "/api/v3/write_lp?precision=ns",
        }
    }

    /// Returns its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Otlp | Self::OtlpLogs | Self::S => "application/x-protobuf",
            Self::OtlpJson => "application/json",
            Self::Ndjson | Self::Audit | Self::E | Self::E0 => "application/x-ndjson",
            Self::Lines | Self::L => "text/plain; charset=utf-8",
        }
    }

    /// Returns the records of a request where the user does not say: as the figures were taken.
    pub fn batch(self) -> u32 {
        match self {
            Self::Lines | Self::L => 5_000,
            _ => 1_000,
        }
    }

    /// Whether its records are drawn anew for each request (`loads`), and not patched into a body that stays.
    pub fn is_drawn(self) -> bool {
        matches!(self, Self::E | Self::E0 | Self::S | Self::L)
    }

    /// Makes one body of `records` that stays, told by `variant`; empty for what is drawn.
    pub fn body(self, records: u64, variant: u64) -> Body {
        let mut body = Body { bytes: Vec::new(), slots: Vec::new(), records };
        let mut random = Random::new(variant);
        match self {
            Self::Ndjson => (0..records).for_each(|record| records::event(&mut body, record, &mut random)),
            Self::Audit => (0..records).for_each(|record| records::audit(&mut body, record, &mut random)),
            Self::Lines => (0..records).for_each(|record| records::line(&mut body, record, &mut random)),
            Self::Otlp => records::spans(&mut body, records, &mut random),
            Self::OtlpJson => records::spans_json(&mut body, records, &mut random),
            Self::OtlpLogs => records::logs(&mut body, records, &mut random),
            Self::E | Self::E0 | Self::S | Self::L => {}
        }
        body
    }
}

impl Body {
    /// Returns the body of request `number`: fresh ids, times just before `now_ns`.
    pub fn fill(&self, number: u64, now_ns: i64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let now_ns = u64::try_from(now_ns).unwrap_or(0);
        let first_ns = now_ns.saturating_sub(self.records * 1_000);
        // Within one second, so that the text of the date is made once a request.
        let second_ns = first_ns / 1_000_000_000 * 1_000_000_000;
        let micros_max = 999_999u64.saturating_sub(self.records);
        let first_micros = (first_ns - second_ns).div_euclid(1_000).min(micros_max);
        let second = jiff::Timestamp::from_nanosecond(i128::from(second_ns))
            .map_or_else(|_| String::new(), |time| time.to_string());
        let second = second.as_bytes().get(..19).unwrap_or(b"1970-01-01T00:00:00");

        // Far from the next request's, however many records each has.
        let base = mix(number);
        for (offset, record, patch) in &self.slots {
            let span = span_id(base, *record);
            let trace = mix(!base.wrapping_add(record / SPANS_PER_TRACE)) | 1;
            let micros = first_micros + record;
            let start_ns = second_ns + micros * 1_000;
            let duration_ns = 1_000_000 + span % 9_000_000;
            let at = &mut bytes[*offset..];
            match patch {
                Patch::TraceHex => {
                    put_hex(at, trace);
                    put_hex(&mut at[16..], mix(trace));
                }
                Patch::SpanHex => put_hex(at, span),
                Patch::ParentHex => put_hex(at, span_id(base, record - 1)),
                Patch::TraceBytes => {
                    at[..8].copy_from_slice(&trace.to_be_bytes());
                    at[8..16].copy_from_slice(&mix(trace).to_be_bytes());
                }
                Patch::SpanBytes => at[..8].copy_from_slice(&span.to_be_bytes()),
                Patch::ParentBytes => {
                    let before = span_id(base, record - 1);
                    at[..8].copy_from_slice(&before.to_be_bytes());
                }
                Patch::TimeText => {
                    at[..19].copy_from_slice(second);
                    at[19] = b'.';
                    put_digits(&mut at[20..26], micros);
                }
                Patch::TimeDigits => put_digits(&mut at[..19], start_ns),
                Patch::EndDigits => put_digits(&mut at[..19], start_ns + duration_ns),
                Patch::StartFixed => at[..8].copy_from_slice(&start_ns.to_le_bytes()),
                Patch::EndFixed => at[..8].copy_from_slice(&(start_ns + duration_ns).to_le_bytes()),
                Patch::Duration => put_digits(&mut at[..7], duration_ns),
            }
        }
        bytes
    }

    /// Adds what stays.
    pub fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Adds what is patched.
    pub fn slot(&mut self, record: u64, patch: Patch, width: usize) {
        self.slots.push((self.bytes.len(), record, patch));
        self.bytes.resize(self.bytes.len() + width, b'0');
    }

    /// Takes bytes that hold `marks` for each record, in this order, where they are patched.
    pub fn take_marked<'m>(&mut self, bytes: Vec<u8>, marks: impl Fn(u64) -> &'m [(&'m [u8], Patch)]) {
        self.bytes = bytes;
        let mut from = 0;
        for record in 0..self.records {
            for (mark, patch) in marks(record) {
                let at = memchr::memmem::find(&self.bytes[from..], mark)
                    .expect("each record was written with its marks");
                self.slots.push((from + at, record, *patch));
                from += at + mark.len();
            }
        }
    }
}

/// The id of a record's span; never zero, which would be no id.
fn span_id(base: u64, record: u64) -> u64 {
    mix(base.wrapping_add(record.wrapping_mul(0x9e37_79b9_7f4a_7c15))) | 1
}

fn put_digits(at: &mut [u8], mut number: u64) {
    for digit in at.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn put_hex(at: &mut [u8], number: u64) {
    for (index, digit) in at[..16].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * index) & 15) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::otlp;
    use crate::client::protobuf::{Reader, Wire};

    const NOW_NS: i64 = 1_767_225_600_999_999_999;

    /// The sizes that the goals' figures were taken with.
    #[test]
    fn records_have_the_size_of_the_figures() {
        for (load, expected) in [(Load::Ndjson, 391.0), (Load::Otlp, 392.0), (Load::Lines, 308.0)] {
            let size = load.body(1_000, 1).fill(0, NOW_NS).len() as f64 / 1_000.0;
            assert!((size / expected - 1.0f64).abs() < 0.03, "{load:?}: {size} bytes a record");
        }
    }

    #[test]
    fn events_have_twenty_fields_and_fresh_ids() {
        let body = Load::Ndjson.body(40, 1);
        let mut seen = std::collections::HashSet::new();
        for number in 0..3 {
            for line in String::from_utf8(body.fill(number, NOW_NS)).expect("text").lines() {
                let event: serde_json::Value = serde_json::from_str(line).expect("own JSON");
                assert_eq!(event.as_object().map(serde_json::Map::len), Some(20));
                assert!(
                    event["time"].as_str().expect("text").starts_with("2026-01-01T00:00:00.9999"),
                    "{line}"
                );
                assert!(seen.insert(event["span_id"].to_string()), "{line}");
                assert_eq!(event["duration_ns"].as_u64().map(|ns| ns / 1_000_000 > 0), Some(true));
            }
        }
    }

    #[test]
    fn lines_have_ten_tags_and_eight_fields() {
        let text = String::from_utf8(Load::Lines.body(5, 1).fill(9, NOW_NS)).expect("text");
        for line in text.lines() {
            let parts: Vec<&str> = line.splitn(3, ' ').collect();
            assert_eq!(parts[0].matches('=').count(), 10, "{line}");
            assert_eq!(parts[1].matches('=').count(), 8, "{line}");
            assert!(parts[2].starts_with("17672256009999"), "{line}");
        }
    }

    #[test]
    fn spans_in_json_are_those_in_protobuf() {
        let text = Load::OtlpJson.body(21, 1).fill(3, NOW_NS);
        let request: serde_json::Value = serde_json::from_slice(&text).expect("own JSON");
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans");
        assert_eq!(spans.len(), 21);
        for (record, span) in spans.iter().enumerate() {
            let before = record.checked_sub(1).filter(|_| record % 20 != 0);
            assert_eq!(span.get("parentSpanId"), before.map(|before| &spans[before]["spanId"]));
            let time =
                |name: &str| span[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("time");
            assert!(time("endTimeUnixNano") > time("startTimeUnixNano"));
            assert_eq!(span["attributes"].as_array().map(Vec::len), Some(10));
        }
        assert_ne!(spans[0]["traceId"], spans[20]["traceId"]);
    }

    #[test]
    fn logs_and_audit_records_have_fresh_times() {
        let logs = Load::OtlpLogs.body(5, 1).fill(1, NOW_NS);
        assert_eq!(otlp::record_count(&logs), Some(5));
        assert!(memchr::memmem::find(&logs, &[0xf4; 8]).is_none(), "a mark was left");
        for line in String::from_utf8(Load::Audit.body(5, 1).fill(1, NOW_NS)).expect("text").lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("own JSON");
            assert!(record["time"].as_str().expect("text").starts_with("2026-01-01T00:00:00.9999"), "{line}");
            for name in ["actor_type", "actor_id", "action", "resource_type"] {
                assert!(record[name].is_string(), "{line}");
            }
        }
    }

    #[test]
    fn spans_of_a_trace_hang_together() {
        let bytes = Load::Otlp.body(45, 1).fill(3, NOW_NS);
        assert_eq!(otlp::record_count(&bytes), Some(45));
        let field = |message: &[u8], wanted: u32| {
            Reader::new(message).find_map(|(number, wire)| match wire {
                Wire::Bytes(bytes) if number == wanted => Some(bytes.to_vec()),
                Wire::Fixed64(value) if number == wanted => Some(value.to_le_bytes().to_vec()),
                _ => None,
            })
        };
        let group = field(&bytes, 1).expect("a group");
        let scope = field(&group, 2).expect("a scope");
        let spans: Vec<&[u8]> = Reader::new(&scope)
            .filter_map(|(number, wire)| match wire {
                Wire::Bytes(bytes) if number == otlp::RECORD => Some(bytes),
                _ => None,
            })
            .collect();
        let mut traces = std::collections::HashSet::new();
        for (record, span) in spans.iter().enumerate() {
            traces.insert(field(span, 1));
            match record % 20 {
                0 => assert_eq!(field(span, 4), None),
                _ => assert_eq!(field(span, 4), field(spans[record - 1], 2), "span {record}"),
            }
            assert!(field(span, 7) != field(span, 8));
        }
        assert_eq!(traces.len(), 3);
    }
}
