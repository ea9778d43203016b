//! Request bodies for the load: made once, then copied and patched in place, so that making a request
//! costs a copy and a few stores a record and the generator stays out of the server's way.
//!
//! A record's ids, time and duration change with each request; the rest repeats every few requests. The
//! sizes are those of the figures in the goals: events of about 391 bytes and 20 fields, spans of about
//! 392 bytes and 10 attributes with 20 spans a trace, lines of about 308 bytes with 10 tags and 8 fields.

use crate::cli::demo::random::{Random, mix};
use crate::client::otlp::{self, Span, Value};
use crate::client::protobuf::Writer;

/// What the load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// OTLP/HTTP protobuf spans
    Otlp,
    /// NDJSON events
    Ndjson,
    /// Line protocol
    Lines,
}

/// Spans of one trace.
const SPANS_PER_TRACE: u64 = 20;
/// Bodies that take turns, so that what repeats is not what the last request held.
pub const VARIANTS: usize = 8;

/// What is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patch {
    /// 32 hex digits of the trace.
    TraceHex,
    /// 16 hex digits of the span.
    SpanHex,
    /// 16 bytes of the trace.
    TraceBytes,
    /// 8 bytes of the span.
    SpanBytes,
    /// 8 bytes of the span before it in its trace.
    ParentBytes,
    /// `2026-01-02T03:04:05.123456`.
    TimeText,
    /// 19 digits of nanoseconds.
    TimeDigits,
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
            Self::Otlp => "/v1/traces",
            Self::Ndjson => "/api/v1/events",
            Self::Lines => "/api/v3/write_lp?precision=ns",
        }
    }

    /// Returns its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Otlp => "application/x-protobuf",
            Self::Ndjson => "application/x-ndjson",
            Self::Lines => "text/plain; charset=utf-8",
        }
    }

    /// Returns the records of a request where the user does not say: as the figures were taken.
    pub fn batch(self) -> u32 {
        match self {
            Self::Otlp | Self::Ndjson => 1_000,
            Self::Lines => 5_000,
        }
    }

    /// Makes one body of `records`, told by `variant`.
    pub fn body(self, records: u64, variant: u64) -> Body {
        let mut body = Body { bytes: Vec::new(), slots: Vec::new(), records };
        let mut random = Random::new(variant);
        match self {
            Self::Ndjson => (0..records).for_each(|record| event(&mut body, record, &mut random)),
            Self::Lines => (0..records).for_each(|record| line(&mut body, record, &mut random)),
            Self::Otlp => spans(&mut body, records, &mut random),
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
                Patch::StartFixed => at[..8].copy_from_slice(&start_ns.to_le_bytes()),
                Patch::EndFixed => at[..8].copy_from_slice(&(start_ns + duration_ns).to_le_bytes()),
                Patch::Duration => put_digits(&mut at[..7], duration_ns),
            }
        }
        bytes
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn slot(&mut self, record: u64, patch: Patch, width: usize) {
        self.slots.push((self.bytes.len(), record, patch));
        self.bytes.resize(self.bytes.len() + width, b'0');
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

const SERVICES: &[&str] = &["checkout", "frontend", "payment", "shipping", "catalog", "currency"];
const REGIONS: &[&str] = &["eu-central", "us-east", "ap-south"];
const METHODS: &[&str] = &["GET", "POST", "PUT"];
const ROUTES: &[&str] = &["cart", "orders", "product", "search"];

fn event(body: &mut Body, record: u64, random: &mut Random) {
    let route = *random.pick(ROUTES);
    let method = *random.pick(METHODS);
    let status = if random.chance(0.02) { 500 } else { 200 };
    body.text("{\"time\":\"");
    body.slot(record, Patch::TimeText, 26);
    body.text(&format!(
        "Z\",\"source\":\"{}\",\"event_type\":\"http\",\"severity\":\"{}\",\"message\":\"{method} /{route}\",\
         \"trace_id\":\"",
        random.pick(SERVICES),
        if status == 500 { "error" } else { "info" },
    ));
    body.slot(record, Patch::TraceHex, 32);
    body.text("\",\"span_id\":\"");
    body.slot(record, Patch::SpanHex, 16);
    body.text("\",\"duration_ns\":");
    body.slot(record, Patch::Duration, 7);
    body.text(&format!(
        ",\"host\":\"node-{}\",\"region\":\"{}\",\"method\":\"{method}\",\"path\":\"/{route}\",\
         \"status\":{status},\"bytes\":{},\"user\":\"u{:05}\",\"version\":\"1.42\",\
         \"az\":\"{}\",\"cached\":{},\"tries\":{},\"cpu\":{:.2}}}\n",
        10 + random.below(40),
        random.pick(REGIONS),
        1_000 + random.below(90_000),
        random.below(20_000),
        random.pick(&["a", "b", "c"]),
        random.chance(0.7),
        random.below(3),
        random.unit() * 50.0,
    ));
}

fn line(body: &mut Body, record: u64, random: &mut Random) {
    let status = if random.chance(0.02) { 500 } else { 200 };
    body.text(&format!(
        "http_requests,source={},host=node-{},region={},zone={},method={},route={},status={status},\
         version=1.42.0,env=production,cluster=main ",
        random.pick(SERVICES),
        10 + random.below(40),
        random.pick(REGIONS),
        random.pick(&["a", "b", "c"]),
        random.pick(METHODS),
        random.pick(ROUTES),
    ));
    body.text("duration_ns=");
    body.slot(record, Patch::Duration, 7);
    body.text(&format!(
        "i,bytes_in={}i,bytes_out={}i,cpu_percent={:.3},memory_mib={:.2},queue_length={}i,\
         cached={},user_agent=\"{}\" ",
        100 + random.below(900),
        1_000 + random.below(90_000),
        random.unit() * 100.0,
        100.0 + random.unit() * 400.0,
        random.below(50),
        random.chance(0.7),
        random.pick(&["curl/8.5.0", "Mozilla/5.0", "okhttp/4.12"]),
    ));
    body.slot(record, Patch::TimeDigits, 19);
    body.text("\n");
}

/// Stand-ins that occur nowhere else in a span: they are looked for in the written bytes.
const TRACE_MARK: [u8; 16] = [0xf1; 16];
const SPAN_MARK: [u8; 8] = [0xf2; 8];
const PARENT_MARK: [u8; 8] = [0xf3; 8];
const START_MARK: u64 = u64::from_le_bytes([0xf4; 8]);
const END_MARK: u64 = u64::from_le_bytes([0xf5; 8]);

fn spans(body: &mut Body, records: u64, random: &mut Random) {
    let service = *random.pick(SERVICES);
    let resource = vec![
        ("service.name", Value::from(service)),
        ("service.version", "1.42.0".into()),
        ("host.name", format!("node-{}", 10 + random.below(40)).into()),
        ("cloud.region", (*random.pick(REGIONS)).into()),
    ];
    let mut request = Writer::new();
    otlp::group(&mut request, &resource, "bench", |scope| {
        for record in 0..records {
            scope.message(otlp::RECORD, |message| otlp::span(message, &span(record, random)));
        }
    });
    body.bytes = request.into_bytes();
    let mut from = 0;
    for record in 0..records {
        let is_root = record % SPANS_PER_TRACE == 0;
        let marks: [(&[u8], Patch); 5] = [
            (&TRACE_MARK, Patch::TraceBytes),
            (&SPAN_MARK, Patch::SpanBytes),
            (&PARENT_MARK, Patch::ParentBytes),
            (&START_MARK.to_le_bytes(), Patch::StartFixed),
            (&END_MARK.to_le_bytes(), Patch::EndFixed),
        ];
        for (mark, patch) in marks.into_iter().filter(|(_, patch)| !is_root || *patch != Patch::ParentBytes) {
            let at = memchr::memmem::find(&body.bytes[from..], mark)
                .expect("each span was written with its marks");
            body.slots.push((from + at, record, patch));
            from += at + mark.len();
        }
    }
}

fn span(record: u64, random: &mut Random) -> Span {
    let route = *random.pick(ROUTES);
    let is_root = record.is_multiple_of(SPANS_PER_TRACE);
    let failed = random.chance(0.02);
    Span {
        trace_id: TRACE_MARK,
        span_id: SPAN_MARK,
        parent_span_id: (!is_root).then_some(PARENT_MARK),
        name: format!("GET /{route}"),
        kind: if is_root { 2 } else { 3 },
        start_ns: START_MARK,
        end_ns: END_MARK,
        attributes: vec![
            ("http.request.method", (*random.pick(METHODS)).into()),
            ("http.route", format!("/{route}/{{id}}").into()),
            ("http.response.status_code", Value::Int(if failed { 500 } else { 200 })),
            ("http.response.body.size", Value::Int(1_000 + random.below(90_000).cast_signed())),
            ("server.address", format!("{route}.shop.svc.cluster.local").into()),
            ("server.port", Value::Int(8080)),
            ("client.geo.region", (*random.pick(REGIONS)).into()),
            ("enduser.id", format!("u{:05}", random.below(20_000)).into()),
            ("shop.cache.hit", Value::Bool(random.chance(0.7))),
            ("host.cpu.utilization", Value::Double(random.unit())),
        ],
        events: Vec::new(),
        error: failed.then(|| "upstream".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
