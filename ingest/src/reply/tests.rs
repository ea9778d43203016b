use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{Dialect, PARTIAL_WRITE, Refusal, Signal, render, success};
use crate::decode::Decoded;

fn headers(content_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a header value"));
    headers
}

fn decoded(accepted: u32, rejected: usize) -> Decoded {
    let mut decoded = Decoded { accepted, ..Decoded::default() };
    (0..rejected).for_each(|at| decoded.reject(at, Some(at + 1), "missing_field", "a line needs a field"));
    decoded
}

fn json_of(dialect: Dialect, refusal: &Refusal) -> Value {
    let reply = render(dialect, &headers("application/json"), refusal, "c-1");
    assert_eq!(reply.header("x-correlation-id"), Some("c-1"));
    serde_json::from_slice(&reply.body).expect("JSON")
}

#[test]
fn problem_details_hold_exactly_the_members_of_the_contract() {
    let refusal = Refusal::new(400, "tenant_mismatch", "leave it out");
    assert_eq!(
        json_of(Dialect::Problem, &refusal),
        json!({
            "type": "/docs/runbooks/tenant_mismatch", "title": "Bad Request", "status": 400,
            "code": "tenant_mismatch", "detail": "leave it out", "retryable": false, "correlation_id": "c-1",
        })
    );
    let refusal = Refusal::of_records("records_rejected", "all 1 records are bad", decoded(0, 1));
    let problem = json_of(Dialect::Problem, &refusal);
    assert_eq!(problem["rejected_count"], 1);
    assert_eq!(
        problem["rejected"],
        json!([{ "index": 0, "line": 1, "code": "missing_field", "detail": "a line needs a field" }])
    );
    let reply = render(Dialect::Problem, &HeaderMap::new(), &refusal, "c");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let many = json_of(Dialect::Problem, &Refusal::of_records("records_rejected", "", decoded(0, 300)));
    assert_eq!(many["rejected"].as_array().map(Vec::len), Some(100));
    assert_eq!(many["rejected_count"], 300);
}

#[test]
fn influx_speaks_its_three_dialects() {
    let plain = |status| Refusal::new(status, "x", "what is wrong");
    for (status, code) in [
        (400, "invalid"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not found"),
        (413, "request too large"),
        (415, "invalid"),
        (422, "unprocessable entity"),
        (429, "too many requests"),
        (503, "unavailable"),
    ] {
        assert_eq!(json_of(Dialect::InfluxV1, &plain(status)), json!({ "error": "what is wrong" }));
        assert_eq!(
            json_of(Dialect::InfluxV2, &plain(status)),
            json!({ "code": code, "message": "what is wrong" })
        );
        assert_eq!(json_of(Dialect::InfluxV3, &plain(status)), json!({ "error": "what is wrong" }));
    }
    let partial = Refusal::of_records(PARTIAL_WRITE, "1 line is bad", decoded(2, 1));
    let message = "partial write: line 1: missing_field: a line needs a field dropped=1";
    assert_eq!(json_of(Dialect::InfluxV1, &partial), json!({ "error": message }));
    assert_eq!(json_of(Dialect::InfluxV2, &partial), json!({ "code": "invalid", "message": message }));
    assert_eq!(
        json_of(Dialect::InfluxV3, &partial),
        json!({
            "error": "partial write of line protocol occurred",
            "data": [{
                "original_line": "", "line_number": 1,
                "error_message": "missing_field: a line needs a field",
            }],
            "rejected_count": 1,
        })
    );
    let none = Refusal::of_records("records_rejected", "all bad", decoded(0, 1));
    assert_eq!(
        json_of(Dialect::InfluxV1, &none)["error"],
        "unable to parse: line 1: missing_field: a line needs a field dropped=1"
    );
}

#[test]
fn otlp_status_comes_in_the_content_type_of_the_request() {
    let refusal = Refusal::of_records("records_rejected", "all bad", decoded(0, 1));
    let reply = render(Dialect::Otlp(Signal::Logs), &headers("application/x-protobuf"), &refusal, "c");
    assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
    let message = "records_rejected: all bad";
    let head = [&[0x08, 3, 0x12, message.len() as u8], message.as_bytes()].concat();
    assert!(reply.body.starts_with(&head));
    let details = &reply.body[head.len()..];
    assert_eq!((details[0], usize::from(details[1]) + 2), (0x1a, details.len()), "one Any of exact length");
    let reply =
        render(Dialect::Otlp(Signal::Logs), &headers("application/json; charset=utf-8"), &refusal, "c");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(
        serde_json::from_slice::<Value>(&reply.body).expect("JSON"),
        json!({
            "code": 3, "message": message,
            "details": [{
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{
                    "field": "records[0]", "description": "missing_field: a line needs a field",
                }],
            }],
        })
    );
    for (status, code) in [(401, 16), (403, 7), (404, 12), (413, 3), (415, 3), (429, 8), (503, 14)] {
        assert_eq!(json_of(Dialect::Otlp(Signal::Traces), &Refusal::new(status, "x", ""))["code"], code);
    }
}

#[test]
fn headers_belong_to_their_status() {
    let reply = |dialect, refusal: &Refusal| render(dialect, &HeaderMap::new(), refusal, "c");
    let challenges = |dialect| {
        let reply = reply(dialect, &Refusal::new(401, "unauthorized", ""));
        let all = reply.headers.iter().filter(|(name, _)| name == "www-authenticate");
        all.map(|(_, value)| value.to_str().expect("ASCII").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(challenges(Dialect::Problem), ["Bearer"]);
    assert_eq!(challenges(Dialect::InfluxV2), ["Bearer", "Basic realm=\"floodmark\""]);
    let retry = reply(Dialect::Problem, &Refusal::retry(503, "pressure", "", 0));
    assert_eq!(retry.header("retry-after"), Some("1"), "never less than a second");
    assert_eq!(retry.header("connection"), None);
    let draining = reply(Dialect::InfluxV1, &Refusal::retry(503, "draining", "", 1));
    assert_eq!(draining.header("connection"), Some("close"));
    let encoding = reply(Dialect::Problem, &Refusal::new(415, "unsupported_encoding", ""));
    assert_eq!(encoding.header("accept-encoding"), Some("gzip, zstd, deflate, identity"));
}

#[test]
fn successes_are_those_of_their_protocol() {
    let proto = headers("application/x-protobuf");
    let json = headers("application/json");
    let otlp = Dialect::Otlp(Signal::Traces);
    let clean = decoded(3, 0);
    for (dialect, headers, status, body) in [
        (otlp, &proto, 200, &b""[..]),
        (otlp, &json, 200, b"{}"),
        (Dialect::InfluxV1, &json, 204, b""),
        (Dialect::InfluxV2, &json, 204, b""),
        (Dialect::InfluxV3, &json, 204, b""),
        (Dialect::Problem, &json, 200, br#"{"accepted":3,"rejected":[],"rejected_count":0}"#),
    ] {
        let outcome = success(dialect, headers, &clean, false);
        assert_eq!((outcome.status, outcome.body.as_ref()), (status, body), "{dialect:?}");
        assert_eq!(success(dialect, headers, &clean, true).status, 202, "{dialect:?} buffered");
    }
}

/// C15, C38: what is rejected is counted, and warnings come with nothing rejected.
#[test]
fn partial_success_counts_and_warns() {
    let proto = headers("application/x-protobuf");
    let json = headers("application/json");
    let mut some = decoded(3, 2);
    let message = "2 rejected: line 1: missing_field: a line needs a field; \
                   line 2: missing_field: a line needs a field";
    for (signal, key) in [
        (Signal::Traces, "rejectedSpans"),
        (Signal::Logs, "rejectedLogRecords"),
        (Signal::Metrics, "rejectedDataPoints"),
    ] {
        let body = success(Dialect::Otlp(signal), &json, &some, false).body;
        let got: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(got, json!({ "partialSuccess": { key: "2", "errorMessage": message } }));
    }
    let body = success(Dialect::Otlp(Signal::Logs), &proto, &some, false).body;
    let len = message.len() as u8;
    let expected = [&[0x0a, len + 4, 0x08, 2, 0x12, len], message.as_bytes()].concat();
    assert_eq!(body, expected);
    some = Decoded { accepted: 1, warnings: vec!["end_before_start"], ..Decoded::default() };
    let body = success(Dialect::Otlp(Signal::Traces), &json, &some, false).body;
    let got: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(got, json!({ "partialSuccess": { "errorMessage": "warnings: end_before_start" } }));
    let body = success(Dialect::Problem, &json, &some, false).body;
    let got: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(got["warnings"], json!(["end_before_start"]));
}

/// B1: what is wrong is told at bounded length in every dialect, cut between characters.
#[test]
fn a_detail_has_a_length() {
    let long = Refusal::new(400, "x", "\u{e9}".repeat(64 << 10));
    let otlp = Dialect::Otlp(Signal::Logs);
    for dialect in [otlp, Dialect::InfluxV1, Dialect::InfluxV2, Dialect::InfluxV3, Dialect::Problem] {
        let text = json_of(dialect, &long).to_string();
        assert!(text.len() < 4 << 10 && text.contains("\u{e9}\u{e9}"), "{dialect:?}: {} bytes", text.len());
    }
    let proto = render(otlp, &headers("application/x-protobuf"), &long, "c").body;
    assert!(proto.len() < 4 << 10, "{} bytes", proto.len());
}
