//! The first tenant: what one key may do, and how; every act told by the client's own seed.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::bodies;
use super::scene::Scene;
use super::statements;
use crate::kill::random::{Random, pick};

/// The tenant's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    pub admin: String,
    pub ingest: String,
    pub analyst: String,
}

/// Connections that one act opens at once.
const CROWD: u64 = 40;

/// Bytes of a body from which it waits while the disk is spared.
const SPARED_BYTES: usize = 2 << 10;

/// Acts until the scene is over.
pub fn client(scene: &Scene, name: &str, keys: &Keys, mut random: Random) {
    give_way();
    while scene.goes_on() {
        let random = &mut random;
        match random.below(40) {
            0..14 => send(scene, name, keys, random),
            14..24 => ask_sql(scene, name, keys, random),
            24..29 => read(scene, name, keys, random),
            29..32 => administer(scene, name, keys, random),
            32 => half_requests(scene, name, keys, random),
            33 => partial_heads(scene, name, random),
            34 => slow_body(scene, name, keys, random),
            35 => readers_that_do_not_read(scene, name, keys, random),
            36 => pipelined(scene, name, keys, random),
            37 => kept_after_refusals(scene, name, keys, random),
            38 => waves(scene, name, keys, random),
            _ => odd_heads(scene, name, keys, random),
        }
    }
}

/// Puts this thread behind the server's and the measured tenant's: an attacker has a machine of its own, and what it
/// spends on making bodies is not what it takes from others.
fn give_way() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    if let Some(thread) = thread.as_deref().and_then(|path| path.file_name()) {
        let mut renice = std::process::Command::new("renice");
        let _ = renice.args(["-n", "15", "-p"]).arg(thread).output();
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn ask(scene: &Scene, name: &str, door: &str, key: &str, request: (&str, &str, &[(&str, &str)], &[u8])) {
    let (method, target, headers, body) = request;
    let authorization = bearer(key);
    let mut all = vec![("Authorization", authorization.as_str()), ("Connection", "close")];
    all.extend_from_slice(headers);
    let what = match std::str::from_utf8(&body[..body.len().min(300)]) {
        Ok(text) => format!("{method} {target} {text}"),
        Err(_) => format!("{method} {target}, {} bytes: {door}", body.len()),
    };
    scene.sends(name, &what);
    let answer = scene.connect().and_then(|mut wire| wire.ask(method, target, &all, body));
    scene.sees(door, &what, &answer);
}

/// A body of any kind, with odd but valid fields in its head.
fn send(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let body = bodies::body(random);
    if scene.is_sparing.load(std::sync::atomic::Ordering::Relaxed) && body.bytes.len() > SPARED_BYTES {
        return ask_sql(scene, name, keys, random);
    }
    let mut headers = vec![("Content-Type", body.content_type)];
    headers.extend(body.encoding.map(|encoding| ("Content-Encoding", encoding)));
    let declared = "k".repeat(1 + random.below(255) as usize);
    let unique = format!("{:016x}", random.next());
    match random.below(6) {
        0 => headers.push(("Idempotency-Key", &declared)),
        1 => headers.push(("Idempotency-Key", &unique)),
        2 => headers.push(("X-Correlation-ID", "someone@example.com")),
        3 => headers.push(("X-Correlation-ID", &keys.admin)),
        4 => headers.push(("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        _ => {}
    }
    scene.sends(name, body.kind);
    ask(scene, name, body.kind, &keys.ingest, ("POST", &body.target, &headers, &body.bytes));
}

fn ask_sql(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let (kind, query) = statements::statement(random);
    let accept = *pick(
        random,
        &["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"],
    );
    let body = serde_json::json!({"query": query}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", accept)];
    let door = format!("sql {kind}");
    ask(scene, name, &door, &keys.analyst, ("POST", "/api/v1/sql", &headers, body.as_bytes()));
}

fn read(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let trace = format!("{:032x}", 1);
    let targets = [
        "/api/v1/events?limit=10000".to_owned(),
        "/api/v1/events?limit=10000&order=asc&attr.a=1".to_owned(),
        "/api/v1/logs?limit=10000".to_owned(),
        "/api/v1/traces?limit=10000".to_owned(),
        format!("/api/v1/traces/{}", "01".repeat(16)),
        format!("/api/v1/traces/{trace}"),
        "/api/v1/correlations/c-7".to_owned(),
        "/api/v1/correlations/someone@example.com".to_owned(),
        "/api/v1/services".to_owned(),
        "/api/v1/latency?step=60s&from=2020-01-01T00:00:00Z".to_owned(),
        "/api/v1/latency?q=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.99&from=1971-01-01T00:00:00Z".to_owned(),
        "/api/v1/datasets".to_owned(),
        "/api/v1/datasets?limit=10000".to_owned(),
        "/api/v1/events?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&limit=10000".to_owned(),
        format!("/api/v1/events?attr.{}=x", "a.".repeat(200)),
        format!("/api/v1/events?source={}", "%41".repeat(2_000)),
    ];
    let target = pick(random, &targets);
    let door = format!("GET {}", target.split('?').next().unwrap().split("/0").next().unwrap());
    ask(scene, name, &door, &keys.analyst, ("GET", target, &[], b""));
}

fn administer(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let json = [("Content-Type", "application/json")];
    let id = format!("{:x}", random.next());
    let long = "x".repeat(random.below(2_000) as usize);
    let (method, target, body) = match random.below(13) {
        0 => ("POST", "/api/v1/keys".to_owned(), format!("{{\"name\":\"{id}\",\"role\":\"ingest\"}}")),
        1 => ("GET", "/api/v1/keys?limit=10000".to_owned(), String::new()),
        2 => ("DELETE", format!("/api/v1/keys/{id}"), String::new()),
        3 => (
            "PUT",
            "/api/v1/limits".to_owned(),
            "{\"records\":{\"quota\":1000000000000,\"window_s\":1}}".to_owned(),
        ),
        4 => (
            "PUT",
            "/api/v1/limits".to_owned(),
            (*pick(random, &["[]", "{\"a\":1}", "null", "{", ""])).to_owned(),
        ),
        5 => (
            "POST",
            "/api/v1/jobs".to_owned(),
            format!("{{\"kind\":\"{}\"}}", pick(random, &["checkpoint", "sweep", "retention"])),
        ),
        6 => ("GET", "/api/v1/jobs".to_owned(), String::new()),
        7 => ("POST", "/api/v1/holds".to_owned(), format!("{{\"dataset\":\"audit\",\"reason\":\"{long}\"}}")),
        8 => ("GET", "/api/v1/holds?limit=10000".to_owned(), String::new()),
        9 => ("PUT", "/api/v1/retention".to_owned(), "{\"dataset\":\"logs\",\"days\":36500}".to_owned()),
        10 => {
            ("POST", "/api/v1/retention/run".to_owned(), "{\"dataset\":\"logs\",\"dry_run\":true}".to_owned())
        }
        11 => ("POST", "/api/v1/tenants".to_owned(), format!("{{\"tenant\":\"{id}\"}}")),
        _ => ("POST", "/api/v1/keys".to_owned(), format!("{}1{}", "[".repeat(500), "]".repeat(500))),
    };
    let door = format!("{method} {}", target.split(&['?', '0'][..]).next().unwrap().trim_end_matches(&id));
    ask(scene, name, &door, &keys.admin, (method, &target, &json, body.as_bytes()));
}

fn head_of(keys: &Keys, length: usize) -> Vec<u8> {
    format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {length}\r\n\r\n",
        keys.ingest
    )
    .into_bytes()
}

fn crowd(scene: &Scene, random: &mut Random) -> Vec<TcpStream> {
    let count = 1 + random.below(CROWD);
    (0..count).filter_map(|_| scene.connect().ok().map(|wire| wire.stream)).collect()
}

/// Bodies that are nearly whole, held, and given up.
fn half_requests(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    scene.sends(name, "bodies held back");
    let length = *pick(random, &[1_000, 100_000, 9_900_000]);
    let mut held = crowd(scene, random);
    let bytes = vec![b'\n'; length - 1];
    for stream in &mut held {
        let _ = stream.write_all(&head_of(keys, length)).and_then(|()| stream.write_all(&bytes));
    }
    std::thread::sleep(Duration::from_millis(random.below(3_000)));
}

/// Heads that are not whole, from somebody without a key.
fn partial_heads(scene: &Scene, name: &str, random: &mut Random) {
    scene.sends(name, "heads held back");
    let mut held = crowd(scene, random);
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-A: {}",
        "a".repeat(random.below(15_000) as usize)
    );
    for stream in &mut held {
        let _ = stream.write_all(head.as_bytes());
    }
    std::thread::sleep(Duration::from_millis(random.below(3_000)));
}

/// A body that comes slowly, in small pieces.
fn slow_body(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    scene.sends(name, "a slow body");
    let text = b"{\"source\":\"slow\"}\n".repeat(20);
    let Ok(mut wire) = scene.connect() else { return };
    let _ = wire.stream.write_all(&head_of(keys, text.len()));
    for piece in text.chunks(17) {
        if wire.stream.write_all(piece).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(random.below(150)));
    }
    let answer = wire.answer(Instant::now());
    scene.sees("a slow body", "a slow body", &answer);
}

/// Large answers that nobody takes.
fn readers_that_do_not_read(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    scene.sends(name, "answers that nobody takes");
    let queries = [
        "select * from events",
        "select a.* from events a, events b",
        "select repeat(message, 1000) from events",
        "select * from spans order by time",
    ];
    let mut held = crowd(scene, random);
    for stream in &mut held {
        let body = serde_json::json!({"query": pick(random, &queries)}).to_string();
        let head = format!(
            "POST /api/v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
            keys.analyst,
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
    }
    std::thread::sleep(Duration::from_millis(1_000 + random.below(6_000)));
}

/// Many requests before the first answer is read.
fn pipelined(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    scene.sends(name, "requests in a pipe");
    let Ok(mut wire) = scene.connect() else { return };
    let authorization = bearer(&keys.admin);
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/x-ndjson")];
    let mut bytes = Vec::new();
    let count = 1 + random.below(100);
    for _ in 0..count {
        bytes.extend(match random.below(3) {
            0 => wire.bytes("GET", "/api/v1/services", &headers, b""),
            1 => wire.bytes("POST", "/api/v1/events", &headers, b"{\"source\":\"piped\"}"),
            _ => wire.bytes("GET", "/nowhere", &headers, b""),
        });
    }
    let _ = wire.stream.write_all(&bytes);
    // The answers come together; the first says that the connection is read.
    let answer = wire.answer(Instant::now());
    scene.sees("requests in a pipe", "requests in a pipe", &answer);
}

/// A connection that is used on after each refusal, as clients with a pool do.
fn kept_after_refusals(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let Ok(mut wire) = scene.connect() else { return };
    let (good, bad) = (bearer(&keys.ingest), bearer("no-such-key-of-thirty-two-characters-00"));
    for _ in 0..20 {
        let (key, target, body) = match random.below(5) {
            0 => (&bad, "/api/v1/events", &b"{}"[..]),
            1 => (&good, "/nowhere", &b"{}"[..]),
            2 => (&good, "/api/v1/sql", &b"{\"query\":\"select 1\"}"[..]),
            3 => (&good, "/api/v1/events", &b"{"[..]),
            _ => (&good, "/api/v1/events", &b"{\"source\":\"kept\"}"[..]),
        };
        let headers = [("Authorization", key.as_str()), ("Content-Type", "application/x-ndjson")];
        scene.sends(name, target);
        let answer = wire.ask("POST", target, &headers, body);
        scene.sees("a kept connection", target, &answer);
        match answer {
            Ok(answer) if answer.is_kept => {}
            _ => return,
        }
    }
}

/// The same heavy body many times at once.
fn waves(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let body = bodies::body(random);
    let count =
        if scene.is_sparing.load(std::sync::atomic::Ordering::Relaxed) { 1 } else { 2 + random.below(14) };
    let mut headers = vec![("Content-Type", body.content_type)];
    headers.extend(body.encoding.map(|encoding| ("Content-Encoding", encoding)));
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                ask(scene, name, "waves", &keys.ingest, ("POST", &body.target, &headers, &body.bytes));
            });
        }
    });
}

/// Heads at the edge of what a parser may take.
fn odd_heads(scene: &Scene, name: &str, keys: &Keys, random: &mut Random) {
    let many = "a: b\r\n".repeat(random.below(80) as usize);
    let spaces = " ".repeat(random.below(6_000) as usize);
    let key = &keys.ingest;
    let text = match random.below(7) {
        0 => format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        1 => format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:{spaces}chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
        ),
        2 => format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n\r\n",
            "0".repeat(70)
        ),
        3 => format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(random.below(9_000) as usize)),
        4 => format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        ),
        5 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        _ => format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nX-API-Key: {key}\r\n\r\n"
        ),
    };
    scene.sends(name, "an odd head");
    let Ok(mut wire) = scene.connect() else { return };
    let _ = wire.stream.write_all(text.as_bytes());
    let _ = wire.stream.shutdown(std::net::Shutdown::Write);
    let answer = wire.answer(Instant::now());
    scene.sees("an odd head", &text, &answer);
}
