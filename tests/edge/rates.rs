//! Requests are spent at their head, on every route that takes a key, whatever becomes of them.

use serde_json::json;

use crate::harness::{Response, Server};

fn limited(server: &Server, tenant: &str, policy: &serde_json::Value) -> String {
    let admin = server.tenant(tenant);
    let headers = [("Content-Type", "application/json")];
    let set = server.send(&admin, "PUT", "/api/v1/limits", &headers, policy.to_string().as_bytes());
    assert_eq!(set.status, 200, "{}", set.text());
    admin
}

fn statuses(count: usize, mut one: impl FnMut() -> Response) -> Vec<u16> {
    (0..count).map(|_| one().status).collect()
}

#[test]
fn bad_bodies_spend_requests_too() {
    let server = Server::start();
    let admin = limited(&server, "acme", &json!({"requests": {"quota": 1, "window_s": 3600}}));
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let got = statuses(10, || server.send(&admin, "POST", "/api/v1/events", &ndjson, b"{\"n\":}\n"));
    assert_eq!(got[0], 400);
    assert!(got[1..].iter().all(|status| *status == 429), "{got:?}");
    let denied = server.send(&admin, "POST", "/v1/logs", &[("Content-Type", "text/html")], b"x");
    assert_eq!(denied.status, 429, "every ingest route is of one class");
    assert!(
        denied.header("retry-after").is_some() && denied.header("ratelimit").is_some(),
        "{:?}",
        denied.headers
    );
}

#[test]
fn reading_and_administration_spend_requests_of_their_own() {
    let server = Server::start();
    let admin = limited(&server, "acme", &json!({"requests": {"quota": 3, "window_s": 3600}}));
    let headers = [("Content-Type", "application/json")];
    let sql = |body: &[u8]| server.send(&admin, "POST", "/api/v1/sql", &headers, body);
    assert_eq!(statuses(5, || sql(b"{\"query\":\"select 1\"}")), [200, 200, 200, 429, 429]);
    assert_eq!(sql(b"not json").status, 429);
    assert_eq!(server.send(&admin, "GET", "/api/v1/events", &[], b"").status, 429, "one class with SQL");
    let keys = || server.send(&admin, "GET", "/api/v1/keys", &[], b"");
    let got = statuses(5, keys);
    assert_eq!(got.last(), Some(&429), "{got:?}");
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let stored = server.send(&admin, "POST", "/api/v1/events", &ndjson, b"{\"n\":1}\n");
    assert_eq!(stored.status, 200, "ingest has its own");
    // Another tenant is not in it, and who set the limit can lift it.
    let other = server.tenant("other");
    assert_eq!(server.send(&other, "GET", "/api/v1/events", &[], b"").status, 200);
    let lifted = server.send(&admin, "PUT", "/api/v1/limits", &headers, b"{}");
    assert_eq!(lifted.status, 200, "{}", lifted.text());
    assert_eq!(sql(b"{\"query\":\"select 1\"}").status, 200);
}

#[test]
fn only_what_is_stored_spends_records_and_bytes() {
    let server = Server::start();
    let policy =
        json!({"records": {"quota": 4, "window_s": 3600}, "bytes": {"quota": 100, "window_s": 3600}});
    let admin = limited(&server, "acme", &policy);
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let post = |body: &[u8]| server.send(&admin, "POST", "/api/v1/events", &ndjson, body);
    for _ in 0..20 {
        assert_eq!(post(b"{\"n\":}\n{\"n\":}\n").status, 400, "none is stored, none is spent");
    }
    let some = post(b"{\"n\":1}\n{\"n\":}\n{\"n\":3}\n{\"n\":4}\n");
    assert_eq!(some.status, 200, "{}", some.text());
    assert!(
        some.header("ratelimit").is_some_and(|left| left.contains("\"ingest-records\";r=1")),
        "{:?}",
        some.headers
    );
    assert_eq!(post(b"{\"n\":1}\n{\"n\":2}\n").status, 429);
    assert_eq!(post(b"{\"n\":1}\n").status, 200);
}
