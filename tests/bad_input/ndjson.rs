//! Table D: NDJSON, line by line; atomic and audit all or nothing.

use super::{check, is, report, send};
use crate::harness::Server;

const HEADERS: [(&str, &str); 1] = [("Content-Type", "application/x-ndjson")];

#[test]
fn d_rows() {
    let server = Server::start();
    let mut failures = Vec::new();
    let mut stored = 0;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for (id, line, code) in [
        ("D4 array", &b"[]"[..], "not_object"),
        ("D4 number", b"1", "not_object"),
        ("D4 string", b"\"x\"", "not_object"),
        ("D4 null", b"null", "not_object"),
        ("D5", b"{\"a\":", ""),
        ("D6", long.as_bytes(), "line_too_long"),
        ("D7", b"{\"a\":\"\xff\"}", ""),
        ("D7 overlong", b"{\"a\":\"\xc0\x80\"}", ""),
        ("D8", b"{\"a\":\"\x01\"}", ""),
        ("D11", deep.as_bytes(), ""),
        ("D14 1e999", b"{\"a\":1e999}", ""),
        ("D14 -", b"{\"a\":-}", ""),
        ("D14 01", b"{\"a\":01}", ""),
        ("D14 .5", b"{\"a\":.5}", ""),
        ("D16 _seq", b"{\"_seq\":1}", "reserved_field"),
        ("D16 _leaf", b"{\"_leaf\":1}", "reserved_field"),
        ("D16 tenant_id", b"{\"tenant_id\":\"x\"}", "reserved_field"),
        ("D16 tenant", b"{\"tenant\":\"x\"}", "reserved_field"),
        ("D17 date", b"{\"time\":\"2026-02-30T00:00:00Z\"}", ""),
        ("D17 word", b"{\"time\":\"yesterday\"}", ""),
        ("D17 1e20", b"{\"time\":1e20}", ""),
    ] {
        let mut beside = line.to_vec();
        beside.extend_from_slice(b"\n{\"good\":1}\n");
        let response = send(&server, "/api/v1/events", &HEADERS, &beside);
        check(id, &response, &is(200, "\"rejected_count\":1"), &mut failures);
        if !response.text().contains(code) {
            failures.push(format!("{id}: no code {code} in {}", response.text()));
        }
        stored += 1;
        check(
            &format!("{id} alone"),
            &send(&server, "/api/v1/events", &HEADERS, line),
            // A body that is nothing but an array is the wrong route's: D21.
            &is(400, if id == "D4 array" { "array_body" } else { "\"rejected_count\":1" }),
            &mut failures,
        );
        let response = send(&server, "/api/v1/events?atomic=true", &HEADERS, &beside);
        check(&format!("{id} D23"), &response, &is(400, "\"rejected_count\":1"), &mut failures);
    }
    for (id, body, expected, more) in [
        ("D1", b"".to_vec(), is(200, "\"accepted\":0"), 0),
        ("D3", b"{\"a\":1}".to_vec(), is(200, "\"accepted\":1"), 1),
        ("D10", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect(), is(400, "\"code\""), 0),
        ("D17 leap", b"{\"time\":\"2016-12-31T23:59:60Z\"}".to_vec(), is(200, "\"accepted\":1"), 1),
        ("D20", b"{\"message\":\"${jndi:ldap://x}\",\"a\":\"'; DROP TABLE events; --\",\"b\":\"=cmd|\",\"c\":\"\\u001b[31m\\r\\n<script>\"}".to_vec(), is(200, "\"accepted\":1"), 1),
        ("D21", b"[{\"a\":1}]".to_vec(), is(400, "application/json"), 0),
        ("D22", b"{}\n".repeat(1_000_000), is(413, "too_many_records"), 0),
    ] {
        check(id, &send(&server, "/api/v1/events", &HEADERS, &body), &expected, &mut failures);
        stored += more;
    }
    let array = [("Content-Type", "application/json")];
    check(
        "D21 array",
        &send(&server, "/api/v1/events", &array, b"[{\"a\":1},{}]"),
        &is(200, "\"accepted\":2"),
        &mut failures,
    );
    assert_eq!(
        server.count("SELECT count(*) FROM events"),
        stored + 2,
        "good neighbours are stored, no other"
    );
    report(&failures);
}

#[test]
fn audit_is_all_or_nothing() {
    let server = Server::start();
    let mut failures = Vec::new();
    let good = r#"{"actor_type":"user","actor_id":"u","action":"a","resource_type":"r"}"#;
    for (id, line) in [
        ("no actor", r#"{"actor_type":"user","action":"a","resource_type":"r"}"#),
        (
            "ai without reason",
            r#"{"actor_type":"ai","actor_id":"m","action":"a","resource_type":"r","confidence":0.5}"#,
        ),
        (
            "ai without confidence",
            r#"{"actor_type":"ai","actor_id":"m","action":"a","resource_type":"r","reason":"x"}"#,
        ),
        (
            "confidence 1.5",
            r#"{"actor_type":"ai","actor_id":"m","action":"a","resource_type":"r","reason":"x","confidence":1.5}"#,
        ),
        (
            "duplicate key",
            r#"{"actor_type":"user","actor_id":"u","actor_id":"v","action":"a","resource_type":"r"}"#,
        ),
    ] {
        let body = format!("{good}\n{line}\n");
        check(
            id,
            &send(&server, "/api/v1/audit", &HEADERS, body.as_bytes()),
            &is(400, "\"rejected_count\":1"),
            &mut failures,
        );
    }
    let ai = r#"{"actor_type":"ai","actor_id":"m","action":"a","resource_type":"r","reason":"x","confidence":0.75}"#;
    let body = format!("{good}\n{ai}\n");
    check(
        "good",
        &send(&server, "/api/v1/audit", &HEADERS, body.as_bytes()),
        &is(200, "\"accepted\":2"),
        &mut failures,
    );
    assert_eq!(server.count("SELECT count(*) FROM audit"), 2);
    report(&failures);
}
