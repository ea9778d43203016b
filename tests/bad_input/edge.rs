//! Tables A and B: credentials, framing, encodings, idempotency.

use std::io::{Read as _, Write as _};

use super::{bomb, check, gzip, is, raw, report, request, resident, send};
use crate::harness::{KEY, Server};

const NDJSON: &str = "application/x-ndjson";

#[test]
fn a_credentials() {
    let server = Server::start();
    let mut failures = Vec::new();
    let wrong_crc = format!("Bearer fm_ing_{}_{}{}", "a".repeat(10), "b".repeat(43), "000000");
    for (id, header) in [
        ("A2 empty", "Bearer"),
        ("A2 two words", "Bearer a b"),
        ("A2 scheme", "Digest abc"),
        ("A3", wrong_crc.as_str()),
        ("A4", "Bearer some-unknown-key-of-thirty-two-characters"),
        ("A10 none", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
        ("A12 exp", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOiI5OTk5OTk5OTk5In0.c2ln"),
    ] {
        let headers = [("Authorization", header), ("Content-Type", NDJSON)];
        let response = request(server.addr, "POST", "/api/v1/events", &headers, b"{}").unwrap();
        check(id, &response, &is(401, "\"code\""), &mut failures);
        if response.header("www-authenticate").is_none() {
            failures.push(format!("{id}: no WWW-Authenticate"));
        }
    }
    let admin = server.tenant("acme");
    let (ingest, analyst) = (server.key(&admin, "ingest"), server.key(&admin, "analyst"));
    let response = server.send(&ingest, "GET", "/api/v1/events", &[], b"");
    check("A6 ingest reads", &response, &is(403, "\"code\""), &mut failures);
    let response = server.send(&analyst, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{}");
    check("A6 analyst sends", &response, &is(403, "\"code\""), &mut failures);
    for target in [
        format!("/api/v1/events?api_key={KEY}"),
        format!("/write?u=a&p={KEY}"),
        format!("/v1/logs?token={KEY}"),
    ] {
        let response = request(server.addr, "POST", &target, &[("Content-Type", NDJSON)], b"{}").unwrap();
        check("A8", &response, &is(401, ""), &mut failures);
    }
    assert!(!server.log.lock().unwrap().contains(KEY), "A8: the key is in the log");
    let bearer = format!("Bearer {KEY}");
    let twice =
        [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str()), ("Content-Type", NDJSON)];
    let response = request(server.addr, "POST", "/api/v1/events", &twice, b"{}").unwrap();
    check("A9", &response, &is(400, "\"code\""), &mut failures);
    for name in ["X-Scope-OrgID", "X-Tenant"] {
        let response =
            send(&server, "/api/v1/events", &[(name, "someone-else"), ("Content-Type", NDJSON)], b"{}");
        check("A19 other", &response, &is(400, "tenant_mismatch"), &mut failures);
        let response = send(&server, "/api/v1/events", &[(name, "default"), ("Content-Type", NDJSON)], b"{}");
        check("A19 own", &response, &is(200, "accepted"), &mut failures);
    }
    assert_eq!(server.count("SELECT count(*) FROM events"), 2);
    report(&failures);
}

/// A18: guessing is slowed down, and whoever holds a key is not.
#[test]
fn a_guessing_is_slowed_down() {
    let server = Server::start();
    let statuses: Vec<u16> = (0..200)
        .map(|n| {
            let header = format!("Bearer wrong-key-number-{n:030}");
            let headers = [("Authorization", header.as_str())];
            request(server.addr, "GET", "/api/v1/events", &headers, b"").unwrap().status
        })
        .collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429), "after 200 wrong keys");
    assert_eq!(server.get("/api/v1/events").status, 200, "a valid key is unaffected");
}

#[test]
fn b_routes_types_and_encodings() {
    let server = Server::start();
    let mut failures = Vec::new();
    for target in
        ["/nowhere", "//v1/logs", "/v1/../admin", "/v1/%2e%2e/admin", "/api/v1/events/", "/v1\\logs"]
    {
        check(
            "B2",
            &send(&server, target, &[("Content-Type", NDJSON)], b"{}"),
            &is(404, "\"code\""),
            &mut failures,
        );
    }
    let response = server.send(KEY, "DELETE", "/api/v1/events", &[], b"");
    check("B2 method", &response, &is(405, "\"code\""), &mut failures);
    for target in ["/api/v1/events", "/api/v1/audit", "/v1/traces", "/v1/logs"] {
        let response = send(&server, target, &[("Content-Type", "text/html")], b"{}");
        check("B3", &response, &is(415, ""), &mut failures);
        check("B4", &send(&server, target, &[], b"{}"), &is(415, ""), &mut failures);
        let headers = [
            ("Content-Type", if target.starts_with("/v1") { "application/json" } else { NDJSON }),
            ("Content-Encoding", "br"),
        ];
        check("B encoding", &send(&server, target, &headers, b"{}"), &is(415, ""), &mut failures);
    }
    let encoded = |encoding: &'static str| [("Content-Type", NDJSON), ("Content-Encoding", encoding)];
    let good = b"{\"n\":1}\n".repeat(2_000);
    let before = resident(&server);
    let response = send(&server, "/api/v1/events", &encoded("gzip"), &bomb(512));
    check("B8", &response, &is(413, "\"code\""), &mut failures);
    let zstd_bomb = zstd::bulk::compress(&vec![b' '; 200 << 20], 3).unwrap();
    let response = send(&server, "/api/v1/events", &encoded("zstd"), &zstd_bomb);
    check("B9", &response, &is(413, "\"code\""), &mut failures);
    let grown = resident(&server).saturating_sub(before);
    if grown > 160 << 20 {
        failures.push(format!("B8, B9: memory grew by {grown} bytes"));
    }
    let mut wide = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    wide.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut wide, &good).unwrap();
    let response = send(&server, "/api/v1/events", &encoded("zstd"), &wide.finish().unwrap());
    check("B9 window", &response, &is(400, "window_too_large"), &mut failures);
    let zipped = gzip(&good);
    let response = send(&server, "/api/v1/events", &encoded("gzip"), &zipped[..zipped.len() / 2]);
    check("B11 gzip", &response, &is(400, "\"code\""), &mut failures);
    let zstd = zstd::bulk::compress(&good, 3).unwrap();
    let response = send(&server, "/api/v1/events", &encoded("zstd"), &zstd[..zstd.len() - 3]);
    check("B11 zstd", &response, &is(400, "\"code\""), &mut failures);
    let mut broken = zipped.clone();
    let crc = broken.len() - 6;
    broken[crc] ^= 0xff;
    let response = send(&server, "/api/v1/events", &encoded("gzip"), &broken);
    check("B12", &response, &is(400, "\"code\""), &mut failures);
    check(
        "B14",
        &send(&server, "/api/v1/events", &encoded("gzip"), &good),
        &is(400, "\"code\""),
        &mut failures,
    );
    assert_eq!(server.sql("SELECT count(*) FROM events").len(), 1);
    assert_eq!(server.count("SELECT count(*) FROM events"), 0, "nothing of a refused body is stored");
    for (encoding, body) in [("gzip", zipped), ("zstd", zstd)] {
        let response = send(&server, "/api/v1/events", &encoded(encoding), &body);
        check("good", &response, &is(200, "\"accepted\":2000"), &mut failures);
    }
    report(&failures);
}

#[test]
fn b_framing() {
    let server = Server::start();
    let mut failures = Vec::new();
    let long = "a".repeat(20 << 10);
    let many: String = (0..100).map(|n| format!("X-H{n}: 1\r\n")).collect();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {NDJSON}\r\n"
    );
    for (id, text, statuses) in [
        (
            "B15",
            format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &[400][..],
        ),
        ("B19 minus", format!("{head}Content-Length: -1\r\n\r\n{{}}"), &[400]),
        ("B19 plus", format!("{head}Content-Length: +5\r\n\r\n{{}}"), &[400]),
        ("B19 hex", format!("{head}Content-Length: 0x10\r\n\r\n{{}}"), &[400]),
        ("B19 huge", format!("{head}Content-Length: 18446744073709551616\r\n\r\n{{}}"), &[400]),
        ("B20 obs-fold", format!("{head}X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{{}}"), &[400]),
        ("B20 NUL", format!("{head}X-A: b\0\r\nContent-Length: 2\r\n\r\n{{}}"), &[400]),
        ("B22", format!("GET /{long} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), &[414]),
        ("B24 none", "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".into(), &[400]),
        (
            "B24 two",
            "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n".into(),
            &[400],
        ),
        ("headers", format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}Connection: close\r\n\r\n"), &[431]),
        (
            "header block",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {long}\r\nConnection: close\r\n\r\n"),
            &[431],
        ),
        ("body", format!("{head}Content-Length: 20971520\r\n\r\n"), &[413]),
    ] {
        match raw(server.addr, text.as_bytes()) {
            Ok(response) if statuses.contains(&response.status) => {
                if response.header("x-correlation-id").is_none() || response.json()["code"].as_str().is_none()
                {
                    failures.push(format!("{id}: a bare {}: {}", response.status, response.text()));
                }
            }
            Ok(response) => failures.push(format!("{id}: {} instead of {statuses:?}", response.status)),
            Err(error) => failures.push(format!("{id}: {error}")),
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
    report(&failures);
}

// B15, B20 behind a request that was good: what a proxy's kept connection carries.
#[test]
fn b_framing_of_later_requests() {
    let server = Server::start();
    let post = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {NDJSON}\r\n"
    );
    let good = format!("{post}Content-Length: 7\r\n\r\n{{\"n\":1}}");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n7\r\n{{\"n\":2}}\r\n0\r\n\r\n");
    let smuggled = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for (id, bad) in [
        ("B15", format!("{post}Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("B20", format!("{post}X-A: b\nContent-Length: 7\r\n\r\n{{\"n\":3}}{smuggled}")),
    ] {
        let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream.write_all(format!("{good}{chunked}{bad}").as_bytes()).unwrap();
        let mut answers = Vec::new();
        // The server closes; what it had not read may make that a reset.
        let _ = stream.read_to_end(&mut answers);
        let answers = String::from_utf8_lossy(&answers);
        let statuses: Vec<_> =
            answers.split("HTTP/1.1 ").skip(1).map(|answer| answer.get(..3).unwrap_or_default()).collect();
        assert_eq!(statuses, ["200", "200", "400"], "{id}: {answers}");
    }
    assert_eq!(server.count("SELECT count(*) FROM events"), 4);
}

#[test]
fn b_idempotency_keys() {
    let server = Server::start();
    let mut failures = Vec::new();
    let long = "k".repeat(256);
    for key in ["", long.as_str(), "a\tb"] {
        let response =
            send(&server, "/api/v1/events", &[("Idempotency-Key", key), ("Content-Type", NDJSON)], b"{}");
        check("B30", &response, &is(400, "\"code\""), &mut failures);
    }
    let with = |key| [("Idempotency-Key", key), ("Content-Type", NDJSON)];
    check(
        "B33 first",
        &send(&server, "/api/v1/events", &with("k"), b"{}"),
        &is(200, "\"accepted\":1"),
        &mut failures,
    );
    let again = send(&server, "/api/v1/events", &with("k"), b"{}");
    check("B33 again", &again, &is(200, "\"accepted\":1"), &mut failures);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    check(
        "B31",
        &send(&server, "/api/v1/events", &with("k"), b"{\"a\":1}"),
        &is(422, "\"code\""),
        &mut failures,
    );
    assert_eq!(server.count("SELECT count(*) FROM events"), 1);
    report(&failures);
}

/// 429: over a limit nothing of the request is stored, and the reply says when to come again.
#[test]
fn a_tenant_over_its_limit_is_told_when_to_come_again() {
    let server = Server::start();
    let policy = br#"{"records":{"quota":10,"window_s":3600}}"#;
    let response = server.send(KEY, "PUT", "/api/v1/limits", &[("Content-Type", "application/json")], policy);
    assert_eq!(response.status, 200, "{}", response.text());
    let mut failures = Vec::new();
    let headers = [("Content-Type", NDJSON)];
    check(
        "within",
        &send(&server, "/api/v1/events", &headers, &b"{}\n".repeat(6)),
        &is(200, ""),
        &mut failures,
    );
    let over = send(&server, "/api/v1/events", &headers, &b"{}\n".repeat(6));
    check("C40", &over, &is(429, "\"code\""), &mut failures);
    assert!(over.header("ratelimit-policy").is_some() && over.header("ratelimit").is_some());
    let over = send(&server, "/api/v2/write", &[], &b"a b=1\n".repeat(6));
    check("429 in InfluxDB's words", &over, &is(429, "too many requests"), &mut failures);
    assert_eq!(server.count("SELECT count(*) FROM events"), 6);
    report(&failures);
}
