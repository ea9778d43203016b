//! What the load's records hold. The sizes are those of the figures (`body`).

use super::body::{Body, Patch, SPANS_PER_TRACE};
use crate::cli::demo::random::Random;
use crate::client::otlp::{self, Attributes, LogRecord, Span, Value};
use crate::client::protobuf::Writer;

const SERVICES: &[&str] = &["checkout", "frontend", "payment", "shipping", "catalog", "currency"];
const REGIONS: &[&str] = &["eu-central", "us-east", "ap-south"];
const METHODS: &[&str] = &["GET", "POST", "PUT"];
const ROUTES: &[&str] = &["cart", "orders", "product", "search"];

/// One event, as a line.
pub fn event(body: &mut Body, record: u64, random: &mut Random) {
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

/// One line of line protocol.
pub fn line(body: &mut Body, record: u64, random: &mut Random) {
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

/// One audit record, as a line.
pub fn audit(body: &mut Body, record: u64, random: &mut Random) {
    let route = *random.pick(ROUTES);
    body.text("{\"time\":\"");
    body.slot(record, Patch::TimeText, 26);
    body.text(&format!(
        "Z\",\"source\":\"{}\",\"actor_type\":\"user\",\"actor_id\":\"u{:05}\",\"action\":\"{}\",\
         \"resource_type\":\"{route}\",\"resource_id\":\"{route}-{:06}\",\"before_state\":{{\"total\":{}}},\
         \"after_state\":{{\"total\":{}}},\"trace_id\":\"",
        random.pick(SERVICES),
        random.below(20_000),
        random.pick(&["create", "update", "approve", "delete"]),
        random.below(200_000),
        random.below(500),
        random.below(500),
    ));
    body.slot(record, Patch::TraceHex, 32);
    body.text(&format!("\",\"region\":\"{}\",\"version\":\"1.42\"}}\n", random.pick(REGIONS)));
}

/// Stand-ins that occur nowhere else in a record: they are looked for in the written bytes.
const TRACE_MARK: [u8; 16] = [0xf1; 16];
const SPAN_MARK: [u8; 8] = [0xf2; 8];
const PARENT_MARK: [u8; 8] = [0xf3; 8];
const START_MARK: u64 = u64::from_le_bytes([0xf4; 8]);
const END_MARK: u64 = u64::from_le_bytes([0xf5; 8]);

const MARKS_OF_ROOT: &[(&[u8], Patch)] = &[
    (&TRACE_MARK, Patch::TraceBytes),
    (&SPAN_MARK, Patch::SpanBytes),
    (&START_MARK.to_le_bytes(), Patch::StartFixed),
    (&END_MARK.to_le_bytes(), Patch::EndFixed),
];
const MARKS_OF_CHILD: &[(&[u8], Patch)] = &[
    (&TRACE_MARK, Patch::TraceBytes),
    (&SPAN_MARK, Patch::SpanBytes),
    (&PARENT_MARK, Patch::ParentBytes),
    (&START_MARK.to_le_bytes(), Patch::StartFixed),
    (&END_MARK.to_le_bytes(), Patch::EndFixed),
];
/// In the order of the message: time, trace, span, time of observation.
const MARKS_OF_LOG: &[(&[u8], Patch)] = &[
    (&START_MARK.to_le_bytes(), Patch::StartFixed),
    (&TRACE_MARK, Patch::TraceBytes),
    (&SPAN_MARK, Patch::SpanBytes),
    (&START_MARK.to_le_bytes(), Patch::StartFixed),
];

fn resource(random: &mut Random) -> Attributes {
    vec![
        ("service.name", (*random.pick(SERVICES)).into()),
        ("service.version", "1.42.0".into()),
        ("host.name", format!("node-{}", 10 + random.below(40)).into()),
        ("cloud.region", (*random.pick(REGIONS)).into()),
    ]
}

fn is_root(record: u64) -> bool {
    record.is_multiple_of(SPANS_PER_TRACE)
}

/// A request of spans in protobuf.
pub fn spans(body: &mut Body, records: u64, random: &mut Random) {
    let mut request = Writer::new();
    otlp::group(&mut request, &resource(random), "bench", |scope| {
        for record in 0..records {
            scope.message(otlp::RECORD, |message| otlp::span(message, &span(record, random)));
        }
    });
    let marks = |record| if is_root(record) { MARKS_OF_ROOT } else { MARKS_OF_CHILD };
    body.take_marked(request.into_bytes(), marks);
}

/// A request of log records in protobuf.
pub fn logs(body: &mut Body, records: u64, random: &mut Random) {
    let mut request = Writer::new();
    otlp::group(&mut request, &resource(random), "bench", |scope| {
        for _ in 0..records {
            let route = *random.pick(ROUTES);
            let failed = random.chance(0.02);
            let record = LogRecord {
                time_ns: START_MARK,
                severity_number: if failed { 17 } else { 9 },
                severity_text: if failed { "ERROR" } else { "INFO" },
                body: format!("{} /{route} answered in {} ms", random.pick(METHODS), random.below(900)),
                attributes: vec![
                    ("http.route", format!("/{route}/{{id}}").into()),
                    ("http.response.status_code", Value::Int(if failed { 500 } else { 200 })),
                    ("enduser.id", format!("u{:05}", random.below(20_000)).into()),
                    ("code.function.name", format!("shop.{route}.handle").into()),
                    ("thread.id", Value::Int(random.below(16).cast_signed())),
                ],
                trace: Some((TRACE_MARK, SPAN_MARK)),
            };
            scope.message(otlp::RECORD, |message| otlp::log_record(message, &record));
        }
    });
    body.take_marked(request.into_bytes(), |_| MARKS_OF_LOG);
}

/// A request of the same spans in JSON.
pub fn spans_json(body: &mut Body, records: u64, random: &mut Random) {
    body.text("{\"resourceSpans\":[{\"resource\":{\"attributes\":");
    attributes_json(body, &resource(random));
    body.text("},\"scopeSpans\":[{\"scope\":{\"name\":\"bench\"},\"spans\":[");
    for record in 0..records {
        let span = span(record, random);
        body.text(if record == 0 { "{\"traceId\":\"" } else { ",{\"traceId\":\"" });
        body.slot(record, Patch::TraceHex, 32);
        body.text("\",\"spanId\":\"");
        body.slot(record, Patch::SpanHex, 16);
        if !is_root(record) {
            body.text("\",\"parentSpanId\":\"");
            body.slot(record, Patch::ParentHex, 16);
        }
        body.text(&format!(
            "\",\"flags\":1,\"name\":\"{}\",\"kind\":{},\"startTimeUnixNano\":\"",
            span.name, span.kind
        ));
        body.slot(record, Patch::TimeDigits, 19);
        body.text("\",\"endTimeUnixNano\":\"");
        body.slot(record, Patch::EndDigits, 19);
        body.text("\",\"attributes\":");
        attributes_json(body, &span.attributes);
        match span.error {
            Some(message) => body.text(&format!(",\"status\":{{\"message\":\"{message}\",\"code\":2}}}}")),
            None => body.text(",\"status\":{}}"),
        }
    }
    body.text("]}]}]}");
}

fn attributes_json(body: &mut Body, attributes: &Attributes) {
    for (index, (key, value)) in attributes.iter().enumerate() {
        let value = match value {
            Value::Text(text) => serde_json::json!({ "stringValue": text }),
            // 64 bits go as text in OTLP/JSON.
            Value::Int(int) => serde_json::json!({ "intValue": int.to_string() }),
            Value::Double(double) => serde_json::json!({ "doubleValue": double }),
            Value::Bool(bool) => serde_json::json!({ "boolValue": bool }),
        };
        body.text(if index == 0 { "[" } else { "," });
        body.text(&serde_json::json!({ "key": key, "value": value }).to_string());
    }
    body.text("]");
}

fn span(record: u64, random: &mut Random) -> Span {
    let route = *random.pick(ROUTES);
    let is_root = is_root(record);
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
