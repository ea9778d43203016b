//! Inputs that are wrong, and the answers they must get over HTTP/1.1: a table a protocol, an id a row.
//!
//! Every row answers with its status, a machine-readable body and a correlation id; none is a 5xx; and what was
//! good beside it is stored.

mod edge;
mod lines;
mod ndjson;
mod otlp;
mod query;
mod slow;

use std::io::Write;

use crate::harness::{KEY, Response, Server, raw, request};

/// What a row's answer must be.
struct Expected {
    status: u16,
    /// Text that the body must hold: a code, or words of the reason.
    body: &'static str,
}

fn is(status: u16, body: &'static str) -> Expected {
    Expected { status, body }
}

fn check(id: &str, response: &Response, expected: &Expected, failures: &mut Vec<String>) {
    let text = response.text();
    let mut wrong = |why: String| failures.push(format!("{id}: {why}: {text:.300}"));
    if response.status != expected.status {
        wrong(format!("{} instead of {}", response.status, expected.status));
    }
    if !text.contains(expected.body) {
        wrong(format!("the body lacks {:?}", expected.body));
    }
    if response.header("x-correlation-id").is_none() {
        wrong("no correlation id".into());
    }
    if matches!(response.status, 429 | 503) && response.header("retry-after").is_none() {
        wrong("no Retry-After".into());
    }
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} rows answer otherwise:\n{}", failures.len(), failures.join("\n"));
}

fn send(server: &Server, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    server.send(KEY, "POST", target, headers, body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bomb(megabytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..megabytes {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// The engine's resident memory in bytes.
fn resident(server: &Server) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
