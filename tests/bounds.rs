//! Bounds of the process, met from outside: what lies at a bound is taken, what lies past it is refused or cut (B1).
//!
//! `docs/BOUNDS.md` lists every bound with its test; `.ci/bounds` takes one away and looks whether its test notices.

use serde_json::{Value, json};

use crate::harness::{KEY, Response, Server, raw};

const NDJSON: &str = "application/x-ndjson";

fn call(server: &Server, method: &str, target: &str, body: &str) -> Response {
    server.send(KEY, method, target, &[("Content-Type", "application/json")], body.as_bytes())
}

/// What the administration is told has a length.
#[test]
fn what_an_admin_writes_has_a_length() {
    let server = Server::start();
    let key = |length| json!({"name": "n".repeat(length), "role": "ingest"}).to_string();
    assert_eq!(call(&server, "POST", "/api/v1/keys", &key(128)).status, 201);
    assert_eq!(call(&server, "POST", "/api/v1/keys", &key(129)).status, 400);
    let hold = |length| json!({"dataset": "events", "reason": "r".repeat(length)}).to_string();
    server.post("/api/v1/events", NDJSON, b"{}");
    assert_eq!(call(&server, "POST", "/api/v1/holds", &hold(1_024)).status, 201);
    assert_eq!(call(&server, "POST", "/api/v1/holds", &hold(1_025)).status, 400);
    let limits = |window| json!({"bytes": {"quota": 1_u64 << 40, "window_s": window}}).to_string();
    assert_eq!(call(&server, "PUT", "/api/v1/limits", &limits(86_400)).status, 200);
    assert_eq!(call(&server, "PUT", "/api/v1/limits", &limits(86_401)).status, 400);
    // Spaces are no content: the length alone refuses it.
    let padded = |length: usize| format!("{}{}", limits(60), " ".repeat(length - limits(60).len()));
    assert_eq!(call(&server, "PUT", "/api/v1/limits", &padded(2 << 20)).status, 200);
    assert_eq!(call(&server, "PUT", "/api/v1/limits", &padded((2 << 20) + 1)).status, 413);
    for target in ["/api/v1/keys", "/api/v1/jobs", "/api/v1/datasets", "/api/v1/tenants", "/api/v1/holds"] {
        assert_eq!(server.get(&format!("{target}?limit=10000")).status, 200, "{target}");
        assert_eq!(server.get(&format!("{target}?limit=10001")).status, 400, "{target}");
    }
}

/// How many keys and holds a tenant has.
#[test]
fn what_an_admin_makes_has_a_number() {
    let server = Server::start();
    let admin = server.tenant("acme");
    let make = |target: &str, body: Value| {
        let headers = [("Content-Type", "application/json")];
        server.send(&admin, "POST", target, &headers, body.to_string().as_bytes()).status
    };
    server.send(&admin, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{}");
    let mut counts = [0, 0];
    while counts[0] <= 1_000 && make("/api/v1/keys", json!({"name": "n", "role": "ingest"})) == 201 {
        counts[0] += 1;
    }
    while counts[1] <= 1_000 && make("/api/v1/holds", json!({"dataset": "events", "reason": "r"})) == 201 {
        counts[1] += 1;
    }
    // The first key is the admin's own.
    assert!(counts[0] < 1_000 && counts[1] <= 1_000, "{counts:?}");
    assert_eq!(server.get("/healthz").status, 200);
}

/// Parameters, fields and lengths of a request's head, at the bound and past it.
#[test]
fn heads_end_at_their_bounds() {
    let server = Server::start();
    let get = |target: &str, fields: &str| {
        let text = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n{fields}\r\n"
        );
        raw(server.addr, text.as_bytes()).unwrap().status
    };
    let target = |length: usize| {
        format!("/api/v1/events?source={}", "a".repeat(length - "/api/v1/events?source=".len()))
    };
    assert_eq!((get(&target(8 << 10), ""), get(&target((8 << 10) + 1), "")), (200, 414));
    let fields = |count: usize| (0..count).map(|n| format!("X-A{n}: 1\r\n")).collect::<String>();
    assert_eq!((get("/healthz", &fields(61)), get("/healthz", &fields(62))), (200, 431));
    let long = |length: usize| format!("X-Long: {}\r\n", "a".repeat(length));
    assert_eq!((get("/healthz", &long(16_000)), get("/healthz", &long(16 << 10))), (200, 431));
    let parameters = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("attr.k{n}=1")).collect();
        format!("/api/v1/events?{}", all.join("&"))
    };
    assert_eq!((get(&parameters(64), ""), get(&parameters(65), "")), (200, 400));
    for (count, status) in [(64, 200), (65, 400)] {
        let all: Vec<String> = (0..count).map(|n| format!("unknown{n}=1")).collect();
        let answer = server.post(&format!("/api/v1/events?{}", all.join("&")), NDJSON, b"{}");
        assert_eq!(answer.status, status, "{count}: {}", answer.text());
    }
    for (length, status) in [(255, 200), (256, 400)] {
        let key = "k".repeat(length);
        let headers = [("Content-Type", NDJSON), ("Idempotency-Key", key.as_str())];
        assert_eq!(server.send(KEY, "POST", "/api/v1/events", &headers, b"{}").status, status, "{length}");
    }
}

/// How much a question about percentiles may want.
#[test]
fn percentiles_are_of_so_many_points_and_quantiles() {
    let server = Server::start();
    let quantiles = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("0.{:03}", n + 1)).collect();
        format!("/api/v1/latency?q={}", all.join(","))
    };
    assert_eq!((server.get(&quantiles(32)).status, server.get(&quantiles(33)).status), (200, 400));
    let points = |minutes: i64| {
        let from: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let to = from + jiff::SignedDuration::from_mins(minutes);
        format!("/api/v1/latency?step=60s&from={from}&to={to}")
    };
    assert_eq!((server.get(&points(11_000)).status, server.get(&points(11_001)).status), (200, 400));
}

/// A dataset's columns: what is past the bound overflows, and is found all the same.
#[test]
fn attributes_past_the_columns_of_a_dataset_overflow() {
    let server = Server::start();
    let fields: Vec<String> = (0..600).map(|n| format!("\"k{n}\":{n}")).collect();
    let body = format!("{{{}}}", fields.join(","));
    assert_eq!(server.post("/api/v1/events", NDJSON, body.as_bytes()).status, 200);
    for _ in 0..2 {
        let asked = json!({"query": "SELECT * FROM events"}).to_string();
        let reply = server.post("/api/v1/sql", "application/json", asked.as_bytes()).json();
        let columns = reply["columns"].as_array().unwrap();
        let attributes = columns.iter().filter(|column| {
            column["name"]
                .as_str()
                .is_some_and(|name| name.strip_prefix('k').is_some_and(|n| n.parse::<u32>().is_ok()))
        });
        assert_eq!(attributes.count(), 512);
        assert_eq!(server.sql("SELECT attr('k599') AS v FROM events")[0]["v"], "599");
        server.flush();
    }
}

/// A JSON answer to SQL is cut at so many rows and so many bytes, and says so.
#[test]
fn answers_to_sql_are_cut_and_say_so() {
    let server = Server::start();
    let body = format!("{{\"message\":\"{}\"}}\n", "x".repeat(8_000)).repeat(1_200);
    for _ in 0..9 {
        assert_eq!(server.post("/api/v1/events", NDJSON, body.as_bytes()).status, 200);
        server.flush();
    }
    let ask = |query: &str| {
        server.post("/api/v1/sql", "application/json", json!({"query": query}).to_string().as_bytes())
    };
    let rows = ask("SELECT source FROM events").json();
    assert_eq!((rows["row_count"].as_u64(), rows["truncated"].as_bool()), (Some(10_000), Some(true)));
    let bytes = ask("SELECT message FROM events");
    assert!(bytes.body.len() < 65 << 20, "{} bytes", bytes.body.len());
    let bytes = bytes.json();
    assert!(bytes["truncated"] == true && bytes["row_count"].as_u64().unwrap() < 10_000);
}

/// One correlation's rows of a kind: cut at so many, or paged.
#[test]
fn a_correlation_shows_so_many_rows_at_once() {
    let server = Server::start();
    let body = "{\"correlation_id\":\"one\"}\n".repeat(10_001);
    assert_eq!(server.post("/api/v1/events", NDJSON, body.as_bytes()).status, 200);
    let found = server.get("/api/v1/correlations/one");
    assert_eq!(found.status, 200);
    assert!(found.json()["events"].as_array().unwrap().len() <= 10_000);
}

/// A lane is a thread and a log: a number that is a typo is refused.
#[test]
fn lanes_are_of_a_number_that_is_no_typo() {
    let folder = tempfile::tempdir().unwrap();
    let started = Server::try_start_on(folder.path(), &[("FLOODMARK_LANES", "257")]);
    let (status, told) = started.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Some(78), "{told}");
    assert!(told.contains("lanes"), "{told}");
}
