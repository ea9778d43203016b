//! What memory a body takes for each of its inflated bytes, kind by kind; and that ordinary bodies at their limits are
//! taken all the same.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Bounded;
use super::bodies::{self, Body};
use super::wire::{Answer, Wire};
use crate::harness::place::anonymous;
use crate::kill::random::Random;

/// Bytes of memory for each inflated byte of a body, and for each record where that is more: an empty log record is two
/// bytes.
const PER_BYTE_MAX: u64 = 40;
const PER_RECORD_MAX: u64 = 400;
/// What a server takes whatever the body: buffers of connections, of the log, of the allocator.
const ANYWAY_BYTES: u64 = 24 << 20;

/// Only the body is measured: nothing is sealed meanwhile, nothing waits for room.
const WITHOUT_SEALS: [(&str, &str); 3] = [
    ("FLOODMARK_MEMORY_MAX", "700MiB"),
    ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
    ("FLOODMARK_STORAGE__SEAL_ROWS", "100000000"),
];

/// Kinds that a short run looks at: of those that were worst, one a door.
const OF_A_SHORT_RUN: [&str; 4] =
    ["sparse rows", "tiny logs", "wide lines", "distinct sources and operations"];

fn post(bounded: &Bounded, key: &str, body: &Body) -> Answer {
    let authorization = format!("Bearer {key}");
    let mut headers = vec![
        ("Authorization", authorization.as_str()),
        ("Content-Type", body.content_type),
        ("Connection", "close"),
    ];
    headers.extend(body.encoding.map(|encoding| ("Content-Encoding", encoding)));
    let mut wire = Wire::connect(bounded.server.addr).unwrap();
    wire.ask("POST", &body.target, &headers, &body.bytes).unwrap()
}

/// The most memory that the server's own process uses while `work` goes on: a worker that gets ready beside it has its
/// own.
fn peak_of<R>(bounded: &Bounded, work: impl FnOnce() -> R) -> (u64, R) {
    let pid = bounded.server.pid();
    let used = || anonymous(pid);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(used());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (watch.join().unwrap(), done)
    })
}

/// Where a body's records land.
fn table(body: &Body) -> &'static str {
    match body.target.split('?').next().unwrap() {
        "/v1/traces" => "spans",
        "/v1/logs" => "logs",
        "/api/v1/audit" => "audit",
        _ => "events",
    }
}

#[test]
fn the_footprint_of_a_body_is_bounded_by_its_bytes() {
    let is_whole = std::env::var_os("FLOODMARK_FOOTPRINT").is_some();
    println!(
        "| kind | answer | sent | inflated | records | memory | bytes a byte | bytes a record |\n|---|---|---|---|---|---|---|---|"
    );
    let mut failures = Vec::new();
    for kind in bodies::KINDS.into_iter().filter(|(kind, _)| is_whole || OF_A_SHORT_RUN.contains(kind)) {
        // A server of its own: what the one before left over says nothing of the next.
        let mut bounded = Bounded::start(&WITHOUT_SEALS);
        let key = bounded.server.tenant("evil");
        // Buffers that any body takes once are there.
        let warm = Body::new(
            "/api/v1/events?dataset=warm".to_owned(),
            "application/x-ndjson",
            "{\"a\":1}\n".repeat(2_000),
        );
        post(&bounded, &key, &warm);
        let before = anonymous(bounded.server.pid());
        let body = bodies::greedy(kind, &mut Random(1));
        let (peak, answer) = peak_of(&bounded, || post(&bounded, &key, &body));
        if bounded.server.ended().is_some() {
            panic!("{}: the server is dead: {}", body.kind, bounded.told());
        }
        let records = if answer.status < 300 {
            let text =
                super::calm::rows(&bounded.server, &key, &format!("SELECT count(*) FROM {}", table(&body)));
            text.unwrap().lines().nth(1).and_then(|count| count.trim().parse::<u64>().ok()).unwrap()
        } else {
            0
        };
        let (inflated, grown) = (body.inflated as u64, peak.saturating_sub(before));
        println!(
            "| {} | {} | {} | {inflated} | {records} | {grown} | {:.1} | {:.0} |",
            body.kind,
            answer.status,
            body.bytes.len(),
            grown as f64 / inflated as f64,
            grown as f64 / records.max(1) as f64
        );
        let at_most = ANYWAY_BYTES + (inflated * PER_BYTE_MAX).max(records * PER_RECORD_MAX);
        if grown > at_most {
            failures.push(format!("{}: {grown} bytes for {inflated} and {records} records", body.kind));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// As many ordinary records as a request may hold, in each door's ordinary form.
fn ordinary(count: u64) -> Vec<Body> {
    let mut events = String::new();
    let (mut audit, mut lines) = (String::new(), String::new());
    let (mut spans, mut logs) = (Vec::new(), Vec::new());
    for n in 0..count {
        let _ = writeln!(
            events,
            "{{\"time\":\"2026-01-02T03:04:05.{:06}Z\",\"source\":\"s{}\",\"event_type\":\"e{}\",\"severity\":\"info\",\"message\":\"GET /orders/{n} was \
             answered\",\"trace_id\":\"{:032x}\",\"duration_ms\":{}.5,\"status\":200,\"region\":\"eu-central-1\",\"host\":\"node-{}\",\"user\":\"u{}\"}}",
            n % 1_000_000,
            n % 20,
            n % 12,
            n + 1,
            n % 900,
            n % 50,
            n % 20_000
        );
        let _ = writeln!(
            audit,
            "{{\"time\":\"2026-01-02T03:04:05Z\",\"source\":\"s\",\"actor_type\":\"user\",\"actor_id\":\"u{n}\",\"action\":\"read\",\"resource_type\":\"order\",\
             \"resource_id\":\"o{n}\",\"outcome\":\"allowed\"}}"
        );
        let _ = writeln!(
            lines,
            "http,host=node-{},region=eu,service=s{} status=200i,took=0.{},bytes={}i {}",
            n % 50,
            n % 20,
            n % 1_000,
            n % 90_000,
            1_767_225_600_000_000_000 + n
        );
        spans.push(format!(
            "{{\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\",\"name\":\"GET /orders\",\"kind\":2,\"startTimeUnixNano\":\"1767225600000000000\",\
             \"endTimeUnixNano\":\"1767225600{:09}\",\"attributes\":[{{\"key\":\"http.route\",\"value\":{{\"stringValue\":\"/orders/{{id}}\"}}}},\
             {{\"key\":\"http.response.status_code\",\"value\":{{\"intValue\":\"200\"}}}}]}}",
            n / 20 + 1, n + 1, n % 1_000_000_000
        ));
        logs.push(format!(
            "{{\"timeUnixNano\":\"1767225600000000000\",\"severityNumber\":9,\"body\":{{\"stringValue\":\"order {n} was made\"}},\
             \"attributes\":[{{\"key\":\"n\",\"value\":{{\"intValue\":\"{n}\"}}}}]}}"
        ));
    }
    let spans = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}", spans.join(","));
    let logs = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}]}}]}}]}}", logs.join(","));
    vec![
        Body::events(events).gzip(),
        Body::new("/api/v1/audit", "application/x-ndjson", audit).gzip(),
        Body::new("/write?precision=ns", "text/plain", lines).gzip(),
        Body::new("/v1/traces", "application/json", spans).gzip(),
        Body::new("/v1/logs", "application/json", logs).gzip(),
    ]
}

#[test]
fn ordinary_bodies_at_their_limits_leave_a_footprint_and_are_taken() {
    let is_whole = std::env::var_os("FLOODMARK_FOOTPRINT").is_some();
    let count = if is_whole { 100_000 } else { 10_000 };
    let bounded = Bounded::start(&[]);
    let key = bounded.server.tenant("calm");
    for body in ordinary(count) {
        let answer = post(&bounded, &key, &body);
        println!("{}: {count} records, {} bytes inflated, {}", body.target, body.inflated, answer.status);
        assert!(
            answer.status < 300,
            "{}: {} {:.300}",
            body.target,
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        let rows =
            super::calm::rows(&bounded.server, &key, &format!("SELECT count(*) FROM {}", table(&body)));
        let rows: u64 = rows.unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(rows >= count, "{rows}");
        // What is unsealed counts against its tenant, who would be told to send less at once.
        if is_whole {
            bounded.server.flush();
        }
    }
}
