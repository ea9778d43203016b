//! T1: two tenants send identical ids, and neither sees a row of the other; and who may call what.

use serde_json::Value;

use crate::harness::{KEY, Server};

const NDJSON: &str = "application/x-ndjson";

#[test]
fn identical_ids_stay_apart() {
    let server = Server::start();
    let keys = [server.tenant("acme"), server.tenant("globex")];
    let trace = "ab".repeat(16);
    for (tenant, key) in ["acme", "globex"].iter().zip(&keys) {
        let body = format!(
            "{{\"id\":\"same\",\"trace_id\":\"{trace}\",\"correlation_id\":\"corr-1\",\"source\":\"{tenant}\",\"duration_ms\":5}}"
        );
        let headers = [("Content-Type", NDJSON)];
        assert_eq!(server.send(key, "POST", "/api/v1/events", &headers, body.as_bytes()).status, 200);
    }
    for flushed in [false, true] {
        for (own, (other, key)) in ["acme", "globex"].iter().zip([("globex", &keys[0]), ("acme", &keys[1])]) {
            for target in [
                "/api/v1/events".to_owned(),
                format!("/api/v1/events?trace_id={trace}"),
                "/api/v1/events?correlation_id=corr-1".into(),
                "/api/v1/correlations/corr-1".into(),
                "/api/v1/services".into(),
                "/api/v1/latency".into(),
            ] {
                let response = server.send(key, "GET", &target, &[], b"");
                assert_eq!(response.status, 200, "{target}: {}", response.text());
                assert!(response.text().contains(own), "{target}, flushed {flushed}: {}", response.text());
                assert!(!response.text().contains(other), "{target}: {}", response.text());
            }
            for table in [
                format!("{other}.events"),
                format!("\"tenant/{other}/events\""),
                "information_schema.tables".into(),
            ] {
                let body = serde_json::json!({"query": format!("SELECT * FROM {table}")}).to_string();
                let headers = [("Content-Type", "application/json")];
                let response = server.send(key, "POST", "/api/v1/sql", &headers, body.as_bytes());
                assert!(matches!(response.status, 400 | 404), "{table}: {}", response.status);
            }
        }
        server.flush();
    }
}

/// Every route of the router against every role: who is refused is refused with 401 or 403 before anything else,
/// and who is not is not.
#[test]
fn every_route_asks_for_its_role() {
    let server = Server::start();
    let admin = server.tenant("acme");
    let mut keys: Vec<(&str, String)> =
        ["ingest", "analyst", "auditor"].into_iter().map(|role| (role, server.key(&admin, role))).collect();
    keys.push(("admin", admin));
    let mut tried = 0;
    for route in engine::routes() {
        let target = route
            .pattern()
            .replace("{id}", "0")
            .replace("{trace_id}", &"0".repeat(32))
            .replace("{correlation_id}", "0");
        let target = target.replace("{decision_id}", "0").replace("{name}", "x");
        let method = route.method().as_str();
        let anonymous = crate::harness::request(server.addr, method, &target, &[], b"").unwrap();
        if route.is_public() {
            assert!(
                !matches!(anonymous.status, 401 | 403),
                "{method} {target} is open: {}",
                anonymous.status
            );
        } else {
            assert_eq!(anonymous.status, 401, "{method} {target} without a key");
            assert!(anonymous.header("www-authenticate").is_some(), "{method} {target}");
        }
        for (role, key) in &keys {
            let response = server.send(key, method, &target, &[], b"");
            let is_refused = response.status == 403;
            assert_eq!(is_refused, !route.allows(role), "{method} {target} as {role}: {}", response.status);
            assert!(response.status < 500, "{method} {target} as {role}: {}", response.status);
            tried += 1;
        }
    }
    println!("{tried} pairs of route and role");
    let operator: Value = server.get("/api/v1/system/status").json();
    assert!(operator.is_object());
    assert_eq!(server.send(KEY, "GET", "/api/v1/tenants", &[], b"").status, 200);
}
