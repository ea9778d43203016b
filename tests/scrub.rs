//! P1, P2: planted secrets, over every protocol and in every place, are found nowhere afterwards.

use std::path::Path;

use crate::harness::{KEY, Server, request};

/// Secrets of each kind that is on by default; each has a needle that must be gone.
const PLANTED: &[(&str, &str)] = &[
    ("jane.planted@example.com", "jane.planted"),
    ("4111111111111111", "4111111111111111"),
    ("5500 0055 5555 5559", "5500 0055 5555 5559"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQtMTIz", "eyJzdWIiOiJwbGFudGVkIn0"),
    ("Authorization: Bearer planted0token0planted0token0", "planted0token0"),
    ("AKIAIOSFODNN7PLANTED", "AKIAIOSFODNN7PLANTED"),
    ("password=planted-hunter2", "planted-hunter2"),
    ("https://user:plantedpass@example.org/x", "plantedpass"),
];

fn holds(folder: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holds(&path, needle, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && memchr_find(&written(&bytes), needle)
        {
            found.push(format!("{} in {}", String::from_utf8_lossy(needle), path.display()));
        }
    }
}

/// The pages that are not all zero: most of a log segment is preallocated.
fn written(bytes: &[u8]) -> Vec<u8> {
    const ZERO: [u8; 4096] = [0; 4096];
    bytes.chunks(ZERO.len()).filter(|page| **page != ZERO[..page.len()]).flatten().copied().collect()
}

fn memchr_find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn escape(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn plant(server: &Server) {
    for (secret, _) in PLANTED {
        let quoted = escape(secret);
        let nested = escape(&format!("{{\"inner\":{quoted}}}"));
        let json = format!(
            "{{\"source\":{quoted},\"message\":{quoted},\"a\":{quoted},\"deep\":{{\"b\":[{{\"c\":{quoted}}}]}},\"text\":{nested},{quoted}:1}}"
        );
        let response = server.post("/api/v1/events", "application/x-ndjson", json.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        let audit = format!(
            "{{\"actor_type\":\"user\",\"actor_id\":{quoted},\"action\":\"a\",\"resource_type\":\"r\",\"before\":{{\"x\":{quoted}}},\"reason\":{quoted}}}"
        );
        assert_eq!(server.post("/api/v1/audit", "application/json", audit.as_bytes()).status, 200);
        let attribute =
            |key: &str| format!("{{\"key\":{},\"value\":{{\"stringValue\":{quoted}}}}}", escape(key));
        let any = format!("[{},{}]", attribute("k"), attribute(secret));
        let traces = format!(
            "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":{any}}},\"scopeSpans\":[{{\"spans\":[{{\"traceId\":\"{}\",\"spanId\":\"{}\",\"name\":{quoted},\"startTimeUnixNano\":\"1700000000000000000\",\"endTimeUnixNano\":\"1700000000000000001\",\"attributes\":{any},\"events\":[{{\"timeUnixNano\":\"1700000000000000000\",\"name\":{quoted},\"attributes\":{any}}}],\"status\":{{\"message\":{quoted}}}}}]}}]}}]}}",
            "ab".repeat(16),
            "cd".repeat(8)
        );
        let response = server.post("/v1/traces", "application/json", traces.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        let logs = format!(
            "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"timeUnixNano\":\"1700000000000000000\",\"body\":{{\"stringValue\":{quoted}}},\"attributes\":{any}}}]}}]}}]}}"
        );
        assert_eq!(server.post("/v1/logs", "application/json", logs.as_bytes()).status, 200);
        let tag = secret.replace(' ', "\\ ").replace('=', "\\=").replace(',', "\\,");
        let line = format!("m,tag={tag} field=\"{}\"", secret.replace('"', "\\\""));
        assert_eq!(server.post("/api/v2/write", "text/plain", line.as_bytes()).status, 204, "{line}");
        // In a line that is refused, too: the reply and the log must not echo it.
        server.post("/api/v2/write", "text/plain", format!("m,tag={tag} broken").as_bytes());
        server.post("/api/v1/events", "application/x-ndjson", format!("{{\"time\":{quoted}}}").as_bytes());
    }
    let numbers = b"{\"card\":4111111111111111,\"password\":123456789012,\"as_float\":4111111111111111.0}";
    assert_eq!(server.post("/api/v1/events", "application/x-ndjson", numbers).status, 200);
}

#[test]
fn planted_secrets_are_found_nowhere() {
    let mut server = Server::start_with(&[("FLOODMARK_LOG", "debug")]);
    plant(&server);
    for round in ["hot", "flushed"] {
        let metrics = request(server.addr, "GET", "/metrics", &[], b"").unwrap().text();
        let events = server.get("/api/v1/events?limit=1000").text();
        let log = server.log.lock().unwrap().clone();
        let mut found = Vec::new();
        for (_, needle) in PLANTED {
            holds(server.data(), needle.as_bytes(), &mut found);
            for (place, text) in [("metrics", &metrics), ("log", &log), ("events", &events)] {
                if text.contains(needle) {
                    found.push(format!("{needle} in {place}"));
                }
            }
        }
        assert!(found.is_empty(), "{round}: {found:#?}");
        // Parquet is compressed: its rows are searched through SQL.
        for table in ["events", "spans", "logs", "audit"] {
            let body = serde_json::json!({"query": format!("SELECT * FROM {table}")}).to_string();
            let rows = server.post("/api/v1/sql", "application/json", body.as_bytes()).text();
            for (_, needle) in PLANTED {
                assert!(!rows.contains(needle), "{round}: {needle} in {table}");
            }
            assert!(!rows.contains("123456789012"), "{round}: a number under a password's name in {table}");
        }
        assert!(!log.contains(KEY), "the bootstrap key is in the log");
        server.flush();
    }
    server.terminate();
}

/// P2: ids are echoed, stored and logged, and declared keys are kept: neither is a place for a secret. A key sent as an id,
/// by any door, and an address sent as a declared key are nowhere afterwards, and a key stays declared over a restart.
#[test]
fn what_is_sent_as_an_id_or_a_declared_key_is_found_nowhere() {
    let environment = [("FLOODMARK_LOG", "debug")];
    let mut server = Server::start_with(&environment);
    let ours = server.key(KEY, "ingest");
    let opaque = "0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu";
    let needles = [KEY, ours.as_str(), opaque, "planted-address", "4111-1111-1111-1111"];
    let json = "application/x-ndjson";
    let secrets = [KEY, ours.as_str(), opaque, "order-4111-1111-1111-1111"];
    // Each secret under both names, and each door, once or twice.
    for (n, secret) in secrets.into_iter().enumerate() {
        for name in ["x-correlation-id", "x-request-id"] {
            for (door, (target, content_type, body)) in [
                ("/api/v1/events", json, format!("{{\"correlation_id\":\"{opaque}\",\"a\":1}}\n{{\"a\":2}}")),
                ("/api/v1/events", json, "{".to_owned()),
                ("/api/v2/write", "text/plain", format!("m,correlation_id={opaque} a=1")),
                (
                    "/v1/logs",
                    "application/json",
                    format!(
                        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"attributes\":[{{\"key\":\"correlation_id\",\"value\":{{\"stringValue\":\"{ours}\"}}}}]}}]}}]}}]}}"
                    ),
                ),
                ("/no/such/route", json, String::new()),
            ]
            .into_iter()
            .enumerate()
            {
                if door % 4 != n && door != 4 {
                    continue;
                }
                let headers = [
                    ("authorization", &*format!("Bearer {KEY}")),
                    ("content-type", content_type),
                    (name, secret),
                    ("tracestate", &*format!("v={secret}")),
                    ("baggage", &*format!("k={secret}")),
                ];
                let response = request(server.addr, "POST", target, &headers, body.as_bytes()).unwrap();
                for needle in needles {
                    assert!(!response.text().contains(needle), "{needle} in the answer of {target}");
                    for echoed in ["x-correlation-id", "x-request-id"] {
                        let echoed = response.header(echoed).unwrap_or_default();
                        assert!(
                            !echoed.is_empty() && !echoed.contains(needle),
                            "{needle} echoed as {echoed}"
                        );
                    }
                }
            }
        }
    }
    let declared = |server: &Server, body: &str| {
        let headers = [
            ("authorization", &*format!("Bearer {KEY}")),
            ("content-type", json),
            ("idempotency-key", "planted-address@example.com"),
        ];
        request(server.addr, "POST", "/api/v1/events", &headers, body.as_bytes()).unwrap()
    };
    assert_eq!(declared(&server, "{\"n\":1}").status, 200);
    // A short escape before a character of three bytes, in what looks like JSON.
    let hostile = "{\"message\":\"{\\\"\\\\u00z\u{20ac}abcd\\\":0} password=planted-address\",\"n\":2}";
    assert_eq!(server.post("/api/v1/events", json, hostile.as_bytes()).status, 200);
    server.flush();
    server.terminate();
    server.restart();
    let again = declared(&server, "{\"n\":1}");
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(declared(&server, "{\"n\":3}").status, 422);
    server.flush();
    let mut found = Vec::new();
    let log = server.log.lock().unwrap().clone();
    for needle in needles {
        holds(server.data(), needle.as_bytes(), &mut found);
        if log.contains(needle) {
            found.push(format!("{needle} in the log"));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for table in ["events", "logs"] {
        let body = serde_json::json!({"query": format!("SELECT * FROM {table}")}).to_string();
        let rows = server.post("/api/v1/sql", "application/json", body.as_bytes()).text();
        for needle in needles {
            assert!(!rows.contains(needle), "{needle} in {table}: {rows}");
        }
    }
    server.terminate();
}
