//! Table C: OTLP, protobuf and JSON.

use super::{check, is, report, send};
use crate::harness::Server;

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const PROTOBUF: [(&str, &str); 1] = [("Content-Type", "application/x-protobuf")];

fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = payload.len();
    while length >= 0x80 {
        bytes.push((length as u8 & 0x7f) | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(payload);
    bytes
}

fn fixed64(number: u8, value: u64) -> Vec<u8> {
    [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
}

fn span(trace_id: &[u8], span_id: &[u8], more: &[u8]) -> Vec<u8> {
    let times = [fixed64(7, 1_700_000_000_000_000_000), fixed64(8, 1_700_000_000_000_001_000)].concat();
    let name = field(5, b"n");
    field(2, &[field(1, trace_id), field(2, span_id), name, times, more.to_vec()].concat())
}

fn body(spans: &[Vec<u8>]) -> Vec<u8> {
    field(1, &field(2, &spans.concat()))
}

fn attribute(key: &[u8], value: &[u8]) -> Vec<u8> {
    field(9, &[field(1, key), field(2, value)].concat())
}

#[test]
fn c_protobuf() {
    let server = Server::start();
    let mut failures = Vec::new();
    let mut stored = 0;
    let good = || span(&[1; 16], &[1; 8], b"");
    let mut deep = field(1, b"x");
    for _ in 0..65 {
        deep = field(5, &field(1, &deep));
    }
    let mut very_deep = field(1, b"x");
    for _ in 0..3_000 {
        very_deep = field(5, &field(1, &very_deep));
    }
    let future = [fixed64(7, 4_000_000_000_000_000_000), fixed64(8, 4_000_000_000_000_001_000)].concat();
    for (id, bad) in [
        ("C6", span(&[1; 16], &[2; 8], &attribute(b"k", &deep))),
        ("C12 15", span(&[1; 15], &[2; 8], b"")),
        ("C12 17", span(&[1; 17], &[2; 8], b"")),
        ("C13 trace", span(&[0; 16], &[2; 8], b"")),
        ("C13 span", span(&[1; 16], &[0; 8], b"")),
        ("C14", span(&[1; 16], b"", b"")),
        ("C18", span(&[1; 16], &[2; 8], &future)),
        ("C24 empty", span(&[1; 16], &[2; 8], &attribute(b"", &field(1, b"v")))),
        ("C24 long", span(&[1; 16], &[2; 8], &attribute(&vec![b'k'; 64 << 10], &field(1, b"v")))),
        ("C26", span(&[1; 16], &[2; 8], &attribute(b"k", &field(1, &vec![b'v'; 2 << 20])))),
    ] {
        // PS(1): the field number of rejected_spans, 1, as a varint in the partial success.
        let response = send(&server, "/v1/traces", &PROTOBUF, &body(&[good(), bad.clone()]));
        check(id, &response, &is(200, ""), &mut failures);
        if !response.body.windows(2).any(|window| window == [0x08, 0x01]) {
            failures.push(format!("{id}: no partial success of 1 in {:?}", response.body));
        }
        stored += 1;
        check(
            &format!("{id} alone (C39)"),
            &send(&server, "/v1/traces", &PROTOBUF, &body(&[bad])),
            &is(400, ""),
            &mut failures,
        );
    }
    for (id, bytes, expected, more) in [
        ("C2", vec![0xff; 50], is(400, ""), 0),
        ("C3", body(&[good()])[..20].to_vec(), is(400, ""), 0),
        ("C4", [body(&[good()]), field(15, b"unknown")].concat(), is(200, ""), 1),
        ("C5", vec![1 << 3, 5], is(400, ""), 0),
        ("C7", body(&[span(&[1; 16], &[2; 8], &attribute(b"k", &very_deep))]), is(400, ""), 0),
        ("C9 varint", [vec![0x0a], vec![0xff; 10], vec![1]].concat(), is(400, ""), 0),
        ("C9 zero", vec![0x02, 0x00], is(400, ""), 0),
        ("C10", vec![0x0a, 0x80, 0x80, 0x80, 0x80, 0x08, 1, 2, 3, 4], is(400, ""), 0),
        ("C11", body(&[span(&[1; 16], &[2; 8], &field(5, b"\xff"))]), is(400, ""), 0),
        ("C15", body(&[span(&[1; 16], &[2; 8], &fixed64(8, 5))]), is(200, ""), 1),
        ("C16", body(&[span(&[1; 16], &[2; 8], &[fixed64(7, 0), fixed64(8, 0)].concat())]), is(200, ""), 1),
        (
            "C38",
            body(&[good(), good(), good(), span(&[0; 16], &[1; 8], b""), span(&[0; 16], &[1; 8], b"")]),
            is(200, ""),
            3,
        ),
        ("empty", Vec::new(), is(200, ""), 0),
    ] {
        let response = send(&server, "/v1/traces", &PROTOBUF, &bytes);
        check(id, &response, &expected, &mut failures);
        if response.header("content-type") != Some("application/x-protobuf") {
            failures.push(format!("{id}: answered as {:?}", response.header("content-type")));
        }
        stored += more;
    }
    let response = send(&server, "/v1/logs", &PROTOBUF, &body(&[good()]));
    if !matches!(response.status, 200 | 400) {
        failures.push(format!("C37: {}", response.status));
    }
    assert_eq!(server.count("SELECT count(*) FROM spans"), stored, "good neighbours are stored, no other");
    report(&failures);
}

fn json_span(more: &str) -> String {
    format!(
        "{{\"traceId\":\"{}\",\"spanId\":\"{}\",\"name\":\"n\",\"startTimeUnixNano\":\"1700000000000000000\",\"endTimeUnixNano\":\"1700000000000001000\"{more}}}",
        "ab".repeat(16),
        "cd".repeat(8)
    )
}

fn json_body(spans: &[String]) -> String {
    format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}", spans.join(","))
}

#[test]
fn c_json() {
    let server = Server::start();
    let mut failures = Vec::new();
    let attribute =
        |value: &str| json_span(&format!(",\"attributes\":[{{\"key\":\"k\",\"value\":{value}}}]"));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let mut stored = 0;
    for (id, spans, expected, more) in [
        ("C28", json_span(",\"kind\":\"SPAN_KIND_SERVER\""), is(400, "message"), 0),
        ("C31 text", attribute("{\"intValue\":\"12\"}"), is(200, ""), 1),
        ("C31 1.5", attribute("{\"intValue\":1.5}"), is(400, "message"), 0),
        ("C31 1e3", attribute("{\"intValue\":1e3}"), is(400, "message"), 0),
        ("C31 2^63", attribute("{\"intValue\":\"9223372036854775808\"}"), is(400, "message"), 0),
        ("C33", attribute("{\"stringValue\":\"\\ud800\"}"), is(400, "message"), 0),
        ("C34", json_span(",\"name\":\"again\""), is(400, "message"), 0),
        ("C35", json_span(&format!(",\"x\":{deep}")), is(400, "message"), 0),
        (
            "C25",
            json_span(
                ",\"attributes\":[{\"key\":\"k\",\"value\":{\"intValue\":1}},{\"key\":\"k\",\"value\":{\"intValue\":2}}]",
            ),
            is(200, "errorMessage"),
            1,
        ),
        ("unknown", json_span(",\"somethingNew\":{\"a\":[1]}"), is(200, "{}"), 1),
    ] {
        check(
            id,
            &send(&server, "/v1/traces", &JSON, json_body(&[spans]).as_bytes()),
            &expected,
            &mut failures,
        );
        stored += more;
    }
    let base64 = json_span("").replace(&"ab".repeat(16), "q6urq6urq6urq6urq6urqw==");
    let response = send(&server, "/v1/traces", &JSON, json_body(&[json_span(""), base64]).as_bytes());
    check("C30", &response, &is(200, "\"rejectedSpans\":\"1\""), &mut failures);
    let snake = "{\"resource_spans\":[{\"scope_spans\":[{\"spans\":[]}]}]}";
    check(
        "C29",
        &send(&server, "/v1/traces", &JSON, snake.as_bytes()),
        &is(200, "errorMessage"),
        &mut failures,
    );
    check("not JSON", &send(&server, "/v1/traces", &JSON, b"{"), &is(400, "message"), &mut failures);
    assert_eq!(server.count("SELECT count(*) FROM spans"), stored + 1);
    report(&failures);
}
