//! A client that keeps its connection can rely on what the answer says of it, whenever it was answered.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::{connect, head, is_closed, read_one, write};
use crate::harness::{KEY, Server};

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

struct Case {
    name: &'static str,
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn cases(analyst: &str) -> Vec<Case> {
    let small = b"{\"n\":1}\n".to_vec();
    let length = small.len().to_string();
    let length = ("Content-Length", length.as_str());
    let case = |name, status, head: String, body: &[u8]| Case { name, status, head, body: body.to_vec() };
    let chunked = ("Transfer-Encoding", "chunked");
    let chunks = b"8\r\n{\"n\":1}\n\r\n0\r\n\r\n";
    let target = "/api/v1/events";
    vec![
        case("no key", 401, head("", target, &[NDJSON, length]), &small),
        case("no key, chunked", 401, head("", target, &[NDJSON, chunked]), chunks),
        case("a role that may not", 403, head(analyst, target, &[NDJSON, length]), &small),
        case("no such route", 404, head(KEY, "/api/v1/nowhere", &[NDJSON, length]), &small),
        case("no such method", 405, head(KEY, "/api/v1/services", &[NDJSON, length]), &small),
        case("a media type", 415, head(KEY, target, &[("Content-Type", "text/html"), length]), &small),
        case(
            "a media type, chunked",
            415,
            head(KEY, target, &[("Content-Type", "text/html"), chunked]),
            chunks,
        ),
        case("another tenant", 400, head(KEY, target, &[NDJSON, ("X-Scope-OrgID", "other"), length]), &small),
        case("a public route", 200, head("", "/healthz", &[length]).replacen("POST", "GET", 1), &small),
    ]
}

/// A small body that was not asked for is read on: the connection lives, and its next request is answered.
#[test]
fn a_refusal_before_a_small_body_keeps_the_connection() {
    let server = Server::start();
    let admin = server.tenant("acme");
    let analyst = server.key(&admin, "analyst");
    for Case { name, status, head: refused, body } in cases(&analyst) {
        let mut stream = connect(server.addr);
        for round in 0..3 {
            write(&mut stream, refused.as_bytes());
            // The body comes in a packet of its own, when the refusal is under way already.
            std::thread::sleep(Duration::from_millis(20));
            write(&mut stream, &body);
            let response =
                read_one(&mut stream).unwrap_or_else(|| panic!("{name}, round {round}: no answer"));
            assert_eq!(response.status, status, "{name}: {}", response.text());
            assert_eq!(response.header("connection"), None, "{name}: a small rest is read on");
            write(
                &mut stream,
                (head(KEY, "/api/v1/events", &[NDJSON, ("Content-Length", "8")]) + "{\"n\":2}\n").as_bytes(),
            );
            let next = read_one(&mut stream)
                .unwrap_or_else(|| panic!("{name}, round {round}: the next request fails"));
            assert_eq!(next.status, 200, "{name}: {}", next.text());
        }
    }
}

/// What is not read on is said: the answer names the end of the connection, arrives whole, and the end comes.
#[test]
fn a_connection_that_will_close_says_so() {
    let server = Server::start();
    let large = vec![b'x'; 4 << 20];
    let length = large.len().to_string();
    let length = ("Content-Length", length.as_str());
    for (name, status, refused, body) in [
        (
            "announced too large",
            413,
            head(KEY, "/api/v1/events", &[NDJSON, ("Content-Length", "20971520")]),
            &large[..],
        ),
        ("a large body without a key", 401, head("", "/api/v1/events", &[NDJSON, length]), &large),
        (
            "a large body of another type",
            415,
            head(KEY, "/api/v1/events", &[("Content-Type", "text/html"), length]),
            &large,
        ),
        ("no such route", 404, head("", "/nowhere", &[length]), &large),
        ("a body that never comes", 404, head("", "/nowhere", &[("Content-Length", "10")]), b""),
        (
            "leave to send",
            415,
            head(KEY, "/api/v1/events", &[("Expect", "100-continue"), ("Content-Length", "8")]),
            b"",
        ),
    ] {
        let mut stream = connect(server.addr);
        write(&mut stream, refused.as_bytes());
        std::thread::sleep(Duration::from_millis(20));
        // It may close while this is on its way: what counts is the answer.
        let _ = stream.write_all(body);
        let response = read_one(&mut stream).unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(response.header("connection"), Some("close"), "{name}");
        let begun = Instant::now();
        while !is_closed(&mut stream) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{name}: it says that it closes and does not");
        }
    }
}
