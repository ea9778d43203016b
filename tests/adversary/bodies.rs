//! Hostile but valid bodies for every door, told by a seed: what one ordinary key may send.
//!
//! Every kind is a function of [`KINDS`]. What it wants much of is in its name: records, columns, names, dates, depth.

use std::fmt::Write as _;
use std::io::Write as _;

use opentelemetry_proto::tonic::collector::{logs::v1 as logs, trace::v1 as trace};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use prost::Message as _;

use crate::kill::random::{Random, pick};

/// One request's body and where it goes.
#[derive(Clone, Debug)]
pub struct Body {
    pub kind: &'static str,
    pub target: String,
    pub content_type: &'static str,
    pub encoding: Option<&'static str>,
    pub bytes: Vec<u8>,
    /// Its length before it was compressed.
    pub inflated: usize,
}

thread_local! {
    /// Whether every count is all that is allowed.
    static IS_GREEDY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// One body of that kind, of all that is allowed.
pub fn greedy((kind, make): Kind, random: &mut Random) -> Body {
    IS_GREEDY.set(true);
    let body = make(random);
    IS_GREEDY.set(false);
    Body { kind, ..if body.encoding.is_none() { body.gzip() } else { body } }
}

impl Body {
    pub fn new(target: impl Into<String>, content_type: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let (kind, target, inflated) = ("", target.into(), bytes.len());
        Self { kind, target, content_type, encoding: None, bytes, inflated }
    }

    pub fn events(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new("/api/v1/events", "application/x-ndjson", bytes)
    }

    /// The same, compressed.
    pub fn gzip(mut self) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&self.bytes).unwrap();
        (self.bytes, self.encoding) = (encoder.finish().unwrap(), Some("gzip"));
        self
    }

    fn zstd(mut self) -> Self {
        (self.bytes, self.encoding) = (zstd::encode_all(&self.bytes[..], 1).unwrap(), Some("zstd"));
        self
    }
}

/// A kind's name, and what makes one.
pub type Kind = (&'static str, fn(&mut Random) -> Body);

/// Every kind of body.
pub const KINDS: [Kind; 34] = [
    ("tiny records", tiny_records),
    ("an array of tiny records", array_of_tiny_records),
    ("wide rows", wide_rows),
    ("sparse rows", sparse_rows),
    ("distinct keys", distinct_keys),
    ("distinct sources and operations", distinct_series),
    ("distinct dates", distinct_dates),
    ("distinct datasets", distinct_datasets),
    ("deep objects", deep_objects),
    ("long numbers", long_numbers),
    ("escapes", escapes),
    ("escapes within text", escapes_within_text),
    ("long values", long_values),
    ("inflating", inflating),
    ("text that looks personal", personal_text),
    ("odd times", odd_times),
    ("bad lines", bad_lines),
    ("clashing types", clashing_types),
    ("tiny spans", tiny_spans),
    ("spans of distinct names", spans_of_distinct_names),
    ("wide spans", wide_spans),
    ("spans of many links", spans_of_many_links),
    ("distinct resources", distinct_resources),
    ("tiny logs", tiny_logs),
    ("deep log bodies", deep_log_bodies),
    ("wide logs", wide_logs),
    ("spans as text", spans_as_text),
    ("logs as text", logs_as_text),
    ("tiny lines", tiny_lines),
    ("wide lines", wide_lines),
    ("distinct measurements", distinct_measurements),
    ("audit records", audit_records),
    ("distinct actors", distinct_actors),
    ("one record", one_record),
];

/// One body of any kind, now and then compressed.
pub fn body(random: &mut Random) -> Body {
    let (kind, make) = KINDS[random.below(KINDS.len() as u64) as usize];
    let mut body = make(random);
    body.kind = kind;
    if body.encoding.is_none() {
        body = match random.below(4) {
            0 => body.gzip(),
            1 => body.zstd(),
            _ => body,
        };
    }
    body
}

/// A count that is often small and sometimes all that is allowed.
fn many(random: &mut Random, max: u64) -> u64 {
    if IS_GREEDY.get() {
        return max;
    }
    if random.once_in(6) { max } else { (max as f64).powf(random.unit()) as u64 }.clamp(1, max)
}

fn word(random: &mut Random) -> String {
    format!("{:x}", random.next())
}

fn lines(count: u64, mut one: impl FnMut(u64) -> String) -> Vec<u8> {
    let mut text = String::new();
    for at in 0..count {
        text += &one(at);
        text.push('\n');
    }
    text.into_bytes()
}

fn tiny_records(random: &mut Random) -> Body {
    let count = many(random, 100_000);
    Body::events("{}\n".repeat(count as usize))
}

fn array_of_tiny_records(random: &mut Random) -> Body {
    let count = many(random, 100_000) as usize;
    let text = format!("[{}{{}}]", "{},".repeat(count - 1));
    Body::new("/api/v1/events", "application/json", text)
}

/// A thousand columns in each of a few rows, their names new each time.
fn wide_rows(random: &mut Random) -> Body {
    let (rows, columns, salt) = (many(random, 200), many(random, 1_000), word(random));
    Body::events(lines(rows, |row| {
        let fields: Vec<String> = (0..columns).map(|at| format!("\"{salt}{at}\":{row}")).collect();
        format!("{{{}}}", fields.join(","))
    }))
}

/// Every column once, then rows that have none of them.
fn sparse_rows(random: &mut Random) -> Body {
    let (columns, rows) = (many(random, 1_000), many(random, 99_000));
    let salt = if random.once_in(2) { "s".to_owned() } else { word(random) };
    let mut text = String::from("{");
    for at in 0..columns {
        let _ = write!(text, "{}\"{salt}{at}\":1", if at == 0 { "" } else { "," });
    }
    text += "}\n";
    text += &"{}\n".repeat(rows as usize);
    Body::events(text).gzip()
}

fn distinct_keys(random: &mut Random) -> Body {
    let (rows, each) = (many(random, 20_000), 1 + random.below(5));
    Body::events(lines(rows, |_| {
        let fields: Vec<String> = (0..each).map(|_| format!("\"{}\":1", word(random))).collect();
        format!("{{{}}}", fields.join(","))
    }))
}

fn distinct_series(random: &mut Random) -> Body {
    let rows = many(random, 20_000);
    let span = *pick(random, &[1, 60, 3_600]);
    Body::events(lines(rows, |at| {
        format!(
            "{{\"source\":\"s{}\",\"event_type\":\"o{}\",\"duration_ms\":{},\"time\":{}}}",
            word(random),
            word(random),
            1 + at % 9_000,
            1_767_225_600 + at % span * 60
        )
    }))
}

fn distinct_dates(random: &mut Random) -> Body {
    let (rows, from) = (many(random, 5_000), random.below(20_000));
    Body::events(lines(rows, |at| format!("{{\"time\":{}}}", (from + at) % 20_000 * 86_400)))
}

fn distinct_datasets(random: &mut Random) -> Body {
    Body::new(format!("/api/v1/events?dataset=d{}", word(random)), "application/x-ndjson", "{\"a\":1}\n")
}

fn deep_objects(random: &mut Random) -> Body {
    let (rows, depth) = (many(random, 2_000), 30 + random.below(40) as usize);
    let (open, close) = *pick(random, &[("{\"a\":", "}"), ("[", "]"), ("{\"payload\":", "}")]);
    Body::events(lines(rows, |_| format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth))))
}

fn long_numbers(random: &mut Random) -> Body {
    let rows = many(random, 1_000);
    Body::events(lines(rows, |_| {
        let digits = "9".repeat(1 + random.below(2_000) as usize);
        match random.below(6) {
            0 => format!("{{\"n\":{digits}}}"),
            1 => format!("{{\"n\":-{digits}.{digits}}}"),
            2 => format!("{{\"n\":1e{}}}", random.below(1_000)),
            3 => format!("{{\"n\":0.{digits}e-{}}}", random.below(400)),
            4 => format!("{{\"duration_ms\":{digits}}}"),
            _ => "{\"n\":-0.0,\"m\":-9223372036854775808,\"o\":18446744073709551615}".into(),
        }
    }))
}

/// Text as JSON writes it: every escape, half of a pair, controls.
fn escapes(random: &mut Random) -> Body {
    let rows = many(random, 5_000);
    let bits = [
        "\\u0000",
        "\\ud83d\\ude00",
        "\\ud800",
        "\\\"",
        "\\\\",
        "\\/",
        "\\n",
        "\\u20AC",
        "€",
        "𝄞",
        "\\u007f",
    ];
    Body::events(lines(rows, |_| {
        let text: String = (0..1 + random.below(40)).map(|_| *pick(random, &bits)).collect();
        format!("{{\"message\":\"{text}\",\"k{text}\":\"{text}\"}}")
    }))
}

/// Text that holds text that looks like JSON, with escapes cut off before characters of several bytes.
fn escapes_within_text(random: &mut Random) -> Body {
    let rows = many(random, 2_000);
    let bits = [
        "\\u00z€abcd",
        "\\u€",
        "\\ud83d\\u€",
        "%u00€",
        "%€",
        "\\x4€",
        "\\",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\\u0041",
        "pässword",
        "4111111111111111",
        "ÿ",
        "日本",
        "\u{200b}",
        "&#x4€;",
        "=?utf-8?q?=€?=",
        "eyJ€",
        "%F0%9F%€",
        "\\U0001f60",
    ];
    Body::events(lines(rows, |_| {
        let text: String = (0..1 + random.below(30)).map(|_| *pick(random, &bits)).collect();
        let text = if random.once_in(2) { format!("{{\"{text}\":\"{text}\"}}") } else { text };
        serde_json::json!({"message": text, "password": text, "n": {"k": text}}).to_string()
    }))
}

fn long_values(random: &mut Random) -> Body {
    let (rows, length) = (many(random, 8), many(random, 1_000_000) as usize);
    let text =
        pick(random, &["a", "ab ", "€", "0", "{", "\\\\", "a@b.c ", "=", "eyJhbGciOi.", "1-"]).repeat(length);
    let cut: String = text.chars().take(length / 3).collect();
    Body::events(lines(rows, |_| format!("{{\"message\":\"{cut}\"}}")))
}

/// As many bytes as a body may inflate to, at a ratio that is allowed.
fn inflating(random: &mut Random) -> Body {
    let megabytes = many(random, 60) as usize;
    let (mut text, noise) = (String::new(), random.below(30) + 1);
    while text.len() < megabytes << 20 {
        // Noise keeps the ratio below its bound.
        let value: String = (0..noise).map(|_| word(random)).collect();
        let _ = writeln!(text, "{{\"m\":\"{value}{}\"}}", " ".repeat(2_000));
    }
    let body = Body::events(text);
    if random.once_in(2) { body.gzip() } else { body.zstd() }
}

fn personal_text(random: &mut Random) -> Body {
    let (rows, length) = (many(random, 500), many(random, 2_000));
    let bits = [
        "a@b.example ",
        "4111111111111111 ",
        "+49 170 1234567 ",
        "DE89370400440532013000 ",
        "password=hunter2 ",
        "Bearer abc ",
        "AKIAIOSFODNN7EXAMPLE ",
        "521-63-0661 ",
        "http://u:p@h/ ",
        "-----BEGIN PRIVATE KEY-----",
        "YUBiLmM= ",
        "%61%40b.c ",
    ];
    Body::events(lines(rows, |_| {
        let text: String = (0..length / 8).map(|_| *pick(random, &bits)).collect();
        serde_json::json!({"message": text, "token": text.len()}).to_string()
    }))
}

fn odd_times(random: &mut Random) -> Body {
    let rows = many(random, 1_000);
    let times = [
        "-9223372036854775808",
        "9223372036854775807",
        "0",
        "-1",
        "\"9999-12-31T23:59:59Z\"",
        "\"0001-01-01T00:00:00Z\"",
        "\"2026-02-30\"",
        "1e300",
        "\"-262144-01-01T00:00:00Z\"",
        "\"\"",
        "null",
        "[]",
        "1.7e18",
        "253402300800",
    ];
    Body::events(lines(rows, |_| format!("{{\"time\":{}}}", pick(random, &times))))
}

fn bad_lines(random: &mut Random) -> Body {
    let rows = many(random, 100_000);
    let line = *pick(random, &["{", "x", "{\"tenant\":\"x\"}", "[]", "{\"a\":}", "\u{1}", "{\"a\":1}}"]);
    Body::events(format!("{line}\n").repeat(rows as usize))
}

fn clashing_types(random: &mut Random) -> Body {
    let rows = many(random, 20_000);
    let values = ["1", "1.5", "\"x\"", "true", "null", "[1]", "{\"a\":1}", "\"1\"", "-1e99"];
    Body::events(lines(rows, |_| {
        format!(
            "{{\"a\":{},\"A\":{},\"b\":{}}}",
            pick(random, &values),
            pick(random, &values),
            pick(random, &values)
        )
    }))
}

fn text(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn traces(spans: Vec<Span>) -> Body {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let group = ResourceSpans { scope_spans, ..ResourceSpans::default() };
    let request = trace::ExportTraceServiceRequest { resource_spans: vec![group] };
    Body::new("/v1/traces", "application/x-protobuf", request.encode_to_vec())
}

fn a_span(random: &mut Random) -> Span {
    let start = 1_767_225_600_000_000_000 + random.below(86_400_000_000_000);
    Span {
        trace_id: [random.next().to_be_bytes(), (random.next() | 1).to_be_bytes()].concat(),
        span_id: (random.next() | 1).to_be_bytes().to_vec(),
        name: "n".into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.below(1 << 40),
        ..Span::default()
    }
}

fn tiny_spans(random: &mut Random) -> Body {
    let count = many(random, 50_000);
    let spans = (0..count).map(|at| Span {
        trace_id: vec![1; 16],
        span_id: (at + 1).to_be_bytes().to_vec(),
        ..Span::default()
    });
    traces(spans.collect())
}

/// Names with ids in them: each is a series of its own for percentiles.
fn spans_of_distinct_names(random: &mut Random) -> Body {
    let count = many(random, 20_000);
    traces(
        (0..count)
            .map(|_| Span { name: format!("GET /orders/{}", word(random)), ..a_span(random) })
            .collect(),
    )
}

fn wide_spans(random: &mut Random) -> Body {
    let (count, columns) = (many(random, 100), many(random, 1_000));
    let salt = word(random);
    let attributes: Vec<KeyValue> =
        (0..columns).map(|at| text(format!("{salt}{at}"), Value::IntValue(1))).collect();
    traces((0..count).map(|_| Span { attributes: attributes.clone(), ..a_span(random) }).collect())
}

fn spans_of_many_links(random: &mut Random) -> Body {
    let (count, each) = (many(random, 20), many(random, 5_000));
    let link = span::Link { trace_id: vec![7; 16], span_id: vec![7; 8], ..span::Link::default() };
    let event = span::Event { name: "e".into(), ..span::Event::default() };
    let spans = (0..count).map(|_| Span {
        links: vec![link.clone(); each as usize],
        events: vec![event.clone(); each as usize],
        ..a_span(random)
    });
    traces(spans.collect())
}

fn distinct_resources(random: &mut Random) -> Body {
    let count = many(random, 10_000);
    let resource_spans = (0..count)
        .map(|_| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name".into(), Value::StringValue(word(random)))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![a_span(random)], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        })
        .collect();
    let request = trace::ExportTraceServiceRequest { resource_spans };
    Body::new("/v1/traces", "application/x-protobuf", request.encode_to_vec())
}

fn log_records(log_records: Vec<LogRecord>) -> Body {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let request = logs::ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }],
    };
    Body::new("/v1/logs", "application/x-protobuf", request.encode_to_vec())
}

/// Two bytes each.
fn tiny_logs(random: &mut Random) -> Body {
    log_records(vec![LogRecord::default(); many(random, 100_000) as usize])
}

fn deep_log_bodies(random: &mut Random) -> Body {
    let (count, depth) = (many(random, 500), random.below(80));
    let mut value = AnyValue { value: Some(Value::IntValue(1)) };
    for level in 0..depth {
        let kind = if level % 2 == 0 {
            Value::ArrayValue(ArrayValue { values: vec![value] })
        } else {
            let pair = KeyValue { key: "a".into(), value: Some(value), ..KeyValue::default() };
            Value::KvlistValue(KeyValueList { values: vec![pair] })
        };
        value = AnyValue { value: Some(kind) };
    }
    log_records(vec![LogRecord { body: Some(value), ..LogRecord::default() }; count as usize])
}

fn wide_logs(random: &mut Random) -> Body {
    let (count, columns) = (many(random, 100), many(random, 1_000));
    let first = LogRecord {
        attributes: (0..columns).map(|at| text(format!("w{at}"), Value::DoubleValue(0.5))).collect(),
        ..LogRecord::default()
    };
    let mut records = vec![LogRecord::default(); count as usize * 100];
    records[0] = first;
    log_records(records)
}

fn spans_as_text(random: &mut Random) -> Body {
    let count = many(random, 5_000);
    let spans: Vec<String> = (0..count)
        .map(|at| {
            format!(
                "{{\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\",\"name\":\"{}\",\"startTimeUnixNano\":\"1767225600000000000\",\
                 \"endTimeUnixNano\":\"1767225600000{:06}\",\"attributes\":[{{\"key\":\"k{}\",\"value\":{{\"intValue\":\"{}\"}}}}]}}",
                random.next() | 1,
                at + 1,
                word(random),
                at % 1_000_000,
                at % 700,
                random.next().cast_signed()
            )
        })
        .collect();
    let text = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}", spans.join(","));
    Body::new("/v1/traces", "application/json", text)
}

fn logs_as_text(random: &mut Random) -> Body {
    let count = many(random, 50_000) as usize;
    let text = format!(
        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}{{}}]}}]}}]}}",
        "{},".repeat(count - 1)
    );
    Body::new("/v1/logs", "application/json", text)
}

fn write(random: &mut Random, bytes: Vec<u8>) -> Body {
    let target =
        *pick(random, &["/write?precision=ns", "/api/v2/write?bucket=b&org=o", "/api/v3/write_lp?db=d"]);
    Body::new(target, "text/plain", bytes)
}

fn tiny_lines(random: &mut Random) -> Body {
    let bytes = lines(many(random, 100_000), |_| "m f=1".into());
    write(random, bytes)
}

fn wide_lines(random: &mut Random) -> Body {
    let (rows, tags, fields, salt) = (many(random, 50), many(random, 400), many(random, 400), word(random));
    let bytes = lines(rows, |row| {
        let mut line = String::from("m");
        for at in 0..tags {
            let _ = write!(line, ",t{salt}{at}=v{row}");
        }
        for at in 0..fields {
            let _ = write!(line, "{}f{salt}{at}={row}i", if at == 0 { " " } else { "," });
        }
        line
    });
    write(random, bytes)
}

fn distinct_measurements(random: &mut Random) -> Body {
    let bytes = lines(many(random, 20_000), |at| {
        format!(
            "m{},service=s{} duration_ms={at},text=\"{}\" {}",
            word(random),
            at % 3_000,
            "x\\\"".repeat(3),
            random.below(1 << 60)
        )
    });
    write(random, bytes)
}

fn audit(rows: Vec<u8>) -> Body {
    Body::new("/api/v1/audit", "application/x-ndjson", rows)
}

fn audit_records(random: &mut Random) -> Body {
    let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
    audit(lines(many(random, 5_000), |at| {
        format!(
            "{{\"actor_type\":\"user\",\"actor_id\":\"u{at}\",\"action\":\"a\",\"resource_type\":\"r\",\"before_state\":{deep},\
             \"after_state\":{deep}}}"
        )
    }))
}

fn distinct_actors(random: &mut Random) -> Body {
    audit(lines(many(random, 20_000), |_| {
        format!(
            "{{\"actor_type\":\"ai\",\"actor_id\":\"{}\",\"action\":\"{}\",\"resource_type\":\"r\",\"reason\":\"x\",\"confidence\":0.5,\
             \"decision_id\":\"{}\"}}",
            word(random),
            word(random),
            word(random)
        )
    }))
}

fn one_record(random: &mut Random) -> Body {
    Body::events(format!(
        "{{\"source\":\"single\",\"n\":{},\"correlation_id\":\"c-{}\"}}\n",
        random.next() >> 12,
        random.below(100)
    ))
}
