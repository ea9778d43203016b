//! How the old folder came to be: every kind, every way in, rows that are merged, sealed and in the log alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{KEY, Server, floodmark};

const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// Nothing is sealed but when asked, everything is merged at once, and an empty log is small.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("FLOODMARK_LANES", "1"),
    ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
    ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ("FLOODMARK_STORAGE__DISK_RESERVE_BYTES", "0"),
    ("FLOODMARK_STORAGE__COMPACT_FILES_MIN", "2"),
    ("FLOODMARK_STORAGE__COMPACT_QUIET_MS", "1000"),
];

/// Rows that [`send_more`] adds to the tables of the tenant `default`.
pub const MORE: [(&str, i64); 5] = [("events", 11), ("spans", 3), ("logs", 2), ("audit", 4), ("orders", 10)];

/// `count` events from number `first` on, of one day of January 2026, with attributes of every type.
fn events(first: u64, count: u64, day: u64) -> String {
    let mixed = [json!(1), json!("two"), json!(3.5), json!(true), json!(-9_007_199_254_740_993_i64)];
    (first..first + count)
        .map(|n| {
            let event = json!({
                "id": format!("event-{n}"),
                "time": format!("2026-01-{day:02}T10:{:02}:{:02}.123456789Z", n / 60 % 60, n % 60),
                "source": (["checkout", "cart", "payment"][(n % 3) as usize]),
                "event_type": "order.created",
                "severity": (["info", "warn", "error"][(n % 3) as usize]),
                "message": format!("order {n} was made – größer als {}", n / 2),
                "correlation_id": format!("req-{}", n / 2),
                "duration_ms": n as f64 + 0.25,
                "payload": {
                    "n": n,
                    "mixed": (mixed[(n % 5) as usize]),
                    "half": n as f64 / 2.0,
                    "flag": n % 2 == 0,
                    "nested": {"a": {"b": format!("deep {n}")}},
                    "list": [n, "x", null],
                    "past_long": 18_446_744_073_709_551_615_u64,
                    "odd;name (with) {signs}": n,
                    "Case": "upper",
                    "case": "lower",
                    "date": "an attribute that is named like a column",
                },
            });
            format!("{event}\n")
        })
        .collect()
}

fn spans(trace: u64, day: u64) -> String {
    let at = |ns: u64| {
        (1_767_225_600_000_000_000 + (day - 1) * 86_400_000_000_000 + trace * 1_000_000_000 + ns).to_string()
    };
    let span = |id: u64, parent: Option<u64>, from: u64, to: u64| {
        json!({
            "traceId": format!("{:032x}", 0xabc0_0000_u64 + trace), "spanId": format!("{id:016x}"),
            "parentSpanId": parent.map_or(String::new(), |parent| format!("{parent:016x}")),
            "name": if parent.is_none() { "POST /orders" } else { "SELECT orders" },
            "kind": if parent.is_none() { 2 } else { 3 }, "flags": 257, "traceState": "vendor=1",
            "startTimeUnixNano": at(from), "endTimeUnixNano": at(to),
            "attributes": [
                {"key": "http.response.status_code", "value": {"intValue": "200"}},
                {"key": "cached", "value": {"boolValue": true}},
                {"key": "ratio", "value": {"doubleValue": 0.125}},
                {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "2"}]}}},
            ],
            "events": [{"timeUnixNano": at(from + 5), "name": "retry", "attributes": [
                {"key": "attempt", "value": {"intValue": "2"}}]}],
            "links": [{"traceId": "0".repeat(31) + "1", "spanId": "0".repeat(15) + "2"}],
            "status": if parent.is_none() { json!({"code": 2, "message": "upstream"}) } else { json!({"code": 1}) },
        })
    };
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "checkout"}},
            {"key": "service.version", "value": {"stringValue": "1.2.3"}},
        ]},
        "scopeSpans": [{
            "scope": {"name": "shop", "version": "4.5"},
            "spans": [span(1, None, 0, 9_000_001), span(2, Some(1), 1_000, 4_000_000), span(3, Some(2), 2_000, 3_000_003)],
        }],
    }]})
    .to_string()
}

fn logs(first: u64, day: u64) -> String {
    let record = |n: u64, body: Value| {
        json!({
            "timeUnixNano": (1_767_225_600_000_000_000 + (day - 1) * 86_400_000_000_000 + n * 1_000).to_string(),
            "observedTimeUnixNano": "1767225600000001000", "severityNumber": 17, "severityText": "ERROR",
            "body": body, "traceId": format!("{:032x}", 0xabc0_0000_u64 + 1), "spanId": format!("{:016x}", 1),
            "attributes": [{"key": "n", "value": {"intValue": n.to_string()}}],
        })
    };
    let map = json!({"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "7"}}]}});
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
        "scopeLogs": [{"scope": {"name": "log"}, "logRecords": [
            record(first, json!({"stringValue": "a line of text"})), record(first + 1, map)]}],
    }]})
    .to_string()
}

fn audit(first: u64, day: u64) -> String {
    (first..first + 4)
        .map(|n| {
            let record = json!({
                "id": format!("audit-{n}"), "time": format!("2026-01-{day:02}T12:00:{:02}.5Z", n % 60),
                "source": "console", "actor_type": if n % 2 == 0 { "user" } else { "ai" }, "actor_id": format!("actor-{n}"),
                "action": "approve", "resource_type": "order", "resource_id": format!("order-{n}"),
                "decision_id": format!("decision-{n}"), "outcome": "allowed", "reason": "within limits",
                "confidence": 0.5, "before_state": {"total": n}, "after_state": {"total": n + 1}, "request_id": "r-1",
            });
            format!("{record}\n")
        })
        .collect()
}

fn lines(first: u64) -> String {
    format!(
        "cpu,host=n-{first},source=agent usage=0.5,count={first}i,text=\"a b\",up=true {}\n",
        1_767_312_000_000_000_000 + first
    )
}

/// A few more rows for every table of the tenant `default`, and for `acme`.
pub fn send_more(server: &Server, acme: &str, round: u32) {
    let first = 10_000 + u64::from(round) * 100;
    let day = 20 + u64::from(round % 2);
    post(server, KEY, "/api/v1/events", NDJSON, &events(first, 10, day));
    post(server, KEY, "/api/v1/events?dataset=orders", NDJSON, &events(first, 10, day));
    post(server, KEY, "/v1/traces", JSON, &spans(first, day));
    post(server, KEY, "/v1/logs", JSON, &logs(first, day));
    post(server, KEY, "/api/v1/audit", NDJSON, &audit(first, day));
    post(server, KEY, "/api/v3/write_lp?precision=ns", "text/plain", &lines(first));
    post(server, acme, "/api/v1/events", NDJSON, &events(first, 10, day));
}

fn post(server: &Server, key: &str, target: &str, content_type: &str, body: &str) {
    let answer = server.send(key, "POST", target, &[("Content-Type", content_type)], body.as_bytes());
    assert!((200..300).contains(&answer.status), "{target}: {} {}", answer.status, answer.text());
}

/// Makes the folder, its backup and the manifest with the build in `FLOODMARK_BIN`.
pub fn make(out: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start_on(&data, &ENVIRONMENT);
    let acme = server.tenant("acme");
    let mut keys = json!({"acme_admin": acme});
    for role in ["ingest", "analyst", "auditor"] {
        keys[format!("acme_{role}")] = server.key(&acme, role).into();
    }
    for (name, wish) in [
        ("acme_revoked", json!({"name": "revoked", "role": "admin"})),
        ("acme_buffered", json!({"name": "buffered", "role": "ingest", "acknowledgement": "buffered"})),
    ] {
        let made = server.send(
            &acme,
            "POST",
            "/api/v1/keys",
            &[("Content-Type", JSON)],
            wish.to_string().as_bytes(),
        );
        assert_eq!(made.status, 201, "{}", made.text());
        keys[name] = made.json()["key"].clone();
        if name == "acme_revoked" {
            let id = made.json()["id"].as_str().unwrap().to_owned();
            assert_eq!(server.send(&acme, "DELETE", &format!("/api/v1/keys/{id}"), &[], b"").status, 204);
        }
    }
    let mut declared = Vec::new();
    send_all(&server, &keys, &mut declared);
    let answers = answers(&server, &keys);
    let rows: serde_json::Map<String, Value> = MORE
        .iter()
        .map(|(table, _)| {
            ((*table).to_owned(), server.count(&format!("SELECT count(*) FROM {table}")).into())
        })
        .collect();

    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let backup = [
        "backup",
        "--with-master-key",
        "--data",
        &path(&data),
        "--out",
        &path(&folder.path().join("backup")),
    ];
    let (code, told) = floodmark(&backup);
    assert_eq!(code, Some(0), "{told}");
    server.kill();
    // An answer a line, so that a change of one is seen as one.
    let lines = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    let manifest = format!(
        "{{\"keys\":{keys},\n\"rows\":{},\n\"declared\":[\n{}],\n\"answers\":[\n{}]}}\n",
        Value::Object(rows),
        lines(&declared),
        lines(&answers),
    );
    fs::create_dir_all(out).unwrap();
    fs::write(out.join("manifest.json"), manifest).unwrap();
    let packed =
        Command::new("tar").args(["-cf", "-", "data", "backup"]).current_dir(folder.path()).output().unwrap();
    assert!(packed.status.success());
    fs::write(out.join("folder.tar.zst"), zstd::encode_all(&packed.stdout[..], 19).unwrap()).unwrap();
}

/// A request under a declared key, with what was answered.
fn declare(server: &Server, keys: &Value, declared: &mut Vec<Value>, key: &str, target: &str, body: &str) {
    let idempotency_key = format!("declared-{}", declared.len());
    let headers = [("Content-Type", NDJSON), ("Idempotency-Key", idempotency_key.as_str())];
    let with = if key == "default" { KEY } else { keys[key].as_str().unwrap() };
    let answer = server.send(with, "POST", target, &headers, body.as_bytes());
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    let reply: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    declared.push(json!({
        "key": key, "method": "POST", "target": target, "content_type": NDJSON, "idempotency_key": idempotency_key,
        "body": body, "status": answer.status, "reply": reply,
    }));
}

fn send_all(server: &Server, keys: &Value, declared: &mut Vec<Value>) {
    let key = |name: &str| keys[name].as_str().unwrap().to_owned();
    // Two files of one date become one, and a third date's stays as it was sealed.
    for (first, day) in [(0, 5), (20, 5), (40, 6)] {
        post(server, KEY, "/api/v1/events", NDJSON, &events(first, 20, day));
        post(server, KEY, "/api/v1/events?dataset=orders", NDJSON, &events(first, 5, day));
        post(server, KEY, "/v1/traces", JSON, &spans(first, day));
        post(server, KEY, "/v1/logs", JSON, &logs(first, day));
        post(server, KEY, "/api/v1/audit", NDJSON, &audit(first, day));
        post(server, &key("acme_ingest"), "/api/v1/events", NDJSON, &events(first, 20, day));
        declare(server, keys, declared, "default", "/api/v1/events", &events(100 + first, 3, day));
        declare(server, keys, declared, "acme_ingest", "/api/v1/events", &events(200 + first, 3, day));
        server.flush();
    }
    post(server, &key("acme_buffered"), "/api/v1/events", NDJSON, &events(300, 2, 7));
    post(server, KEY, "/api/v3/write_lp?precision=ns", "text/plain", &lines(1));
    server.flush();
    for body in [json!({"dataset": "audit", "days": 36_500}), json!({"dataset": "orders", "days": 36_500})] {
        let set = server.send(
            KEY,
            "PUT",
            "/api/v1/retention",
            &[("Content-Type", JSON)],
            body.to_string().as_bytes(),
        );
        assert_eq!(set.status, 200, "{}", set.text());
    }
    post(server, KEY, "/api/v1/holds", JSON, &json!({"dataset": "audit", "reason": "case 12"}).to_string());
    let limits = json!({"records": {"quota": 1_000_000_000, "window_s": 60}}).to_string();
    let set = server.send(
        &key("acme_admin"),
        "PUT",
        "/api/v1/limits",
        &[("Content-Type", JSON)],
        limits.as_bytes(),
    );
    assert_eq!(set.status, 200, "{}", set.text());
    for kind in ["checkpoint", "sweep"] {
        post(server, KEY, "/api/v1/jobs", JSON, &json!({"kind": kind}).to_string());
    }
    let begun = Instant::now();
    let is_done = |server: &Server| {
        let jobs = server.get("/api/v1/jobs").json();
        let all_ended = jobs["jobs"].as_array().unwrap().iter().all(|job| job["status"] == "succeeded");
        all_ended
            && server.get("/metrics").text().lines().any(|line| {
                line.strip_prefix("floodmark_compactions_total ")
                    .is_some_and(|count| count.parse::<f64>().unwrap() >= 4.0)
            })
    };
    while !is_done(server) {
        assert!(begun.elapsed() < Duration::from_secs(120), "jobs and merges end");
        std::thread::sleep(Duration::from_millis(200));
    }
    // In the log alone: rows of every kind, of a table that is new, and a declared key.
    post(server, KEY, "/api/v1/events", NDJSON, &events(60, 20, 8));
    post(server, KEY, "/v1/traces", JSON, &spans(60, 8));
    post(server, KEY, "/v1/logs", JSON, &logs(60, 8));
    post(server, KEY, "/api/v1/audit", NDJSON, &audit(60, 8));
    post(server, KEY, "/api/v1/events?dataset=fresh", NDJSON, &events(60, 4, 8));
    post(server, KEY, "/api/v3/write_lp?precision=ns", "text/plain", &lines(2));
    declare(server, keys, declared, "default", "/api/v1/events", &events(400, 3, 8));
    declare(server, keys, declared, "acme_ingest", "/api/v1/events", &events(500, 3, 8));
}

/// What is asked, and what the build that makes the folder answers.
fn answers(server: &Server, keys: &Value) -> Vec<Value> {
    let mut answers = Vec::new();
    let mut ask = |key: &str, method: &str, target: String, body: Option<Value>| {
        let with = if key == "default" { KEY } else { keys[key].as_str().unwrap() };
        let content_type = if body.is_some() { JSON } else { "" };
        let body = body.map_or(String::new(), |body| body.to_string());
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("Content-Type", JSON)] };
        let answer = server.send(with, method, &target, headers, body.as_bytes());
        answers.push(json!({
            "key": key, "method": method, "target": target, "content_type": content_type, "body": body,
            "status": answer.status, "reply": answer.json(),
        }));
    };
    let envelope =
        "id, time, time_ns, source, severity_number, correlation_id, trace_id, span_id, writer, seq";
    let attributes: Vec<String> = [
        "n",
        "mixed",
        "half",
        "flag",
        "nested.a.b",
        "list",
        "past_long",
        "odd;name (with) {signs}",
        "Case",
        "case",
    ]
    .iter()
    .enumerate()
    .map(|(at, key)| format!("attr('{key}') AS a{at}"))
    .collect();
    let attributes = attributes.join(", ");
    for (key, tables) in [("default", &["events", "orders", "fresh"][..]), ("acme_analyst", &["events"][..])]
    {
        for table in tables {
            let query = format!(
                "SELECT {envelope}, event_type, message, duration_ns, \"n\", \"half\", \"flag\", {attributes} FROM {table} ORDER BY writer, seq"
            );
            ask(key, "POST", "/api/v1/sql".into(), Some(json!({"query": query})));
            let query = format!(
                "SELECT count(*) AS c, sum(\"n\") AS s, min(time_ns) AS f, max(time_ns) AS l FROM {table}"
            );
            ask(key, "POST", "/api/v1/sql".into(), Some(json!({"query": query})));
        }
    }
    for query in [
        format!(
            "SELECT {envelope}, parent_span_id, name, kind, duration_ns, status_code, status_message, flags, trace_state, \
                 scope_name, attr('http.response.status_code') AS a, attr('ratio') AS r FROM spans ORDER BY writer, seq"
        ),
        format!("SELECT {envelope}, body, attr('n') AS n FROM logs ORDER BY writer, seq"),
        format!(
            "SELECT {envelope}, actor_type, actor_id, action, resource_type, resource_id, decision_id, outcome, reason, \
                 confidence, request_id FROM audit ORDER BY writer, seq"
        ),
    ] {
        ask("default", "POST", "/api/v1/sql".into(), Some(json!({"query": query})));
    }
    for target in [
        "/api/v1/events?limit=1000",
        "/api/v1/events?limit=1000&order=asc&source=cart",
        "/api/v1/events?limit=1000&severity=error",
        "/api/v1/events?limit=1000&attr.n=44",
        "/api/v1/events?limit=1000&from=2026-01-06T00:00:00Z&to=2026-01-07T00:00:00Z",
        "/api/v1/logs?limit=1000",
        "/api/v1/traces?limit=1000",
        "/api/v1/audit/traces?limit=1000",
        "/api/v1/audit/traces?decision_id=decision-21",
        "/api/v1/correlations/req-31",
        "/api/v1/services",
        "/api/v1/latency?q=0.5,0.99",
        "/api/v1/retention",
        "/api/v1/holds",
        "/api/v1/jobs",
    ] {
        ask("default", "GET", target.into(), None);
    }
    for trace in [0, 20, 60] {
        ask("default", "GET", format!("/api/v1/traces/{:032x}", 0xabc0_0000_u64 + trace), None);
    }
    ask("acme_analyst", "GET", "/api/v1/events?limit=1000".into(), None);
    ask("acme_auditor", "GET", "/api/v1/latency".into(), None);
    ask("acme_admin", "GET", "/api/v1/limits".into(), None);
    ask("acme_admin", "GET", "/api/v1/retention".into(), None);
    answers
}
