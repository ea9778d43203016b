//! The order of refusal, as `docs/HTTP.md` tells it: of all that is wrong with a request the first is named.

use serde_json::json;

use super::{connect, read_one, write};
use crate::harness::{KEY, Server};

/// One wrong thing of a request, how it is mended, and the answer that names it.
struct Step {
    status: u16,
    code: &'static str,
    wrong: (&'static str, String),
    right: (&'static str, String),
}

/// A request that is wrong in every way is mended one way at a time, and each answer names the next.
#[test]
fn the_first_thing_wrong_is_named() {
    let server = Server::start_with(&[
        ("FLOODMARK_ALLOWED_HOSTS", "here.example"),
        ("FLOODMARK_INGEST__BODY_BYTES_MAX", "1000"),
    ]);
    let admin = tenant(&server);
    let key = |role: &str| made_key(&server, &admin, role);
    let (ingest, analyst) = (key("ingest"), key("analyst"));
    // As many requests an hour as rows below pass role and tenant header.
    let policy =
        json!({"requests": {"quota": 8, "window_s": 3600}, "records": {"quota": 1, "window_s": 3600}});
    assert_eq!(send(&server, &admin, "PUT", "/api/v1/limits", &policy.to_string()).0, 200);
    let field = |name: &'static str, value: &str| (name, format!("{name}: {value}\r\n"));
    let bearer = |key: &str| field("Authorization", &format!("Bearer {key}"));
    let steps = [
        Step {
            status: 414,
            code: "target_too_long",
            wrong: ("target", format!("/nowhere?{}", "a".repeat(9_000))),
            right: ("target", "/nowhere?atomic=perhaps".into()),
        },
        Step {
            status: 431,
            code: "headers_too_large",
            wrong: field("X-Long", &"y".repeat(17_000)),
            right: field("X-Long", "y"),
        },
        Step {
            status: 421,
            code: "wrong_host",
            wrong: field("Host", "elsewhere.example"),
            right: field("Host", "here.example"),
        },
        Step {
            status: 404,
            code: "not_found",
            wrong: ("target", "/nowhere?atomic=perhaps".into()),
            right: ("target", "/api/v1/events?atomic=perhaps".into()),
        },
        Step {
            status: 405,
            code: "method_not_allowed",
            wrong: ("method", "PATCH".into()),
            right: ("method", "POST".into()),
        },
        Step {
            status: 401,
            code: "unauthorized",
            wrong: ("Authorization", String::new()),
            right: bearer(&analyst),
        },
        Step { status: 403, code: "forbidden", wrong: bearer(&analyst), right: bearer(&ingest) },
        Step {
            status: 400,
            code: "tenant_mismatch",
            wrong: field("X-Scope-OrgID", "other"),
            right: field("X-Scope-OrgID", "acme"),
        },
        Step {
            status: 415,
            code: "unsupported_media_type",
            wrong: field("Content-Type", "text/html"),
            right: field("Content-Type", "application/x-ndjson"),
        },
        Step {
            status: 415,
            code: "unsupported_encoding",
            wrong: field("Content-Encoding", "br"),
            right: field("Content-Encoding", "identity"),
        },
        Step {
            status: 413,
            code: "body_too_large",
            wrong: ("body", format!("{}\n", "n".repeat(2_000))),
            right: ("body", "{\"n\":}\n".into()),
        },
        Step {
            status: 400,
            code: "idempotency_key",
            wrong: field("Idempotency-Key", ""),
            right: field("Idempotency-Key", "once"),
        },
        Step {
            status: 400,
            code: "bad_parameter",
            wrong: ("target", "/api/v1/events?atomic=perhaps".into()),
            right: ("target", "/api/v1/events".into()),
        },
        Step {
            status: 400,
            code: "records_rejected",
            wrong: ("body", "{\"n\":}\n".into()),
            right: ("body", "{\"n\":1}\n{\"n\":2}\n".into()),
        },
        Step {
            status: 429,
            code: "rate_limited",
            wrong: ("body", "{\"n\":1}\n{\"n\":2}\n".into()),
            right: ("body", "{\"n\":1}\n".into()),
        },
    ];
    let mut parts: Vec<(&str, String)> = vec![("method", "PATCH".into())];
    for step in steps.iter().rev() {
        set(&mut parts, &step.wrong);
    }
    for Step { status, code, wrong, right } in &steps {
        set(&mut parts, wrong);
        let got = ask(&server, &parts);
        assert_eq!((got.0, got.1.as_str()), (*status, *code), "{}", got.2);
        set(&mut parts, right);
    }
    let got = ask(&server, &parts);
    assert_eq!(got.0, 200, "{}", got.2);
    // Eight requests passed role and tenant header: six were refused for what head or body says, one for the rate of
    // records, one was stored. The ninth is one too many, whatever else is wrong with it.
    set(&mut parts, &field("Content-Type", "text/html"));
    let got = ask(&server, &parts);
    assert_eq!(
        (got.0, got.1.as_str()),
        (429, "rate_limited"),
        "the rate comes before the media type: {}",
        got.2
    );
    set(&mut parts, &field("X-Scope-OrgID", "other"));
    assert_eq!(ask(&server, &parts).1, "tenant_mismatch", "the tenant header comes before the rate");
}

fn set(parts: &mut Vec<(&'static str, String)>, part: &(&'static str, String)) {
    match parts.iter_mut().find(|(name, _)| *name == part.0) {
        Some(have) => have.1.clone_from(&part.1),
        None => parts.push(part.clone()),
    }
}

/// Status, code and text of the answer to a request of these parts.
fn ask(server: &Server, parts: &[(&'static str, String)]) -> (u16, String, String) {
    let part =
        |name: &str| parts.iter().find(|(have, _)| *have == name).map_or("", |(_, value)| value.as_str());
    let mut text = format!("{} {} HTTP/1.1\r\n", part("method"), part("target"));
    for (name, value) in parts {
        if !matches!(*name, "method" | "target" | "body") {
            text.push_str(value);
        }
    }
    text.push_str(&format!(
        "Connection: close\r\nContent-Length: {}\r\n\r\n{}",
        part("body").len(),
        part("body")
    ));
    let mut stream = connect(server.addr);
    write(&mut stream, text.as_bytes());
    let response = read_one(&mut stream).expect("an answer");
    let code = serde_json::from_slice::<serde_json::Value>(&response.body)
        .ok()
        .and_then(|body| Some(body["code"].as_str()?.to_owned()))
        .unwrap_or_default();
    (response.status, code, response.text())
}

fn send(server: &Server, key: &str, method: &str, target: &str, body: &str) -> (u16, serde_json::Value) {
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: here.example\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(server.addr);
    write(&mut stream, text.as_bytes());
    let response = read_one(&mut stream).expect("an answer");
    (response.status, response.json())
}

fn tenant(server: &Server) -> String {
    let (status, made) = send(server, KEY, "POST", "/api/v1/tenants", "{\"tenant\":\"acme\"}");
    assert_eq!(status, 201, "{made}");
    made["admin_key"].as_str().expect("a key").to_owned()
}

fn made_key(server: &Server, admin: &str, role: &str) -> String {
    let body = json!({"name": role, "role": role}).to_string();
    let (status, made) = send(server, admin, "POST", "/api/v1/keys", &body);
    assert_eq!(status, 201, "{made}");
    made["key"].as_str().expect("a key").to_owned()
}
