//! One event all the way through: every protocol in, every read out, over a crash, a restart and a flush.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::json;

use crate::harness::Server;

const PROTOBUF: &str = "application/x-protobuf";
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn trace_request(trace_id: [u8; 16]) -> ExportTraceServiceRequest {
    let span = |id: u8, parent: &[u8], name: &str| Span {
        trace_id: trace_id.to_vec(),
        span_id: vec![id; 8],
        parent_span_id: parent.to_vec(),
        name: name.into(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_123_456_789 + u64::from(id),
        end_time_unix_nano: 1_700_000_000_223_456_790 + u64::from(id),
        attributes: vec![
            pair("text", Any::StringValue("grüße".into())),
            pair("int", Any::IntValue(-7)),
            pair("double", Any::DoubleValue(2.0)),
            pair("bool", Any::BoolValue(true)),
            pair(
                "list",
                Any::ArrayValue(ArrayValue {
                    values: vec![
                        AnyValue { value: Some(Any::IntValue(1)) },
                        AnyValue { value: Some(Any::DoubleValue(1.0)) },
                    ],
                }),
            ),
        ],
        events: vec![Event {
            time_unix_nano: 1_700_000_000_150_000_001,
            name: "cache miss".into(),
            attributes: vec![pair("key", Any::StringValue("k".into()))],
            ..Default::default()
        }],
        links: vec![Link {
            trace_id: vec![9; 16],
            span_id: vec![8; 8],
            attributes: vec![pair("why", Any::StringValue("batch".into()))],
            ..Default::default()
        }],
        status: Some(Status { code: 2, message: "broke".into() }),
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![pair("service.name", Any::StringValue("shop".into()))],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1.2".into(),
                    ..Default::default()
                }),
                spans: vec![span(1, &[], "root"), span(2, &[1; 8], "child")],
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn check_trace(server: &Server, trace_id: &str) {
    let response = server.get(&format!("/api/v1/traces/{trace_id}"));
    assert_eq!(response.status, 200, "{}", response.text());
    let trace = response.json();
    assert_eq!(trace["span_count"], 2);
    assert_eq!(trace["complete"], true);
    let root = &trace["spans"][0];
    assert_eq!(root["name"], "root");
    assert_eq!(root["parent_span_id"], json!(null));
    assert_eq!(root["kind"], "server");
    assert_eq!(root["source"], "shop");
    assert_eq!(root["start_time"], "2023-11-14T22:13:20.123456790Z");
    assert_eq!(root["end_time"], "2023-11-14T22:13:20.223456791Z");
    assert_eq!(root["duration_ns"], 100_000_001);
    assert_eq!(root["status"], json!({"code": "error", "message": "broke"}));
    assert_eq!(
        root["attributes"],
        json!({"text": "grüße", "int": -7, "double": 2.0, "bool": true, "list": [1, 1.0]})
    );
    assert_eq!(root["events"][0]["time"], "2023-11-14T22:13:20.150000001Z");
    assert_eq!(root["events"][0]["name"], "cache miss");
    assert_eq!(root["events"][0]["attributes"], json!({"key": "k"}));
    assert_eq!(root["links"][0]["trace_id"], "09".repeat(16));
    assert_eq!(root["links"][0]["attributes"], json!({"why": "batch"}));
    assert_eq!(root["resource"]["attributes"], json!({"service.name": "shop"}));
    assert_eq!(root["scope"]["name"], "lib");
    assert_eq!(root["scope"]["version"], "1.2");
    assert_eq!(trace["spans"][1]["parent_span_id"], "01".repeat(8));
}

/// Every protocol in and out, from the hot buffer, after `kill -9`, and from the table (A3).
#[test]
fn every_protocol_goes_in_and_comes_out() {
    let mut server = Server::start();
    let proto = trace_request([0xab; 16]);
    let response = server.post("/v1/traces", PROTOBUF, &proto.encode_to_vec());
    assert_eq!((response.status, response.body.len()), (200, 0), "{}", response.text());
    assert_eq!(response.header("content-type"), Some(PROTOBUF));
    let as_json = serde_json::to_vec(&trace_request([0xcd; 16])).unwrap();
    let response = server.post("/v1/traces", JSON, &as_json);
    assert_eq!((response.status, response.text()), (200, "{}".into()));
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord {
                    time_unix_nano: 1_700_000_000_000_000_001,
                    severity_number: 17,
                    body: Some(AnyValue { value: Some(Any::StringValue("it broke".into())) }),
                    trace_id: vec![0xab; 16],
                    span_id: vec![1; 8],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    assert_eq!(server.post("/v1/logs", PROTOBUF, &logs.encode_to_vec()).status, 200);
    let events = b"{\"source\":\"cart\",\"event_type\":\"added\",\"amount\":3,\"nested\":{\"deep\":[1,\"x\"]}}\n{\"amount\":4}\n[]\n";
    let response = server.post("/api/v1/events", NDJSON, events);
    assert_eq!(response.status, 200, "{}", response.text());
    let reply = response.json();
    assert_eq!((&reply["accepted"], &reply["rejected_count"]), (&json!(2), &json!(1)));
    assert_eq!(reply["rejected"][0]["line"], 3);
    assert_eq!(reply["rejected"][0]["code"], "not_object");
    let audit = br#"{"actor_type":"user","actor_id":"u1","action":"delete","resource_type":"order","resource_id":"7"}"#;
    assert_eq!(server.post("/api/v1/audit", JSON, audit).status, 200);
    for route in ["/write?db=x", "/api/v2/write?bucket=x&org=y", "/api/v3/write_lp?db=x"] {
        let response = server.post(route, "text/plain", b"cpu,host=a load=0.5,n=2i 1700000000000000000");
        assert_eq!(response.status, 204, "{route}: {}", response.text());
    }
    for round in ["hot", "after kill -9", "flushed", "after a second kill -9"] {
        check_trace(&server, &"ab".repeat(16));
        check_trace(&server, &"cd".repeat(16));
        assert_eq!(server.count("SELECT count(*) FROM spans"), 4, "{round}");
        assert_eq!(server.count("SELECT count(*) FROM events"), 5, "{round}");
        assert_eq!(server.count("SELECT sum(amount) FROM events"), 7, "{round}");
        assert_eq!(server.count("SELECT sum(n) FROM events WHERE event_type = 'cpu'"), 6, "{round}");
        assert_eq!(server.count("SELECT count(*) FROM audit WHERE action = 'delete'"), 1, "{round}");
        let log = server.get("/api/v1/logs?severity=error").json();
        assert_eq!(log["logs"][0]["body"], "it broke", "{round}");
        let correlation = server.get(&format!("/api/v1/correlations/{}", "ab".repeat(16))).json();
        assert_eq!(correlation["spans"].as_array().unwrap().len(), 2, "{round}");
        assert_eq!(correlation["logs"].as_array().unwrap().len(), 1, "{round}");
        let event = &server.get("/api/v1/events?source=cart").json()["events"][0];
        assert_eq!(event["attributes"], json!({"amount": 3, "nested.deep": [1, "x"]}), "{round}");
        let trail = server.get("/api/v1/audit/traces?user=u1").json();
        assert_eq!(trail["traces"].as_array().unwrap().len(), 1, "{round}");
        let services = server.get("/api/v1/services").json();
        assert!(services["services"].as_array().unwrap().iter().any(|s| s["source"] == "shop"), "{round}");
        match round {
            "hot" => {
                server.kill();
                server.restart();
            }
            "after kill -9" => server.flush(),
            "flushed" => {
                server.kill();
                server.restart();
            }
            _ => assert!(server.terminate().success()),
        }
    }
}

/// F19: a declared key stores once, also over a crash between the first reply and the retry.
#[test]
fn a_retry_with_the_same_key_is_stored_once() {
    let mut server = Server::start();
    let key = [("Idempotency-Key", "batch-1"), ("Content-Type", NDJSON)];
    let send =
        |server: &Server, body: &[u8]| server.send(crate::harness::KEY, "POST", "/api/v1/events", &key, body);
    let first = send(&server, b"{\"n\":1}");
    assert_eq!(first.status, 200);
    assert_eq!(first.header("idempotency-replayed"), None);
    server.kill();
    server.restart();
    let second = send(&server, b"{\"n\":1}");
    assert_eq!((second.status, &second.body), (200, &first.body));
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(send(&server, b"{\"n\":2}").status, 422);
    assert_eq!(server.count("SELECT count(*) FROM events"), 1);
}
