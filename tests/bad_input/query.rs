//! Table Q: queries.

use serde_json::json;

use super::{check, is, report, send};
use crate::harness::{KEY, Server};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

#[test]
fn q_rows() {
    let server = Server::start();
    server.post("/api/v1/events", "application/x-ndjson", b"{\"a\":1}");
    let mut failures = Vec::new();
    let parens = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let list = format!("SELECT * FROM events WHERE a IN ({}1)", "1,".repeat(100_000));
    let big = format!("SELECT '{}'", "x".repeat(10 << 20));
    let join = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    for (id, query, expected) in [
        ("Q3 table", "SELECT * FROM nowhere", is(404, "table_not_found")),
        ("Q3 schema", "SELECT * FROM information_schema.tables", is(404, "table_not_found")),
        ("Q3 tenant", "SELECT * FROM acme.events", is(404, "table_not_found")),
        ("Q4 s3", "SELECT * FROM 's3://bucket/x.parquet'", is(400, "\"code\"")),
        ("Q4 file", "SELECT * FROM '/etc/passwd'", is(400, "\"code\"")),
        ("Q4 url", "SELECT * FROM 'file:///etc/passwd'", is(400, "\"code\"")),
        ("Q5", "SELECT 1; SELECT 2", is(400, "\"code\"")),
        ("Q create", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", is(400, "\"code\"")),
        ("Q copy", "COPY events TO '/tmp/x'", is(400, "\"code\"")),
        ("Q insert", "INSERT INTO events SELECT * FROM events", is(400, "\"code\"")),
        ("Q set", "SET datafusion.execution.batch_size = 1", is(400, "\"code\"")),
        ("Q6 parens", parens.as_str(), is(400, "\"code\"")),
        ("Q6 list", list.as_str(), is(400, "\"code\"")),
        ("Q7 function", join, is(400, "\"code\"")),
        ("empty", "", is(400, "\"code\"")),
        ("syntax", "SELEKT 1", is(400, "\"code\"")),
        ("column", "SELECT nothing_of_that_name FROM events", is(400, "\"code\"")),
    ] {
        let body = json!({"query": query}).to_string();
        check(id, &send(&server, "/api/v1/sql", &JSON, body.as_bytes()), &expected, &mut failures);
    }
    let body = json!({"query": big}).to_string();
    let response = send(&server, "/api/v1/sql", &JSON, body.as_bytes());
    if !matches!(response.status, 400 | 413) {
        failures.push(format!("Q6 big: {}", response.status));
    }
    for (id, target) in [
        ("Q11 limit", "/api/v1/events?limit=-1"),
        ("Q11 limit 0", "/api/v1/events?limit=0"),
        ("Q11 limit big", "/api/v1/events?limit=10001"),
        ("Q11 reversed", "/api/v1/events?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"),
        ("Q11 step", "/api/v1/latency?step=0"),
        ("unknown parameter", "/api/v1/events?colour=blue"),
        ("time", "/api/v1/events?from=yesterday"),
        ("order", "/api/v1/events?order=sideways"),
        ("cursor", "/api/v1/events?cursor=%00"),
        ("quantile", "/api/v1/latency?q=1.5"),
    ] {
        check(id, &server.send(KEY, "GET", target, &[], b""), &is(400, "\"code\""), &mut failures);
    }
    for (id, target) in
        [("trace", format!("/api/v1/traces/{}", "0".repeat(32))), ("no hex", "/api/v1/traces/xyz".into())]
    {
        check(id, &server.send(KEY, "GET", &target, &[], b""), &is(404, "\"code\""), &mut failures);
    }
    report(&failures);
}

/// Q7, Q8: a query over its time is ended and told so, and ingest goes on meanwhile.
#[test]
fn a_query_without_an_end_is_ended() {
    let server = Server::start_with(&[("FLOODMARK_QUERY__TIME_MAX_MS", "1500")]);
    server.post("/api/v1/events", "application/x-ndjson", &b"{\"a\":1}\n".repeat(20_000));
    let query = "SELECT count(*) FROM events a, events b, events c WHERE a.id < b.id AND b.id < c.id";
    let body = json!({"query": query}).to_string();
    let response = send(&server, "/api/v1/sql", &JSON, body.as_bytes());
    assert_eq!(response.status, 422, "{}", response.text());
    let text = response.text();
    assert!(text.contains("query_timeout") || text.contains("query_limit"), "{text}");
    assert_eq!(server.post("/api/v1/events", "application/x-ndjson", b"{}").status, 200);
}
