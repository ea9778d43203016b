//! Bodies that look like those of real senders: the same from run to run, varied from record to record.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

/// Time of the first record: 2026-01-02T03:04:05Z. Records follow a millisecond apart.
pub const FIRST_NS: i64 = 1_767_323_045_000_000_000;

const SERVICES: [&str; 8] =
    ["checkout", "cart", "payment", "shipping", "frontend", "catalog", "currency", "email"];
const REGIONS: [&str; 4] = ["eu-west-1", "eu-north-1", "us-east-1", "ap-south-1"];
const ROUTES: [&str; 5] = ["/api/cart", "/api/checkout", "/api/product", "/healthz", "/api/ship"];

/// One request's body.
pub struct Body {
    /// The bytes as decoders get them.
    pub bytes: Vec<u8>,
    /// How many records they hold.
    pub record_count: usize,
}

/// SplitMix64: small, seeded, and good enough to vary text.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[usize::try_from(self.below(words.len() as u64)).expect("an index")]
    }
}

/// Line protocol as an agent sends it: about 308 bytes a line, 10 tags and 8 fields.
pub fn lines(record_count: usize) -> Body {
    let mut random = Random(1);
    let mut text = String::new();
    for record in 0..record_count {
        let time_ns = FIRST_NS + i64::try_from(record).expect("few records") * 1_000_000;
        let random = &mut random;
        writeln!(
            text,
            "http_server,service={service},host=node-{host:02},region={region},env=production,version=2.{minor}.1,\
             route={route},method=GET,status={status},pod={service}-{pod:08x},tenant_tier=gold \
             duration_ms={ms}.{us:03},request_bytes={sent}i,response_bytes={received}i,cpu={cpu},\
             queue_depth={depth}i,retries=0i,cache_hit={hit},peer=\"10.0.{a}.{b}\" {time_ns}",
            service = random.pick(&SERVICES),
            host = random.below(24),
            region = random.pick(&REGIONS),
            minor = random.below(12),
            route = random.pick(&ROUTES),
            status = 200 + random.below(4),
            pod = random.next() as u32,
            ms = random.below(900),
            us = random.below(1_000),
            sent = random.below(60_000),
            received = random.below(200_000),
            cpu = random.below(10_000) as f64 / 10_000.0,
            depth = random.below(64),
            hit = random.below(2) == 1,
            a = random.below(256),
            b = random.below(256),
        )
        .expect("text is written to memory");
    }
    Body { bytes: text.into_bytes(), record_count }
}

/// Events as NDJSON: about 391 bytes a line, 20 fields, half of them in `payload`.
pub fn events(record_count: usize) -> Body {
    let mut random = Random(2);
    let mut text = String::new();
    for record in 0..record_count {
        let at = record % 60_000;
        let random = &mut random;
        writeln!(
            text,
            "{{\"time\":\"2026-01-02T03:{m:02}:{s:02}.{ms:03}Z\",\"source\":\"{source}\",\"event_type\":\"request\",\
             \"severity\":\"info\",\"message\":\"{method} {route} ok\",\"correlation_id\":\"req-{id:08x}\",\
             \"trace_id\":\"{t0:016x}{t1:016x}\",\"span_id\":\"{span:016x}\",\"duration_ms\":{duration}.5,\
             \"payload\":{{\"status\":{status},\"method\":\"{method}\",\"route\":\"{route}\",\"bytes\":{bytes},\
             \"host\":\"n-{host:02}\",\"region\":\"{region}\",\"cpu\":0.{cpu:03},\"hit\":{hit},\"tier\":\"gold\",\
             \"retry\":0,\"build\":\"2.{build}.1\"}}}}",
            m = at / 1_000 / 60,
            s = at / 1_000 % 60,
            ms = at % 1_000,
            source = random.pick(&SERVICES),
            method = random.pick(&["GET", "PUT", "POST"]),
            route = random.pick(&ROUTES),
            id = random.next() as u32,
            // No id is all zero.
            t0 = random.next() | 1,
            t1 = random.next(),
            span = random.next() | 1,
            duration = random.below(900),
            status = 200 + random.below(4),
            bytes = random.below(200_000),
            host = random.below(24),
            region = random.pick(&REGIONS),
            cpu = random.below(1_000),
            hit = random.below(2) == 1,
            build = random.below(12),
        )
        .expect("text is written to memory");
    }
    Body { bytes: text.into_bytes(), record_count }
}

/// Spans as OTLP protobuf: about 392 bytes a span, 10 attributes, 20 spans a trace.
pub fn spans_proto(record_count: usize) -> Body {
    Body { bytes: spans(record_count).encode_to_vec(), record_count }
}

/// The spans of [`spans_proto`] as OTLP/JSON.
pub fn spans_json(record_count: usize) -> Body {
    let bytes = serde_json::to_vec(&spans(record_count)).expect("spans are JSON");
    Body { bytes, record_count }
}

/// One resource a service, as an exporter's batch has it.
fn spans(record_count: usize) -> ExportTraceServiceRequest {
    let mut random = Random(3);
    let mut trace_id = Vec::new();
    let mut parent_span_id = Vec::new();
    let mut all = Vec::with_capacity(record_count);
    for record in 0..record_count {
        if record % 20 == 0 {
            trace_id = [(random.next() | 1).to_be_bytes(), random.next().to_be_bytes()].concat();
            parent_span_id = Vec::new();
        }
        let span_id = (random.next() | 1).to_be_bytes().to_vec();
        let start_ns = FIRST_NS.unsigned_abs() + record as u64 * 1_000_000;
        let method = random.pick(&["GET", "PUT", "POST"]);
        let route = random.pick(&ROUTES);
        all.push(Span {
            trace_id: trace_id.clone(),
            parent_span_id: std::mem::replace(&mut parent_span_id, span_id.clone()),
            span_id,
            flags: 0x101,
            name: format!("{method} {route}"),
            kind: 2,
            start_time_unix_nano: start_ns,
            end_time_unix_nano: start_ns + random.below(900_000_000),
            attributes: vec![
                text("http.request.method", method),
                text("http.route", route),
                int("http.response.status_code", 200 + random.below(4)),
                text("url.scheme", "https"),
                text("server.address", &format!("node-{:02}.internal", random.below(24))),
                int("server.port", 8_443),
                text("network.protocol.version", "1.1"),
                text("client.address", &format!("10.0.{}.{}", random.below(256), random.below(256))),
                text("user_agent.original", "otel-demo/2.1"),
                int("thread.id", random.below(64)),
            ],
            status: Some(Status { message: String::new(), code: 1 }),
            ..Span::default()
        });
    }
    let scope = InstrumentationScope {
        name: "io.opentelemetry.http".to_owned(),
        version: "2.1.0".to_owned(),
        ..InstrumentationScope::default()
    };
    let resource = Resource {
        attributes: vec![text("service.name", "checkout"), text("host.name", "node-07")],
        ..Resource::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: all, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(value.cast_signed()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
