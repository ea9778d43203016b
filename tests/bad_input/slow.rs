//! Tables A and B, the rows that are about a connection's course: slow, broken off, drained, of a browser.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::{check, is, report, send};
use crate::harness::{KEY, Server, parse, request};

/// Longer than any bound of the edge: only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn head(length: usize) -> String {
    format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
    )
}

// B18, B29: a body that stalls or trickles is answered, a head that trickles is cut off, and none of it is stored.
#[test]
fn b_slow_senders_are_cut_off() {
    let server = Server::start();
    let mut failures = Vec::new();
    let mut stalled = connect(&server);
    stalled.write_all(format!("{}{{\"n\":1}}\n", head(1_000)).as_bytes()).unwrap();

    // What came fast gives no right to a pause of minutes.
    let mut pausing = connect(&server);
    pausing.write_all(head(1_000_000).as_bytes()).unwrap();
    pausing.write_all(&vec![b'\n'; 200_000]).unwrap();

    let mut trickling = connect(&server);
    trickling.write_all(head(1_000_000).as_bytes()).unwrap();
    let mut writer = trickling.try_clone().unwrap();
    let body = std::thread::spawn(move || {
        while writer.write_all(b"\n").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let mut slow_head = connect(&server);
    let mut writer = slow_head.try_clone().unwrap();
    let headers = std::thread::spawn(move || {
        let _ = writer.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ");
        while writer.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = slow_head.read_to_end(&mut answer);
    assert!(begun.elapsed() < PATIENCE, "B29: a slow head holds its connection");
    let slow = [("B18", &mut stalled), ("B18 pause", &mut pausing), ("B29 body", &mut trickling)];
    for (id, stream) in slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        match parse(&answer) {
            Some(response) => check(id, &response, &is(408, "body_too_slow"), &mut failures),
            None => failures.push(format!("{id}: no answer: {}", String::from_utf8_lossy(&answer))),
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
    let _ = slow_head.shutdown(Shutdown::Both);
    body.join().unwrap();
    headers.join().unwrap();
    assert_eq!(server.count("SELECT count(*) FROM events"), 0, "nothing of a body that never ended");
    report(&failures);
}

// B37: a client that is gone before its body ends has stored nothing, and nobody else notices.
#[test]
fn b_a_client_gone_mid_body_stores_nothing() {
    let server = Server::start();
    for _ in 0..20 {
        let mut stream = connect(&server);
        stream.write_all(format!("{}{{\"n\":1}}\n{{\"n\":2}}\n", head(1_000)).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    let kept = send(&server, "/api/v1/events", &[("Content-Type", "application/x-ndjson")], b"{\"n\":3}");
    assert_eq!(kept.status, 200);
    assert_eq!(server.count("SELECT count(*) FROM events"), 1);
}

// B36: what comes while the process drains is sent elsewhere, and what was under way is finished.
#[test]
fn b_draining_sends_new_work_elsewhere() {
    let mut server = Server::start();
    let mut failures = Vec::new();
    let line = "{\"n\":1}\n";
    // Its body comes after the signal: until then the process has something to finish.
    let mut under_way = connect(&server);
    under_way.write_all(head(line.len()).as_bytes()).unwrap();
    let mut kept = connect(&server);
    let mut ask = || {
        kept.write_all(format!("{}{line}", head(line.len())).as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let count = kept.read(&mut bytes).unwrap();
            answer.extend_from_slice(&bytes[..count]);
            if let Some(response) = parse(&answer) {
                return response;
            }
            assert!(count > 0, "no whole answer: {}", String::from_utf8_lossy(&answer));
        }
    };
    let mut taken = 1;
    assert_eq!(ask().status, 200);
    server.signal("TERM");
    let refused = loop {
        let response = ask();
        if response.status != 200 {
            break response;
        }
        taken += 1;
    };
    check("B36", &refused, &is(503, "draining"), &mut failures);
    assert_eq!(refused.header("connection"), Some("close"));
    under_way.write_all(line.as_bytes()).unwrap();
    let mut answer = Vec::new();
    under_way.read_to_end(&mut answer).unwrap();
    assert_eq!(parse(&answer).unwrap().status, 200, "what was under way is finished");
    assert!(server.wait().success());
    server.restart();
    assert_eq!(server.count("SELECT count(*) FROM events"), taken + 1);
    report(&failures);
}

// B38, and its neighbour: a browser's page elsewhere gets no leave to send or to read.
#[test]
fn b_browsers_of_other_origins_are_refused() {
    let server = Server::start_with(&[("FLOODMARK_ALLOWED_ORIGINS", "https://console.example")]);
    let preflight = |origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        request(server.addr, "OPTIONS", "/api/v1/events", &headers, b"").unwrap()
    };
    let refused = preflight("https://evil.example");
    let mut failures = Vec::new();
    check("B38", &refused, &is(403, "origin_not_allowed"), &mut failures);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let allowed = preflight("https://console.example");
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://console.example"));
    report(&failures);
}

// A7: what belongs to another tenant is not there.
#[test]
fn a_another_tenants_key_is_not_found() {
    let server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let body = b"{\"name\":\"collector\",\"role\":\"ingest\"}";
    let headers = [("Content-Type", "application/json")];
    let made = server.send(&other, "POST", "/api/v1/keys", &headers, body);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let mut failures = Vec::new();
    let target = format!("/api/v1/keys/{id}");
    check("A7", &server.send(&acme, "DELETE", &target, &[], b""), &is(404, "\"code\""), &mut failures);
    let own = server.send(&other, "DELETE", &target, &[], b"");
    assert!(own.status < 300, "{}", own.text());
    report(&failures);
}
